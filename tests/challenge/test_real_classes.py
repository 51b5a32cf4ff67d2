"""Tier T2 between classes of machine that this processor has: narrower vectors add in another order."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from challenge.segments import Policy
from challenge.tolerance import CEILING
from challenge.verdict import Outcome, Tier
from challenge.verify import verify

ROOT = Path(__file__).parents[2]
HERE = torch.backends.cpu.get_cpu_capability()

pytestmark = pytest.mark.slow


def recorded_with(capability: str, folder: Path) -> Path:
    command = [sys.executable, "-m", "tests.challenge.single_steps", str(folder), "6"]
    subprocess.run(command, env=os.environ | {"ATEN_CPU_CAPABILITY": capability}, cwd=ROOT, check=True)
    return folder


@pytest.mark.skipif(HERE != "AVX512", reason="needs a processor with AVX-512: it can also do as one with AVX2 does")
def test_a_run_of_another_class_verifies_within_the_tolerance(tmp_path: Path) -> None:
    verdict = verify(recorded_with("avx2", tmp_path / "proof"), Policy(segments=None))
    assert (verdict.outcome, verdict.tier) == (Outcome.VERIFIED, Tier.TOLERANCE), verdict.undecided
    assert all(row["tolerance"] <= CEILING * row["movement"] for row in verdict.comparisons)


@pytest.mark.skipif(HERE in ("DEFAULT", "NO AVX"), reason="needs a processor with vectors")
def test_initial_weights_with_other_bits_leave_it_undecided(tmp_path: Path) -> None:
    """Without vectors torch draws other initial weights: the steps are within the tolerance, the start is not known."""
    verdict = verify(recorded_with("default", tmp_path / "proof"), Policy(segments=None))
    assert verdict.outcome is Outcome.INCONCLUSIVE and not verdict.findings
    assert "initial state" in verdict.undecided[0]
    accepted = {row["segment"] for row in verdict.comparisons if row["accepted"]}
    assert accepted and 0 not in accepted
