"""Marks in convolutional networks with batch norm and residual streams: found whatever a thief does to the channels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from pol.errors import SpecError
from tests.watermark import digits
from tests.watermark.conftest import BETA
from tests.watermark.test_null import assert_coin_flips, every_match
from tests.watermark.weights import convnets
from tests.watermark.weights.convnets import CNN, RESNET, State
from watermark import Claim, Evidence, MarkParameters, WatermarkKey, detect, embed, suggested_parameters
from watermark.weights.layouts.convnet import ConvNetLayout, read_convnet
from watermark.weights.parameters import Carrier, WeightMark

FILTERS = 8
LAYOUT = ConvNetLayout()
Attack = Callable[[State], State]


@dataclass(frozen=True)
class Owner:
    """The owner of a marked network, with every leaf of its key opened."""

    name: str
    theta_ref: State
    model: State
    parameters: MarkParameters
    claim: Claim

    @property
    def mark(self) -> WeightMark:
        return self.parameters.weights


def make_owner(name: str, theta_ref: State, leaves: int, margin: float | None = None) -> Owner:
    carriers = LAYOUT.suggested(theta_ref)
    if margin is not None:
        carriers = tuple(Carrier(c.tensor, c.groups, c.rows, margin) for c in carriers)
    parameters = MarkParameters(WeightMark("convnet", carriers, leaves))
    key = WatermarkKey(b"the owner's secret, 32 bytes ...", parameters.leaf_count)
    model = embed(theta_ref, key, BETA, parameters)
    claim = Claim.make(key, BETA, parameters, range(parameters.groups), theta_ref)
    return Owner(name, theta_ref, model, parameters, claim)


@pytest.fixture(scope="module", params=[RESNET, CNN])
def owner(request: pytest.FixtureRequest) -> Owner:
    return make_owner(request.param, convnets.initial(request.param, FILTERS, 1), 8 if request.param == RESNET else 16)


def shuffled(state: State) -> State:
    return convnets.shuffled(state, 11)


ATTACKS: dict[str, Attack] = {
    "permuted, scaled, signs flipped": shuffled,
    **{
        kind: lambda state, kind=kind: convnets.widened(state, kind, 12)
        for kind in ("silent", "dead", "clique", "split")
    },
    "cliques, all split, all shuffled": convnets.composed(
        lambda state: convnets.widened(state, "clique", 13),
        lambda state: convnets.widened(state, "split", 14),
        shuffled,
    ),
    "silent and dead ones, all shuffled": convnets.composed(
        lambda state: convnets.widened(state, "silent", 15), lambda state: convnets.widened(state, "dead", 16), shuffled
    ),
}


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_what_leaves_the_function_as_it_is_leaves_the_reading_as_it_is(owner: Owner, attack: Attack) -> None:
    """The rows of every carrier come back up to rounding, and with them every bit."""
    stolen, images = attack(owner.model), digits.data()[0][:50]
    ours, theirs = convnets.logits(owner.model, images), convnets.logits(stolen, images)
    torch.testing.assert_close(theirs, ours, rtol=1e-3, atol=1e-3 * float(ours.abs().max()))
    tensors = owner.mark.tensors
    for mine, found in zip(
        LAYOUT.read(owner.model, owner.theta_ref, tensors),
        LAYOUT.read(stolen, owner.theta_ref, tensors),
        strict=True,
    ):
        np.testing.assert_allclose(found, mine, rtol=1e-3, atol=1e-4 * np.abs(mine).max())
    evidence = detect(stolen, [owner.claim], suspects=64)[0]
    assert evidence.matches == evidence.trials
    assert evidence.accepted


@pytest.mark.parametrize("attack", list(ATTACKS.values())[-2:], ids=list(ATTACKS)[-2:])
def test_an_innocent_network_treated_alike_stays_innocent(owner: Owner, attack: Attack) -> None:
    evidence = detect(attack(convnets.initial(owner.name, FILTERS, 99)), [owner.claim])[0]
    assert evidence.void is None
    assert evidence.log2_p > -20


def test_theta_ref_reads_as_it_is(owner: Owner) -> None:
    """Alignment to itself is the identity, and raw weights come back from folded ones with their signs."""
    matrices = LAYOUT.read(owner.theta_ref, owner.theta_ref, owner.mark.tensors)
    for name, matrix in zip(owner.mark.tensors, matrices, strict=True):
        raw = owner.theta_ref[name].double()
        np.testing.assert_allclose(matrix, raw.reshape(len(raw), -1).numpy(), rtol=1e-9, atol=1e-12)


def test_without_alignment_a_shuffled_copy_says_nothing(owner: Owner) -> None:
    leaves = owner.claim.leaves
    stolen = [shuffled(owner.model)[name].double().flatten(1).numpy() for name in owner.mark.tensors]
    assert Evidence(every_match(stolen, leaves, BETA, owner.claim.key_root, owner.mark), len(leaves)).log2_p > -20


def test_a_thousand_keys_on_aligned_networks_are_coin_flips(owner: Owner) -> None:
    """An innocent, an innocent with dummies shuffled, and the marked one itself, with keys that are not its own."""
    innocent = convnets.initial(owner.name, FILTERS, 77)
    suspects = [innocent, shuffled(convnets.widened(innocent, "clique", 5)), shuffled(owner.model)]
    readings = [LAYOUT.read(suspect, owner.theta_ref, owner.mark.tensors) for suspect in suspects]
    mark = WeightMark("convnet", owner.mark.carriers, 72 // owner.mark.groups)
    trials = mark.leaf_count
    matches = []
    for number in range(1000):
        key = WatermarkKey(number.to_bytes(32, "big"), trials)
        matches.append(every_match(readings[number % 3], key.leaves, BETA, key.root, mark))
    assert_coin_flips(matches, trials)


def test_alignment_to_the_marked_network_would_convict_innocents() -> None:
    """Why there is theta_ref: the marked network holds the bits, and the assignment leans towards them.

    Claims that smuggle it in as theta_ref are void. To theta_ref the same innocents are coin flips.
    """
    owner = make_owner(CNN, convnets.initial(CNN, 16, 1), leaves=8, margin=8.0)
    innocents = [convnets.initial(CNN, 16, seed) for seed in range(200, 208)]

    def evidence(reference: State) -> Evidence:
        found = [LAYOUT.read(model, reference, owner.mark.tensors) for model in innocents]
        opened = owner.claim.leaves
        total = sum(every_match(read, opened, BETA, owner.claim.key_root, owner.mark) for read in found)
        return Evidence(total, len(innocents) * len(opened))

    assert evidence(owner.theta_ref).log2_p > -20
    assert evidence(owner.model).log2_p < -64


def test_suggested_carriers_are_spread_over_early_and_late_convolutions() -> None:
    """ResNet-20 as published: 64 groups of 8 rows in stages 2 and 3. The stem and the narrow stage are left alone."""
    carriers = LAYOUT.suggested(convnets.initial(RESNET, 16, 1))
    assert sum(carrier.groups for carrier in carriers) == 64
    assert [carrier.tensor for carrier in carriers] == [
        f"features.{block}.residual.{place}.weight" for block in range(6, 12) for place in (0, 3)
    ]
    parameters = suggested_parameters(convnets.initial(CNN, 16, 1))
    assert parameters.weights.layout == "convnet"
    assert {carrier.tensor for carrier in parameters.weights.carriers} == {"features.3.0.weight", "features.4.0.weight"}


def test_networks_of_other_depths_and_widths_are_read_too() -> None:
    """Blocks of any number and mix; only the head must be where it is."""
    resnet = convnets.initial(RESNET, FILTERS, 1)
    short = {name: tensor for name, tensor in resnet.items() if not name.startswith(("features.11.", "features.10."))}
    assert len(read_convnet(short, where="here")) == len(read_convnet(resnet, where="here")) - 4
    with pytest.raises(SpecError, match="not comparable"):
        LAYOUT.read(short, resnet, ["features.3.residual.0.weight"])


def test_carriers_that_do_not_fit_are_named() -> None:
    state = convnets.initial(CNN, FILTERS, 1)
    for tensor, rows, said in [
        ("head.weight", 2, "not the weight of a convolution"),
        ("features.1.weight", 2, "not the weight of a convolution"),
        ("features.3.0.weight", 9, "has 16 rows, but the groups own 18"),
    ]:
        with pytest.raises(SpecError, match=said):
            LAYOUT.check(state, [Carrier(tensor, 2, rows, 2.0)], where="here")


def damaged(state: State, name: str, change: Callable[[torch.Tensor], torch.Tensor] | None) -> State:
    rest = {key: tensor for key, tensor in state.items() if key != name}
    return rest if change is None else {**rest, name: change(state[name].clone())}


HOSTILE: dict[str, tuple[str, Callable[[torch.Tensor], torch.Tensor] | None, str]] = {
    "not finite": ("features.4.0.weight", lambda t: t.index_fill(0, torch.tensor([0]), float("nan")), "not finite"),
    "infinite": ("features.4.1.running_mean", lambda t: t / 0, "not finite"),
    "negative variance": ("features.3.1.running_var", lambda t: -t, "negative"),
    "missing": ("features.3.1.bias", None, "missing"),
    "other tensor": ("head.wait", lambda t: t, "unexpected"),
    "integers": ("features.3.0.weight", lambda t: t.to(torch.int64), "floating point"),
    "empty": ("features.4.0.weight", lambda t: t[:0], "does not fit"),
    "flat": ("features.4.0.weight", lambda t: t.flatten(), "does not fit"),
    "one channel less": ("features.4.0.weight", lambda t: t[:, 1:], "does not fit"),
    "one gamma less": ("features.4.1.weight", lambda t: t[1:], "does not fit"),
    "a kernel of two": ("features.4.0.weight", lambda t: t[..., :2], "not comparable"),
    "another class": ("head.weight", lambda t: torch.cat([t, t]), "does not fit"),
}


@pytest.mark.parametrize(("name", "change", "said"), HOSTILE.values(), ids=HOSTILE)
def test_malformed_suspects_are_refused_by_name_and_never_match(
    name: str, change: Callable[[torch.Tensor], torch.Tensor] | None, said: str
) -> None:
    owner = make_owner(CNN, convnets.initial(CNN, FILTERS, 1), 16)
    model = owner.model | {"head.wait": torch.ones(1)} if name == "head.wait" else owner.model
    evidence = detect(damaged(model, name, change), [owner.claim])[0]
    assert evidence.matches == 0
    assert said in str(evidence.void)
    assert detect(owner.model, [owner.claim])[0].accepted  # the honest twin


def test_zero_and_huge_weights_are_misses_or_coin_flips(owner: Owner) -> None:
    nothing = {name: tensor * 0 for name, tensor in owner.model.items()}
    assert detect(nothing, [owner.claim])[0].matches == 0  # ties are misses
    for factor in (1e36, 1e300):
        huge = {key: tensor.double() * factor for key, tensor in convnets.initial(owner.name, FILTERS, 3).items()}
        assert detect(huge, [owner.claim])[0].log2_p > -20


def test_a_much_wider_suspect_is_refused() -> None:
    """Time and memory are bounded by theta_ref's size, whatever is handed in."""
    owner = make_owner(CNN, convnets.initial(CNN, FILTERS, 1), 16)
    evidence = detect(convnets.initial(CNN, 17 * FILTERS, 1), [owner.claim])[0]
    assert evidence.matches == 0
    assert "not comparable" in str(evidence.void)


def test_a_reference_that_is_no_such_network_is_refused() -> None:
    owner = make_owner(CNN, convnets.initial(CNN, FILTERS, 1), 16)
    with pytest.raises(SpecError, match=r"features\.0\.weight is missing"):
        LAYOUT.read(owner.model, {"layers.0.weight": torch.ones(2, 2)}, owner.mark.tensors)


@pytest.mark.slow
@pytest.mark.parametrize("name", [RESNET, CNN])
def test_fine_tuning_pruning_four_bits_dummies_and_shuffling_together(name: str) -> None:
    """A trained network, stolen with all that the issue names in one: found at 2^-64; an innocent one is not."""
    filters = 16 if name == RESNET else 32
    owner = make_owner(name, convnets.train(name, filters, steps=300, seed=1), 8)
    innocent = convnets.train(name, filters, steps=300, seed=2)

    def attack(state: State) -> State:
        tuned = convnets.train(name, filters, steps=5 * digits.PASS, seed=3, start=state, rate=0.01)
        return shuffled(compressed(convnets.widened(tuned, "clique", 4)))

    assert convnets.accuracy(owner.model) > convnets.accuracy(owner.theta_ref) - 0.02
    assert detect(attack(owner.model), [owner.claim], suspects=32)[0].accepted
    assert detect(attack(innocent), [owner.claim])[0].log2_p > -20


def compressed(state: State) -> State:
    """The smallest 70 % of each weight set to zero, and what is left rounded to 4 bits a row."""
    result = dict(state)
    for name, tensor in state.items():
        if tensor.dim() >= 2:
            kept = torch.where(tensor.abs() > tensor.abs().flatten().quantile(0.7), tensor, 0.0).flatten(1)
            step = (kept.abs().amax(dim=1, keepdim=True) / 7).clamp_min(1e-12)
            result[name] = ((kept / step).round() * step).view_as(tensor)
    return result
