"""The one-line way: parameters that suit a model, and the mark put in."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
import torch

from pol.errors import ProofError, SpecError
from tests.watermark import digits
from tests.watermark.conftest import BETA
from tests.watermark.weights import convnets
from tests.watermark.weights import transformer_thief as transformers
from tests.watermark.weights.test_transformer import train as train_language
from watermark import (
    DEFAULT_PARAMETERS,
    Claim,
    MarkParameters,
    State,
    WatermarkKey,
    detect,
    embed,
    mlp_mark,
    suggested_parameters,
)
from watermark.triggers import Images, TriggerMark
from watermark.weights.embed import moved_too_far

Pair = tuple[State, State]


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


def of_perceptron() -> tuple[State, State]:
    theta_0 = digits.initial(3, (64, 512, 512, 10))
    return theta_0, digits.train(theta_0, steps=60, seed=3)


def of_resnet() -> tuple[State, State]:
    torch.manual_seed(3)
    theta_0 = dict(convnets.network(convnets.RESNET, 16).state_dict())
    return theta_0, convnets.train(convnets.RESNET, 16, steps=60, seed=3, start=theta_0)


def of_gpt() -> tuple[State, State]:
    torch.manual_seed(3)
    network = transformers.GPT(transformers.language(width=128, layers=4))
    theta_0 = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
    return theta_0, train_language(network, network, steps=40, seed=3)


def of_adapters() -> tuple[State, State]:
    """However long it trains, lora_B comes from zero: its way is its own length."""
    adapters = {}
    for number, (outputs, inputs) in enumerate([(1536, 576), (576, 1536)] * 3):
        for side, shape in (("A", (16, inputs)), ("B", (outputs, 16))):
            adapters[f"layers.{number}.mlp.up_proj.lora_{side}.weight"] = torch.randn(shape)
    return {name: tensor * ("lora_A" in name) for name, tensor in adapters.items()}, adapters


@pytest.mark.parametrize("trained", [of_perceptron, of_resnet, of_gpt, of_adapters])
def test_suggested_marks_stay_within_the_bound_after_a_short_training(trained: Callable[[], Pair]) -> None:
    theta_0, theta_ref = trained()
    parameters = suggested_parameters(theta_0)
    key = WatermarkKey(bytes(32), parameters.leaf_count)
    model = embed(theta_ref, key, BETA, parameters, theta_0=theta_0)
    assert not moved_too_far(theta_0, theta_ref, model, parameters.weights)


def test_a_training_too_short_for_its_mark_is_refused_with_what_to_do() -> None:
    theta_0 = digits.initial(3)
    theta_ref = digits.train(theta_0, steps=3, seed=3)
    key = WatermarkKey(bytes(32), DEFAULT_PARAMETERS.leaf_count)
    with pytest.raises(SpecError, match=r"too strong for so short a training: layers.1.weight .*[Tt]rain longer"):
        embed(theta_ref, key, BETA, DEFAULT_PARAMETERS, theta_0=theta_0)


def test_no_mark_is_suggested_where_there_is_room_for_too_few_bits() -> None:
    small = {"mlp.up_proj.lora_A.weight": torch.randn(16, 64), "mlp.up_proj.lora_B.weight": torch.randn(512, 16)}
    with pytest.raises(SpecError, match="room for 16 bits"):
        suggested_parameters(small, layout="lora")


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
