"""Training that never happened, or not as often as promised."""

from __future__ import annotations

from collections.abc import Callable

import torch

from challenge.verdict import ExitCode, Verdict
from pol.state import TrainingState
from tests.runs import Cheat


def test_a_segment_of_nothing_is_a_replay_mismatch(caught: Callable[[Cheat], Verdict]) -> None:
    """Steps are counted and anchored, but the weights are put back before each: lazy training."""
    kept: dict[str, torch.Tensor] = {}

    def lazy(step: int, state: TrainingState, _batch: list[torch.Tensor]) -> None:
        if step == 10:
            kept.update({name: value.clone() for name, value in state.model.state_dict().items()})
        if 10 < step < 20:
            state.model.load_state_dict(kept)

    verdict = caught(lazy)
    assert verdict.exit_code is ExitCode.REPLAY_MISMATCH
    assert {finding.segment for finding in verdict.findings} == {1}


def test_repeating_one_easy_batch_is_a_replay_mismatch(caught: Callable[[Cheat], Verdict]) -> None:
    """Data subtraction: the committed batches are named, the first one is trained on again and again."""
    first: list[torch.Tensor] = []

    def repeat(_step: int, _state: TrainingState, batch: list[torch.Tensor]) -> None:
        first.extend(batch[:] if not first else [])
        batch[:] = first

    verdict = caught(repeat)
    assert verdict.exit_code is ExitCode.REPLAY_MISMATCH
    assert {finding.segment for finding in verdict.findings} == {0, 2}, "each span is followed to its first difference"
