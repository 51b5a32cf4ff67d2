"""What a suspect has lost is no trial, what is left of it is read, and innocents stay coin flips."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, kstest

from tests.watermark import digits
from tests.watermark.conftest import BETA, Owner
from tests.watermark.digits import CARRIER, State
from tests.watermark.test_null import all_matches, claim_of, wrong_keys
from watermark import Claim, Evidence, WatermarkKey, detect, embed, opening_groups, suggested_parameters
from watermark.detect import count_matches, read
from watermark.weights.carriers import carrier_product
from watermark.weights.layouts.mlp import align
from watermark.weights.reading import Reading

FIRST = "layers.0.weight"


def cut(model: State, share: float, seed: int = 3) -> State:
    """All but a share of the units of the last hidden layer are gone, as fine-pruning leaves it."""
    units = torch.randperm(len(model[CARRIER]), generator=torch.Generator().manual_seed(seed))
    gone = units[round(share * len(units)) :]
    result = {name: tensor.clone() for name, tensor in model.items()}
    result[CARRIER][gone], result["layers.1.bias"][gone], result["layers.2.weight"][:, gone] = 0.0, 0.0, 0.0
    return result


def redrawn(model: State, seed: int = 4) -> State:
    """The last hidden layer drawn anew, with the entries of the old one in another order."""
    generator = torch.Generator().manual_seed(seed)
    weight = model[CARRIER]
    return model | {CARRIER: weight.flatten()[torch.randperm(weight.numel(), generator=generator)].view_as(weight)}


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31), st.floats(0.0, 3.0), st.floats(0.01, 100.0))
def test_a_matrix_that_is_all_there_is_read_as_it_is(seed: int, noise: float, scale: float) -> None:
    generator = np.random.default_rng(seed)
    reference = generator.normal(size=(16, 256))
    found = scale * (reference + noise * generator.normal(size=reference.shape))
    reading = Reading(found, reference)
    assert reading.kept.all()
    assert reading.value(slice(8, 16), bytes(32)) == carrier_product(found[8:], bytes(32))


@given(st.integers(0, 2**31), st.integers(1, 7))
@settings(max_examples=20, deadline=None)
def test_what_is_left_of_a_group_counts_for_as_much_as_there_is(seed: int, left: int) -> None:
    """Of theta_ref itself, whose rows all say the same, k of 8 rows say k / 8 of what all of them do."""
    generator = np.random.default_rng(seed)
    reference = generator.normal(size=(8, 256))
    found = reference.copy()
    found[generator.permutation(8)[left:]] = 0.0
    value = Reading(found, reference).value(slice(0, 8), bytes(32))
    assert value == pytest.approx(left / 8 * carrier_product(reference, bytes(32)), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("lost", [np.zeros, lambda shape: np.random.default_rng(1).normal(size=shape)])
def test_rows_that_are_gone_are_no_trials(lost: object) -> None:
    reference = np.random.default_rng(0).normal(size=(24, 256))
    found = np.concatenate([reference[:8], lost((8, 256)), -reference[16:]])  # type: ignore[operator]
    reading = Reading(found, reference)
    assert reading.kept[:8].all() and not reading.kept[16:].any()
    values = [reading.value(slice(start, start + 8), bytes(32)) for start in (0, 8, 16)]
    assert [value is None for value in values] == [False, True, True]


def test_what_is_not_finite_is_a_miss_and_not_set_aside(small: Owner) -> None:
    """A thief cannot make a bit disappear by writing NaN over it, nor a judge stumble."""
    reference = small.theta_ref[CARRIER].double().numpy()
    for value in (np.nan, np.inf, 1e200):
        found = small.model[CARRIER].double().numpy().copy()
        found[:, 3] = value
        assert count_matches([Reading(found, reference)], small.claim).trials == 256
    assert count_matches([Reading(found * np.nan, reference)], small.claim) == (0, 256)


def test_rows_that_theta_ref_has_not_are_read_all_the_same() -> None:
    found, nothing = np.random.default_rng(0).normal(size=(8, 64)), np.zeros((8, 64))
    assert Reading(found, nothing).value(slice(0, 8), bytes(32)) == carrier_product(found, bytes(32))
    assert Reading(nothing, nothing).value(slice(0, 8), bytes(32)) is None
    half = np.concatenate([found[:4], nothing[:4]])
    assert Reading(half, nothing).value(slice(0, 8), bytes(32)) == carrier_product(half, bytes(32))


def test_few_units_that_are_left_still_tell(owner: Owner) -> None:
    """Of 512 units 20 are left: the 256 opened bits as they stand are not enough, those that are left are all right."""
    stolen = cut(owner.model, 0.04)
    evidence = detect(stolen, [owner.claim])[0]
    assert 40 < evidence.trials < 160 and evidence.matches >= 0.95 * evidence.trials
    bare = align(stolen, owner.theta_ref)[CARRIER].numpy()
    assert Evidence(all_matches(bare, owner.claim), 256).log2_p > -20  # why rows that are gone are set aside


@pytest.fixture(scope="module")
def suggested() -> Owner:
    """A 64-512-512-10 model with the suggested mark, all of it opened."""
    theta_0 = digits.initial(2, (64, 512, 512, 10))
    theta_ref = digits.train(theta_0, steps=300, seed=2)
    parameters = suggested_parameters(theta_ref)
    key = WatermarkKey(b"one more secret of 32 bytes ....", parameters.leaf_count)
    claim = Claim.make(key, BETA, parameters, range(parameters.groups), theta_ref)
    return Owner(theta_0, theta_ref, key, parameters, embed(theta_ref, key, BETA, parameters), claim)


def test_the_suggested_mark_is_also_in_the_first_layer(suggested: Owner) -> None:
    carriers = {carrier.tensor: carrier for carrier in suggested.parameters.weights.carriers}
    assert set(carriers) == {FIRST, CARRIER}
    assert suggested.parameters.groups == 48
    assert detect(suggested.model, [suggested.claim])[0].matches == suggested.parameters.leaf_count


def test_a_layer_drawn_anew_takes_its_bits_along_and_no_others(suggested: Owner) -> None:
    """What says nothing is left out; what is in the first layer stays all there is to read."""
    leaves = {c.tensor: c.groups * suggested.parameters.weights.leaves for c in suggested.parameters.weights.carriers}
    evidence = detect(redrawn(suggested.model), [suggested.claim])[0]
    assert evidence.trials == evidence.matches == leaves[FIRST]


@pytest.mark.parametrize("spoil", [lambda model: cut(model, 0.2), redrawn, lambda model: cut(redrawn(model), 0.5)])
def test_other_keys_find_coin_flips_in_what_is_left(suggested: Owner, spoil: object) -> None:
    """The null hypothesis is exact for the bits that are read, however many they are."""
    readings = read(spoil(suggested.model), suggested.claim)  # type: ignore[operator]
    p_values, dice = [], np.random.default_rng(0)
    for number in range(400):
        key = WatermarkKey(number.to_bytes(32, "big"), suggested.parameters.leaf_count)
        other = dataclasses.replace(claim_of(key, suggested), groups=suggested.claim.groups)
        matches, trials = count_matches(readings, other)
        assert Evidence(matches, trials).log2_p > -20
        p_values.append(binom.sf(matches, trials, 0.5) + dice.random() * binom.pmf(matches, trials, 0.5))
    assert kstest(p_values, "uniform").pvalue > 1e-3


def test_which_rows_are_kept_does_not_depend_on_the_key(small: Owner) -> None:
    readings = read(cut(small.model, 0.3), small.claim)
    trials = {count_matches(readings, claim_of(key, small)).trials for key in wrong_keys(0, 20)}
    assert trials == {count_matches(readings, small.claim).trials}


def test_leaves_that_were_not_shown_are_misses(small: Owner) -> None:
    """Only the suspect can lose a bit: an accuser who keeps back what does not suit it gains nothing."""
    fewer = dataclasses.replace(small.claim, leaves=small.claim.leaves[:200])
    assert count_matches(read(small.model, fewer), fewer) == (200, 256)
    groups = opening_groups(bytes(32), small.key.root, 16, 4)
    part = Claim.make(small.key, BETA, small.parameters, groups, small.theta_ref)
    assert count_matches(read(small.model, part), part) == (64, 64)
