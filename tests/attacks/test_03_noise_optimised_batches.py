"""Case 3: batches optimised so that one step goes where the thief wants it to (Zhang's attack I).

Source: Zhang et al., S&P 2022, attack I, and ``spoof_attack1.py`` of its code: for two neighbouring weights W and W' on
the way to the stolen model, L-BFGS finds noise R on a real batch X with W - rate * gradient(X + R) near W'. Images that
look unchanged then "explain" every step. It fails here because a batch opens to samples that were committed to before
the initial weights and the order of the data could be known, and because near is not equal.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

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


@dataclass(frozen=True)
class Spoof:
    spec: TrainingSpec
    models: list[Tensors]
    noised: Dataset

    def log(self, samples: Dataset) -> Log:
        return Log(spec=self.spec, checkpoints=self.models, batch=lambda step: samples.columns(self.rows(step)))

    def rows(self, step: int) -> tuple[int, ...]:
        return indices_of(self.spec, step)


@pytest.fixture(scope="module")
def spoof(stolen: Tensors, train_set: Dataset) -> Spoof:
    spec = convnet_spec(train_set, segments=20, segment_length=1)
    models = line(spec, rank_remapped(stolen, torch.Generator().manual_seed(0)), stolen)
    noised = train_set
    for step in range(spec.steps):
        state, rows = at(spec, step, models[step]), indices_of(spec, step)
        gap = parameters(spec, models[step]) - parameters(spec, models[step + 1])
        wanted = gap / state.optimizer.param_groups[0]["lr"]
        noised = with_noise(noised, rows, noise_for(state, *train_set.columns(rows), wanted))
    return Spoof(spec, models, noised)


def test_the_noise_leads_where_the_thief_wants(spoof: Spoof, train_set: Dataset) -> None:
    with_it, without = spoof.log(spoof.noised), spoof.log(train_set)
    gained = [with_it.error(i)["2"] / without.error(i)["2"] for i in range(spoof.spec.segments)]
    assert median(gained) < 0.7


def test_the_published_verifier_accepts_it(spoof: Spoof, train_set: Dataset) -> None:
    assert spoof.log(spoof.noised).passes()
    assert not spoof.log(train_set).passes(), "without the noise it would not"


def test_noised_batches_are_not_the_committed_ones(spoof: Spoof, tmp_path: Path) -> None:
    folder = forge(tmp_path / "proof", spoof.spec, spoof.noised, spoof.models)
    verdict = judged(folder, SAMPLE)
    assert rejected(verdict, ExitCode.REPLAY_MISMATCH, "not trained on the committed batches") == {1, 10, 19}


def test_committing_to_the_true_batches_does_not_help(spoof: Spoof, train_set: Dataset, tmp_path: Path) -> None:
    verdict = judged(forge(tmp_path / "proof", spoof.spec, train_set, spoof.models), SAMPLE)
    assert rejected(verdict, ExitCode.REPLAY_MISMATCH, "does not replay to the promised state") == {1, 10, 19}


def test_committing_to_the_noised_data_does_not_help(spoof: Spoof, tmp_path: Path) -> None:
    """On chain they are not the task's (case 11); where data are free, a step that only comes near is no step."""
    spec = replace(spoof.spec, dataset_root=spoof.noised.root)
    folder, blob = forge(tmp_path / "proof", spec, spoof.noised, spoof.models), tmp_path / "data"
    blob.write_bytes(spoof.noised.to_bytes())
    verdict = judged(folder, replace(SAMPLE, dataset=blob))
    assert rejected(verdict, ExitCode.REPLAY_MISMATCH, "does not replay to the promised state") == {1, 10, 19}


def test_the_honest_twin_passes(spoof: Spoof, train_set: Dataset, tmp_path: Path) -> None:
    folder = write_forgery(tmp_path / "proof", spoof.spec, train_set, trained_states(spoof.spec, train_set))
    assert judged(folder, SAMPLE).exit_code is ExitCode.VERIFIED
