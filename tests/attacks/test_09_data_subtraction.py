"""Case 9: data subtraction. Promised steps, batches or samples are left out of the training.

Source: Choi, Shavit and Duvenaud, NeurIPS 2023. The whole data set is committed to and named in every batch, but rows
are dropped, a batch is used again, steps are skipped. Within a tolerance that lets honest machines differ a missing row
cannot be seen. It fails here because a step that saw anything else ends in other bits.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from challenge.verdict import ExitCode, Verdict
from pol.data import Dataset, digits
from pol.errors import RecordingError
from pol.order import DataOrder
from pol.recorder import COMPARED_STEPS
from pol.state import TrainingState, model_tensors
from tests.attacks.forging import trained_states, write_forgery
from tests.attacks.judging import judged, rejected
from tests.attacks.published import Log
from tests.attacks.spoofs import convnet_spec, indices_of
from tests.runs import SEED, Cheat, record, small_spec

HIDDEN = 240
"""The samples before this one are a fifth of the data."""


def one_row_dropped(step: int, _state: TrainingState, batch: list[torch.Tensor]) -> None:
    if step == 15:
        batch[:] = [values[1:] for values in batch]


def one_batch_used_again(step: int, _state: TrainingState, batch: list[torch.Tensor]) -> None:
    if step == 15:
        batch[:] = digits("train").batch(DataOrder(SEED, 1197, 32).batch(14))


def last_step_of_a_segment_skipped(step: int, state: TrainingState, _batch: list[torch.Tensor]) -> None:
    if step == 19:
        state.optimizer.step = lambda: None
    if step == 20:
        del state.optimizer.step


def a_fifth_of_the_data_never_seen(step: int, _state: TrainingState, batch: list[torch.Tensor]) -> None:
    seen = [row >= HIDDEN for row in DataOrder(SEED, 1197, 32).batch(step)]
    batch[:] = [values[torch.tensor(seen)] for values in batch]


def lazy() -> Cheat:
    """Steps are counted and anchored, but the weights are put back before each."""
    kept: dict[str, torch.Tensor] = {}

    def cheat(step: int, state: TrainingState, _batch: list[torch.Tensor]) -> None:
        if step == 10:
            kept.update({name: value.clone() for name, value in state.model.state_dict().items()})
        if 10 < step < 20:
            state.model.load_state_dict(kept)

    return cheat


def one_easy_batch(first_step: int) -> Cheat:
    """The committed batches are named; the first one is trained on again and again."""
    kept: list[torch.Tensor] = []

    def cheat(step: int, _state: TrainingState, batch: list[torch.Tensor]) -> None:
        kept.extend(batch if not kept else [])
        batch[:] = kept if step >= first_step else batch

    return cheat


CHEATS = {
    "one row dropped": (one_row_dropped, {1}),
    "one batch used again": (one_batch_used_again, {1}),
    "the last step of a segment skipped": (last_step_of_a_segment_skipped, {1}),
    "a fifth of the data never seen": (a_fifth_of_the_data_never_seen, {0, 1, 2, 3}),
    "a lazy segment": (lazy(), {1}),
    "one easy batch throughout": (one_easy_batch(0), {0, 1, 2, 3}),
}


@pytest.mark.parametrize(("cheat", "segments"), CHEATS.values(), ids=CHEATS)
def test_what_was_left_out_shows_in_its_own_segment(
    train_set: Dataset, tmp_path: Path, cheat: Cheat, segments: set[int]
) -> None:
    """All states are handed in, so each segment is judged for itself, and honest ones pass."""
    spec = small_spec(train_set)
    states = trained_states(spec, train_set, cheat=cheat)
    verdict = judged(write_forgery(tmp_path / "proof", spec, train_set, states))
    assert rejected(verdict, ExitCode.REPLAY_MISMATCH, "does not replay to the promised state") == segments
    assert len(verdict.findings) == len(segments)


def test_a_recorded_lazy_segment_is_a_replay_mismatch(caught: Callable[[Cheat], Verdict]) -> None:
    assert rejected(caught(lazy()), ExitCode.REPLAY_MISMATCH, "does not replay to the promised state") == {1}


def test_a_recorded_easy_batch_is_a_replay_mismatch(caught: Callable[[Cheat], Verdict]) -> None:
    """Two of four states are stored: each span is followed to its first difference."""
    verdict = caught(one_easy_batch(COMPARED_STEPS))
    assert rejected(verdict, ExitCode.REPLAY_MISMATCH, "does not replay to the promised state") == {0, 2}


def test_the_recorder_notices_a_loop_that_leaves_out_batches_or_steps(train_set: Dataset, tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="computed something else"):
        record(small_spec(train_set), train_set, tmp_path / "batches", one_easy_batch(0))
    with pytest.raises(RecordingError, match="the optimizer has stepped 19 times in all"):
        record(small_spec(train_set), train_set, tmp_path / "steps", last_step_of_a_segment_skipped)


def test_a_tolerance_does_not_see_the_missing_row(train_set: Dataset) -> None:
    """Five steps of the small network, one of 160 rows dropped: the published verifier accepts."""
    spec = convnet_spec(train_set, segments=1, segment_length=5, rate=0.2)

    def drop(step: int, _state: TrainingState, batch: list[torch.Tensor]) -> None:
        batch[:] = [values[1:] for values in batch] if step == 2 else batch

    models = [model_tensors(state) for state in trained_states(spec, train_set, cheat=drop)]
    log = Log(spec=spec, checkpoints=models, batch=lambda step: train_set.batch(indices_of(spec, step)))
    assert log.error(0)["2"] > 0 and log.passes()


def test_the_honest_twin_passes(train_set: Dataset, tmp_path: Path, honest_verdict: Verdict) -> None:
    spec = small_spec(train_set)
    verdict = judged(write_forgery(tmp_path / "proof", spec, train_set, trained_states(spec, train_set)))
    assert verdict.exit_code is honest_verdict.exit_code is ExitCode.VERIFIED
