"""Case 4: batches optimised to have no gradient, between checkpoints on a straight line (Zhang's attack II).

Source: Zhang et al., S&P 2022, attack II, and ``spoof_attack2.py`` of its code. The checkpoints are put on a line to
the stolen weights, closer together than the verifier's tolerance; L-BFGS finds noise for every batch in between that
makes its gradient vanish, so a replay stays where it is, within the tolerance of the next checkpoint. It fails here
because noised batches do not open to the committed samples, and because there is no tolerance to hide a hop in.
"""

from __future__ import annotations

from pathlib import Path
from statistics import median

import pytest
import torch

from challenge.segments import Policy
from challenge.verdict import ExitCode
from pol import TrainingSpec
from pol.data import Dataset
from pol.program import load_program
from pol.state import Tensors
from tests.attacks.forging import trained_states, write_forgery
from tests.attacks.judging import judged, rejected
from tests.attacks.published import THRESHOLDS, Log, parameters
from tests.attacks.spoofs import (
    at,
    convnet_spec,
    forge,
    gradient,
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
def noised(spec: TrainingSpec, models: list[Tensors], train_set: Dataset) -> Dataset:
    found, program = train_set, load_program(spec.program, spec.program_digest)
    for index in range(spec.segments):
        start, end = spec.bounds(index)
        state = at(spec, start, models[index])
        for step in range(start, end):
            rows = indices_of(spec, step)
            nowhere = torch.zeros_like(parameters(spec, models[index]))
            found = with_noise(found, rows, noise_for(state, *train_set.columns(rows), nowhere, iterations=5))
            program.train_step(state, found.columns(rows))
    return found


def test_the_noise_takes_the_gradient_away(
    spec: TrainingSpec, models: list[Tensors], noised: Dataset, train_set: Dataset
) -> None:
    left = []
    for index in range(spec.segments):
        state, rows = at(spec, 2 * index, models[index]), indices_of(spec, 2 * index)
        before, after = (float(gradient(state, *data.columns(rows)).norm()) for data in (train_set, noised))
        left.append(after / before)
    assert median(left) < 0.6


def test_the_published_verifier_accepts_it(spec: TrainingSpec, models: list[Tensors], noised: Dataset) -> None:
    log = Log(spec=spec, checkpoints=models, batch=lambda step: noised.columns(indices_of(spec, step)))
    assert log.passes()
    few = convnet_spec(noised, segments=4, segment_length=2, rate=0.2)
    coarse = Log(spec=few, checkpoints=models[::5], batch=log.batch)
    assert not coarse.passes(), "longer hops it would not"
    assert max(coarse.move(index)["inf"] for index in range(4)) > THRESHOLDS["inf"]


def test_noised_batches_are_not_the_committed_ones(
    spec: TrainingSpec, models: list[Tensors], noised: Dataset, tmp_path: Path
) -> None:
    verdict = judged(forge(tmp_path / "proof", spec, noised, models), SAMPLE)
    assert rejected(verdict, ExitCode.REPLAY_MISMATCH, "not trained on the committed batches") == {1, 10, 19}


def test_a_hop_is_not_a_replay(spec: TrainingSpec, models: list[Tensors], train_set: Dataset, tmp_path: Path) -> None:
    verdict = judged(forge(tmp_path / "proof", spec, train_set, models), SAMPLE)
    assert rejected(verdict, ExitCode.REPLAY_MISMATCH, "does not replay to the promised state") == {1, 10, 19}


def test_the_honest_twin_passes(spec: TrainingSpec, train_set: Dataset, tmp_path: Path) -> None:
    folder = write_forgery(tmp_path / "proof", spec, train_set, trained_states(spec, train_set))
    assert judged(folder, SAMPLE).exit_code is ExitCode.VERIFIED
