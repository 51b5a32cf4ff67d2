"""The verifier of Jia et al. (S&P 2021) as published: the control that shows that an attack on it is a real one.

After ``verify.py`` and ``utils.py`` of github.com/cleverhans-lab/Proof-of-Learning, commit c286c7c: a test of the
initial weights' distribution, and the training between two checkpoints repeated on the prover's own batches, with the
prover's own optimizer settings, then compared within fixed thresholds. Only parameters are compared, not buffers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from scipy import stats

from pol import TrainingSpec
from pol.data import Batch
from pol.program import load_program
from pol.state import Tensors
from tests.attacks.forging import built

THRESHOLDS = {"1": 1000.0, "2": 10.0, "inf": 0.1, "cos": 0.01}
"""Its defaults, absolute and the same for every model."""
SIGNIFICANCE = 0.01


@dataclass(frozen=True, kw_only=True)
class Log:
    """What a prover hands in: a model at every boundary of ``spec``, and the batch it says each step was taken on.

    ``rate`` is the learning rate in the checkpoints' optimizer state, which the verifier loads and uses; None is the
    program's.
    """

    spec: TrainingSpec
    checkpoints: Sequence[Tensors]
    batch: Callable[[int], Batch]
    rate: float | None = None

    def replayed(self, index: int) -> Tensors:
        """What training segment ``index`` again gives."""
        state = built(self.spec)
        program = load_program(self.spec.program, self.spec.program_digest)
        state.model.load_state_dict(self.checkpoints[index])
        start, end = self.spec.bounds(index)
        state.advance_schedule(start)
        for step in range(start, end):
            if self.rate is not None:
                state.optimizer.param_groups[0]["lr"] = self.rate
            program.train_step(state, self.batch(step))
        return state.model.state_dict()

    def move(self, index: int) -> dict[str, float]:
        """How far apart the two ends of a segment are."""
        return distances(self.spec, self.checkpoints[index], self.checkpoints[index + 1])

    def error(self, index: int) -> dict[str, float]:
        """How far the replay of a segment ends from its checkpoint."""
        return distances(self.spec, self.checkpoints[index + 1], self.replayed(index))

    def segment_passes(self, index: int, thresholds: Mapping[str, float] = THRESHOLDS) -> bool:
        """Whether no distance is over its threshold (``np.sum(distance > threshold) == 0``)."""
        error = self.error(index)
        return not any(error[norm] > threshold for norm, threshold in thresholds.items())

    def passes(self, thresholds: Mapping[str, float] = THRESHOLDS) -> bool:
        """``verify_all``: every segment is repeated."""
        return all(self.segment_passes(index, thresholds) for index in range(self.spec.segments))

    def passes_top(self, q: int, thresholds: Mapping[str, float] = THRESHOLDS) -> bool:
        """``verify_topq``, one epoch: only the ``q`` largest moves are repeated, the union over the norms."""
        return all(self.segment_passes(index, thresholds) for index in self.top(q, thresholds))

    def top(self, q: int, thresholds: Mapping[str, float] = THRESHOLDS) -> set[int]:
        """Which segments ``verify_topq`` repeats."""
        moves = [self.move(index) for index in range(self.spec.segments)]
        ranked = [sorted(range(len(moves)), key=lambda index: moves[index][norm])[-q:] for norm in thresholds]
        return {index for indices in ranked for index in indices}


def distances(spec: TrainingSpec, mine: Tensors, other: Tensors) -> dict[str, float]:
    """``parameter_distance``: L1, L2, L-infinity and the cosine (the paper's; the code divides by one length twice)."""
    a, b = parameters(spec, mine), parameters(spec, other)
    norms = {norm: float(torch.linalg.vector_norm(a - b, ord=float(norm))) for norm in ("1", "2", "inf")}
    return norms | {"cos": float(1 - torch.dot(a, b) / (a.norm() * b.norm()))}


def parameters(spec: TrainingSpec, model: Tensors) -> torch.Tensor:
    """``get_parameters``: all parameters as one vector; buffers are left out."""
    return torch.cat([model[name].reshape(-1) for name, _ in built(spec).model.named_parameters()])


def initialisation_passes(model: Tensors) -> bool:
    """``verify_initialization`` for torch's default initialisation: no layer's p-value is under 0.01."""
    return min(p_values(model).values()) >= SIGNIFICANCE


def p_values(model: Tensors) -> dict[str, float]:
    """The p-value of each layer's weights: do they look drawn from U(-1/sqrt(fan in), 1/sqrt(fan in))?"""
    return {name: p_value(value) for name, value in model.items() if value.dim() > 1}


def p_value(weight: torch.Tensor) -> float:
    """The Kolmogorov-Smirnov test of one layer's weights against torch's default initialisation."""
    bound = 1 / math.sqrt(weight[0].numel())
    return float(stats.kstest(weight.reshape(-1).numpy(), stats.uniform(-bound, 2 * bound).cdf).pvalue)
