"""``make coverage`` fails when the contracts' tests reach too little."""

import subprocess
import sys

import pytest

from tests.chain.test_artifacts import CONTRACTS

TOOL = CONTRACTS / "tools" / "coverage.py"


def record(lines, branches):
    """One file of a report, from (hit, found) of each."""
    return (
        f"TN:\nSF:src/A.sol\nDA:5,1\nBRDA:7,0,0,1\nBRF:{branches[1]}\nBRH:{branches[0]}\n"
        f"LF:{lines[1]}\nLH:{lines[0]}\nend_of_record\n"
    )


@pytest.mark.parametrize(
    ("files", "options", "code"),
    [
        ([((980, 1_000), (95, 100))], (), 0),
        ([((979, 1_000), (100, 100))], (), 1),
        ([((1_000, 1_000), (94, 100))], (), 1),
        ([((1_000, 1_000), (0, 0))], (), 1),
        ([], (), 1),
        ([((10, 10), (10, 10)), ((0, 10), (10, 10))], (), 1),
        ([((90, 100), (80, 100)), ((990, 990), (990, 990))], (), 0),
        ([((990, 1_000), (99, 100))], ("--lines", "99.5"), 1),
        ([((990, 1_000), (99, 100))], ("--branches", "99.5"), 1),
    ],
    ids=[
        *("at both bars", "too few lines", "too few branches", "no branch at all", "an empty report"),
        *("a file that nothing reaches", "all files together", "a higher bar for lines", "and for branches"),
    ],
)
def test_the_tool_fails_below_its_bars(tmp_path, files, options, code):
    report = tmp_path / "lcov.info"
    report.write_text("".join(record(*file) for file in files))
    assert subprocess.run([sys.executable, TOOL, report, *options], check=False).returncode == code


def test_a_report_that_is_not_there_is_not_enough(tmp_path):
    done = subprocess.run([sys.executable, TOOL, tmp_path / "none"], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "cannot read" in done.stderr
