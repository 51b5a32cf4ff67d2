"""What do the reward equations give at the sizes of the paper's Table 1, and what of it can be fitted?

``python -m experiments.table1.run`` writes results.json and fit.png beside this file, and docs/table1.md, in a
minute. ``--quick`` plays two days of one seed and writes nothing.
"""

from __future__ import annotations

import json
import sys
import tomllib
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from experiments.table1 import page, plot
from experiments.table1.simulate import Task, disagreement, node_shares, play, qualities, stakes, summary

HERE = Path(__file__).parent
CONFIG = tomllib.loads((HERE / "config.toml").read_text())


def task(number: str, spread: float, days: int) -> Task:
    """A task of the paper, by its number there."""
    assumed = CONFIG["assumed"]
    nodes, validators = CONFIG["paper"]["sizes"][number]
    names = ("alpha", "final_share", "persistence", "attendance", "noise_bps")
    return Task(
        nodes=nodes,
        validators=validators,
        days=days,
        q=assumed["q"][number],
        sensitivity=assumed["lambda"],
        stake_spread=spread,
        **{name: assumed[name] for name in names},
    )


def rows(days: int, seeds: int) -> list[dict[str, Any]]:
    """The rows of the table that have a size: how rewards are spread among nodes and among validators."""
    found = []
    for number, spread in product(CONFIG["paper"]["sizes"], CONFIG["assumed"]["stake_spread"]):
        plays = [play(task(number, spread, days), seed) for seed in range(seeds)]
        sides = {side: summary([played[side] for played in plays]) for side in ("nodes", "validators")}
        found.append({"task": number, "stake_spread": spread, "days": days} | sides)
    return found


def sweep(days: int, seeds: int) -> list[dict[str, Any]]:
    """The most that one node has of all, for every q and every assumption about ranks and stakes."""
    found, axes = [], CONFIG["sweep"]
    for lasting, final, spread in product(axes["persistence"], axes["final_share"], axes["stake_spread"]):
        most = []
        for q in axes["q"]:
            parts = [_nodes(seed, days, lasting, final, spread, q) for seed in range(seeds)]
            most.append(float(np.mean([part.max() for part in parts])))
        found.append(
            {"persistence": lasting, "final_share": final, "stake_spread": spread, "q": axes["q"], "most": most}
        )
    return found


def _nodes(seed: int, days: int, lasting: float, final: float, spread: float, q: float) -> Any:
    pick, count = np.random.default_rng(seed), CONFIG["sweep"]["nodes"]
    quality, stake = qualities(pick, count, days, lasting), stakes(pick, count, spread)
    return node_shares(quality, stake, q, CONFIG["assumed"]["alpha"], final)


def main(arguments: list[str]) -> None:
    """Simulate, and write results, plot and page; with ``--quick`` only see that everything runs."""
    quick = "--quick" in arguments
    days, seeds = (2, 1) if quick else (CONFIG["assumed"]["days"], CONFIG["assumed"]["seeds"])
    difference = disagreement(np.random.default_rng(0), 0.9, CONFIG["assumed"]["alpha"], CONFIG["assumed"]["lambda"])
    assert difference < 1e-12, "the rewards here are not the reference model's"
    results: dict[str, Any] = {"disagreement": difference, "rows": rows(days, seeds), "sweep": sweep(days, 2 * seeds)}
    if quick:
        return
    (HERE / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    plot.draw(results["sweep"], CONFIG["paper"]["fitted_q"], HERE / "fit.png")
    page.write(CONFIG, results)


if __name__ == "__main__":
    main(sys.argv[1:])
