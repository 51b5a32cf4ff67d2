"""The registry, and what each attack promises: the victim untouched, everything from the seed, no surprises."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from experiments.attacks import ACCUSERS, ATTACKS, FAMILIES, Attack, Setting, table, weights_of
from experiments.attacks.networks import query, state_of
from pol.errors import SpecError
from tests.experiments.victims import KIND_OF, KINDS, inputs_of, lived_in, setting_of

SUITE = set(range(1, 39))


def random(seed: int = 5) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def marked(network: nn.Module, secret: bytes, strength: float) -> nn.Module:
    """A stand-in for the owner's algorithm: a change of all matrices drawn from the secret."""
    result, generator = copy.deepcopy(network), random(secret[0])
    for parameter in result.parameters():
        parameter.data += 0.01 * strength * torch.randn(parameter.shape, generator=generator)
    return result


def equipped(name: str) -> Setting:
    """A setting with all that can be had without a claim."""
    others = tuple(lived_in(KINDS[name], seed) for seed in (7, 8))
    return setting_of(name, mark=marked, copies=others, partners=others)


def test_the_suite_is_whole_and_every_name_stands_for_one_attack() -> None:
    attacks = [attack for family in FAMILIES for attack in family.ATTACKS]
    assert len(attacks) == len(ATTACKS)
    assert {attack.number for attack in attacks} | {accuser.number for accuser in ACCUSERS.values()} == SUITE


def test_the_table_has_a_row_for_every_attack_with_what_was_published_and_what_is_run() -> None:
    rows = {row["attack"]: row for row in table()}
    assert set(rows) == {*ATTACKS, *ACCUSERS}
    assert all(row["source"] and row["models"] for row in rows.values())
    assert "share 0.96" in rows["fine-pruning"]["published"]
    assert rows["merge-dare"]["run"] == "drop 0.9"


def assert_sound(attack: Attack, name: str) -> None:
    setting, victim = equipped(name), lived_in(KINDS[name])
    before, state = state_of(victim), torch.random.get_rng_state()
    stolen = attack.apply(victim, setting, random())
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(before[key], value) for key, value in state_of(victim).items())
    assert torch.isfinite(query(stolen, inputs_of(name))).all()
    assert not stolen.training


def pairs(names: tuple[str, ...]) -> list[tuple[str, str]]:
    """Every attack that fits each network (the one that needs a claim has a test of its own)."""
    able = [attack for attack in ATTACKS.values() if "claim" not in attack.needs]
    return [(attack.name, name) for name in names for attack in able if attack.applies(KIND_OF[name])]


@pytest.mark.parametrize(("attack", "name"), pairs(("mlp", "cnn", "gpt")))
def test_every_attack_gives_a_model_and_leaves_the_victim_alone(attack: str, name: str) -> None:
    assert_sound(ATTACKS[attack], name)


@pytest.mark.slow
@pytest.mark.parametrize(("attack", "name"), pairs(("mlp with batch norm", "resnet20", "translator", "llama", "lora")))
def test_every_attack_gives_a_model_of_the_larger_kinds_too(attack: str, name: str) -> None:
    assert_sound(ATTACKS[attack], name)


@pytest.mark.parametrize(
    "attack", ["ftal", "weight-shift-2.5", "distil", "neural-cleanse-prune", "everything", "refit"]
)
def test_the_same_seed_gives_the_same_stolen_model_and_another_seed_another(attack: str) -> None:
    victim, setting = lived_in(KINDS["mlp"]), equipped("mlp")
    one, same, other = (weights_of(ATTACKS[attack].apply(victim, setting, random(seed))) for seed in (1, 1, 2))
    assert all(torch.equal(one[key], same[key]) for key in one)
    assert not all(one[key].shape == other[key].shape and torch.equal(one[key], other[key]) for key in one)


def test_an_attack_says_what_it_cannot_do() -> None:
    victim, setting = lived_in(KINDS["mlp"]), setting_of("mlp")
    with pytest.raises(SpecError, match="does not apply to models of the kind mlp"):
        ATTACKS["merge-ties"].apply(victim, setting, random())
    with pytest.raises(SpecError, match="needs mark in the setting"):
        ATTACKS["overwrite-4x"].apply(victim, setting, random())
    assert not ATTACKS["overwrite-4x"].fits(setting)
    with pytest.raises(SpecError, match="no parameters"):
        ATTACKS["prune-50"].at(bits=3)


def test_strength_can_be_turned_up() -> None:
    victim, setting = lived_in(KINDS["mlp"]), setting_of("mlp")
    for share in (0.25, 0.75):
        stolen = ATTACKS["prune-50"].at(share=share).apply(victim, setting, random())
        weight = weights_of(stolen)["layers.1.weight"]
        assert float((weight == 0).float().mean()) == pytest.approx(share, abs=0.01)


@pytest.mark.parametrize("name", ["mlp", "cnn", "gpt", "translator", "lora"])
def test_fine_tuning_learns_the_thiefs_data(name: str) -> None:
    """Training on lowers the loss on what it is trained on: the loop is no empty shell."""
    victim, setting = lived_in(KINDS[name]), setting_of(name, effort=1.0)
    attack = ATTACKS["ftal"].at(epochs=40, rate=10.0)
    stolen = attack.apply(victim, setting, random())
    loss = [float(setting.loss(query(network, setting.inputs), setting.targets)) for network in (victim, stolen)]
    assert loss[1] < loss[0] - 0.1


def test_a_distilled_student_answers_like_the_victim_with_weights_of_its_own() -> None:
    victim, setting = lived_in(KINDS["mlp"]), setting_of("mlp", effort=1.0)
    student = ATTACKS["distil"].at(epochs=150, rate=3.0).apply(victim, setting, random())
    agree = query(student, setting.queries).argmax(-1) == query(victim, setting.queries).argmax(-1)
    assert float(agree.float().mean()) > 0.9
    mine, theirs = weights_of(student)["layers.1.weight"], state_of(victim)["layers.1.weight"]
    assert abs(float(torch.cosine_similarity(mine.flatten(), theirs.flatten(), dim=0))) < 0.3
