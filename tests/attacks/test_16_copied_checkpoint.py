"""Case 16: a stolen checkpoint, fine-tuned a little and handed in as a whole training.

Source: Jia et al., S&P 2021 (model stealing), and every model hub. Fine-tuning is real training, and cheap; what is
stolen is where it starts. It fails here wherever the stolen weights are put: as the start they are not what the seed
gives, within the run they do not follow from the state before, and as the submitted model they are not the trunk's.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from challenge.segments import Policy
from challenge.verdict import ExitCode
from pol import Submission, TrainingSpec, seal
from pol.cid import cid_of
from pol.data import Dataset, digits
from pol.program import load_program
from pol.state import Tensors, TrainingState, model_tensors, to_safetensors
from pol.tensors import tensors_digest
from tests.attacks.forging import trained_states, write_forgery
from tests.attacks.judging import judged, rejected
from tests.attacks.published import distances
from tests.attacks.spoofs import convnet_spec

SAMPLE = Policy(segments=[0, 1, 18, 19])
TAKEN_AT = 38
"""The step at which the thief replaces its own weights; the run has 40."""


@pytest.fixture(scope="module")
def spec(train_set: Dataset) -> TrainingSpec:
    return convnet_spec(train_set, segments=20, segment_length=2, rate=0.2)


@pytest.fixture(scope="module")
def honest(spec: TrainingSpec, train_set: Dataset) -> list[Tensors]:
    return trained_states(spec, train_set)


@pytest.fixture(scope="module")
def tuned(spec: TrainingSpec, train_set: Dataset, stolen: Tensors) -> list[Tensors]:
    """Fine-tuning from the stolen weights, step by step as promised."""
    return trained_states(spec, train_set, start=stolen)


def sealed(folder: Path, model: Tensors, segment: int = 19) -> Path:
    """The proof with ``model`` submitted as the trunk's after ``segment``."""
    blob = to_safetensors(model)
    mark = Submission(model_digest=tensors_digest(model), model_cid=cid_of(blob), reference_segment=segment)
    seal(folder, mark, blob, None)
    return folder


def test_the_theft_is_worth_it(
    spec: TrainingSpec, honest: list[Tensors], tuned: list[Tensors], stolen: Tensors
) -> None:
    """Better than one's own training, and no longer the same weights."""
    test_set, program = digits("submission-validation"), load_program(spec.program, spec.program_digest)
    mine, theirs = (program.evaluate(model_tensors(run[-1]), spec.config, test_set) for run in (honest, tuned))
    assert theirs > mine + 0.05
    assert distances(spec, model_tensors(tuned[-1]), stolen)["2"] > 0.1


def test_as_the_start_of_the_run(spec: TrainingSpec, tuned: list[Tensors], train_set: Dataset, tmp_path: Path) -> None:
    verdict = judged(write_forgery(tmp_path / "proof", spec, train_set, tuned), SAMPLE)
    assert rejected(verdict, ExitCode.REPLAY_MISMATCH, "does not start from the program's initial state") == {0}
    assert dict(verdict.checks)["replay"] == "3 of 4 replayed segments match bit for bit", "the fine-tuning is true"


@pytest.fixture
def swapped(spec: TrainingSpec, train_set: Dataset, stolen: Tensors, tmp_path: Path) -> Path:
    """All of one's own training, but for its last segment."""

    def take(step: int, state: TrainingState, _batch: list[torch.Tensor]) -> None:
        if step == TAKEN_AT:
            state.model.load_state_dict(stolen)

    return write_forgery(tmp_path / "proof", spec, train_set, trained_states(spec, train_set, cheat=take))


def test_within_the_run(swapped: Path) -> None:
    assert rejected(judged(swapped, SAMPLE), ExitCode.REPLAY_MISMATCH, "does not replay to the promised state") == {19}


def test_the_last_segment_is_never_left_to_chance(swapped: Path) -> None:
    """It is where a theft pays best, so a verifier that draws for itself always adds it, and the first."""
    verdict = judged(swapped, Policy(segments=1))
    assert {0, 19} <= set(verdict.segments)
    assert rejected(verdict, ExitCode.REPLAY_MISMATCH, "does not replay to the promised state") == {19}


def test_as_the_submitted_model(
    spec: TrainingSpec, honest: list[Tensors], tuned: list[Tensors], train_set: Dataset, tmp_path: Path
) -> None:
    """A cheap trunk, honestly trained, and another model beside it."""
    folder = write_forgery(tmp_path / "proof", spec, train_set, honest)
    verdict = judged(sealed(folder, model_tensors(tuned[-1])), SAMPLE)
    rejected(verdict, ExitCode.REPLAY_MISMATCH, "the submitted model is not the trunk's model at the branch")


def test_the_honest_twin_passes(spec: TrainingSpec, honest: list[Tensors], train_set: Dataset, tmp_path: Path) -> None:
    folder = write_forgery(tmp_path / "proof", spec, train_set, honest)
    assert judged(sealed(folder, model_tensors(honest[-1])), SAMPLE).exit_code is ExitCode.VERIFIED
