"""On a machine of another class a mismatch proves nothing; equal bits still prove everything."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from challenge import segments
from challenge.segments import Policy
from challenge.verdict import ExitCode, Outcome
from challenge.verify import verify
from pol.data import Dataset
from pol.machine import MachineClass, this_machine
from tests.runs import record, small_spec


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    def another(*, threads: int = 1) -> MachineClass:
        return replace(this_machine(threads=threads), capability="another")

    monkeypatch.setattr(segments, "this_machine", another)


@pytest.fixture
def dishonest_run(tmp_path: Path, train_set: Dataset) -> Path:
    def cheat(step: int, state, _batch) -> None:
        if step == 5:
            state.optimizer.param_groups[0]["lr"] *= 2

    record(small_spec(train_set, steps=10), train_set, tmp_path / "proof", cheat)
    return tmp_path / "proof"


def test_a_mismatch_elsewhere_is_inconclusive(dishonest_run: Path, elsewhere: None) -> None:
    verdict = verify(dishonest_run, Policy(segments=None))
    assert (verdict.outcome, verdict.exit_code) == (Outcome.INCONCLUSIVE, ExitCode.INCONCLUSIVE)
    assert not verdict.findings and "capability: another" in verdict.undecided[0]


def test_a_state_that_another_build_lays_out_differently_is_inconclusive_elsewhere(
    honest_run: Path, elsewhere: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*arguments, **options):
        results = replay(*arguments, **options)
        results[-1].problem, results[-1].segments = "other tensors than the program's", []
        return results

    replay = segments.replay
    monkeypatch.setattr(segments, "replay", refused)
    assert verify(honest_run, Policy(segments=[3])).exit_code is ExitCode.INCONCLUSIVE


def test_the_same_mismatch_here_is_a_rejection(dishonest_run: Path) -> None:
    assert verify(dishonest_run, Policy(segments=None)).exit_code is ExitCode.REPLAY_MISMATCH


def test_equal_bits_elsewhere_verify(honest_run: Path, elsewhere: None) -> None:
    assert verify(honest_run, Policy(segments=[3])).exit_code is ExitCode.VERIFIED
