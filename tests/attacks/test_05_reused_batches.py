"""Case 5: one optimised batch for all steps between two checkpoints (Zhang's attack III).

Source: Zhang et al., S&P 2022, attack III, and ``spoof_attack3.py`` of its code: as attack II, but only one large batch
is optimised for each checkpoint and then cut into the k batches of its steps, or used k times over, which makes the
spoof k times cheaper and beats shorter checkpoint intervals. It fails here because the order of the data follows from
the seed: a sample comes once a pass, and its place and its bytes are committed to.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from challenge.segments import Policy
from challenge.verdict import ExitCode
from pol import TrainingSpec
from pol.data import Dataset
from pol.state import Tensors
from tests.attacks.forging import trained_states, write_forgery
from tests.attacks.judging import judged, rejected
from tests.attacks.published import Log, parameters
from tests.attacks.spoofs import (
    at,
    convnet_spec,
    forge,
    indices_of,
    line,
    noise_for,
    rank_remapped,
    with_noise,
)

SAMPLE = Policy(segments=[1, 10, 19])


@pytest.fixture(scope="module")
def spec(train_set: Dataset) -> TrainingSpec:
    return convnet_spec(train_set, segments=20, segment_length=2, rate=0.2)


@pytest.fixture(scope="module")
def models(spec: TrainingSpec, stolen: Tensors) -> list[Tensors]:
    return line(spec, rank_remapped(stolen, torch.Generator().manual_seed(0)), stolen)


@pytest.fixture(scope="module")
def cut(spec: TrainingSpec, models: list[Tensors], train_set: Dataset) -> Dataset:
    """One optimisation a segment, over the samples of all its steps."""
    found = train_set
    for index in range(spec.segments):
        start, end = spec.bounds(index)
        rows = [row for step in range(start, end) for row in indices_of(spec, step)]
        nowhere = torch.zeros_like(parameters(spec, models[index]))
        state = at(spec, start, models[index])
        found = with_noise(found, rows, noise_for(state, *train_set.columns(rows), nowhere, iterations=5))
    return found


def first_of_segment(spec: TrainingSpec, step: int) -> tuple[int, ...]:
    """The batch of the segment's first step, whatever the step."""
    return indices_of(spec, step - step % spec.segment_length)


def test_the_published_verifier_accepts_both(spec: TrainingSpec, models: list[Tensors], cut: Dataset) -> None:
    assert Log(spec=spec, checkpoints=models, batch=lambda step: cut.columns(indices_of(spec, step))).passes()
    assert Log(spec=spec, checkpoints=models, batch=lambda step: cut.columns(first_of_segment(spec, step))).passes()


def test_a_cut_batch_is_not_the_committed_one(
    spec: TrainingSpec, models: list[Tensors], cut: Dataset, tmp_path: Path
) -> None:
    verdict = judged(forge(tmp_path / "proof", spec, cut, models), SAMPLE)
    assert rejected(verdict, ExitCode.REPLAY_MISMATCH, "not trained on the committed batches") == {1, 10, 19}


def test_a_repeated_batch_is_not_the_orders(
    spec: TrainingSpec, models: list[Tensors], train_set: Dataset, tmp_path: Path
) -> None:
    """Not a byte of the data is changed; only the order is the thief's."""
    folder = forge(tmp_path / "proof", spec, train_set, models, batches=lambda step: first_of_segment(spec, step))
    verdict = judged(folder, SAMPLE)
    assert rejected(verdict, ExitCode.REPLAY_MISMATCH, "not trained on the committed batches") == {1, 10, 19}


def test_training_on_one_batch_twice_is_rejected_even_if_really_done(
    spec: TrainingSpec, train_set: Dataset, tmp_path: Path
) -> None:
    kept: list[torch.Tensor] = []

    def twice(step: int, _state: object, batch: list[torch.Tensor]) -> None:
        kept[:] = kept if step % 2 else batch
        batch[:] = kept

    states = trained_states(spec, train_set, cheat=twice)
    verdict = judged(write_forgery(tmp_path / "proof", spec, train_set, states), SAMPLE)
    assert rejected(verdict, ExitCode.REPLAY_MISMATCH, "does not replay to the promised state") == {1, 10, 19}


def test_in_the_committed_order_no_sample_comes_twice_in_a_pass(spec: TrainingSpec) -> None:
    steps = spec.dataset_size // spec.batch_size
    seen = [row for step in range(steps) for row in indices_of(spec, step)]
    assert len(set(seen)) == len(seen) == steps * spec.batch_size


def test_the_honest_twin_passes(spec: TrainingSpec, train_set: Dataset, tmp_path: Path) -> None:
    folder = write_forgery(tmp_path / "proof", spec, train_set, trained_states(spec, train_set))
    assert judged(folder, SAMPLE).exit_code is ExitCode.VERIFIED
