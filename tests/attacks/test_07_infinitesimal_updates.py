"""Case 7: infinitesimal updates. Checkpoints on a straight line, each within the tolerance of the one before.

Source: Fang et al., EuroS&P 2023, and ``infinitesimal_update_attack.py`` of its code. The logged learning rate is next
to nothing, so a replay stays where it was, and that is within the tolerance of the next checkpoint: a proof for one
subtraction a parameter and checkpoint, and no training at all. It fails here because the rate is the program's, not the
log's, and because the tolerance is zero.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from challenge.segments import Policy
from challenge.verdict import ExitCode
from pol import TrainingSpec
from pol.data import Dataset
from pol.encoding import float_text
from pol.state import Tensors, model_tensors
from tests.attacks.forging import built, edit_state, trained_states, write_forgery
from tests.attacks.judging import judged, rejected
from tests.attacks.published import Log, distances, initialisation_passes
from tests.attacks.spoofs import convnet_spec, forge, indices_of, line, rank_remapped

DELTA = 0.008
"""Fang's tolerance, as a share of the distance between two models trained independently."""
NEXT_TO_NOTHING = 1e-12


@pytest.fixture(scope="module")
def tolerance(stolen: Tensors, train_set: Dataset) -> float:
    """Fang's tolerance for this network."""
    other = convnet_spec(train_set, segments=1, segment_length=100)
    independent = model_tensors(trained_states(other, train_set, seed=b"w" * 32)[-1])
    return DELTA * distances(other, stolen, independent)["2"]


@pytest.fixture(scope="module")
def start(stolen: Tensors) -> Tensors:
    return rank_remapped(stolen, torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def spec(tolerance: float, start: Tensors, stolen: Tensors, train_set: Dataset) -> TrainingSpec:
    """As many hops as the tolerance needs."""
    way = distances(convnet_spec(train_set, segments=1), start, stolen)["2"]
    return convnet_spec(train_set, segments=math.ceil(1.01 * way / tolerance))


def test_the_published_verifier_accepts_it(
    spec: TrainingSpec, tolerance: float, start: Tensors, stolen: Tensors, train_set: Dataset
) -> None:
    models = line(spec, start, stolen)
    log = Log(
        spec=spec,
        checkpoints=models,
        batch=lambda step: train_set.columns(indices_of(spec, step)),
        rate=NEXT_TO_NOTHING,
    )
    assert log.passes({"2": tolerance}) and log.passes() and initialisation_passes(models[0])
    assert spec.segments < 150, "a hundred subtractions, and no training"
    half = replace(log, spec=convnet_spec(train_set, segments=spec.segments // 2), checkpoints=models[::2])
    assert not half.passes({"2": tolerance}), "in half as many hops it would not"


@pytest.fixture
def spoof(spec: TrainingSpec, start: Tensors, stolen: Tensors, train_set: Dataset, tmp_path: Path) -> Path:
    return forge(tmp_path / "proof", spec, train_set, line(spec, start, stolen))


def test_one_random_segment_is_enough(spoof: Path) -> None:
    """All are forged, so the draw does not matter."""
    verdict = judged(spoof, Policy(segments=1))
    found = rejected(verdict, ExitCode.REPLAY_MISMATCH, "does not replay to the promised state")
    assert found == set(verdict.segments)


def test_a_logged_rate_is_not_the_programs(spoof: Path, spec: TrainingSpec) -> None:
    """The rate that would make the hops true, written where the published verifier reads it."""
    state = built(spec)
    state.advance_schedule(10)
    rate = float_text(state.optimizer.param_groups[0]["lr"]).encode()

    def smuggle(tensors: Tensors) -> None:
        text = bytes(tensors["scalars"].tolist())
        assert rate in text
        forged = text.replace(rate, float_text(NEXT_TO_NOTHING).encode())
        tensors["scalars"] = torch.frombuffer(bytearray(forged), dtype=torch.uint8)

    edit_state(spoof, 9, smuggle)
    verdict = judged(spoof, Policy(segments=[10]))
    assert rejected(verdict, ExitCode.REPLAY_MISMATCH, "scalars is not what the program and the seed give") == {10}


def test_the_honest_twin_passes(spec: TrainingSpec, train_set: Dataset, tmp_path: Path) -> None:
    folder = write_forgery(tmp_path / "proof", spec, train_set, trained_states(spec, train_set))
    assert judged(folder, Policy(segments=1)).exit_code is ExitCode.VERIFIED
