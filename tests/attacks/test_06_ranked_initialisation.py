"""Case 6: rank-remapped initialisation, a start that looks random and is close to the stolen weights.

Source: Zhang et al., S&P 2022 (``initial_break.py``), and Fang et al., EuroS&P 2023 (``init_w_0``). Fresh random
weights are sorted into the rank order of the stolen ones: a Kolmogorov-Smirnov test of each layer, which is what the
published verifier has, sees the right distribution, and the stolen model is half as far away. It fails here because
there is no test of distributions: the initial state is built from the seed, bit for bit.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from challenge.segments import Policy
from challenge.verdict import ExitCode
from pol import TrainingSpec
from pol.data import Dataset
from pol.state import Tensors
from tests.attacks.forging import built, trained_states, write_forgery
from tests.attacks.judging import judged, rejected
from tests.attacks.published import distances, initialisation_passes
from tests.attacks.spoofs import convnet_spec, model_of, rank_remapped

ENDS = Policy(segments=[0, 19])


@pytest.fixture(scope="module")
def spec(train_set: Dataset) -> TrainingSpec:
    return convnet_spec(train_set, segments=20, segment_length=2, rate=0.2)


@pytest.fixture(scope="module")
def remapped(stolen: Tensors) -> Tensors:
    return rank_remapped(stolen, torch.Generator().manual_seed(0))


def test_the_published_test_accepts_it(remapped: Tensors, stolen: Tensors) -> None:
    assert initialisation_passes(remapped)
    assert not initialisation_passes(stolen), "the stolen weights themselves would not pass"


def test_two_samples_cannot_tell_it_from_a_fresh_state(spec: TrainingSpec, remapped: Tensors, stolen: Tensors) -> None:
    fresh = model_of(built(spec))
    for name in (name for name, value in stolen.items() if value.dim() > 1):
        of_remapped, of_fresh, of_stolen = (model[name].flatten().numpy() for model in (remapped, fresh, stolen))
        assert stats.ks_2samp(of_remapped, of_fresh).pvalue > 0.01
        assert np.corrcoef(of_remapped, of_stolen)[0, 1] > 0.9
        assert np.corrcoef(of_fresh, of_stolen)[0, 1] < 0.5


def test_it_is_much_closer_to_the_stolen_model(spec: TrainingSpec, remapped: Tensors, stolen: Tensors) -> None:
    fresh = model_of(built(spec))
    assert distances(spec, remapped, stolen)["2"] < 0.65 * distances(spec, fresh, stolen)["2"]


def test_honest_training_from_it_is_refused_for_its_start_alone(
    spec: TrainingSpec, remapped: Tensors, train_set: Dataset, tmp_path: Path
) -> None:
    """Every step after it is true, so nothing but the start can be what is wrong."""
    states = trained_states(spec, train_set, start=remapped)
    verdict = judged(write_forgery(tmp_path / "proof", spec, train_set, states), ENDS)
    assert rejected(verdict, ExitCode.REPLAY_MISMATCH, "does not start from the program's initial state") == {0}
    assert {finding.segment for finding in verdict.findings} == {0}


def test_one_bit_of_the_initial_state_is_enough(spec: TrainingSpec, train_set: Dataset, tmp_path: Path) -> None:
    near = model_of(built(spec))
    weight = near["head.weight"].view(torch.int32)
    weight[0, 0] ^= 1
    states = trained_states(spec, train_set, start=near)
    verdict = judged(write_forgery(tmp_path / "proof", spec, train_set, states), ENDS)
    assert rejected(verdict, ExitCode.REPLAY_MISMATCH, "does not start from the program's initial state") == {0}


def test_the_honest_twin_passes(spec: TrainingSpec, train_set: Dataset, tmp_path: Path) -> None:
    states = trained_states(spec, train_set, start=model_of(built(spec)))
    assert judged(write_forgery(tmp_path / "proof", spec, train_set, states), ENDS).exit_code is ExitCode.VERIFIED
