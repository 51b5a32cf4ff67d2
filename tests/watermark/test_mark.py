"""The one-line way: parameters that suit a model, and the mark put in."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from pol.errors import SpecError
from tests.watermark import digits
from tests.watermark.conftest import BETA
from watermark import Claim, MarkParameters, WatermarkKey, detect, embed, mlp_mark, suggested_parameters
from watermark.triggers import Images, TriggerMark


@pytest.mark.parametrize("widths", [(64, 512, 512, 10), (64, 256, 256, 10), (64, 192, 320, 256, 10)])
def test_suggested_parameters_can_be_embedded_and_are_found(widths: tuple[int, ...]) -> None:
    model = digits.train(digits.initial(3, widths), steps=20, seed=3)
    parameters = suggested_parameters(model)
    assert MarkParameters.from_json(parameters.to_json(), where="spec") == parameters
    key = WatermarkKey.generate(parameters.leaf_count)
    marked = embed(model, key, BETA, parameters)
    claim = Claim.make(key, BETA, parameters, range(parameters.groups), model)
    assert detect(marked, [claim])[0].accepted
    assert not detect(model, [claim])[0].accepted


def test_a_model_of_no_known_architecture_is_told_what_each_had_against_it() -> None:
    with pytest.raises(SpecError, match=r"mlp: .*convnet: .*transformer: .*lora: "):
        suggested_parameters({"weight": torch.zeros(4, 4)})


def test_channels_are_numbered_on_and_read_back() -> None:
    weights = mlp_mark("layers.1.weight", groups=4, rows=8, leaves=2, margin=1.0).weights
    both = MarkParameters(weights=weights, triggers=TriggerMark(Images(1, 8, 8), classes=10, groups=3, leaves=5))
    assert (both.groups, both.leaf_count) == (7, 23)
    assert [*both.leaves_of("weights"), *both.leaves_of("triggers")] == both.indices(range(7)) == list(range(23))
    assert not both.leaves_of("outputs")
    assert MarkParameters.from_json(both.to_json(), where="spec") == both
    assert len({both.digest, dataclasses.replace(both, triggers=None).digest}) == 2
    with pytest.raises(SpecError, match="at least one channel"):
        MarkParameters()


def test_a_mark_in_answers_is_not_embedded_without_training() -> None:
    model = digits.initial(3)
    triggers = MarkParameters(triggers=TriggerMark(Images(1, 8, 8), classes=10, groups=4, leaves=4))
    with pytest.raises(SpecError, match="branch"):
        embed(model, WatermarkKey(bytes(32), 16), BETA, triggers)
