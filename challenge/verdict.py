"""The outcome of a verification: findings, the strength of the check, and one exit code."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, IntEnum
from typing import Any


class Outcome(Enum):
    """What a verification says. Inconclusive is neither a pass nor an accusation."""

    VERIFIED = "VERIFIED"
    REJECTED = "REJECTED"
    INCONCLUSIVE = "INCONCLUSIVE"


class Tier(Enum):
    """How segments were compared: by equal bits on one class of machine, by equal bits on any (exact numerics), or
    within a tolerance measured on a machine of another class."""

    BITS = "T0"
    EXACT = "T1"
    TOLERANCE = "T2"


class ExitCode(IntEnum):
    """The exit codes of the ``challenge`` command."""

    VERIFIED = 0
    CANNOT_RUN = 1  # the check could not be made here: missing file, data set, extra or process
    USAGE = 2  # the command line is wrong
    MALFORMED = 10  # proof malformed, or a commitment in it does not hold
    REPLAY_MISMATCH = 11  # the program does not lead where the proof says
    WATERMARK = 12  # the promised watermark is not found, or an earlier trainer's is
    ANCHOR = 13  # an anchor is missing, late or on the wrong chain
    INCONCLUSIVE = 20  # this machine cannot decide


# A proof can fail in several ways at once; the first in this order names the exit code.
_PRECEDENCE = (ExitCode.MALFORMED, ExitCode.ANCHOR, ExitCode.REPLAY_MISMATCH, ExitCode.WATERMARK)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is wrong with a proof, and which exit code it stands for."""

    code: ExitCode
    message: str
    segment: int | None = None

    def to_json(self) -> dict[str, Any]:
        """The object in the ``--json`` output."""
        return {"code": int(self.code), "message": self.message, "segment": self.segment}


@dataclass(slots=True, kw_only=True)
class Verdict:
    """Everything a verification found. Fill it, then read :attr:`outcome` and :attr:`exit_code`.

    ``checks`` are lines of (what was checked, what came out); ``limits`` say what a pass does not cover this time.
    ``comparisons`` are the steps of tier T2: error, tolerance and movement of the tensor that lies furthest out.
    """

    findings: list[Finding] = field(default_factory=list)
    undecided: list[str] = field(default_factory=list)
    checks: list[tuple[str, str]] = field(default_factory=list)
    limits: list[str] = field(default_factory=list)
    segments: list[int] = field(default_factory=list)
    total_segments: int = 0
    strength: str = ""
    tier: Tier = Tier.BITS
    comparisons: list[dict[str, Any]] = field(default_factory=list)
    anchors_checked: bool = False
    watermarks: list[dict[str, Any]] = field(default_factory=list)
    reproduction: str | None = None

    @property
    def exit_code(self) -> ExitCode:
        """The code of the gravest finding; INCONCLUSIVE without findings if something stayed undecided."""
        codes = {finding.code for finding in self.findings}
        for code in _PRECEDENCE:
            if code in codes:
                return code
        return ExitCode.INCONCLUSIVE if self.undecided else ExitCode.VERIFIED

    @property
    def outcome(self) -> Outcome:
        """VERIFIED only if nothing was found and nothing stayed undecided."""
        if self.findings:
            return Outcome.REJECTED
        return Outcome.INCONCLUSIVE if self.undecided else Outcome.VERIFIED

    def reject(self, code: ExitCode, message: str, segment: int | None = None) -> None:
        """Add a finding."""
        self.findings.append(Finding(code=code, message=message, segment=segment))

    def note(self, limit: str) -> None:
        """Add a limit, unless it was noted: of several models the same may have to be said."""
        if limit not in self.limits:
            self.limits.append(limit)

    def to_json(self) -> dict[str, Any]:
        """The one object that ``--json`` prints."""
        return {
            "format": "aiarena.verdict/1",
            "outcome": self.outcome.value,
            "exit_code": int(self.exit_code),
            "findings": [finding.to_json() for finding in self.findings],
            "undecided": list(self.undecided),
            "checks": [{"check": check, "result": result} for check, result in self.checks],
            "limits": list(self.limits),
            "segments": list(self.segments),
            "total_segments": self.total_segments,
            "strength": self.strength,
            "tier": self.tier.value,
            "comparisons": list(self.comparisons),
            "anchors_checked": self.anchors_checked,
            "watermarks": list(self.watermarks),
            "reproduction": self.reproduction,
        }
