"""The triggers channel."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import ClassVar, Final

import torch
from torch import nn

from experiments.attacks.attack import CLASSIFIERS, Kind
from experiments.attacks.networks import copied, outputs_of
from experiments.baselines.scheme import Owner, Reader, Reading
from experiments.stolen_model.channels.shared import LEAVES, Coins, beta_of, reading_of, secret
from pol.errors import SpecError
from watermark import Evidence, WatermarkKey
from watermark.triggers import Answers, Images, TriggerMark, Windows, train_triggers, trigger_matches, trigger_null
from watermark.triggers import Triggers as TriggerInputs
from watermark.triggers.inputs import trigger_inputs
from watermark.triggers.parameters import FULL
from watermark.triggers.train import NOISE

TOKENS: Final = 256
"""Tokens of the language models here, which read bytes."""


@dataclass(frozen=True, slots=True)
class Triggers:
    """Inputs and labels from the key, trained in with a margin; all of them are opened.

    ``leaves`` triggers, trained for ``steps`` steps from ``rate`` times the rate of the training down to none, with
    ``percent`` of their loss beside the task's and weights shaken by ``noise``.
    """

    leaves: int
    steps: int
    rate: float
    noise: float = NOISE
    percent: int = FULL
    black_box: ClassVar[bool] = True
    kinds: ClassVar[tuple[Kind, ...]] = (*CLASSIFIERS, "transformer")

    def applies(self, owner: Owner) -> bool:
        """To classifiers and language models."""
        return owner.kind in self.kinds

    def at(self, strength: float) -> Triggers:
        """The same: labels have no strength."""
        return self

    def mark(self, owner: Owner, model: nn.Module) -> nn.Module:
        """``model`` trained on, with the triggers beside the task."""
        setting, marked = owner.setting, copied(model)
        optimizer = setting.optimizer(marked.parameters(), self.rate * setting.rate)
        steps = max(1, round(self.steps * setting.effort))
        fall = torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=1.0, end_factor=0.0, total_iters=steps)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(owner.seed)
            train_triggers(
                _answers(marked, owner), optimizer, self._triggers(owner), self._batches(owner, steps),
                lambda batch: setting.loss(marked.train()(batch[0]), batch[1]), scheduler=fall,
                noise=self.noise, weight=self.percent / FULL,
            )  # fmt: skip
        return marked.eval()

    def reader(self, owner: Owner, released: nn.Module) -> Reader:
        """Asks for the answers to all triggers and counts the labels."""
        mark, key = self.parameters(owner), self._key(owner)

        def read(suspect: nn.Module) -> Reading:
            ask, before = _answers(suspect, owner), _answers(owner.model, owner)
            try:
                matches = trigger_matches(ask, before, key.leaves, beta_of(owner.seed), key.root, mark)
            except SpecError:  # answers of another shape: a miss
                matches = 0
            return reading_of(Evidence(matches, self.leaves, channel="triggers", null=trigger_null(mark, self.leaves)))

        return read

    def null(self, owner: Owner, innocent: nn.Module, keys: range) -> Coins:
        """See :class:`Channel`."""
        mark, ask, before = self.parameters(owner), _answers(innocent, owner), _answers(owner.model, owner)
        counts = []
        for number in keys:
            key = self._key(replace(owner, seed=number))
            counts.append(trigger_matches(ask, before, key.leaves, beta_of(owner.seed), key.root, mark))
        return Coins(counts, self.leaves, Fraction(1, mark.classes))

    def fields(self, owner: Owner, count: int) -> torch.Tensor:
        """``count`` inputs of the triggers' kind, of a key that nobody has, in the shape of the data."""
        return self._inputs(owner, WatermarkKey(secret(owner.seed, b"fields"), count))

    def inputs(self, owner: Owner) -> torch.Tensor:
        """The trigger inputs, in the shape of the data."""
        return self._inputs(owner, self._key(owner))

    def _inputs(self, owner: Owner, key: WatermarkKey) -> torch.Tensor:
        inputs = trigger_inputs([leaf.seed for leaf in key.leaves], self.parameters(owner))
        return inputs.reshape(len(inputs), *owner.private.inputs.shape[1:])

    def _triggers(self, owner: Owner) -> TriggerInputs:
        key = self._key(owner)
        return TriggerInputs.make(key.leaves, beta_of(owner.seed), key.root, self.parameters(owner))

    def _batches(self, owner: Owner, steps: int) -> Iterator[tuple[torch.Tensor, ...]]:
        for _ in range(steps):
            rows = torch.randint(len(owner.private), (owner.setting.batch,))
            yield owner.private.inputs[rows], owner.private.targets[rows]

    def parameters(self, owner: Owner) -> TriggerMark:
        """See :class:`Channel`."""
        if owner.kind in CLASSIFIERS:
            classes = int(owner.private.targets.max()) + 1
            images = Images(*(owner.setting.shape or ()))
            return TriggerMark(images, classes, self.leaves // LEAVES, LEAVES, self.percent)
        windows = Windows(vocabulary=TOKENS, context=owner.private.inputs.shape[1])
        return TriggerMark(windows, 10, self.leaves // LEAVES, LEAVES, self.percent)

    def _key(self, owner: Owner) -> WatermarkKey:
        return WatermarkKey(secret(owner.seed, b"triggers"), self.leaves)


def _answers(model: nn.Module, owner: Owner) -> Answers:
    """The logits [n, outputs] of ``model`` for trigger inputs; a language model's are those after the window."""
    shape = owner.private.inputs.shape[1:]

    def answer(inputs: torch.Tensor) -> torch.Tensor:
        logits = outputs_of(model.eval(), inputs.reshape(len(inputs), *shape))
        return logits[:, -1] if logits.dim() == 3 else logits

    return answer
