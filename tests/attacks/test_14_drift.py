"""Case 14: a drift below the tolerance, in every segment, always the same way.

Source: whatever has a tolerance has this (Jia et al. 2021 and its successors). Each segment ends a little beside where
honest training would: too little to be seen, and after many segments a long way. It fails here because equal bits have
no room for it. On another class of machine only a tolerance is left (tier T2): there a drift may pass or stay
undecided, never more than a hundredth of a step at a time, and the verdict says of which tier it is.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from challenge.segments import Policy
from challenge.tolerance import CEILING, deviations
from challenge.verdict import ExitCode, Outcome, Tier
from pol import TrainingSpec
from pol.data import Dataset
from pol.state import Tensors, TrainingState, model_tensors
from tests.attacks.forging import trained_states, write_forgery
from tests.attacks.judging import judged, rejected
from tests.attacks.published import Log, distances
from tests.attacks.spoofs import convnet_spec, indices_of
from tests.runs import Cheat

SAMPLE = Policy(segments=[0, 10, 19])
BIAS = 0.02
"""What is added to one weight in each segment."""


def drift(bias: float) -> Cheat:
    def cheat(step: int, state: TrainingState, _batch: list[torch.Tensor]) -> None:
        if step % 2 == 1:
            with torch.no_grad():
                state.model.head.weight[0, 0] += bias

    return cheat


@pytest.fixture(scope="module")
def spec(train_set: Dataset) -> TrainingSpec:
    return convnet_spec(train_set, segments=20, segment_length=2, rate=0.2)


@pytest.fixture(scope="module")
def honest(spec: TrainingSpec, train_set: Dataset) -> list[Tensors]:
    return trained_states(spec, train_set)


@pytest.fixture(scope="module")
def drifted(spec: TrainingSpec, train_set: Dataset) -> list[Tensors]:
    return trained_states(spec, train_set, cheat=drift(BIAS))


def test_the_published_verifier_accepts_it_and_it_adds_up(
    spec: TrainingSpec, honest: list[Tensors], drifted: list[Tensors], train_set: Dataset
) -> None:
    models = [model_tensors(state) for state in drifted]
    log = Log(spec=spec, checkpoints=models, batch=lambda step: train_set.batch(indices_of(spec, step)))
    assert log.passes()
    seen = max(log.error(index)["2"] for index in range(spec.segments))
    assert distances(spec, model_tensors(honest[-1]), models[-1])["2"] > 5 * seen


@pytest.mark.parametrize("bias", [BIAS, 1e-6])
def test_equal_bits_leave_no_room(spec: TrainingSpec, train_set: Dataset, tmp_path: Path, bias: float) -> None:
    states = trained_states(spec, train_set, cheat=drift(bias))
    verdict = judged(write_forgery(tmp_path / "proof", spec, train_set, states), SAMPLE)
    found = rejected(verdict, ExitCode.REPLAY_MISMATCH, "does not replay to the promised state")
    assert found == set(verdict.segments)


@pytest.fixture(scope="module")
def one_step(train_set: Dataset) -> tuple[Tensors, Tensors, Tensors]:
    """A state, the state one step later, and the same with the rows of the batch in another order."""
    spec = convnet_spec(train_set, segments=1, rate=0.2)

    def turned(_step: int, _state: TrainingState, batch: list[torch.Tensor]) -> None:
        batch[:] = [values.flip(0) for values in batch]

    start, end = trained_states(spec, train_set)
    return start, end, trained_states(spec, train_set, cheat=turned)[-1]


@pytest.mark.parametrize(("share", "accepted"), [(0.9, True), (1.1, False)])
def test_a_tolerance_has_room_for_a_hundredth_of_a_step_at_most(
    one_step: tuple[Tensors, Tensors, Tensors], share: float, accepted: bool
) -> None:
    """Tier T2: what rounding may do, honest replays here show."""
    start, end, other = one_step
    (room,) = [row for row in deviations(start, end, [end, other]) if row.tensor == "model/head.weight"]
    assert 0 < room.tolerance <= CEILING * room.movement
    drifting = {name: value.clone() for name, value in end.items()}
    drifting["model/head.weight"][0, 0] += share * room.tolerance
    (found,) = [row for row in deviations(start, drifting, [end, other]) if row.tensor == "model/head.weight"]
    assert (found.ratio <= 1) is accepted


@pytest.mark.slow
@pytest.mark.parametrize(("bias", "outcome"), [(1e-7, Outcome.VERIFIED), (BIAS, Outcome.INCONCLUSIVE)])
def test_a_tolerance_never_convicts(train_set: Dataset, tmp_path: Path, bias: float, outcome: Outcome) -> None:
    """A run said to be of a processor that nobody has: four worker processes measure what is honest here."""
    spec = convnet_spec(train_set, segments=4, rate=0.2)
    spec = replace(spec, machine=dict(spec.machine) | {"processor": "another"})
    states = trained_states(spec, train_set, cheat=drift(bias))
    verdict = judged(write_forgery(tmp_path / "proof", spec, train_set, states))
    assert verdict.outcome is outcome and not verdict.findings
    assert verdict.tier is Tier.TOLERANCE


def test_the_honest_twin_passes(spec: TrainingSpec, honest: list[Tensors], train_set: Dataset, tmp_path: Path) -> None:
    assert judged(write_forgery(tmp_path / "proof", spec, train_set, honest), SAMPLE).exit_code is ExitCode.VERIFIED
