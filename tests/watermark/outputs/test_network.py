"""From tensors to outputs: what the task's program makes of them, or a refusal."""

from __future__ import annotations

import math

import pytest
import torch

from pol.errors import SpecError
from pol.programs.image_to_image import ImageToImageConfig, Translator
from tests.watermark.outputs.conftest import Owner
from watermark.outputs import translator

State = dict[str, torch.Tensor]


def test_tensors_give_the_network_that_they_came_from(owner: Owner) -> None:
    rebuilt = translator(owner.theta_ref.state_dict(), where="the suspect")
    assert torch.equal(rebuilt(owner.probes), owner.theta_ref(owner.probes))


@pytest.mark.parametrize(("inputs", "outputs", "filters", "blocks"), [(1, 1, 1, 1), (3, 2, 5, 3), (4, 3, 8, 1)])
def test_every_size_is_read_from_the_tensors(inputs: int, outputs: int, filters: int, blocks: int) -> None:
    config = ImageToImageConfig(
        inputs=inputs, outputs=outputs, height=8, width=8, filters=filters, blocks=blocks,
        loss="l2", steps=1, learning_rate=1.0, weight_decay=0.0,
    )  # fmt: skip
    original = Translator(config).eval()
    images = torch.rand(2, inputs, 8, 8)
    assert torch.equal(translator(original.state_dict(), where="the suspect")(images), original(images))


def test_half_precision_is_read_as_float32(owner: Owner) -> None:
    halves = {name: t.half() if t.is_floating_point() else t for name, t in owner.theta_ref.state_dict().items()}
    assert translator(halves, where="the suspect")(owner.probes).dtype is torch.float32


def changed(state: State, name: str, tensor: torch.Tensor | None) -> State:
    rest = {key: value for key, value in state.items() if key != name}
    return rest if tensor is None else {**rest, name: tensor}


@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        ("head.weight", None),
        ("head.weight", torch.zeros(12)),
        ("head.weight", torch.zeros(512, 1, 3, 3)),
        ("head.weight", torch.zeros(12, 1, 5, 5)),
        ("head.weight", torch.full((12, 1, 3, 3), math.nan)),
        ("head.weight", torch.zeros(12, 1, 3, 3, dtype=torch.int64)),
        ("tail.weight", torch.zeros(0, 12, 3, 3)),
        ("blocks.0.residual.1.running_var", None),
        ("blocks.1.residual.0.weight", None),
        ("another", torch.zeros(1)),
    ],
)
def test_other_tensors_are_refused(owner: Owner, name: str, tensor: torch.Tensor | None) -> None:
    with pytest.raises(SpecError, match="the suspect"):
        translator(changed(owner.theta_ref.state_dict(), name, tensor), where="the suspect")


def test_a_promise_of_many_blocks_costs_nothing(owner: Owner) -> None:
    names = {f"blocks.{number}.residual.0.weight": torch.zeros(1) for number in range(1000)}
    with pytest.raises(SpecError, match="blocks"):
        translator({**owner.theta_ref.state_dict(), **names}, where="the suspect")
