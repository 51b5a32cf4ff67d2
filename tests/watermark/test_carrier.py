"""Parameters, carriers and bits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pol.encoding import canonical_json, parse_canonical_json
from pol.errors import ProofError, SpecError
from tests.watermark import digits
from tests.watermark.conftest import block, changed
from watermark import DEFAULT_PARAMETERS, MarkParameters, mlp_mark
from watermark.bits import mark_bit
from watermark.weights.carriers import carrier_factors
from watermark.weights.layouts import layout_of
from watermark.weights.layouts.mlp import read_mlp

BYTES32 = st.binary(min_size=32, max_size=32)


@given(
    st.builds(
        mlp_mark,
        tensor=st.sampled_from(["layers.1.weight", "layers.12.weight"]),
        groups=st.integers(1, 256),
        rows=st.integers(1, 256),
        leaves=st.integers(1, 256),
        margin=st.floats(0, 64, exclude_min=True),
    )
)
def test_parameters_survive_json(parameters: MarkParameters) -> None:
    text = canonical_json(parameters.to_json())
    assert MarkParameters.from_json(parse_canonical_json(text, where="x"), where="x") == parameters


def test_the_digest_binds_every_field() -> None:
    others = [
        changed(DEFAULT_PARAMETERS, **change)
        for change in ({"tensor": "layers.2.weight"}, {"groups": 63}, {"rows": 16}, {"leaves": 7}, {"margin": 2.0})
    ]
    assert len({parameters.digest for parameters in (DEFAULT_PARAMETERS, *others)}) == 6


@pytest.mark.parametrize(
    "change",
    [
        {"tensor": "layers.0.weight"},
        {"tensor": "layers.1.bias"},
        {"tensor": 1},
        {"groups": 0},
        {"groups": "64"},
        {"leaves": 2048},
        {"margin": 3},
        {"margin": "3.0"},
        {"margin": "0x1.8p+1"},
        {"margin": "nan"},
        {"margin": "inf"},
        {"margin": "-0x1.8000000000000p+1"},
        {"margin": "0x1.0000000000000p+9999999"},
    ],
    ids=str,
)
def test_other_parameters_are_refused(change: dict[str, object]) -> None:
    value = DEFAULT_PARAMETERS.to_json()
    assert isinstance(value, dict)
    assert MarkParameters.from_json(dict(value), where="here") == DEFAULT_PARAMETERS
    with pytest.raises(ProofError, match="here"):
        MarkParameters.from_json({**value, **change}, where="here")  # type: ignore[dict-item]


def test_leaves_and_rows_are_shared_out_to_groups_without_overlap() -> None:
    everything = range(DEFAULT_PARAMETERS.groups)
    assert DEFAULT_PARAMETERS.indices(everything) == list(range(512))
    rows = [row for group in everything for row in range(512)[block(DEFAULT_PARAMETERS, group)]]
    assert rows == list(range(512))
    assert DEFAULT_PARAMETERS.indices([2, 0]) == [*range(16, 24), *range(8)]
    for group in (-1, 64):
        with pytest.raises(ProofError):
            DEFAULT_PARAMETERS.indices([group])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"tensor": "layers.2.weight"}, "hidden"),
        ({"rows": 4}, "16384"),
        ({"rows": 16}, "1024"),
    ],
    ids=str,
)
def test_a_carrier_that_does_not_fit_is_refused(change: dict[str, object], reason: str) -> None:
    layout, state = layout_of("mlp"), digits.initial(0)
    layout.check(state, DEFAULT_PARAMETERS.weights.carriers, where="model")
    with pytest.raises(SpecError, match=reason):
        layout.check(state, changed(DEFAULT_PARAMETERS, **change).weights.carriers, where="model")


def test_models_with_batch_norm_and_other_parts_are_refused_with_a_reason() -> None:
    state = digits.initial(0)
    assert len(read_mlp(state, where="model")) == 3
    norm = {**state, "layers.1.running_mean": state["layers.1.bias"]}
    named_like_a_layer = {**state, "layers.1.weight": state["layers.1.bias"]}
    for other in (norm, named_like_a_layer, {**state, "norm.weight": state["layers.1.bias"]}):
        with pytest.raises(SpecError, match="batch-norm"):
            read_mlp(other, where="model")


def test_a_missing_tensor_or_layer_is_named() -> None:
    state = digits.initial(0)
    renamed = {name.replace("layers.1", "layers.7"): tensor for name, tensor in state.items()}
    with pytest.raises(SpecError, match=r"layers\.1\.weight is missing"):
        read_mlp(renamed, where="model")
    shallow = {name: tensor for name, tensor in state.items() if "layers.2" not in name}
    with pytest.raises(SpecError, match="three layers"):
        read_mlp(shallow, where="model")


@given(BYTES32, st.integers(1, 9), st.integers(1, 700))
def test_a_carrier_is_made_of_signs_and_depends_on_its_seed_alone(seed: bytes, rows: int, columns: int) -> None:
    u, v = carrier_factors(seed, rows, columns)
    assert u.shape == (rows,)
    assert v.shape == (columns,)
    assert set(np.unique(np.concatenate([u, v]))) <= {-1.0, 1.0}
    again = carrier_factors(seed, rows, columns)
    np.testing.assert_array_equal(u, again[0])
    np.testing.assert_array_equal(v, again[1])


def test_carriers_of_different_seeds_are_all_but_orthogonal() -> None:
    seeds = [index.to_bytes(32, "big") for index in range(200)]
    signs = np.stack([np.concatenate(carrier_factors(seed, 8, 512)) for seed in seeds])
    cosines = signs @ signs.T / 520
    assert np.abs(cosines - np.eye(200)).max() < 0.25
    assert abs(signs.mean()) < 0.02


def test_golden_carrier_and_bits() -> None:
    """Other implementations, and later versions of this one, must draw the same."""
    u, v = carrier_factors(bytes(range(32)), 8, 512)
    assert "".join("+" if sign > 0 else "-" for sign in u) == "-+---++-"
    assert np.packbits(v[:64] > 0).tobytes().hex() == "965b1b3807ff35dc"
    bits = [mark_bit(bytes(32), bytes([1] * 32), index, bytes([2] * 32)) for index in range(16)]
    assert "".join("+" if bit > 0 else "-" for bit in bits) == "-+-++---++--+++-"


@pytest.mark.parametrize("position", range(4))
def test_a_bit_depends_on_each_of_beacon_root_index_and_seed(position: int) -> None:
    """256 changes of one input alone: about half of the bits turn, so that input is in it and counts in full."""

    def bit(change: int) -> int:
        parts = [change if place == position else 0 for place in range(4)]
        beta, root, seed = (parts[place].to_bytes(32, "big") for place in (0, 1, 3))
        return mark_bit(beta, root, parts[2], seed)

    assert 90 < sum(bit(change) == 1 for change in range(256)) < 166


def test_equal_seeds_get_separate_coins() -> None:
    """Were the index not in the bit, equal seeds would make all bits one coin."""
    bits = {mark_bit(bytes(32), bytes(32), index, bytes(32)) for index in range(64)}
    assert bits == {-1, 1}
