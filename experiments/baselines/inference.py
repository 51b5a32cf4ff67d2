"""Dataset inference (Maini et al. 2021, ICLR): was the suspect trained on the owner's data?

The distance of a sample to the boundary of the suspect's decisions is larger for samples it learned from. Blind Walk
(section 5.2) measures it with labels only: from each sample, along random directions, how many steps leave the label
intact. A regression, fitted on the released model's walks from private and public samples, turns the distances into a
confidence; a one-sided Welch test compares private with public ones on the suspect.

Simplified: 5 directions of one kind of noise (uniform signs) where the paper has 30 of three kinds, and a logistic
regression where it has a network of two layers. The test asks for the data, not for the model: whoever trained on the
same data is accused, and in this platform all trainers of a task do.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from scipy.stats import ttest_ind
from sklearn.linear_model import LogisticRegression
from torch import nn

from experiments.attacks.attack import CLASSIFIERS
from experiments.attacks.networks import query
from experiments.baselines.scheme import Owner, Part, Reader, Reading


@dataclass(frozen=True, slots=True)
class DatasetInference:
    """A test on ``samples`` private and as many public samples; ``fitted_on`` of each fit the regression."""

    samples: int = 50
    fitted_on: int = 150
    directions: int = 5
    step: float = 0.1
    steps: int = 20

    black_box: ClassVar[bool] = True

    def applies(self, owner: Owner) -> bool:
        """To classifiers."""
        return owner.kind in CLASSIFIERS

    def mark(self, owner: Owner, model: nn.Module) -> nn.Module:
        """Nothing is embedded."""
        return model

    def reader(self, owner: Owner, released: nn.Module) -> Reader:
        """Fits the regression on the released model, and tests suspects with it."""
        private, public = (self._chosen(part, owner.seed) for part in (owner.private, owner.public))
        count = min(self.fitted_on, len(public) // 2)
        walks = [self._walks(released, part.take(count), owner.seed) for part in (private, public)]
        labels = torch.cat([torch.ones(count), torch.zeros(count)])
        regression = LogisticRegression(max_iter=1000).fit(torch.cat(walks).numpy(), labels.numpy())

        def read(suspect: nn.Module) -> Reading:
            last = [Part(p.inputs[-self.samples :], p.targets[-self.samples :]) for p in (private, public)]
            ours, theirs = (regression.decision_function(self._walks(suspect, p, owner.seed).numpy()) for p in last)
            return Reading(-_log2_p(ours, theirs))

        return read

    def _chosen(self, part: Part, seed: int) -> Part:
        order = torch.randperm(len(part), generator=torch.Generator().manual_seed(seed))
        kept = order[: self.fitted_on + self.samples]
        return Part(part.inputs[kept], part.targets[kept])

    def _walks(self, model: nn.Module, part: Part, seed: int) -> torch.Tensor:
        """Steps [n, directions] until the label changes (at most ``steps``; none where it is wrong from the start)."""
        generator = torch.Generator().manual_seed(seed)
        shape = (self.directions, *part.inputs.shape[1:])
        ways = torch.randint(2, shape, generator=generator).to(part.inputs.dtype) * 2 - 1
        rows = []
        for way in ways:
            walking = torch.ones(len(part), dtype=torch.bool)
            length = torch.zeros(len(part))
            for count in range(self.steps):
                predicted = query(model, part.inputs + count * self.step * way).argmax(dim=1)
                walking &= predicted == part.targets
                length += walking
                if not walking.any():
                    break
            rows.append(length)
        return torch.stack(rows, dim=1).sort(dim=1).values  # directions are alike: only their order statistics tell


def _log2_p(ours: Any, theirs: Any) -> float:
    """log2 of the one-sided Welch test's p-value; 0 where it cannot be worked out."""
    p = float(ttest_ind(ours, theirs, equal_var=False, alternative="greater").pvalue)
    return math.log2(max(p, 1e-300)) if math.isfinite(p) else 0.0
