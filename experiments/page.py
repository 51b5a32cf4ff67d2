"""Writes docs/benchmarks.md and its plots from the results beside the experiments: ``python -m experiments.page``."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "benchmarks.md"
MEGABYTE = 1e6

HEAD = """# Benchmarks

Ratios, measured side by side in one run: the seconds of one machine mean little on another. `make bench` measures
everything anew (about an hour on two cores) and writes this page. The configurations and raw results lie in
`experiments/overhead/` and `experiments/verification/`.

Machine: {machine}
"""


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def spread(values: Sequence[float], show: Callable[[float], str]) -> str:
    """The median, and the extremes in brackets."""
    return f"{show(median(values))} [{show(min(values))}, {show(max(values))}]"


def times(value: float) -> str:
    """A ratio."""
    return f"{value:.3f}"


def percent(value: float) -> str:
    """A share."""
    return f"{100 * value:.2f} %"


def overhead(results: dict[str, Any]) -> Iterator[str]:
    """What recording costs."""
    works = results["workloads"]
    length, pairs = (next(iter(works.values()))["segment_length"], len(next(iter(works.values()))["pairs"]))
    yield "## Recording\n"
    yield (
        f"One segment of {length} steps trained plainly and one inside the recorder, in turn, {pairs} pairs; the work "
        "that the recorder does behind the training is waited for and counted in full, and so is the loader. The "
        "boundary's share is the same cost without the noise of two segments: copy, hashes, journal, and the file "
        "where the state is kept, over the time of the plain segment. Medians [extremes].\n"
    )
    rows = []
    for name, work in works.items():
        ratio = {
            kind: [pair["recorded"][kind] / pair["plain"][kind] for pair in work["pairs"]] for kind in ("wall", "cpu")
        }
        share = [pair["boundary"]["wall"] / pair["plain"]["wall"] for pair in work["pairs"]]
        saving = [pair["torch_save"]["wall"] / pair["plain"]["wall"] for pair in work["pairs"]]
        rows.append(
            [
                name, f"{work['state_bytes'] / MEGABYTE:.1f} MB", spread(ratio["wall"], times),
                spread(ratio["cpu"], times), spread(share, percent), spread(saving, percent),
            ]
        )  # fmt: skip
    head = ["training", "state", "recorded / plain (wall)", "(processor)", "a boundary's share", "`torch.save`'s share"]
    yield table(head, rows) + "\n"
    yield "Disk and memory. Every segment can be opened from both; the peaks are of two processes.\n"
    rows = []
    for name, work in works.items():
        disk, peak = work["disk"], work["memory"]
        more = peak["recorded"] - peak["plain"]
        rows.append(
            [
                name, disk["segments"], f"{disk['proof'] / MEGABYTE:.1f} MB", f"{disk['torch_save'] / MEGABYTE:.1f} MB",
                times(disk["proof"] / disk["torch_save"]), f"{more / MEGABYTE:.1f} MB",
                times(more / work["state_bytes"]),
            ]
        )  # fmt: skip
    head = ["training", "segments", "proof folder", "`torch.save` at each", "ratio", "more peak memory", "in states"]
    yield table(head, rows) + "\n"
    yield (
        "How a boundary's cost grows: with the state, nearly in proportion; with the segment length L its share of the "
        "training falls as 1 / L.\n"
    )
    rows = []
    for row in results["growth"]:
        step, boundary, saving = (median(row[kind]) for kind in ("step", "boundary", "torch_save"))
        shares = [percent(boundary / (steps * step)) for steps in (10, 100, 1000)]
        rows.append([f"{row['state_bytes'] / MEGABYTE:.0f} MB", times(boundary / step), times(saving / step), *shares])
    head = ["state", "boundary, in steps", "`torch.save`, in steps", "share at L = 10", "L = 100", "L = 1000"]
    yield table(head, rows) + "\n"
    yield "![The cost of a boundary](../experiments/overhead/growth.png)\n"


def verification(results: dict[str, Any]) -> Iterator[str]:
    """What verifying costs."""
    training = results["training"]
    share = results["sample"] / results["segments"]
    yield "## Verifying\n"
    yield (
        f"{results['sample']} of {results['segments']} segments ({percent(share)} of the run), "
        f"{results['states_kept']} states kept. *Opened* means that the states at both ends of the sampled segments "
        "were worked out by the trainer and served; *sparse* is the folder as recorded, where what lies between a kept "
        "state and a sampled segment is replayed as well.\n"
    )
    sparse, opening = results["sparse"], results["opening"]
    rows = [
        ["opening the sample (trainer)", "", percent(opening["wall"] / training["wall"]), ""],
        ["verifying, sparse", sparse["replayed"], percent(sparse["wall"] / training["wall"]), ""],
    ]
    for row in results["opened"]:
        cost = row["wall"] / training["wall"]
        rows.append([f"verifying, opened, `{row['executor']}`", row["replayed"], percent(cost), times(cost / share)])
    yield table(["what", "segments replayed", "of the training (wall)", "of the sample's share"], rows) + "\n"
    one = next(row for row in results["opened"] if row["executor"] == "pool:1")
    rows = []
    for row in results["opened"]:
        workers = 2 if row["executor"] in ("pool:2", "ray") else 1
        faster = one["wall"] / row["wall"]
        rows.append(
            [f"`{row['executor']}`", workers, f"{60 * row['replayed'] / row['wall']:.1f}", times(faster / workers)]
        )
    yield "Segments a minute here (two cores; Ray is started for the purpose), and the efficiency against one worker.\n"
    yield table(["executor", "workers", "segments a minute", "efficiency"], rows) + "\n"


def plot_growth(results: dict[str, Any]) -> None:
    """The cost of a boundary against the size of the state."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 4))
    sizes = [row["state_bytes"] / MEGABYTE for row in results["growth"]]
    for kind, label in (("boundary", "a recorded boundary"), ("torch_save", "torch.save")):
        middle = [median(row[kind]) / median(row["step"]) for row in results["growth"]]
        low = [min(row[kind]) / median(row["step"]) for row in results["growth"]]
        high = [max(row[kind]) / median(row["step"]) for row in results["growth"]]
        errors = [
            [m - a for m, a in zip(middle, low, strict=True)], [b - m for m, b in zip(middle, high, strict=True)]
        ]  # fmt: skip
        axes.errorbar(sizes, middle, yerr=errors, marker="o", capsize=3, label=label)
    axes.set_xlabel("state (MB)")
    axes.set_ylabel("cost (training steps)")
    axes.set_ylim(bottom=0)
    axes.set_xlim(left=0)
    axes.legend()
    axes.set_title("What one boundary costs, against one step of the same GPT")
    figure.tight_layout()
    figure.savefig(HERE / "overhead" / "growth.png", dpi=120)


def main() -> None:
    """Write the page."""
    recording = json.loads((HERE / "overhead" / "results.json").read_text())
    verifying = json.loads((HERE / "verification" / "results.json").read_text())
    machine = recording["machine"]
    described = (
        f"{machine['processor']}, {machine['capability']}, torch {machine['torch']}, {machine['threads']} threads"
    )
    parts = [HEAD.format(machine=described), *overhead(recording), *verification(verifying)]
    PAGE.write_text("\n".join(parts))
    plot_growth(recording)


if __name__ == "__main__":
    main()
