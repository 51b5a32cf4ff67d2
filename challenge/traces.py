"""Two traces of one step, compared line by line: the first operator in which they differ, and what that says.

The format of a trace is :mod:`pol.tracer`'s.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from challenge.advice import Reason
from pol.tracer import CLOCKS, ENTROPY, UNINITIALISED


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """The first operator in which two traces of one step differ.

    ``other`` is the other run's operator where the runs took different ways; ``changed`` names what differs of it:
    ``op``, ``args``, ``in`` or ``out``, the first in this order. ``sources`` are calls before it in either run that
    give something else every time.
    """

    row: dict[str, Any]
    other: str | None
    changed: str
    sources: list[str]
    uninitialised: bool

    def text(self) -> str:
        """What differs, in words."""
        return {
            "op": "the two runs call different operators",
            "args": "the operator is given another number",
            "in": "the operator reads a tensor that no operator before it made",
            "out": "the operator gives another result for equal arguments",
        }[self.changed]

    def reason(self) -> Reason:
        """What the traces alone say about the cause, the most certain sign first."""
        heard = {source.split(" at ")[0] for source in self.sources}
        drawn = self.row.get("random")
        signs = (
            (self.uninitialised, Reason.UNINITIALISED),
            ("DataLoader" in heard, Reason.LOADER),
            (self.row.get("generator") or "torch.Generator.seed" in heard, Reason.GENERATOR),
            (self.changed == "out" and not (drawn or _is_lift(self.row)), Reason.OPERATOR),
            (heard & set(ENTROPY.values()), Reason.ENTROPY),
            (heard & set(CLOCKS.values()), Reason.CLOCK),
            (drawn and self.row["phase"] == "build", Reason.BUILD),
            (drawn or self.sources, Reason.GENERATOR),
        )
        return next((reason for sign, reason in signs if sign), Reason.OUTSIDE)


def compare_traces(mine: Path, theirs: Path) -> Difference | None:
    """The first difference between two traces, read line by line; None if they are the same."""
    heard: dict[str, None] = {}
    blank: dict[str, Any] | None = None
    for one, other in zip_longest(_rows_of(mine, heard), _rows_of(theirs, heard)):
        row = one or other
        assert row is not None
        if one is None or other is None or one["op"] != other["op"]:
            second = (other or {"op": "no operator"})["op"] if one else "no operator"
            return Difference(row=row, other=second, changed="op", sources=list(heard), uninitialised=False)
        looked_at = ("args", "in") if is_uninitialised(row) else ("args", "in", "out")
        changed = next((name for name in looked_at if one.get(name) != other.get(name)), None)
        if changed:
            found = blank if changed == "in" and blank else row
            return Difference(row=found, other=None, changed=changed, sources=list(heard), uninitialised=found is blank)
        if is_uninitialised(row) and one["out"] != other["out"]:
            blank = row
    return None


def _rows_of(trace: Path, heard: dict[str, None]) -> Iterator[dict[str, Any]]:
    """The operators of a trace; the sources between them are added to ``heard``."""
    with trace.open(encoding="utf-8") as lines:
        for row in map(json.loads, lines):
            if "source" in row:
                heard[f"{row['source']} at {row['at']}"] = None
            else:
                yield row


def operators(trace: Path) -> Iterator[dict[str, Any]]:
    """The operators of a trace, in order."""
    return _rows_of(trace, {})


def is_uninitialised(row: dict[str, Any]) -> bool:
    """Whether the operator hands out memory that nobody has written."""
    return row["op"].split(".")[1] in UNINITIALISED


def _is_lift(row: dict[str, Any]) -> bool:
    """Whether the operator brings a number or an array of python's into torch."""
    return bool(row["op"].startswith("aten.lift_fresh"))
