"""On a machine of another class a mismatch proves nothing; equal bits still prove everything.

Segments of several steps stay undecided there. Single steps are judged by tier T2: here a run was recorded by a class
that adds in another order (every batch is permuted, which changes nothing but rounding), with lies in some steps.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from challenge import tolerance
from challenge.segments import Policy, Watcher, replay_sample
from challenge.tolerance import CEILING
from challenge.verdict import ExitCode, Outcome, Tier, Verdict
from challenge.verify import verify
from pol import Proof, recorder
from pol.data import Dataset
from pol.machine import this_machine
from pol.proof import states_of
from pol.state import TrainingState
from tests.challenge.clerk import Clerk
from tests.challenge.single_steps import record_single_steps

STEPS = 9
HONEST = (0, 1, 2, 6)
FLIPPED, BRIGHTER, IDLE, INJECTED, FASTER = 3, 4, 5, 7, 8
"""Steps with a lie: one label of 32, one pixel by 1/255, no update at all, a moment changed, an update 1 % too far."""


def test_a_mismatch_elsewhere_is_inconclusive(honest_run: Path) -> None:
    verdict = verify(honest_run, Policy(segments=None, executor=Clerk(honest_run, wrong=[2], elsewhere=True)))
    assert (verdict.outcome, verdict.exit_code) == (Outcome.INCONCLUSIVE, ExitCode.INCONCLUSIVE)
    assert not verdict.findings and "capability: another" in verdict.undecided[0]
    assert "segments of 10 steps" in verdict.undecided[0] and verdict.tier is Tier.BITS


def test_a_state_that_another_build_lays_out_differently_is_inconclusive_elsewhere(honest_run: Path) -> None:
    clerk = Clerk(honest_run, problem="other tensors than the program's", elsewhere=True)
    assert verify(honest_run, Policy(segments=[3], executor=clerk)).exit_code is ExitCode.INCONCLUSIVE


def test_the_same_mismatch_here_is_a_rejection(honest_run: Path) -> None:
    verdict = verify(honest_run, Policy(segments=None, executor=Clerk(honest_run, wrong=[2])))
    assert verdict.exit_code is ExitCode.REPLAY_MISMATCH


def test_equal_bits_elsewhere_verify(honest_run: Path) -> None:
    verdict = verify(honest_run, Policy(segments=[3], executor=Clerk(honest_run, elsewhere=True)))
    assert (verdict.exit_code, verdict.tier) == (ExitCode.VERIFIED, Tier.BITS)


def test_an_initial_state_with_other_bits_stays_undecided_elsewhere(honest_run: Path) -> None:
    """Nobody can open the state before the first step, so there is nothing to compare within a tolerance."""
    clerk = Clerk(honest_run, elsewhere=True)
    seed = replace(clerk.proof.seed_source, value=bytes(32))
    clerk.proof = replace(clerk.proof, seed_source=seed)
    verdict = Verdict()
    replay_sample(honest_run, clerk.proof, Policy(segments=[3], executor=clerk), verdict, Watcher())
    assert verdict.outcome is Outcome.INCONCLUSIVE and "initial state" in verdict.undecided[0]


def rounded_otherwise(step: int, batch: list[torch.Tensor]) -> None:
    """The same batch in another order: what sums over it is rounded differently. The recorder compares two steps."""
    if step > 1:
        rows = torch.randperm(len(batch[0]), generator=torch.Generator().manual_seed(step))
        batch[:] = [value[rows] for value in batch]


def lie_before(step: int, batch: list[torch.Tensor]) -> None:
    if step == FLIPPED:
        batch[1][0] = (batch[1][0] + 1) % 10
    if step == BRIGHTER:
        batch[0][0, 20] += 1 / 255


def lie_after(step: int, state: TrainingState, before: list[torch.Tensor]) -> None:
    parameters = list(state.model.parameters())
    with torch.no_grad():
        for parameter, was in zip(parameters, before, strict=True):
            if step == IDLE:
                parameter.copy_(was)
            if step == FASTER:
                parameter.add_(0.01 * (parameter - was))
        if step == INJECTED:
            state.optimizer.state[parameters[0]]["exp_avg"][0, 20] += 1e-3


@pytest.fixture(scope="module")
def elsewhere(train_set: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Recorded by another class of machine, with lies in some steps."""

    def before(step: int, state: TrainingState, batch: list[torch.Tensor]) -> None:
        rounded_otherwise(step, batch)
        lie_before(step, batch)
        was = [parameter.detach().clone() for parameter in state.model.parameters()]
        hook = state.optimizer.register_step_post_hook(lambda *_: (lie_after(step, state, was), hook.remove())[0])

    folder, other = tmp_path_factory.mktemp("elsewhere") / "proof", replace(this_machine(), processor="another")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recorder, "this_machine", lambda **_: other)
        record_single_steps(folder, train_set, other, STEPS, before)
    return folder


@pytest.fixture
def two_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two replay processes are enough here; tests/challenge/test_real_classes.py has all."""
    first, _, narrow, *_ = tolerance.settings(1)
    monkeypatch.setattr(tolerance, "settings", lambda threads: [first, narrow])


@pytest.mark.usefixtures("two_settings")
def test_honest_steps_of_another_class_verify(elsewhere: Path) -> None:
    verdict = verify(elsewhere, Policy(segments=HONEST))
    assert (verdict.outcome, verdict.tier) == (Outcome.VERIFIED, Tier.TOLERANCE), verdict.undecided
    rows = verdict.comparisons
    assert [row["segment"] for row in rows] == [2, 6], "the first two steps have equal bits"
    assert all(0 < row["error"] <= row["tolerance"] <= CEILING * row["movement"] for row in rows)
    assert any("tier T2" in note for note in verdict.limits)
    assert verdict.to_json()["tier"] == "T2"


@pytest.mark.usefixtures("two_settings")
def test_lies_do_not_pass_and_do_not_convict(elsewhere: Path) -> None:
    verdict = verify(elsewhere, Policy(segments=None))
    assert (verdict.outcome, verdict.exit_code) == (Outcome.INCONCLUSIVE, ExitCode.INCONCLUSIVE)
    assert not verdict.findings
    refused = {row["segment"] for row in verdict.comparisons if not row["accepted"]}
    assert refused == set(range(STEPS)) - set(HONEST)
    assert len(verdict.undecided) == len(refused)


def test_what_was_not_opened_is_said_and_undecided(elsewhere: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(elsewhere, tmp_path / "proof"))
    for state in Proof.read(folder).openings:
        states_of(folder).path(state.cid).unlink()
    (folder / "openings.json").unlink()
    clerk = Clerk(folder, wrong=[4], elsewhere=True)
    verdict = verify(folder, Policy(segments=[4], executor=clerk))
    assert verdict.outcome is Outcome.INCONCLUSIVE and not verdict.comparisons
    assert "opened" in verdict.undecided[0] and verdict.undecided[0].endswith("--segments 4,")


def test_a_first_step_from_other_initial_weights_is_not_compared(elsewhere: Path) -> None:
    clerk = Clerk(elsewhere, wrong=[0], elsewhere=True)
    proof = replace(clerk.proof, seed_source=replace(clerk.proof.seed_source, value=bytes(32)))
    verdict = Verdict()
    replay_sample(elsewhere, proof, Policy(segments=[0], executor=clerk), verdict, Watcher())
    assert verdict.outcome is Outcome.INCONCLUSIVE and not verdict.comparisons and verdict.tier is Tier.BITS
