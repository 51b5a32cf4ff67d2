"""How every attack here is judged: all segments replayed, beside the honest twin."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from challenge.segments import Policy
from challenge.verdict import ExitCode, Verdict
from challenge.verify import verify
from pol.data import Dataset
from tests.runs import Cheat, record, small_spec

CHEAT_STEP = 15
CHEAT_SEGMENT = 1


@pytest.fixture(scope="session")
def honest_verdict(honest_run: Path) -> Verdict:
    """The verdict on the honest twin; it must pass, or no rejection below means anything."""
    verdict = verify(honest_run, Policy(segments=None))
    assert verdict.exit_code is ExitCode.VERIFIED, verdict.findings
    return verdict


@pytest.fixture
def caught(tmp_path: Path, train_set: Dataset, honest_verdict: Verdict) -> Callable[[Cheat], Verdict]:
    """Record the same run with a cheat before one step, and verify it."""

    def run(cheat: Cheat) -> Verdict:
        folder = tmp_path / "proof"
        record(small_spec(train_set), train_set, folder, cheat)
        return verify(folder, Policy(segments=None))

    return run
