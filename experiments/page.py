"""Writes docs/benchmarks.md and its plots from the results beside the experiments: ``python -m experiments.page``."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from experiments.exact import accuracy
from experiments.gas.page import gas
from experiments.tables import table

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "benchmarks.md"
MEGABYTE = 1e6

HEAD = """# Benchmarks

Ratios, measured side by side in one run: the seconds of one machine mean little on another. `make bench` measures
everything anew (about an hour on two cores) and writes this page. The configurations and raw results lie in
`experiments/overhead/`, `experiments/verification/` and `experiments/exact/` (`make exact`). Gas is the same
everywhere: `experiments/gas/`.

Machine: {machine}
"""


def spread(values: Sequence[float], show: Callable[[float], str]) -> str:
    """The median, and the extremes in brackets."""
    return f"{show(median(values))} [{show(min(values))}, {show(max(values))}]"


def times(value: float) -> str:
    """A ratio."""
    return f"{value:.3f}"


def percent(value: float) -> str:
    """A share."""
    return f"{100 * value:.2f} %"


def per_boundary(rounds: dict[str, Any]) -> dict[str, float]:
    """Medians over the rounds, in steps: what one boundary and one ``torch.save`` cost."""
    seconds, turn = rounds["seconds"], rounds["turn"]
    step = median(seconds["plain"]) / turn

    def more(kind: str, than: str) -> float:
        return float(median(a - b for a, b in zip(seconds[kind], seconds[than], strict=True)) / step)

    return {"boundary": more("boundary", "inside"), "torch_save": more("torch_save", "plain")}


def overhead(results: dict[str, Any]) -> Iterator[str]:
    """What recording costs."""
    works = results["workloads"]
    first = next(iter(works.values()))
    length, pairs = first["segment_length"], len(first["pairs"])
    yield "## Recording\n"
    yield (
        f"*Recorded / plain*: {pairs} pairs of one segment of {length} steps each, trained plainly and inside the "
        "recorder, a few steps of each in turn; what the recorder does behind the training is waited for and counted "
        "in full, so this is the cost with no processor to spare. *A boundary* is what a training loop notices of one "
        "(copy, hashes, journal, and the file where the state is kept, behind the steps that follow), and `torch.save` "
        "is what it notices of that, both in training steps: medians of differences between the same few steps with "
        f"and without, {len(first['rounds']['seconds']['plain'])} rounds. Medians [extremes].\n"
    )
    rows = []
    for name, work in works.items():
        wall, cpu = (
            [pair["recorded"][kind] / pair["plain"][kind] for pair in work["pairs"]] for kind in ("wall", "cpu")
        )
        cost, state = per_boundary(work["rounds"]), work["rounds"]["state_bytes"]
        rows.append(
            [
                name, f"{state / MEGABYTE:.1f} MB", spread(wall, times), spread(cpu, times), times(cost["boundary"]),
                times(cost["torch_save"]),
            ]
        )  # fmt: skip
    columns = ["training", "state", "recorded / plain (wall)", "(processor)"]
    yield table([*columns, "a boundary, in steps", "`torch.save`, in steps"], rows) + "\n"
    yield "Disk and memory. Every segment can be opened from both; the peaks are of two processes.\n"
    rows = []
    for name, work in works.items():
        disk, peak = work["disk"], work["memory"]
        more = peak["recorded"] - peak["plain"]
        rows.append(
            [
                name, disk["segments"], f"{disk['proof'] / MEGABYTE:.1f} MB", f"{disk['torch_save'] / MEGABYTE:.1f} MB",
                times(disk["proof"] / disk["torch_save"]), f"{more / MEGABYTE:.1f} MB",
                times(more / work["rounds"]["state_bytes"]),
            ]
        )  # fmt: skip
    head = ["training", "segments", "proof folder", "`torch.save` at each", "ratio", "more peak memory", "in states"]
    yield table(head, rows) + "\n"
    yield (
        "How the cost grows: a boundary's time with the state, nearly in proportion (the steps grow as well); "
        "its share of the training falls as "
        "1 / L with the segment length L. (The recorder's part of every step, keys for generators and checks, is less "
        "than these rounds can tell from noise; the pairs above hold it.)\n"
    )
    rows = []
    for sized in results["growth"]:
        cost = per_boundary(sized)
        shares = [percent(cost["boundary"] / steps) for steps in (10, 100, 1000)]
        size = f"{sized['state_bytes'] / MEGABYTE:.0f} MB"
        rows.append([size, times(cost["boundary"]), times(cost["torch_save"]), *shares])
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
        "state and a sampled segment is replayed as well. Starting a fresh process and building the program anew costs "
        f"the same few seconds for a run of any length; this one trained for {training['wall'] / 60:.0f} minutes.\n"
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


PEERS = """What others pay for the same, in native fp32 steps. The first two were measured on one thread of a CPU, with
their own code and models as small as theirs; a larger step has less overhead, so the rows are no race.

| system | what | / native |
| --- | --- | --- |
| [RepDL](https://github.com/microsoft/RepDL) (acd95bb), fixed-order kernels | LeNet and perceptron steps | 27, 40 |
| | one product of 512 x 512 x 512 | 109 |
| [verifiable-training](https://github.com/meghabyte/verifiable-training) (cea761a), float64 and rounding logs | \
ResNet-20, 16 images; small CNN, 64 images | 12.5, 20.6 |
| OPEN-1B, fixed-order CUDA kernels | published, not measured here | about 5 |
"""


def exact_numerics(digests: dict[str, Any], speed: dict[str, Any]) -> Iterator[str]:
    """What exact numerics keep equal, and what they cost."""
    yield "## Exact numerics\n"
    yield (
        "`make exact`: 200 steps (20 of the base model with adapters) in a process for each setting; the digest of "
        "weights and optimizer after the last (its first 12 digits). Batches, initial weights and generators are the "
        "same everywhere.\n"
    )
    for name, kinds in digests.items():
        rows = [
            [label, *(f"`{kinds[kind][label]['last'][:12]}`" if label in kinds[kind] else "not run" for kind in kinds)]
            for label in kinds["native"]
        ]
        yield table([name, *kinds], rows) + "\n"
    yield (
        "Steps of training on one thread, side by side in one process: processor seconds, medians of rounds after one "
        "that is not counted [extremes]. *Eager* goes through torch's operators; *fused* through kernels of the same "
        "bits that the machine's C compiler built (a confined replay builds none, and uses those that are there).\n"
    )
    rows = []
    for name, row in speed.items():
        native = row["seconds"]["native"]
        for kind in ("exact, eager", "exact, fused"):
            ratios = [a / b for a, b in zip(row["seconds"][kind], native, strict=True)]
            memory = f"{row['peak MiB'][kind] / row['peak MiB']['native']:.2f}"
            digest = "yes" if len(row["digest, fused and eager"]) == 1 else "NO"
            rows.append([name, kind, spread(ratios, lambda value: f"{value:.2f}"), memory, digest])
    head = ["training", "arithmetic", "/ native", "peak memory / native", "one digest, fused and eager"]
    yield table(head, rows) + "\n"
    yield "Where the processor seconds of a step go, in native steps (one step, watched operator by operator).\n"
    groups = list(dict.fromkeys(group for row in speed.values() for found in row["where"].values() for group in found))
    rows = []
    for name, row in speed.items():
        step = median(row["seconds"]["native"])
        for kind, found in row["where"].items():
            rows.append([name, kind, *(f"{found.get(group, 0) / step:.2f}" for group in groups)])
    yield table(["training", "arithmetic", *groups], rows) + "\n"
    yield PEERS


def exact_on_a_gpu(found: dict[str, Any] | None, speed: dict[str, Any] | None) -> Iterator[str]:
    """What ``make exact-gpu`` last found."""
    if found is None:
        yield "No GPU was at hand yet: `make exact-gpu` compares one with the digests above.\n"
        return
    where = f"{found['device']}, torch {found['torch']}"
    yield f"`make exact-gpu` on {where}, with TF32 allowed (high) and not (highest).\n"
    rows = [
        [name, precision, f"`{row['last'][:12]}`", "yes" if row["as on the CPU"] else "NO"]
        for name, precisions in found["workloads"].items()
        for precision, row in precisions.items()
    ]
    yield table(["training", "precision", "digest", "as on the CPU"], rows) + "\n"
    if speed is None:
        return
    taken = "by int8 slices" if speed["int8 slices"] else "in float64"
    yield f"Steps on {speed['device']}, seconds of the wall, native with TF32 off; long exact products {taken}.\n"
    rows = []
    for name, row in speed["workloads"].items():
        ratios = [a / b for a, b in zip(row["seconds"]["exact"], row["seconds"]["native"], strict=True)]
        memory = f"{row['peak MiB']['exact'] / row['peak MiB']['native']:.2f}"
        rows.append([name, spread(ratios, lambda value: f"{value:.2f}"), memory])
    yield table(["training", "/ native", "peak memory / native"], rows) + "\n"


def exact_accuracy(results: dict[str, Any]) -> Iterator[str]:
    """What exact runs reach, beside native ones."""
    yield (
        "What the same training reaches, exact and native, on samples that no run trains on: dots are seeds, lines are "
        f"means. Sizes, {accuracy.FIRST} seeds and the question, whether the exact mean lies between the least and the "
        "greatest of the native seeds, were fixed before the runs. For the ResNet-20 it did not, and it was given 25 "
        "more, their number fixed as well: they stand apart. *Difference* is that of the means, with its standard "
        "error.\n"
    )
    rows = []
    for name, scores in results.items():
        for label, seeds in accuracy.groups(len(scores["native"])).items():
            row = accuracy.summary(name, {kind: scores[kind][seeds] for kind in accuracy.KINDS})
            digits = (f"{row[kind]:.4f}" for kind in ("exact", "native", "spread"))
            difference = f"{row['difference']:+.4f} +- {row['error']:.4f}"
            rows.append([name, label, row["metric"], *digits, difference, "yes" if row["within"] else "no"])
    means = ("exact, mean", "native, mean", "native, deviation")
    yield table(["training", "seeds", "metric", *means, "difference", "within native seeds"], rows) + "\n"
    yield "![Final metrics, exact and native](../experiments/exact/accuracy.png)\n"


def plot_growth(results: dict[str, Any]) -> None:
    """The cost of a boundary against the size of the state."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 4))
    sizes = [sized["state_bytes"] / MEGABYTE for sized in results["growth"]]
    for kind, without, label in (
        ("boundary", "inside", "a recorded boundary"),
        ("torch_save", "plain", "torch.save"),
    ):
        parts = []
        for sized in results["growth"]:
            seconds, step = sized["seconds"], median(sized["seconds"]["plain"]) / sized["turn"]
            more = [(a - b) / step for a, b in zip(seconds[kind], seconds[without], strict=True)]
            parts.append(quantiles(more, n=4))
        errors = [[m - low for low, m, _ in parts], [high - m for _, m, high in parts]]
        axes.errorbar(sizes, [m for _, m, _ in parts], yerr=errors, marker="o", capsize=3, label=label)
    axes.set_xlabel("state (MB)")
    axes.set_ylabel("cost (training steps)")
    axes.set_ylim(bottom=0)
    axes.set_xlim(left=0)
    axes.legend()
    axes.set_title("What one boundary costs, in steps of the same GPT (quartiles)")
    figure.tight_layout()
    figure.savefig(HERE / "overhead" / "growth.png", dpi=120)


def main() -> None:
    """Write the page."""
    recording = json.loads((HERE / "overhead" / "results.json").read_text())
    verifying = json.loads((HERE / "verification" / "results.json").read_text())
    chain = json.loads((HERE / "gas" / "results.json").read_text())
    exact, speed = (json.loads((HERE / "exact" / f"{name}.json").read_text()) for name in ("results", "speed"))
    machine = recording["machine"]
    described = (
        f"{machine['processor']}, {machine['capability']}, torch {machine['torch']}, {machine['threads']} threads"
    )
    parts = [HEAD.format(machine=described), *overhead(recording), *verification(verifying)]
    accuracies = json.loads((HERE / "exact" / "accuracy.json").read_text())
    files = [HERE / "exact" / f"{name}.json" for name in ("gpu", "gpu-speed")]
    gpu = [json.loads(file.read_text()) if file.is_file() else None for file in files]
    parts += [*exact_numerics(exact, speed), *exact_on_a_gpu(*gpu), *exact_accuracy(accuracies)]
    parts += gas(chain)
    PAGE.write_text("\n".join(parts))
    plot_growth(recording)


if __name__ == "__main__":
    main()
