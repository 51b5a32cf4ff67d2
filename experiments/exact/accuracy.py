"""Does exactness cost accuracy? The final metric of exact and of native runs, over seeds.

``python -m experiments.exact.accuracy`` writes ``accuracy.json`` and ``accuracy.png`` beside this file, and goes on
where it stopped. A run trains on one thread with everything exact (initial weights, dropout and augmentation included),
or everything native; both are scored natively, on samples that no run trains on.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any, Final

import torch

from experiments.exact.run import HERE, left_out
from experiments.exact.workload import CONFIG, Workload
from pol import exact

RESULTS, PLOT = HERE / "accuracy.json", HERE / "accuracy.png"
KINDS: Final = ("exact", "native")
FIRST: Final = 5
STYLE: Final[Any] = {
    "figure.figsize": (9, 3.2),
    "savefig.dpi": 110,
    "font.size": 9,
    "figure.constrained_layout.use": True,
}


def scored(name: str, seed: int, *, exactly: bool) -> float:
    """The score of one run."""
    work = Workload(name, "cpu", hashlib.sha256(f"accuracy {seed}".encode()).digest())
    with exact() if exactly else nullcontext():
        state = work.build()
        while state.step < work.work["steps"]:
            work.step(state)
    return work.score(state, CONFIG["accuracy"]["held_out"][name])


def measure(names: Sequence[str]) -> dict[str, Any]:
    """Fill ``accuracy.json``: every one of the workloads ``names``, every seed, exact and native."""
    results: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    torch.set_num_threads(1)
    for name in names:
        held_out, seeds = CONFIG["accuracy"]["held_out"][name], CONFIG["accuracy"]["seeds"][name]
        what = hashlib.sha256(json.dumps([CONFIG["workloads"][name], held_out]).encode()).hexdigest()[:16]
        if results.get(name, {}).get("what") != what:
            if left_out(name):
                continue
            results[name] = {"what": what, **{kind: [] for kind in KINDS}}
        rows = results[name]
        for seed in range(seeds):
            for kind in KINDS:
                if len(rows[kind]) == seed:
                    rows[kind].append(scored(name, seed, exactly=kind == "exact"))
                    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    return results


def metrics(name: str, scores: Sequence[float]) -> tuple[str, list[float]]:
    """What is shown of the scores: accuracy, or for text the loss, in nats a token."""
    if name == "resnet20":
        return "accuracy", list(scores)
    return "loss, nats a token", [-math.log(score) for score in scores]


def groups(count: int) -> dict[str, slice]:
    """The seeds whose number was fixed at first, those that were added, and all ``count``."""
    if count <= FIRST:
        return {f"{count}": slice(count)}
    return {f"the first {FIRST}": slice(FIRST), f"{count - FIRST} more": slice(FIRST, count), f"{count}": slice(count)}


def summary(name: str, rows: Mapping[str, Any]) -> dict[str, Any]:
    """Means, the native seeds' standard deviation, the difference of means and its standard error (Welch)."""
    metric, native = metrics(name, rows["native"])
    exactly = metrics(name, rows["exact"])[1]
    means = statistics.mean(exactly), statistics.mean(native)
    return {
        "metric": metric, "seeds": len(native), "exact": means[0], "native": means[1],
        "spread": statistics.stdev(native), "difference": means[0] - means[1],
        "error": math.sqrt(sum(statistics.variance(values) / len(values) for values in (exactly, native))),
        "within": min(native) <= means[0] <= max(native),
    }  # fmt: skip


def draw(results: Mapping[str, Any]) -> None:
    """A panel a workload: a dot a seed, exact beside native, and their means."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    with mpl.rc_context(STYLE):
        figure, panels = plt.subplots(1, len(results), squeeze=False)
        for axes, (name, rows) in zip(panels[0], results.items(), strict=True):
            for place, kind in enumerate(KINDS):
                metric, values = metrics(name, rows[kind])
                axes.plot([place] * len(values), values, "o", color=f"C{place}", alpha=0.7, label="seeds")
                axes.hlines(statistics.mean(values), place - 0.2, place + 0.2, color="black", lw=1)
            axes.set_xticks(range(len(KINDS)), KINDS)
            axes.set_xlim(-0.5, len(KINDS) - 0.5)
            axes.set_ylabel(metric)
            axes.set_title(name)
        figure.savefig(PLOT)
        plt.close(figure)


def main() -> None:
    """Measure what has no result yet, and draw."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--only", choices=CONFIG["workloads"], help="one workload")
    arguments = parser.parse_args()
    results = measure([arguments.only] if arguments.only else list(CONFIG["workloads"]))
    draw(results)
    for name, rows in results.items():
        for label, seeds in groups(len(rows["native"])).items():
            print(name, label, json.dumps(summary(name, {kind: rows[kind][seeds] for kind in KINDS})))


if __name__ == "__main__":
    main()
