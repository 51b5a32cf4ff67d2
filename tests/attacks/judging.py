"""How a proof is judged here: the product's own verification."""

from __future__ import annotations

import atexit
from dataclasses import replace
from pathlib import Path
from typing import Any

from challenge.segments import Policy
from challenge.verdict import ExitCode, Verdict
from challenge.verify import verify
from tests.attacks.workers import KeptWorkers

WORKERS = KeptWorkers()
atexit.register(WORKERS.close)


def judged(folder: Path, policy: Policy | None = None, **options: Any) -> Verdict:
    """The verdict on a proof, all segments replayed unless ``policy`` says otherwise; ``options`` as for ``verify``."""
    policy = replace(policy or Policy(segments=None), executor=WORKERS)
    return verify(folder, policy, **options)


def rejected(verdict: Verdict, code: ExitCode, message: str) -> set[int | None]:
    """Insist on the exit code, and that ``message`` is among the reasons; returns the segments it was said of."""
    found = {finding.segment for finding in verdict.findings if message in finding.message}
    reasons = [finding.message for finding in verdict.findings]
    assert verdict.exit_code is code and found, f"{verdict.exit_code.name}: {reasons or verdict.undecided}"
    return found
