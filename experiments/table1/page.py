"""Writes docs/table1.md from the results."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from experiments.tables import table

PAGE = Path(__file__).parents[2] / "docs" / "table1.md"

HEAD = """# Table 1 of the paper, as far as it can be had

Table 1 of the paper (AI Arena, arXiv 2412.14566) lists, for 16 tasks on a test network, how many nodes and validators
took part, and mean, deviation, minimum and maximum of their rewards. **The table itself is not at hand**: the copies
of the paper that could be read end before it, and it is quoted here from notes made of it. They give the sizes of the
two largest tasks, for seven tasks the best paid node's part of what all nodes were paid, five durations, and sums.
Below is what the reward equations (`chain/rewards.py`, to which the contracts are tested to the wei) give at these
sizes, what follows for the parameters, and what cannot be recovered. `python -m experiments.table1.run` simulates and
writes this page; its numbers and assumptions are in `experiments/table1/config.toml`.
"""

REWARDS = """## Rewards at the paper's largest sizes

{days} days and a final validation; means of {seeds} seeds. All in units of the mean, because what a task paid a day is
not known. Assumed: q = {q9} (task 9) and {q12} (task 12), both alphas {alpha:g}, lambda = {lambda:g};
{final_share:.0%} of the nodes' reward by the final ranking; a model's quality correlates with its own on another day
by {correlation:.2f}; validators are there {attendance:.0%} of the days and err by {noise_bps} basis points in the
median. Computed in floating point, within {disagreement:.0e} of the reference model.
"""

FIT = """## Which q fits

With equal stakes and the same ranks every day the best paid of many nodes has 1 - q of all. Read so, the seven quoted
maxima give q = {fitted}: about 0.9. But the same maximum comes from a smaller q where ranks change from day to day, and
from a larger one where stakes differ, as the table and the plot show. So q is about 0.9 if nearly all of the reward is
paid by one ranking among nodes of like stake; the maxima alone do not determine it. (Persistence: the weight of what
is lasting in a model's quality, beside the day's chance. -: none of the q tried.)
"""

SUMS = """
The two do not agree, in tokens or in people: the rows count participations, the last row perhaps people, but then it
should pay each more, not less. The constant of the platform's contracts, 1,074 a day, is neither. No reward per day is
therefore fitted here.
"""

LOST = """## What cannot be recovered

- Means, deviations and minima of any row, the sizes of the other 14 tasks, and most durations: not in the notes.
  Minima of 0.00 are mentioned; with q = 0.9 the last of 153 nodes has 1e-7 of what the first one has: it prints so.
- Rewards per task and day, gamma, lambda, both alphas: published nowhere. Of gamma the notes say at most 0.149 (the
  nodes' share of task 10, which nobody delegated to).
- Stakes. Nodes had 69 to 73 % of what tasks 1 to 4 paid, later 44 to 54 %, and 4 to 8 % in tasks 13 to 16: with gamma
  near 0 that is their part of the stakes.
- Delegators' rewards, which the table leaves out.
"""


def write(config: Mapping[str, Any], results: Mapping[str, Any]) -> None:
    """Write the page."""
    PAGE.write_text("\n".join([HEAD, _rewards(config, results), _fit(config, results), _sums(config), LOST]))


def _rewards(config: Mapping[str, Any], results: Mapping[str, Any]) -> str:
    assumed, rows = config["assumed"], []
    for row in results["rows"]:
        sizes = config["paper"]["sizes"][row["task"]]
        for side, count in zip(("nodes", "validators"), sizes, strict=True):
            found = row[side]
            shown = [f"{found[kind]:.2f}" for kind in ("deviation", "least", "most")]
            known = _known(config, row["task"], side, count)
            rows.append([row["task"], f"{count} {side}", row["stake_spread"], *shown, known])
    head = ["task", "who", "spread of stakes", "deviation", "least", "most", "most, in the paper"]
    q = {f"q{task}": value for task, value in assumed["q"].items()}
    text = REWARDS.format(**assumed | q, correlation=assumed["persistence"] ** 2, disagreement=results["disagreement"])
    return f"{text}\n{table(head, rows)}\n"


def _known(config: Mapping[str, Any], task: str, side: str, count: int) -> str:
    q = config["paper"]["fitted_q"].get(task)
    return f"{(1 - q) * count:.1f}" if side == "nodes" and q else "not at hand"


def _fit(config: Mapping[str, Any], results: Mapping[str, Any]) -> str:
    fitted = config["paper"]["fitted_q"]
    parts = [1 - q for q in (min(fitted.values()), fitted["9"], max(fitted.values()))]
    rows = [
        [curve["persistence"], f"{curve['final_share']:.0%}", curve["stake_spread"], *(_q_for(curve, p) for p in parts)]
        for curve in results["sweep"]
    ]
    asked = [f"q for {part:.1%} of all" for part in parts]
    head = ["persistence", "by the final ranking", "spread of stakes", *asked]
    text = FIT.format(fitted=", ".join(f"{q:.3f} (task {task})" for task, q in fitted.items()))
    plot = "![The best paid node's part against q; grey: the seven tasks](../experiments/table1/fit.png)"
    return f"{text}\n{table(head, rows)}\n\n{plot}\n"


def _q_for(curve: Mapping[str, Any], part: float) -> str:
    """Where the falling curve passes ``part``, between two of its points."""
    for (q, above), (more, below) in pairwise(zip(curve["q"], curve["most"], strict=True)):
        if above >= part >= below:
            return f"{q + (more - q) * (above - part) / (above - below):.3f}"
    return "-"


def _sums(config: Mapping[str, Any]) -> str:
    paper = config["paper"]
    total = sum(count * mean for count, mean in paper["total_row"].values())
    sums = {
        "all rows": (paper["rows_sum"], paper["rows_nodes"] + paper["rows_validators"]),
        "its last row (total)": (total, sum(count for count, _ in paper["total_row"].values())),
    }
    days = paper["rows_days"]
    rows = [[name, f"{paid:,.0f}", f"{paid / days:,.0f}", f"{count:,}"] for name, (paid, count) in sums.items()]
    head = ["summed over", "tokens", f"a day, of {days}", "counted"]
    return f"## Sums\n\n{table(head, rows)}\n{SUMS}"
