"""Verdicts: one exit code, and inconclusive is neither a pass nor an accusation."""

from __future__ import annotations

import json

import pytest

from challenge.verdict import ExitCode, Outcome, Verdict


def test_nothing_found_is_verified() -> None:
    assert (Verdict().outcome, Verdict().exit_code) == (Outcome.VERIFIED, ExitCode.VERIFIED)


def test_undecided_is_not_a_pass() -> None:
    verdict = Verdict(undecided=["another class of machine"])
    assert (verdict.outcome, verdict.exit_code) == (Outcome.INCONCLUSIVE, ExitCode.INCONCLUSIVE)


def test_a_finding_outweighs_what_is_undecided() -> None:
    verdict = Verdict(undecided=["x"])
    verdict.reject(ExitCode.REPLAY_MISMATCH, "segment 3", 3)
    assert (verdict.outcome, verdict.exit_code) == (Outcome.REJECTED, ExitCode.REPLAY_MISMATCH)


@pytest.mark.parametrize(
    ("codes", "first"),
    [
        ((ExitCode.REPLAY_MISMATCH, ExitCode.WATERMARK), ExitCode.REPLAY_MISMATCH),
        ((ExitCode.WATERMARK, ExitCode.ANCHOR), ExitCode.ANCHOR),
        ((ExitCode.REPLAY_MISMATCH, ExitCode.MALFORMED), ExitCode.MALFORMED),
    ],
)
def test_the_gravest_finding_names_the_exit_code(codes: tuple[ExitCode, ...], first: ExitCode) -> None:
    verdict = Verdict()
    for code in codes:
        verdict.reject(code, "found")
    assert verdict.exit_code is first


def test_the_published_exit_codes() -> None:
    codes = {code.name: int(code) for code in ExitCode}
    assert codes == {
        "VERIFIED": 0, "CANNOT_RUN": 1, "USAGE": 2, "MALFORMED": 10, "REPLAY_MISMATCH": 11, "WATERMARK": 12,
        "ANCHOR": 13, "INCONCLUSIVE": 20,
    }  # fmt: skip


def test_json_is_plain() -> None:
    verdict = Verdict(strength="x", segments=[1], total_segments=4)
    verdict.reject(ExitCode.ANCHOR, "late", None)
    plain = json.loads(json.dumps(verdict.to_json(), allow_nan=False))
    assert plain["exit_code"] == 13
    assert (plain["tier"], plain["comparisons"]) == ("T0", [])
