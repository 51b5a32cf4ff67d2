"""The one-line way: parameters that suit a model, and the mark put in."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from pol.errors import ProofError, SpecError
from tests.watermark import digits
from tests.watermark.conftest import BETA
from watermark import Claim, MarkParameters, WatermarkKey, detect, embed, mlp_mark, suggested_parameters
from watermark.outputs import OutputMark
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
    weights = mlp_mark("layers.1.weight", groups=4, rows=8, leaves=4, margin=1.0)
    assert embed(model, WatermarkKey(bytes(32), 16), BETA, weights)
    for trained_in in (triggers, dataclasses.replace(weights, branch_steps=1)):
        with pytest.raises(SpecError, match="branch"):
            embed(model, WatermarkKey(bytes(32), 16), BETA, trained_in)


def test_the_number_of_branch_steps_is_promised() -> None:
    plain = mlp_mark("layers.1.weight", groups=4, rows=8, leaves=4, margin=1.0)
    on_a_branch = dataclasses.replace(plain, branch_steps=7)
    assert on_a_branch.trained_in and not plain.trained_in
    assert plain.digest != on_a_branch.digest != dataclasses.replace(plain, branch_steps=8).digest
    value = on_a_branch.to_json()
    assert isinstance(value, dict) and MarkParameters.from_json(value, where="spec") == on_a_branch
    for steps in (0, -1, 1 << 17, True, "7"):
        with pytest.raises(ProofError):
            MarkParameters.from_json(value | {"branch_steps": steps}, where="spec")
    with pytest.raises(ProofError):
        MarkParameters.from_json(value | {"wrapper": "os:system"}, where="spec")
    with pytest.raises(ProofError):
        MarkParameters.from_json({"branch_steps": 7}, where="spec")


def test_a_mark_in_outputs_has_no_branch() -> None:
    outputs = MarkParameters(outputs=OutputMark(groups=16, leaves=8, strength=0.02))
    with pytest.raises(SpecError, match="outputs"):
        dataclasses.replace(outputs, branch_steps=7)
