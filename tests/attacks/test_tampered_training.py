"""One small lie inside training: replay is bitwise, so no change is too small to be seen.

Each cheat commits to the right batches and hyper-parameters, trains with something else before step 15, and goes on
honestly from there. The honest twin is the same run without the lie.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from challenge.verdict import ExitCode, Verdict
from pol.state import TrainingState
from tests.attacks.conftest import CHEAT_SEGMENT, CHEAT_STEP
from tests.runs import Cheat


def only_once(cheat: Callable[[TrainingState, list[torch.Tensor]], None]) -> Cheat:
    def before_step(step: int, state: TrainingState, batch: list[torch.Tensor]) -> None:
        if step == CHEAT_STEP:
            with torch.no_grad():
                cheat(state, batch)

    before_step.__name__ = cheat.__name__
    return before_step


def one_label(_state: TrainingState, batch: list[torch.Tensor]) -> None:
    batch[1] = batch[1].clone()
    batch[1][0] = (batch[1][0] + 1) % 10


def one_pixel(_state: TrainingState, batch: list[torch.Tensor]) -> None:
    batch[0] = batch[0].clone()
    batch[0][0, 20] += 1 / 255


def one_learning_rate(state: TrainingState, _batch: list[torch.Tensor]) -> None:
    state.optimizer.param_groups[0]["lr"] *= 1.0001


def one_optimizer_moment(state: TrainingState, _batch: list[torch.Tensor]) -> None:
    first = state.optimizer.param_groups[0]["params"][0]
    state.optimizer.state[first]["exp_avg"][0, 20] += 1e-6


def one_batch_norm_buffer(state: TrainingState, _batch: list[torch.Tensor]) -> None:
    dict(state.model.named_buffers())["norms.0.running_mean"][0] += 1e-6


def one_generator_state(_state: TrainingState, _batch: list[torch.Tensor]) -> None:
    torch.manual_seed(0)  # other dropout in this one step


def one_weight(state: TrainingState, _batch: list[torch.Tensor]) -> None:
    next(state.model.parameters())[0, 0] += 1e-6


@pytest.mark.parametrize(
    "cheat",
    [
        one_label, one_pixel, one_learning_rate, one_optimizer_moment, one_batch_norm_buffer, one_generator_state,
        one_weight,
    ],
    ids=lambda cheat: cheat.__name__,
)  # fmt: skip
def test_one_lie_is_a_replay_mismatch(caught: Callable[[Cheat], Verdict], cheat) -> None:
    verdict = caught(only_once(cheat))
    assert verdict.exit_code is ExitCode.REPLAY_MISMATCH
    assert min(finding.segment for finding in verdict.findings) == CHEAT_SEGMENT


def test_the_honest_twin_passes(honest_verdict: Verdict) -> None:
    assert honest_verdict.segments == [0, 1, 2, 3]
    assert "all 4 segments" in honest_verdict.strength
