"""Alignment undoes what leaves a ReLU MLP's function as it is, and stays calm with everything else."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pol.errors import SpecError
from tests.watermark import digits, thief
from tests.watermark.conftest import Owner
from tests.watermark.digits import CARRIER
from tests.watermark.test_null import all_matches
from watermark import detect
from watermark.weights.layouts.mlp import align

TINY = (6, 12, 16, 16, 5)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.floats(0, 2))
def test_permutation_and_scaling_of_any_network_are_undone(seed: int, spread: float) -> None:
    """Four layers with random weights: each unit is found, and the scale returns to theta_ref's."""
    reference = digits.initial(seed, TINY)
    aligned = align(thief.shuffled(reference, seed + 1, spread=spread), reference)
    for name, tensor in reference.items():
        torch.testing.assert_close(aligned[name].float(), tensor, rtol=1e-3, atol=1e-5)


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 2**31), st.floats(0, 1.5))
def test_matches_do_not_depend_on_permutation_and_scaling(small: Owner, seed: int, spread: float) -> None:
    plain = all_matches(align(small.model, small.theta_ref)[CARRIER].numpy(), small.claim)
    moved = align(thief.shuffled(small.model, seed, spread=spread), small.theta_ref)
    assert plain == all_matches(moved[CARRIER].numpy(), small.claim) == 256


def test_theta_ref_aligns_to_itself(small: Owner) -> None:
    aligned = align(small.theta_ref, small.theta_ref)
    for name, tensor in small.theta_ref.items():
        np.testing.assert_allclose(aligned[name].numpy(), tensor.double().numpy(), rtol=1e-12)


def test_without_alignment_a_permuted_copy_says_nothing(small: Owner) -> None:
    moved = thief.shuffled(small.model, 3)
    assert 90 < all_matches(moved[CARRIER].double().numpy(), small.claim) < 166
    assert detect(moved, [small.claim])[0].matches == 256


@pytest.mark.parametrize("kind", ["silent", "dead", "clique", "split"])
def test_twice_as_many_units_hide_nothing(small: Owner, kind: str) -> None:
    """100 % more units that change no output, then permuted and scaled; an innocent model treated so stays innocent."""
    images = digits.data()[0][digits.TEST]
    wide = thief.widened(small.model, kind, 5)
    torch.testing.assert_close(digits.forward(wide, images), digits.forward(small.model, images), rtol=1e-3, atol=1e-3)
    assert detect(thief.shuffled(wide, 6), [small.claim])[0].matches >= 250
    innocent = thief.shuffled(thief.widened(digits.initial(9, (64, 256, 256, 10)), kind, 5), 6)
    assert detect(innocent, [small.claim])[0].log2_p > -20


def test_garbage_on_inputs_that_are_never_lit_hides_nothing(small: Owner) -> None:
    """The units' outgoing weights still tell which is which."""
    images = digits.data()[0]
    unlit = torch.nonzero(images.sum(dim=0) == 0).flatten()
    soiled = thief.soiled(small.model, unlit, 5)
    torch.testing.assert_close(digits.forward(soiled, images), digits.forward(small.model, images))
    assert detect(thief.shuffled(soiled, 6), [small.claim])[0].accepted
    innocent = thief.soiled(digits.initial(9, (64, 256, 256, 10)), unlit, 5)
    assert detect(thief.shuffled(innocent, 6), [small.claim])[0].log2_p > -20


def test_missing_units_are_zero_rows_and_the_rest_still_counts(small: Owner) -> None:
    """A thief drops a fifth of each hidden layer."""
    narrow, generator = thief.copy(small.model), torch.Generator().manual_seed(1)
    for layer in (0, 1):
        kept = torch.randperm(256, generator=generator)[:205]
        narrow[f"layers.{layer}.weight"] = narrow[f"layers.{layer}.weight"][kept]
        narrow[f"layers.{layer}.bias"] = narrow[f"layers.{layer}.bias"][kept]
        narrow[f"layers.{layer + 1}.weight"] = narrow[f"layers.{layer + 1}.weight"][:, kept]
    aligned = align(narrow, small.theta_ref)[CARRIER]
    assert aligned.shape == (256, 256)
    assert int((aligned == 0).all(dim=1).sum()) == 51
    assert detect(narrow, [small.claim])[0].accepted


def test_zero_and_huge_weights_are_no_trouble(small: Owner) -> None:
    nothing = {name: torch.zeros_like(tensor) for name, tensor in small.model.items()}
    assert detect(nothing, [small.claim])[0].matches == 0  # ties are misses
    huge = {name: tensor * 1e37 for name, tensor in digits.initial(3, (64, 256, 256, 10)).items()}
    assert detect(huge, [small.claim])[0].log2_p > -20


@pytest.mark.parametrize("widths", [(64, 256, 256, 256, 10), (64, 256, 256, 9), (63, 256, 256, 10)])
def test_models_that_cannot_be_compared_are_named_and_never_match(small: Owner, widths: tuple[int, ...]) -> None:
    other = digits.initial(0, widths)
    with pytest.raises(SpecError, match="not comparable"):
        align(other, small.theta_ref)
    evidence = detect(other, [small.claim])[0]
    assert evidence.matches == 0
    assert "not comparable" in str(evidence.void)
