"""A thief erases what was opened, and is convicted by what was not."""

from __future__ import annotations

import pytest
import torch

from experiments.attacks import ATTACKS, Setting, weights_of
from experiments.attacks.disclosure import flipped
from pol.errors import SpecError
from pol.programs.classifier import MLP, ClassifierConfig
from tests.watermark import digits
from watermark import Claim, WatermarkKey, detect, embed, mlp_mark

BETA = bytes(range(32))
WIDTHS = (64, 256, 256, 10)
PARAMETERS = mlp_mark("layers.1.weight", groups=16, rows=16, leaves=16, margin=3.0)


def network() -> MLP:
    return MLP(
        ClassifierConfig(
            inputs=64, width=256, hidden=2, classes=10, steps=1, learning_rate=1e-3, weight_decay=0.0, dropout=0.0,
            batch_norm=False,
        )
    )  # fmt: skip


def test_flipping_the_opened_quarter_leaves_the_rest() -> None:
    theta_ref = digits.train(digits.initial(1, WIDTHS), steps=150, seed=1)
    key = WatermarkKey(bytes(32), PARAMETERS.leaf_count)
    victim = network()
    victim.load_state_dict(embed(theta_ref, key, BETA, PARAMETERS))
    opened, closed = (Claim.make(key, BETA, PARAMETERS, groups, theta_ref) for groups in (range(4), range(4, 16)))
    inputs, labels = digits.data()
    setting = Setting(
        kind="mlp", inputs=inputs, targets=labels, queries=inputs, build=network, student=network, rate=1e-3,
        claim=opened,
    )  # fmt: skip
    stolen = weights_of(ATTACKS["flip-opened"].apply(victim, setting, torch.Generator()))
    assert digits.accuracy(stolen) > 0.95
    assert detect(stolen, [opened])[0].matches == 0
    assert detect(stolen, [closed])[0].matches == closed.parameters.leaf_count * 3 // 4
    assert detect(weights_of(victim), [opened])[0].matches == 64  # the honest twin


def test_a_model_of_another_shape_cannot_be_flipped() -> None:
    theta_ref = digits.initial(1, WIDTHS)
    claim = Claim.make(WatermarkKey(bytes(32), PARAMETERS.leaf_count), BETA, PARAMETERS, range(4), theta_ref)
    with pytest.raises(SpecError, match="the stolen model"):
        flipped(digits.initial(1, (64, 96, 96, 10)), claim, margin=0.1)
