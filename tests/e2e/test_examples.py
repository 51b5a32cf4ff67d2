"""The example in the README is a program that runs, and its proof verifies."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from challenge.segments import Policy
from challenge.verdict import ExitCode
from challenge.verify import verify

EXAMPLE = Path(__file__).parents[2] / "examples/record.py"


def test_the_recorded_example_verifies(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, str(EXAMPLE)], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "12 segments recorded" in done.stdout
    assert verify(tmp_path / "proof", Policy(segments=2)).exit_code is ExitCode.VERIFIED
