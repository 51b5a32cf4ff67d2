#!/usr/bin/env python3
"""Insist on what the contracts' tests reach: 98 % of the lines and 95 % of the branches, or more.

``coverage.py lcov.info`` reads what ``forge coverage --report lcov`` wrote; 0 if it is enough, 1 otherwise.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

LINES, BRANCHES = 98.0, 95.0  # per cent


def main() -> int:
    """Say what is reached; 0 if it is enough, 1 otherwise."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("report", type=Path, help="an lcov file")
    parser.add_argument("--lines", type=float, default=LINES, help="least share of lines, per cent")
    parser.add_argument("--branches", type=float, default=BRANCHES, help="least share of branches, per cent")
    options = parser.parse_args()
    try:
        report = options.report.read_text("utf-8")
    except OSError as error:
        print(f"coverage: cannot read {options.report} ({error.strerror})", file=sys.stderr)
        return 1
    bars = {"lines": ("LH", "LF", options.lines), "branches": ("BRH", "BRF", options.branches)}
    results = [_enough(what, count(report, hit), count(report, found), bar) for what, (hit, found, bar) in bars.items()]
    return 0 if all(results) else 1


def count(report: str, field: str) -> int:
    """The sum of a field of an lcov report over all files: LF and LH are lines found and hit, BRF and BRH branches."""
    return sum(int(line.partition(":")[2]) for line in report.splitlines() if line.startswith(f"{field}:"))


def _enough(what: str, hit: int, found: int, bar: float) -> bool:
    share = 100 * hit / found if found else 0.0
    enough = share >= bar
    print(f"coverage: {hit} of {found} {what}, {share:.2f} %{'' if enough else f': fewer than {bar} %'}")
    return enough


if __name__ == "__main__":
    sys.exit(main())
