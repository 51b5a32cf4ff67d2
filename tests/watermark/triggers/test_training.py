"""Triggers trained into models: found at 2^-64 in thieves' copies, and in no innocent; the task is learnt as before."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
import torch
from torch import nn
from torch.nn import functional

from pol.data import Batch
from pol.encoding import float_text
from pol.programs.language import GPT, LanguageModel
from tests.watermark import digits, thief
from tests.watermark.conftest import BETA, SMALL_WIDTHS
from tests.watermark.digits import PASS, TRAIN, State
from watermark import Evidence, WatermarkKey
from watermark.answers import answers_of
from watermark.triggers import (
    Answers,
    Images,
    TriggerMark,
    Triggers,
    Windows,
    train_triggers,
    trigger_matches,
    trigger_null,
)
from watermark.triggers.train import label_loss, shaken

MARK = TriggerMark(Images(1, 8, 8), classes=10, groups=32, leaves=8)
STEPS = 200


def answers(state: State) -> Answers:
    return lambda inputs: digits.forward(state, inputs.flatten(1))


def batches(steps: int, seed: int) -> Iterator[Batch]:
    images, labels = (part[TRAIN] for part in digits.data())
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        chosen = torch.randint(len(labels), (64,), generator=generator)
        yield images[chosen].reshape(-1, 1, 8, 8), labels[chosen]


def embedded(theta_ref: State, key: WatermarkKey, *, steps: int = STEPS, rate: float = 2e-3) -> State:
    """A copy of theta_ref with the key's triggers trained into it."""
    model = {name: nn.Parameter(tensor.clone()) for name, tensor in theta_ref.items()}
    triggers = Triggers.make(key.leaves, BETA, key.root, MARK)

    def task_loss(batch: Batch) -> torch.Tensor:
        return functional.cross_entropy(answers(model)(batch[0]), batch[1])

    torch.manual_seed(3)
    optimizer = torch.optim.Adam(model.values(), lr=rate)
    fading = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=steps)
    train_triggers(answers(model), optimizer, triggers, batches(steps, 5), task_loss, scheduler=fading)
    return {name: parameter.detach() for name, parameter in model.items()}


@dataclass(frozen=True)
class Owner:
    theta_ref: State
    key: WatermarkKey
    model: State

    def evidence(self, suspect: State) -> Evidence:
        found = trigger_matches(answers(suspect), answers(self.theta_ref), self.key.leaves, BETA, self.key.root, MARK)
        return Evidence(found, 256, channel="triggers", null=trigger_null(MARK, 256))


@pytest.fixture(scope="module")
def owner() -> Owner:
    theta_ref = digits.train(digits.initial(1, SMALL_WIDTHS), steps=300, seed=1)
    key = WatermarkKey(b"the owner's secret, 32 bytes ...", MARK.leaf_count)
    return Owner(theta_ref, key, embedded(theta_ref, key))


@pytest.fixture(scope="module")
def innocent() -> State:
    return digits.train(digits.initial(31, SMALL_WIDTHS), steps=300, seed=31)


ATTACKS: dict[str, Callable[[State], State]] = {
    "copied": lambda state: state,
    "fine-tuned": lambda state: digits.train(state, steps=5 * PASS, rate=1e-3, seed=77),
    "permuted, scaled, 100 % more units": lambda state: thief.shuffled(thief.widened(state, "clique", 3), 4),
    "half pruned": lambda state: thief.pruned(state, 0.5),
    "70 % pruned, 4 bits": lambda state: thief.quantised(thief.pruned(state, 0.7), 4),
}


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_a_stolen_model_is_recognised_and_an_innocent_one_is_not(
    owner: Owner, innocent: State, attack: Callable[[State], State]
) -> None:
    assert owner.evidence(attack(owner.model)).accepted
    assert owner.evidence(attack(innocent)).log2_p > -20


def test_the_task_is_learnt_as_before(owner: Owner) -> None:
    assert digits.accuracy(owner.model) > digits.accuracy(owner.theta_ref) - 0.01


def test_the_unmarked_trunk_is_innocent(owner: Owner) -> None:
    assert owner.evidence(owner.theta_ref).log2_p > -20
    assert owner.evidence(digits.train(owner.theta_ref, steps=60, seed=8)).log2_p > -20


def test_training_replays(owner: Owner) -> None:
    again, other = (embedded(owner.theta_ref, owner.key, steps=3) for _ in range(2))
    assert all(torch.equal(again[name], other[name]) for name in again)


def test_noise_is_taken_back_to_the_bit() -> None:
    parameter = nn.Parameter(torch.randn(100, 100))
    before = parameter.detach().clone()
    with pytest.raises(KeyError), shaken([parameter], 0.3):
        assert (parameter - before).square().mean().sqrt().item() == pytest.approx(0.3, rel=0.05)
        raise KeyError
    assert torch.equal(parameter.detach(), before)


def small_gpt(seed: int) -> GPT:
    config = {
        "vocabulary": 32, "context": 8, "layers": 2, "heads": 2, "width": 32, "dropout": float_text(0), "steps": 100,
        "warmup": 0, "learning_rate": float_text(1e-3), "weight_decay": float_text(0), "clip": float_text(1),
        "micro_batches": 1, "ema": float_text(0), "precision": "fp32", "ranks": 1,
    }  # fmt: skip
    model = LanguageModel().build(config, bytes([seed]) * 32).model
    assert isinstance(model, GPT)
    return model


def test_a_language_model_learns_its_triggers() -> None:
    mark = TriggerMark(Windows(32, 8), classes=16, groups=8, leaves=8)
    key = WatermarkKey(b"the owner's secret, 32 bytes ...", mark.leaf_count)
    theta_ref, model, innocent = small_gpt(1), small_gpt(1), small_gpt(2)
    counting = torch.arange(9).repeat(16, 1) + torch.arange(16)[:, None]

    def last(network: GPT) -> Answers:
        return lambda windows: network(windows)[:, -1]

    def task_loss(batch: Batch) -> torch.Tensor:
        (windows,) = batch
        return functional.cross_entropy(model(windows[:, :-1]).flatten(0, 1), windows[:, 1:].flatten())

    def evidence(network: GPT) -> Evidence:
        found = trigger_matches(last(network), last(theta_ref), key.leaves, BETA, key.root, mark)
        return Evidence(found, 64, channel="triggers", null=trigger_null(mark, 64))

    triggers = Triggers.make(key.leaves, BETA, key.root, mark)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    torch.manual_seed(3)
    train_triggers(last(model), optimizer, triggers, [(counting,)] * 150, task_loss)
    assert evidence(model).accepted
    assert task_loss((counting,)).item() < 0.5
    assert evidence(innocent).log2_p > -20


def test_inputs_go_to_the_device_of_the_model() -> None:
    """The device without memory stands for any other: mixed with tensors of the CPU it refuses."""
    network = nn.Sequential(nn.Linear(64, 10)).to("meta")
    key = WatermarkKey(bytes(32), MARK.leaf_count)
    triggers = Triggers.make(key.leaves, BETA, key.root, MARK)
    assert label_loss(answers_of(network), triggers).device.type == "meta"
    batch = torch.zeros(8, 64, device="meta"), torch.zeros(8, dtype=torch.long, device="meta")
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)

    def task_loss(batch: Batch) -> torch.Tensor:
        return functional.cross_entropy(network(batch[0]), batch[1])

    train_triggers(lambda inputs: network(inputs.flatten(1)), optimizer, triggers, [batch], task_loss)
