"""The mechanism of alignment on labelled maps, whatever architecture they come from."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pol.errors import SpecError
from watermark.weights.align import MAX_WIDENING, Axis, Map, align_maps
from watermark.weights.arrays import Array

Network = dict[str, Map]
TAPS = 9
INPUTS, NARROW, WIDE, INNER, CLASSES = 2, 4, 10, 8, 5
STREAM = {"narrow": Axis("stream", (WIDE - NARROW) // 2), "wide": Axis("stream")}


def random_network(seed: int) -> Network:
    """A stream of four channels that is widened to ten by a residual block, and read by a linear layer."""
    dice = np.random.default_rng(seed)

    def layer(outputs: int, inputs: int, source: Axis, target: Axis, taps: int = TAPS) -> Map:
        return Map(dice.normal(size=(outputs, inputs, taps)), dice.normal(size=outputs), source, target)

    return {
        "stem": layer(NARROW, INPUTS, Axis(None), STREAM["narrow"]),
        "first": layer(INNER, NARROW, STREAM["narrow"], Axis("inner")),
        "last": layer(WIDE, INNER, Axis("inner"), STREAM["wide"]),
        "head": layer(CLASSES, WIDE, STREAM["wide"], Axis(None), taps=1),
    }


def moved(network: Network, seed: int, spread: float) -> Network:
    """Every label permuted and scaled, the narrow stream's channels among themselves."""
    dice = np.random.default_rng(seed)
    first, last = STREAM["narrow"].first, STREAM["narrow"].first + NARROW
    outer = dice.permutation([*range(first), *range(last, WIDE)])
    order = {
        "stream": np.concatenate([outer[:first], first + dice.permutation(NARROW), outer[first:]]),
        "inner": dice.permutation(INNER),
    }
    scale = {label: np.exp(spread * dice.normal(size=len(places))) for label, places in order.items()}
    result = {}
    for name, layer in network.items():
        weight, bias = layer.weight, layer.bias
        if layer.source.label:
            here = slice(layer.source.first, layer.source.first + weight.shape[1])
            weight = (weight / scale[layer.source.label][here, None])[:, order[layer.source.label][here] - here.start]
        if layer.target.label:
            here = slice(layer.target.first, layer.target.first + len(bias))
            factor, places = scale[layer.target.label][here], order[layer.target.label][here] - here.start
            weight, bias = (weight * factor[:, None, None])[places], (bias * factor)[places]
        result[name] = layer._replace(weight=weight, bias=bias)
    return result


def cosine(left: Array, right: Array) -> float:
    return float((left * right).sum() / np.linalg.norm(left) / np.linalg.norm(right))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.floats(0, 2))
def test_permutation_and_scaling_are_undone_exactly(seed: int, spread: float) -> None:
    """Stem, block and head of a widened stream: one assignment holds for all of its writers and readers."""
    network = random_network(seed)
    aligned = align_maps(moved(network, seed + 1, spread), network)
    for name, layer in network.items():
        np.testing.assert_allclose(aligned[name].weight, layer.weight, rtol=1e-9)
        np.testing.assert_allclose(aligned[name].bias, layer.bias, rtol=1e-9)


def test_a_channel_split_among_several_is_put_together_again() -> None:
    network = random_network(3)
    first, last = network["first"], network["last"]
    shares = np.array([3.0, -1.5, -0.5])
    copies = [first.weight, *(np.repeat(first.weight[:1], 2, axis=0),)]
    split = network | {
        "first": first._replace(weight=np.concatenate(copies), bias=np.append(first.bias, [first.bias[0]] * 2)),
        "last": last._replace(
            weight=np.concatenate(
                [last.weight[:, :1] * shares[0], last.weight[:, 1:], last.weight[:, :1] * shares[1:, None]], axis=1
            )
        ),
    }
    aligned = align_maps(split, network)
    for name, layer in network.items():
        np.testing.assert_allclose(aligned[name].weight, layer.weight, rtol=1e-9)


def test_channels_that_are_not_there_are_zero_and_the_others_are_found() -> None:
    network = random_network(4)
    first, last = network["first"], network["last"]
    fewer = network | {
        "first": first._replace(weight=first.weight[2:], bias=first.bias[2:]),
        "last": last._replace(weight=last.weight[:, 2:]),
    }
    aligned = align_maps(fewer, network)
    assert not aligned["first"].weight[:2].any()
    assert not aligned["last"].weight[:, :2].any()
    assert cosine(aligned["first"].weight[2:], first.weight[2:]) > 0.99
    assert cosine(aligned["last"].weight[:, 2:], last.weight[:, 2:]) > 0.99


def test_a_layer_made_anew_does_not_hide_the_rest() -> None:
    """The stem is redrawn: what is left of the stream's likeness still says which channel is which."""
    network, other = random_network(5), random_network(6)
    stolen = moved(network | {"stem": other["stem"]}, 7, 1.0)
    aligned = align_maps(stolen, network)
    assert min(cosine(aligned[name].weight, network[name].weight) for name in ("first", "last", "head")) > 0.9


@pytest.mark.parametrize("value", [0.0, 1e200, np.inf, np.nan])
def test_no_value_makes_trouble(value: float) -> None:
    """Zeros and what overflows give a result of the right shape; what it cannot say is zero or not finite."""
    network = random_network(8)
    hostile = {name: layer._replace(weight=np.full_like(layer.weight, value)) for name, layer in network.items()}
    for name, layer in align_maps(hostile, network).items():
        assert layer.weight.shape == network[name].weight.shape


def test_networks_of_other_shapes_are_named() -> None:
    network = random_network(9)
    renamed = {("steam" if name == "stem" else name): layer for name, layer in network.items()}
    with pytest.raises(SpecError, match=r"steam, stem.*not comparable"):
        align_maps(renamed, network)
    head = network["head"]
    with pytest.raises(SpecError, match=r"head: .*9 outputs.*not comparable"):
        align_maps(network | {"head": head._replace(weight=np.ones((9, WIDE, 1)), bias=np.ones(9))}, network)
    with pytest.raises(SpecError, match=r"first: .*4 taps.*not comparable"):
        align_maps(network | {"first": network["first"]._replace(weight=np.ones((INNER, NARROW, 4)))}, network)


@pytest.mark.parametrize(("times", "refused"), [(MAX_WIDENING, False), (MAX_WIDENING + 1, True)])
def test_a_suspect_may_be_wider_up_to_a_limit(times: int, refused: bool) -> None:
    network, size = random_network(10), INNER * times
    first, last = network["first"], network["last"]
    wide = network | {
        "first": first._replace(weight=np.resize(first.weight, (size, NARROW, TAPS)), bias=np.resize(first.bias, size)),
        "last": last._replace(weight=np.repeat(last.weight, times, axis=1)),
    }
    if refused:
        with pytest.raises(SpecError, match="not comparable"):
            align_maps(wide, network)
    else:
        assert align_maps(wide, network)["first"].weight.shape == first.weight.shape
