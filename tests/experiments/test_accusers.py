"""Accusers of innocents win nothing, and would win everything if what is committed could be chosen."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from experiments.attacks import ACCUSERS, Setting
from experiments.attacks.accusers import Case, free, free_triggers
from pol.programs.classifier import MLP, ClassifierConfig
from tests.watermark import digits
from watermark import Claim, MarkParameters, WatermarkKey, detect, embed, mlp_mark
from watermark.triggers import TriggerMark
from watermark.triggers.parameters import Images

BETA = bytes(range(32))
WIDTHS = (64, 128, 128, 10)
PARAMETERS = mlp_mark("layers.1.weight", groups=4, rows=32, leaves=24, margin=3.0)
TRIGGERS = TriggerMark(Images(1, 8, 8), classes=10, groups=6, leaves=16)


def random() -> torch.Generator:
    return torch.Generator().manual_seed(5)


class Flat(nn.Module):
    """A classifier of images in any shape."""

    def __init__(self, state: digits.State) -> None:
        super().__init__()
        config = ClassifierConfig(
            inputs=WIDTHS[0], width=WIDTHS[1], hidden=2, classes=10, steps=1, learning_rate=1e-3, weight_decay=0.0,
            dropout=0.0, batch_norm=False,
        )  # fmt: skip
        self.inner = MLP(config)
        self.inner.load_state_dict(state)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.inner(inputs.flatten(1))


@pytest.fixture(scope="module")
def case() -> Case:
    """An innocent model, an accuser's trunk and its reference models, all good ones."""
    models = digits.train_many(range(50, 56), WIDTHS, steps=60, rate=5e-3)
    assert min(digits.accuracy(model) for model in models) > 0.85
    inputs, labels = (part[digits.TRAIN] for part in digits.data())
    setting = Setting(
        kind="mlp", inputs=inputs, targets=labels, queries=inputs, build=lambda: Flat(models[0]),
        student=lambda: Flat(models[0]), rate=1e-3,
    )  # fmt: skip
    return Case(
        suspect=models[0], theta_ref=models[1], parameters=MarkParameters(PARAMETERS.weights, TRIGGERS), beta=BETA,
        accused=Flat(models[0]), trunk=Flat(models[1]), references=[Flat(model) for model in models[1:]],
        setting=setting,
    )  # fmt: skip


def weights_only(case: Case) -> Case:
    return Case(suspect=case.suspect, theta_ref=case.theta_ref, parameters=PARAMETERS, beta=BETA)


@pytest.mark.parametrize("name", ["carrier-forging", "alignment-to-the-mark", "marked-theta-ref"])
def test_no_accuser_of_weights_beats_chance(case: Case, name: str) -> None:
    evidence = ACCUSERS[name].accuse(weights_only(case), random())
    assert not evidence.accepted
    assert evidence.void or evidence.log2_p > -20


def test_the_best_of_many_keys_is_no_better_than_the_union_bound_says(case: Case) -> None:
    """2^9 keys: the best has p of about 2^-9; nothing here comes near 2^-64."""
    evidence = ACCUSERS["key-grinding"].at(tries=2**9).accuse(weights_only(case), random())
    assert -20 < evidence.log2_p < -4
    assert not evidence.accepted


def test_whoever_could_choose_carriers_would_always_win(case: Case) -> None:
    """The twin of forging: why carriers come from committed seeds."""
    evidence = free(weights_only(case), random())
    assert evidence.matches == evidence.trials
    assert evidence.accepted


def test_an_honest_owner_with_the_same_parameters_wins(case: Case) -> None:
    key = WatermarkKey(bytes(32), PARAMETERS.leaf_count)
    claim = Claim.make(key, BETA, PARAMETERS, range(4), case.theta_ref)
    assert detect(embed(case.theta_ref, key, BETA, PARAMETERS), [claim])[0].accepted
    assert not detect(case.suspect, [claim])[0].accepted


def test_adversarial_examples_win_where_triggers_are_chosen_and_not_where_they_are_committed(case: Case) -> None:
    """Liu et al. 2024: of 1,000 adversarial examples the best 50 transfer; of 1,000 seeds none can be kept."""
    chosen = free_triggers(case, random(), pool=1000, keep=50, reach=64 / 255)
    assert chosen.accepted
    committed = ACCUSERS["trigger-grinding"].accuse(case, random())
    assert not committed.accepted
    assert committed.log2_p > -20
