"""Case 8: blindfold top-Q. A few large true updates draw the verifier's eye; the rest is interpolated.

Source: Fang et al., EuroS&P 2023, and ``blindfold_top_q_attack.py`` of its code. The published verifier repeats the Q
largest updates of an epoch, so exactly Q are made, large and true, and everything after them is a straight line to the
stolen model. It fails here because which segments are replayed is drawn by the verifier, or a later block, and never
depends on anything in the proof.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from challenge.sampling import miss_probability, unpredictable_segments
from challenge.segments import Policy
from challenge.verdict import ExitCode
from pol import TrainingSpec
from pol.data import Dataset
from pol.state import Tensors, model_tensors
from tests.attacks.forging import trained_states, write_forgery
from tests.attacks.judging import judged, rejected
from tests.attacks.published import Log
from tests.attacks.spoofs import convnet_spec, forge, indices_of, line

SEGMENTS, Q = 16, 2
L2_ONLY = {"2": 0.1}


@pytest.fixture(scope="module")
def spec(train_set: Dataset) -> TrainingSpec:
    return convnet_spec(train_set, segments=SEGMENTS, segment_length=4, rate=2.0)


@pytest.fixture(scope="module")
def models(spec: TrainingSpec, stolen: Tensors, train_set: Dataset) -> list[Tensors]:
    """The seed's own start, Q true segments, and a line from there."""
    true = [model_tensors(state) for state in trained_states(first(spec, train_set, Q), train_set)]
    rest = line(first(spec, train_set, SEGMENTS - Q), true[-1], stolen)
    return [*true, *rest[1:]]


def first(spec: TrainingSpec, samples: Dataset, segments: int) -> TrainingSpec:
    return convnet_spec(samples, segments=segments, segment_length=spec.segment_length, rate=2.0)


@pytest.fixture
def spoof(spec: TrainingSpec, models: list[Tensors], train_set: Dataset, tmp_path: Path) -> Path:
    return forge(tmp_path / "proof", spec, train_set, models)


def test_the_published_verifier_accepts_it(spec: TrainingSpec, models: list[Tensors], train_set: Dataset) -> None:
    log = Log(spec=spec, checkpoints=models, batch=lambda step: train_set.columns(indices_of(spec, step)))
    assert log.top(Q, L2_ONLY) == {0, 1}
    assert log.passes_top(Q, L2_ONLY)
    assert not log.passes(L2_ONLY), "all segments it would not"


def test_the_largest_updates_are_true_here_too(spoof: Path) -> None:
    """Chosen by their size, segments would be a poor sample with any method of replay."""
    assert judged(spoof, Policy(segments=[0, 1])).exit_code is ExitCode.VERIFIED


def test_a_random_sample_finds_an_interpolated_segment(spoof: Path) -> None:
    assert miss_probability(SEGMENTS, Q + 1, SEGMENTS - Q) == 0
    verdict = judged(spoof, Policy(segments=Q + 1))
    assert rejected(verdict, ExitCode.REPLAY_MISMATCH, "does not replay to the promised state")


def test_the_draw_knows_nothing_but_numbers() -> None:
    """Over many draws every segment comes up, the interpolated ones as often as the others."""
    counts = [0] * SEGMENTS
    for _ in range(2000):
        for segment in unpredictable_segments(Q, SEGMENTS):
            counts[segment] += 1
    assert all(150 < count < 350 for count in counts), "each is expected 250 times, give or take 15"


def test_the_honest_twin_passes(spec: TrainingSpec, train_set: Dataset, tmp_path: Path) -> None:
    folder = write_forgery(tmp_path / "proof", spec, train_set, trained_states(spec, train_set))
    assert judged(folder, Policy(segments=Q + 1)).exit_code is ExitCode.VERIFIED
