"""Symmetry attacks change every weight and no answer; they are the honest part of a thief's work."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.attacks import ATTACKS, weights_of
from experiments.attacks.networks import loaded, query, state_of
from experiments.attacks.structure import hidden_units
from experiments.attacks.symmetry import DUMMIES, shuffled, widened
from pol.errors import SpecError
from tests.experiments.victims import KIND_OF, KINDS, inputs_of, lived_in, setting_of

PLAIN = [name for name in KINDS if name != "lora"]
SYMMETRIES = [attack for attack in ATTACKS.values() if attack.family == "symmetry"]
PAIRS = [(name, attack.name) for name in KINDS for attack in SYMMETRIES if attack.applies(KIND_OF[name])]


def random(seed: int = 5) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def assert_same_function(one: torch.nn.Module, other: torch.nn.Module, inputs: torch.Tensor) -> None:
    expected = query(one, inputs)
    torch.testing.assert_close(query(other, inputs), expected, rtol=1e-3, atol=2e-4 * float(expected.abs().max() + 1))


@settings(max_examples=3, deadline=None)
@given(seed=st.integers(0, 2**31), spread=st.floats(0, 1))
@pytest.mark.parametrize("name", PLAIN)
def test_units_permuted_and_scaled_compute_the_same(name: str, seed: int, spread: float) -> None:
    network = lived_in(KINDS[name])
    state = state_of(network)
    moved = shuffled(state, random(seed), spread=spread)
    assert {key: value.shape for key, value in moved.items()} == {key: value.shape for key, value in state.items()}
    assert any(not torch.equal(moved[key], value) for key, value in state.items())
    assert_same_function(network, loaded(network, moved), inputs_of(name))


@pytest.mark.parametrize("dummies", DUMMIES)
@pytest.mark.parametrize("share", [0.25, 1.0])
@pytest.mark.parametrize("name", PLAIN)
def test_added_units_change_no_answer(name: str, share: float, dummies: str) -> None:
    network = lived_in(KINDS[name])
    state = state_of(network)
    wide = widened(state, random(), dummies=dummies, share=share)
    for before, after in zip(hidden_units(state), hidden_units(wide), strict=True):
        assert after.size >= before.size + round(share * before.size) > before.size
    grown = loaded(network, wide)
    assert_same_function(network, grown, inputs_of(name))
    assert_same_function(network, loaded(grown, shuffled(wide, random(6), spread=1.0)), inputs_of(name))


@pytest.mark.parametrize(("name", "attack"), PAIRS)
def test_every_symmetry_attack_keeps_the_function(name: str, attack: str) -> None:
    victim = lived_in(KINDS[name])
    stolen = ATTACKS[attack].apply(victim, setting_of(name), random())
    # soiled pixels are zero in the thief's data, as they are here
    assert_same_function(victim, stolen, inputs_of(name))
    before, after = state_of(victim), weights_of(stolen)
    assert any(key not in before or not torch.equal(before[key], after[key]) for key in after)


def test_rotation_leaves_no_weight_of_the_stream_alone() -> None:
    victim = lived_in(KINDS["llama"])
    stolen = ATTACKS["residual-rotation"].apply(victim, setting_of("llama"), random())
    before, after = state_of(victim), weights_of(stolen)
    for name in ("model.embed_tokens.weight", "model.layers.0.mlp.down_proj.weight"):
        cosine = torch.cosine_similarity(before[name].flatten(), after[name].flatten(), dim=0)
        assert abs(float(cosine)) < 0.5
    assert not torch.equal(after["lm_head.weight"], after["model.embed_tokens.weight"])


def test_a_network_of_unknown_structure_is_refused() -> None:
    with pytest.raises(SpecError, match="unknown structure"):
        shuffled({"a.weight": torch.ones(2, 2)}, random(), spread=1.0)


def test_every_kind_of_model_is_covered() -> None:
    assert set(KIND_OF.values()) == {kind for attack in ATTACKS.values() for kind in attack.kinds}
