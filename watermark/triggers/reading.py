"""Reading a mark from a model's answers alone: for each trigger, which label its answer leans to.

The answers are read beside those of theta_ref: both are centred over the triggers of a label and the labels of a
trigger, and the multiple of theta_ref's that fits best is taken away. What is left is what the suspect says beyond
theta_ref, whatever the temperature and the biases of its outputs; its largest entry is the label read. That takes a
function of (seeds, theta_ref, suspect) only, and labels are drawn evenly from beta, so an innocent's hits are exactly
Bin(N, 1 / classes). Ties and answers that are not finite are misses.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from pol.errors import SpecError
from watermark.bits import trigger_label
from watermark.evidence import Trials
from watermark.key import Leaf, LeafOpening
from watermark.triggers.inputs import candidates, trigger_inputs
from watermark.triggers.parameters import Images, TriggerMark

Answers: TypeAlias = Callable[[torch.Tensor], torch.Tensor]
"""Inputs [n, ...] to logits [n, outputs]: a classifier's, or a language model's of the token after each window."""
Array: TypeAlias = npt.NDArray[np.float64]

BATCH: Final = 256


@dataclass(frozen=True, eq=False)
class Triggers:
    """Some leaves' ``inputs`` [n, ...], ``candidates`` [n, classes] (which outputs count), and ``labels`` [n].

    A label is a number in ``range(classes)``; it names the output ``candidates[i, labels[i]]``.
    """

    inputs: torch.Tensor
    candidates: torch.Tensor
    labels: torch.Tensor

    @classmethod
    def make(cls, leaves: Sequence[Leaf | LeafOpening], beta: bytes, key_root: bytes, mark: TriggerMark) -> Triggers:
        """The triggers of ``leaves``, in their order."""
        labels = [trigger_label(beta, key_root, leaf.index, leaf.seed, mark.classes) for leaf in leaves]
        choices = [candidates(leaf.seed, mark) for leaf in leaves]
        return cls(trigger_inputs([leaf.seed for leaf in leaves], mark), torch.tensor(choices), torch.tensor(labels))

    def part(self, some: torch.Tensor) -> Triggers:
        """The triggers with these numbers."""
        return Triggers(self.inputs[some], self.candidates[some], self.labels[some])

    def chosen(self, logits: torch.Tensor) -> torch.Tensor:
        """The candidates' logits [n, classes], out of a model's answers [n, outputs] to the inputs."""
        return logits.gather(1, self.candidates.to(logits.device))


def trigger_matches(
    suspect: Answers,
    theta_ref: Answers,
    leaves: Sequence[Leaf | LeafOpening],
    beta: bytes,
    key_root: bytes,
    mark: TriggerMark,
) -> int:
    """How many of these leaves' labels the suspect gives; the null hypothesis is :func:`trigger_null`.

    Both callables get inputs as :func:`watermark.triggers.inputs.trigger_inputs` makes them, at most 256 at a time, and
    must be in evaluation mode. The centring wants many leaves: one alone is never a hit. Raises :class:`SpecError` if a
    model does not answer with [n, outputs], as many outputs as there are classes (images) or at least as many as the
    vocabulary has tokens (windows).
    """
    if not leaves:
        return 0
    triggers = Triggers.make(leaves, beta, key_root, mark)
    said, before = (
        _answers(model, triggers, mark, where) for model, where in ((suspect, "the suspect"), (theta_ref, "theta_ref"))
    )
    return int((_read(said, before) == triggers.labels.numpy()).sum())


def trigger_null(mark: TriggerMark, trials: int) -> tuple[Trials, ...]:
    """What an innocent model does: ``trials`` labels, each right with probability one over the number of classes."""
    return (Trials(Fraction(1, mark.classes), trials),)


def _answers(model: Answers, triggers: Triggers, mark: TriggerMark, where: str) -> Array:
    rows = []
    with torch.no_grad():
        for start in range(0, len(triggers.labels), BATCH):
            some = triggers.part(torch.arange(start, min(start + BATCH, len(triggers.labels))))
            logits = model(some.inputs)
            if not _comparable(logits, len(some.labels), mark):
                raise SpecError(f"{where} answers triggers with shape {tuple(logits.shape)}, which cannot be compared")
            rows.append(some.chosen(logits).to("cpu", torch.float64))
    answers: Array = torch.cat(rows).numpy()
    return answers


def _comparable(logits: torch.Tensor, count: int, mark: TriggerMark) -> bool:
    if logits.dim() != 2 or len(logits) != count or not logits.is_floating_point():
        return False
    outputs = logits.shape[1]
    return outputs == mark.classes if isinstance(mark.inputs, Images) else outputs >= mark.inputs.vocabulary


def _read(suspect: Array, reference: Array) -> npt.NDArray[np.intp]:
    """The label read for each trigger, from [n, classes] answers; -1 where there is none."""
    finite = np.isfinite(suspect).all(1) & np.isfinite(reference).all(1)
    labels = np.full(len(suspect), -1, dtype=np.intp)
    if not finite.any():
        return labels
    with np.errstate(all="ignore"):  # overflow in hostile answers: what it spoils is not finite, a miss
        said, before = _centred(suspect[finite]), _centred(reference[finite])
        beyond = said - before * (np.vdot(said, before) / max(np.vdot(before, before), np.finfo(np.float64).tiny))
    best = beyond.max(axis=1, keepdims=True)
    clear = np.isfinite(beyond).all(axis=1) & ((beyond == best).sum(axis=1) == 1)
    labels[finite] = np.where(clear, beyond.argmax(axis=1), -1)
    return labels


def _centred(answers: Array) -> Array:
    rows = answers - answers.mean(axis=1, keepdims=True)
    centred: Array = rows - rows.mean(axis=0, keepdims=True)
    return centred
