"""Embedding: margins, least change, locality, and a replay to the bit."""

from __future__ import annotations

import dataclasses
import hashlib
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import lsq_linear

from pol.errors import ProofError, SpecError
from tests.watermark import digits, thief
from tests.watermark.conftest import BETA, Owner, block, changed
from tests.watermark.digits import CARRIER
from watermark import DEFAULT_PARAMETERS, WatermarkKey, detect, embed, embed_group, verify_embedding
from watermark.bits import mark_bit
from watermark.key import Leaf
from watermark.weights.carriers import carrier_factors
from watermark.weights.embed import carrier_sigma, moved_too_far
from watermark.weights.least_norm import least_weights


def leaves_of(key: WatermarkKey) -> list[Leaf]:
    return list(key.leaves)


def carriers(key: WatermarkKey, shape: tuple[int, int]) -> np.ndarray:
    """The signed carriers b R of all leaves, one a row, norm 1."""
    rows = []
    for leaf in key.leaves:
        u, v = carrier_factors(leaf.seed, *shape)
        rows.append(
            mark_bit(BETA, key.root, leaf.index, leaf.seed) * np.outer(u, v).ravel() / math.sqrt(u.size * v.size)
        )
    return np.stack(rows)


def synthetic_block(rows: int, columns: int) -> np.ndarray:
    """Numbers that every machine agrees on: small fractions of a power of two."""
    return ((np.arange(rows * columns) * 7919 % 2003 - 1001) / 16384).astype(np.float32).reshape(rows, columns)


@given(st.binary(min_size=32, max_size=32), st.integers(1, 12), st.sampled_from([0.01, 0.1, 1.0]))
def test_every_margin_holds_up_to_float32(master: bytes, leaves: int, margin: float) -> None:
    key, block = WatermarkKey(master, leaves), synthetic_block(4, 128)
    marked = embed_group(block, leaves_of(key), BETA, key.root, margin=margin)
    assert marked.dtype == np.float32
    rounding = 2.0**-24 * float(np.linalg.norm(marked))
    assert (carriers(key, block.shape) @ marked.astype(np.float64).ravel() >= margin - rounding).all()


@given(st.binary(min_size=32, max_size=32), st.integers(1, 12), st.sampled_from([0.01, 0.1, 1.0]))
def test_the_change_is_the_least_one(master: bytes, leaves: int, margin: float) -> None:
    """The change solves min |d| with A d >= need: an independent solver of the dual finds no smaller one."""
    key, block = WatermarkKey(master, leaves), synthetic_block(4, 128)
    a = carriers(key, block.shape)
    need = margin - a @ block.astype(np.float64).ravel()
    root = np.linalg.cholesky(a @ a.T)
    weights = lsq_linear(root.T, np.linalg.solve(root, need), bounds=(0, np.inf), tol=1e-14).x
    marked = embed_group(block, leaves_of(key), BETA, key.root, margin=margin)
    change = np.linalg.norm(marked.astype(np.float64) - block)
    assert change == pytest.approx(np.linalg.norm(weights @ a), rel=1e-4, abs=1e-6)


def test_least_weights_satisfy_the_optimality_conditions() -> None:
    """Random problems of up to 16 constraints; in some of them a constraint must be dropped again."""
    for seed in range(300):
        generator = np.random.default_rng(seed)
        size = int(generator.integers(1, 17))
        a = generator.standard_normal((size, size + 3))
        gram, need = a @ a.T, generator.standard_normal(size)
        x = least_weights(gram, need.tolist())
        slack = gram @ x - need
        assert (x >= 0).all()
        assert (slack >= -1e-8).all()
        assert abs(x @ slack) < 1e-7


def test_bits_that_stand_off_already_cost_nothing() -> None:
    key, block = WatermarkKey(bytes(32), 4), synthetic_block(4, 128)
    once = embed_group(block, leaves_of(key), BETA, key.root, margin=0.5)
    twice = embed_group(once, leaves_of(key), BETA, key.root, margin=0.4)
    assert once.tobytes() != block.tobytes()
    assert twice.tobytes() == once.tobytes()


def test_carriers_that_depend_on_each_other_are_refused() -> None:
    key, block = WatermarkKey(bytes(32), 4), synthetic_block(4, 128)
    assert embed_group(block, leaves_of(key), BETA, key.root, margin=0.5).shape == block.shape
    twins = [dataclasses.replace(key.leaves[0], index=index) for index in range(4)]
    with pytest.raises(SpecError, match="linearly"):
        embed_group(block, twins, BETA, key.root, margin=0.5)


def test_golden_group() -> None:
    """The bytes of an embedded group, which must be the same on every machine and in every version."""
    key = WatermarkKey(bytes(range(32)), 8)
    marked = embed_group(synthetic_block(8, 512), leaves_of(key), BETA, key.root, margin=0.125)
    assert (
        hashlib.sha256(marked.tobytes()).hexdigest()
        == "951f9ed33f167534c688e5788c0943b5cabea6a1610909924cc21d5dde860cb2"
    )


def test_threads_do_not_matter(small: Owner) -> None:
    torch.set_num_threads(2)
    again = embed(small.theta_ref, small.key, BETA, small.parameters)
    torch.set_num_threads(1)
    assert again[CARRIER].numpy().tobytes() == small.model[CARRIER].numpy().tobytes()


def test_only_the_carrier_changes_and_theta_ref_is_left_alone(small: Owner) -> None:
    before = {name: tensor.clone() for name, tensor in small.theta_ref.items()}
    model = embed(small.theta_ref, small.key, BETA, small.parameters)
    assert all(torch.equal(before[name], small.theta_ref[name]) for name in before)
    assert {name for name in before if not torch.equal(model[name], before[name])} == {CARRIER}
    assert all(tensor.dtype == torch.float32 for tensor in model.values())


def test_a_group_depends_on_its_own_leaves_alone(small: Owner) -> None:
    """Other leaves in every other group leave this group's block as it is, byte for byte."""
    parameters, weight = small.parameters, small.theta_ref[CARRIER].numpy()
    margin = parameters.weights.carriers[0].margin * carrier_sigma(weight)
    for group in (0, 7, 15):
        rows = block(parameters, group)
        own = [small.key.leaves[index] for index in parameters.indices([group])]
        alone = embed_group(weight[rows], own, BETA, small.key.root, margin=margin)
        assert alone.tobytes() == small.model[CARRIER].numpy()[rows].tobytes()
        assert alone.nbytes % 16384 == 0


def test_rows_that_no_group_owns_are_untouched(small: Owner) -> None:
    fewer = changed(small.parameters, groups=10)
    model = embed(small.theta_ref, WatermarkKey(bytes(32), fewer.leaf_count), BETA, fewer)
    assert torch.equal(model[CARRIER][160:], small.theta_ref[CARRIER][160:])
    assert not torch.equal(model[CARRIER][150:160], small.theta_ref[CARRIER][150:160])


def test_wrong_keys_and_models_are_refused_before_anything_is_done(small: Owner) -> None:
    with pytest.raises(SpecError, match="leaves"):
        embed(small.theta_ref, WatermarkKey(bytes(32), 12), BETA, small.parameters)
    with pytest.raises(SpecError, match="float32"):
        embed({k: v.double() for k, v in small.theta_ref.items()}, small.key, BETA, small.parameters)


def test_the_mark_costs_little(owner: Owner) -> None:
    assert digits.accuracy(owner.model) > digits.accuracy(owner.theta_ref) - 0.01
    assert digits.accuracy(owner.theta_ref) > 0.95


# --- the verifier ---------------------------------------------------------------------------------------------------


def findings(owner: Owner, model: digits.State, opened: tuple[int, ...] = (0, 3, 15), **change: object) -> list[str]:
    promise = {
        "beta": BETA,
        "key_root": owner.key.root,
        "leaf_count": owner.parameters.leaf_count,
        "mark": owner.parameters.weights,
    }
    openings = change.pop("openings", owner.key.open(owner.parameters.indices(opened)))
    return verify_embedding(owner.theta_ref, model, openings, **{**promise, **change})  # type: ignore[arg-type]


def test_an_honest_embedding_verifies(small: Owner, owner: Owner) -> None:
    assert findings(small, small.model) == []
    assert findings(owner, owner.model, tuple(range(64))) == []


@pytest.mark.parametrize("name", ["layers.0.weight", "layers.0.bias", "layers.1.bias", "layers.2.weight"])
def test_one_bit_in_another_tensor_is_found(small: Owner, name: str) -> None:
    forged = thief.copy(small.model)
    forged[name].view(torch.int32).flatten()[3] ^= 1
    assert any(name in finding for finding in findings(small, forged))


def test_minus_zero_is_not_zero(small: Owner) -> None:
    theta_ref = thief.copy(small.theta_ref)
    theta_ref["layers.1.bias"][0] = 0.0
    honest = dataclasses.replace(small, theta_ref=theta_ref, model=embed(theta_ref, small.key, BETA, small.parameters))
    assert findings(honest, honest.model) == []
    honest.model["layers.1.bias"][0] = -0.0
    assert any("layers.1.bias" in finding for finding in findings(honest, honest.model))


def test_one_bit_in_an_opened_group_is_found(small: Owner) -> None:
    forged = thief.copy(small.model)
    forged[CARRIER].view(torch.int32)[block(small.parameters, 3)][5, 77] ^= 1
    assert any("group 3" in finding for finding in findings(small, forged))


def test_one_bit_in_rows_that_nobody_owns_is_found(small: Owner) -> None:
    fewer = changed(small.parameters, groups=10)
    key = WatermarkKey(bytes(32), fewer.leaf_count)
    model = embed(small.theta_ref, key, BETA, fewer)
    honest = dataclasses.replace(small, key=key, parameters=fewer, model=model)
    assert findings(honest, model, (0, 9)) == []
    model[CARRIER].view(torch.int32)[160, 0] ^= 1
    assert any("no group" in finding for finding in findings(honest, model, (0, 9)))


def moved(owner: Owner, model: digits.State, bound: float) -> list[str]:
    return moved_too_far(owner.theta_0, owner.theta_ref, model, owner.parameters.weights, bound)


def test_a_large_change_in_groups_that_stay_closed_is_no_finding_but_too_far(small: Owner) -> None:
    forged = thief.copy(small.model)
    forged[CARRIER][block(small.parameters, 8)] *= 4
    assert findings(small, forged) == moved(small, small.model, 0.4) == []
    assert any("moved by" in message for message in moved(small, forged, 0.4))


@pytest.mark.parametrize("bound", [0.0, 0.01, float("nan")])
def test_the_bound_is_a_bound(small: Owner, bound: float) -> None:
    assert any("moved by" in message for message in moved(small, small.model, bound))


def test_the_way_is_measured_from_a_state_that_has_the_tensor(small: Owner) -> None:
    for theta_0 in ({}, {CARRIER: torch.zeros(3, 3)}):
        with pytest.raises(SpecError, match="theta_0"):
            moved_too_far(theta_0, small.theta_ref, small.model, small.parameters.weights)


@pytest.mark.parametrize("change", [{"beta": bytes(32)}, {"margin": 2.0}], ids=str)
def test_another_beacon_or_margin_does_not_replay(small: Owner, change: dict[str, object]) -> None:
    if "margin" in change:
        change = {"mark": changed(small.parameters, **change).weights}
    assert any("does not replay" in finding for finding in findings(small, small.model, **change))


def test_a_group_with_a_leaf_missing_is_a_finding_and_a_foreign_leaf_is_an_attack(small: Owner) -> None:
    openings = small.key.open(small.parameters.indices([3]))
    assert any("15 of 16" in finding for finding in findings(small, small.model, openings=openings[:-1]))
    other = WatermarkKey(bytes(32), 256).open(small.parameters.indices([3]))
    with pytest.raises(ProofError, match="not in the key"):
        findings(small, small.model, openings=other)
    with pytest.raises(ProofError, match="twice"):
        findings(small, small.model, openings=openings[:1] * 2)


def test_other_shapes_types_and_values_are_findings_not_crashes(small: Owner) -> None:
    poisoned = thief.copy(small.model)
    poisoned[CARRIER][0, 0] = torch.nan
    missing = {name: tensor for name, tensor in small.model.items() if name != CARRIER}
    double = {**small.model, CARRIER: small.model[CARRIER].double()}
    wider = {**small.model, CARRIER: torch.zeros(256, 257)}
    for forged in (poisoned, missing, double, wider, {}):
        assert findings(small, forged)


def test_a_later_branch_of_the_trunk_carries_the_same_bits(owner: Owner) -> None:
    """The second submission branches from a later trunk state; the claim still aligns to the first theta_ref."""
    later = digits.train(owner.theta_ref, steps=200, seed=2)
    model = thief.shuffled(embed(later, owner.key, BETA, DEFAULT_PARAMETERS), 5)
    assert detect(model, [owner.claim])[0].matches == 256
    assert not detect(thief.shuffled(later, 5), [owner.claim])[0].accepted
