"""Writes docs/watermark-results.md and its plots from the raw results: ``python -m experiments.stolen_model.page``."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from challenge.claims import OPENED_GROUPS
from experiments.attacks import ATTACKS
from experiments.attacks import table as attack_table
from experiments.stolen_model.analysis import (
    EXTRACTION,
    THRESHOLD,
    Row,
    auc,
    found_share,
    nulls,
    rows_of,
    schemes_of,
    scores,
)
from experiments.stolen_model.bench import OURS
from experiments.stolen_model.channels import CHANNELS
from experiments.stolen_model.channels.weights import suggested
from experiments.stolen_model.plan import Plan
from experiments.stolen_model.plot import plots
from experiments.stolen_model.store import Results
from experiments.stolen_model.workloads import QUALITIES, Workload
from experiments.tables import table
from pol.errors import CannotRun

MET = "met"
GAS = Path(__file__).parents[1] / "gas" / "results.json"
LEAVES_GAS = 1_500_000
HEAD = """# Does the watermark convict thieves, and never the innocent?

Written by `make experiments` from the raw results in `experiments/stolen_model/results/` (about ten hours on two cores
when nothing is there yet; it can be stopped at any time and goes on where it stopped). Settings were fixed in
`experiments/stolen_model/config.toml` before these runs, on other seeds; their splits are other draws from the same
samples. One departure: the margins that are suggested for perceptrons were changed after a run of digits-mlp on the
reported seeds, and that workload was run again on them.

How to read it. *Retention* is the share of the tested bits or labels that a suspect agrees with; an innocent agrees
with half of the bits, and with one label in ten. *Read* is how many bits or labels were there to be read, in the worst
seed (rows that a thief cut out or drew anew are not). *log2 p* is the exact p-value of one test, *found* how many seeds
reached 2^-64. Where there are two numbers they are the median and the worst of {seeds} seeds. Every seed has its own
split of the data, initial weights, key and beacons. One model bears the marks of all channels together, those in the
weights at the least norm. The thief has a disjoint half of the data with labels and may query the model with all of it
(Lukas et al. 2022). Times are of one processor. The weights channel tests 32 groups of leaves, two thirds of them at
most; a challenge opens 32, all of them where there are no more. The others test all of theirs.
"""


def write(plan: Plan) -> None:
    """Write the page and the plots of ``plan``."""
    parts = [HEAD.format(seeds=len(plan.seeds))]
    found = {name: rows_found(plan, workload) for name, workload in plan.workloads.items()}
    parts += _standing(plan, found)
    present = {name: rows for name, rows in found.items() if rows}
    parts += judged_goals(plan, present)
    parts += _null(present)
    parts += _accusers(present)
    parts += _imitation(present)
    for name, rows in present.items():
        parts += _workload(plan, plan.workloads[name], rows)
    parts += _settings()
    plan.page.parent.mkdir(parents=True, exist_ok=True)
    plan.page.write_text("\n".join(parts))


def rows_found(plan: Plan, workload: Workload) -> list[Row]:
    """What was measured with the settings of ``plan``; records of other settings are left out."""
    records = Results(plan.results / f"{workload.name}.jsonl").records
    wanted = {cell.name: plan.digest(cell) for cell in plan.cells(workload)}
    return rows_of(record for name, record in records.items() if record["digest"] == wanted.get(name))


def _standing(plan: Plan, found: dict[str, list[Row]]) -> Iterator[str]:
    yield "## What was run\n"
    lines = []
    for name, workload in plan.workloads.items():
        wanted, done = list(plan.cells(workload)), found[name]
        broken = sum(row.failed is not None for row in done)
        notes = [f"{broken} failed, see below"] if broken else []
        if len(done) < len(wanted):
            notes.append(_reason(workload, plan.seeds[0], "not finished" if done else "not run yet"))
        lines.append([name, f"{len(done)} of {len(wanted)}", "; ".join(notes)])
    yield table(["workload", "cells", ""], lines) + "\n"
    yield "The models, and the share of an attack's epochs that was run (*effort*; of the marks' own steps as well).\n"
    models = [
        [work.name, _said(work.data), work.program, _said(work.config), work.batch, work.effort, work.innocents]
        for work in plan.workloads.values()
    ]
    yield table(["workload", "data", "program", "config", "batch", "effort", "innocents a seed"], models) + "\n"


def _said(settings: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name} {' '.join(value) if isinstance(value, list) else value}" for name, value in settings.items()
    )


def _reason(workload: Workload, seed: int, standing: str) -> str:
    try:
        workload.split(seed)
    except CannotRun as error:
        return f"{standing}: {error}"
    return f"{standing}: `python -m experiments.stolen_model.run --only {workload.name}` goes on with it"


def judged_goals(plan: Plan, found: dict[str, list[Row]]) -> Iterator[str]:
    """The table of goals: what is missed is missed as soon as it is seen, met only where the whole workload was run."""
    yield "## Goals\n"
    yield (
        "Judged on the worst seed: of the worst attack where the line names attacks, else of all models together, the "
        "copy as it is among the modified ones. A model that was taught, then modified, counts as extracted.\n"
    )
    lines = []
    for name, rows in found.items():
        judged = [line for goal in plan.goals if (line := _goal(goal, rows))]
        judged += _told_apart(plan.workloads[name], rows)
        judged += _costs(plan.workloads[name], rows)
        lines += [[name, *line] for line in _not_embedded(plan, plan.workloads[name])]
        whole = len(rows) == len(list(plan.cells(plan.workloads[name]))) and not any(row.failed for row in rows)
        lines += [[name, *line, standing if whole or standing != MET else "not finished"] for *line, standing in judged]
    yield table(["workload", "goal", "asked", "median", "worst", ""], lines) + "\n"
    yield f"Opening 128 leaves of a key of 64 groups of 8 on chain, in gas: {_opening()} (docs/benchmarks.md).\n"


def _opening() -> str:
    """What ``experiments.gas`` measured, if it did with these contracts."""
    measured = json.loads(GAS.read_text()).get("anatomy", {}).get("ChallengeManager.openLeaves")
    if measured is None:
        return "not measured"
    used = measured["used"]
    return f"{used:,}, at most {LEAVES_GAS:,} asked: " + (
        f"missed by {used - LEAVES_GAS:,}" if used > LEAVES_GAS else MET
    )


def _goal(goal: dict[str, Any], rows: Sequence[Row]) -> list[str] | None:
    measure = "retention" if "retention" in goal else "log2_p"
    readings = [
        (row.what, reading[measure])
        for row in rows
        if row.what in goal["attacks"] and row.mark == OURS and (reading := row.reading(goal["channel"]))
    ]
    if not readings:
        return None
    values = [value for _, value in readings]
    asked, show = goal[measure], _percent if measure == "retention" else _log2
    what = max if measure == "log2_p" else min
    worst = what(values)
    missed = worst > asked if measure == "log2_p" else worst < asked
    which = next(name for name, value in readings if value == worst)
    by = f"**missed by {show(abs(worst - asked))}** (`{which}`)" if missed else MET
    sign = "≤ " if measure == "log2_p" else "≥ "
    return [f"{goal['channel']}: {goal['text']}", sign + show(asked), show(median(values)), show(worst), by]


def _not_embedded(plan: Plan, workload: Workload) -> Iterator[list[str]]:
    """What is asked of channels that this kind of model could bear, and does not here."""
    for goal in plan.goals:
        channel = goal["channel"]
        asked = f"≤ {_log2(goal['log2_p'])}" if "log2_p" in goal else f"≥ {_percent(goal['retention'])}"
        if channel not in workload.channels and workload.kind in CHANNELS[channel].kinds:
            yield [f"{channel}: {goal['text']}", asked, "—", "—", "**not measured**: not embedded here"]


def _told_apart(workload: Workload, rows: Sequence[Row]) -> Iterator[list[str]]:
    """Stolen and independent models, seed by seed; and how much of a mark in the weights one dispute opens."""
    seeds = [[row for row in rows if row.seed == seed and row.mark == OURS] for seed in sorted({r.seed for r in rows})]
    for channel in (channel for channel in CHANNELS if channel in workload.channels):
        shares = [share for some in seeds if not math.isnan(share := found_share(some, channel))]
        if shares:
            yield [f"{channel}: share of modified models found at 2^-64", *_at_least(shares, 1.0, _percent)]
        for family, what, asked in ((None, "modified", 1.0), (EXTRACTION, "extracted", 0.95)):
            sides = [
                (scores(some, channel, stolen=True, family=family), scores(some, channel, stolen=False))
                for some in seeds
            ]
            areas = [area for sides_ in sides if not math.isnan(area := auc(*sides_))]
            if areas and (what == "modified" or channel != "weights"):
                yield [f"{channel}: area under the ROC curve, {what}", *_at_least(areas, asked, lambda x: f"{x:.3f}")]
    if "weights" in workload.channels:
        groups = suggested(workload.network(), workload.kind).groups
        opened = min(OPENED_GROUPS, groups) / groups
        yield ["weights: leaves opened in one dispute", *_at_most([opened], 1 / 16, _percent)]


def _costs(workload: Workload, rows: Sequence[Row]) -> Iterator[list[str]]:
    costs = [row.record for row in rows if row.what == "cost" and row.mark == OURS and not row.failed]
    if not costs:
        return
    language = QUALITIES[workload.kind][0] == "perplexity"
    asked, unit = (0.5, " %") if language else (0.2, " points" if QUALITIES[workload.kind][1] == "%" else " dB")
    asked = 0.1 if workload.kind == "lora" else asked
    alone = [(channel, [cost["channels"][channel] for cost in costs]) for channel in costs[0]["channels"]]
    for what, marked in [*alone, *([("all channels", costs)] if len(alone) > 1 else [])]:
        lost, share = [], []
        for cost, found in zip(costs, marked, strict=True):
            before, after = cost["unmarked"], found["marked"]
            lost.append(100 * (after / before - 1) if language else before - after)
            share.append(found["embed_seconds"] / cost["train_seconds"])
        yield [f"{what}: quality lost by embedding", *_at_most(lost, asked, lambda value: f"{value:.3f}{unit}")]
        yield [f"{what}: time of embedding, of the training", *_at_most(share, 0.1, _percent)]
    for channel in CHANNELS:
        taken = [r["seconds"] for row in rows if row.mark == OURS and (r := row.reading(channel))]
        if taken:
            limit = 60.0 if workload.kind == "lora" else 1.0  # seconds: its base is a model of 135M parameters
            yield [f"time of one detection, {channel}", *_at_most(taken, limit, lambda value: f"{value:.2f} s")]


def _at_most(values: Sequence[float], asked: float, show: Callable[[float], str]) -> list[str]:
    worst = max(values)
    by = f"**missed by {show(worst - asked)}**" if worst > asked else MET
    return [f"≤ {show(asked)}", show(median(values)), show(worst), by]


def _at_least(values: Sequence[float], asked: float, show: Callable[[float], str]) -> list[str]:
    worst = min(values)
    by = f"**missed by {show(asked - worst)}**" if worst < asked else MET
    return [f"≥ {show(asked)}", show(median(values)), show(worst), by]


def _null(found: dict[str, list[Row]]) -> Iterator[str]:
    yield "## The null hypothesis\n"
    yield (
        "Keys that nobody embedded, on innocent models that are aligned as in a real test. The p-values must be "
        "uniform (Kolmogorov–Smirnov, ties broken at random), and none may be at or below 2^-64. In the weights every "
        "leaf is counted, also those that a real test leaves out because an innocent has nothing in their place: "
        "counting only what is left, most innocents have few trials or none. *Other keys after* an attack: keys of "
        "others on the owner's model when it was stolen and attacked, of the bits that a real test reads there.\n"
    )
    lines = [
        [
            name, channel, f"{null.pairs:,}", null.trials, f"{null.ks:.3f}", f"{null.least_log2_p:.1f}", null.below,
        ]
        for name, rows in found.items()
        for channel, null in nulls(rows)
    ]  # fmt: skip
    yield table(["workload", "channel", "pairs", "trials a pair", "KS p", "least log2 p", "≤ 2^-64"], lines) + "\n"


def _accusers(found: dict[str, list[Row]]) -> Iterator[str]:
    yield (
        "Accusers, who want an innocent model convicted, and see it before they commit to their keys. The p-values are "
        "the best that each could show, uncorrected: of n keys tried, the best one is about 2^-(log2 n).\n"
    )
    lines = []
    for name, rows in found.items():
        by_accuser: dict[str, list[Row]] = {}
        for row in rows:
            if row.what.startswith("accuser-") and not row.failed:
                by_accuser.setdefault(row.what.removeprefix("accuser-"), []).append(row)
        for accuser, tried in by_accuser.items():
            best = min(row.record["log2_p"] for row in tried)
            wins = sum(row.record["log2_p"] <= THRESHOLD and not row.record["void"] for row in tried)
            void = next((row.record["void"] for row in tried if row.record["void"]), "")
            lines.append([name, accuser, len(tried), f"{best:.1f}", wins, void])
    if lines:
        yield table(["workload", "accuser", "seeds", "best log2 p", "wins", "the claim is void because"], lines) + "\n"


def _imitation(found: dict[str, list[Row]]) -> Iterator[str]:
    lines = []
    for name, rows in found.items():
        records = [row.record["imitation"] for row in rows if row.what == "imitation" and not row.failed]
        for asked in records[0] if records else ():
            told = [record[asked] for record in records]
            agreement = [median(one["agreement"][what] for one in told) for what in told[0]["agreement"]]
            labels, value = (median(one["reading"][key] for one in told) for key in ("retention", "log2_p"))
            lines.append([name, asked, len(told), *map(_percent, (*agreement, labels)), _log2(value)])
    if not lines:
        return
    yield "## Why little of the labels survives distillation\n"
    yield (
        "A student learns its teacher's answers where it asks for them, and the labels sit on random inputs, away from "
        "the data. One that asked about the data alone answers such inputs unlike its teacher, also if it is taught "
        "for twice as long; one that asked about as many random inputs of the same kind besides, none of them a "
        "trigger, gives the labels. So in `distil` it is questions that are missing, and no thief asks them: whoever "
        "copies a task asks about its data. How far below chance a share of labels lies also depends on how many there "
        "are, and a small network bears few. Against such a student it is the proof of training that stands: what "
        "another model's answers taught was not made by the task's program from the task's labels. Medians; *agrees* "
        "is the share of inputs with the teacher's answer, of the test data and of 2000 random inputs that neither was "
        "asked about. This table was added after the runs above; nothing was chosen by it.\n"
    )
    head = ["workload", "student asked for", "seeds", "agrees on test data", "on inputs like triggers"]
    yield table([*head, "labels given", "log2 p"], lines) + "\n"


def _workload(plan: Plan, workload: Workload, rows: Sequence[Row]) -> Iterator[str]:
    name, (what, unit) = workload.name, QUALITIES[workload.kind]
    yield f"## {name}\n"
    channels = [channel for channel in CHANNELS if channel in workload.channels]
    before = [row.record["unmarked"] for row in rows if row.what == "cost" and row.mark == OURS and not row.failed]
    after = [row.record["marked"] for row in rows if row.what == "cost" and row.mark == OURS and not row.failed]
    if before:
        yield f"Test {what} {median(before):.2f} {unit} before embedding, {median(after):.2f} {unit} after (medians).\n"
    attacked: dict[str, list[Row]] = {}
    for row in rows:
        if row.mark == OURS and not row.failed and (row.what == "released" or (row.attack and "@" not in row.what)):
            attacked.setdefault(row.what, []).append(row)
    lines = []
    for attack in ["released", *ATTACKS]:
        if attack in attacked:
            lines.append(_attack_line(attack, attacked[attack], channels))
    head = ["#", "attack", f"{what} after"]
    for channel in channels:
        head += [f"{channel}: retention", "read", "log2 p", "found"]
    yield table(head, lines) + "\n"
    yield from _comparison(rows)
    drawn = plots(name, rows, plan.plots)
    links = [f"![{path.stem}]({os.path.relpath(path, plan.page.parent)})" for path in drawn]
    yield "\n\n".join(links) + "\n"
    broken = [row for row in rows if row.failed]
    if broken:
        yield "Cells that failed:\n"
        yield "\n".join(f"- `{row.record['cell']}`: {row.failed}" for row in broken) + "\n"


def _attack_line(attack: str, rows: Sequence[Row], channels: Iterable[str]) -> list[object]:
    number = ATTACKS[attack].number if attack in ATTACKS else ""
    line: list[object] = [number, attack, f"{median(row.record['quality'] for row in rows):.2f}"]
    for channel in channels:
        readings = [reading for row in rows if (reading := row.reading(channel))]
        if not readings:
            line += ["as the model it is" if attack in ATTACKS and ATTACKS[attack].black_box else "—", "", "", ""]
            continue
        shares, values = ([reading[key] for reading in readings] for key in ("retention", "log2_p"))
        found = sum(reading["found"] for reading in readings)
        line += [
            f"{_percent(median(shares))} / {_percent(min(shares))}",
            min(reading["trials"] for reading in readings),
            f"{_log2(median(values))} / {_log2(max(values))}",
            f"{found} of {len(readings)}",
        ]
    return line


def _comparison(rows: Sequence[Row]) -> Iterator[str]:
    yield (
        "Beside the baselines: the area under the ROC curve, stolen against independent models (half of these were "
        "trained on the owner's own data). *Above* is the share of stolen models that score above every independent "
        "one, a threshold that nobody knows beforehand; *found* is the share at 2^-64, which our channels alone have. "
        "A score is -log2 p: an innocent in whose weights there is nothing to read scores 0, and any thief of whom a "
        "little is read lies above it.\n"
    )
    lines = []
    for scheme in schemes_of(rows):
        independent = scores(rows, scheme, stolen=False)
        line: list[object] = [scheme, len(independent)]
        for family in (None, EXTRACTION):
            stolen = scores(rows, scheme, stolen=True, family=family)
            caught = sum(s > max(independent, default=0.0) for s in stolen) / len(stolen) if stolen else float("nan")
            share = found_share(rows, scheme, family=family) if scheme in CHANNELS else math.nan
            found = "—" if math.isnan(share) else _percent(share)
            if stolen and independent:
                line += [len(stolen), f"{auc(stolen, independent):.3f}", _percent(caught), found]
            else:
                line += [len(stolen), "—", "—", found]
        lines.append(line)
    head = [
        "scheme",
        "independent",
        *(what for family in ("modified", "extracted") for what in (family, "AUC", "above", "found")),
    ]
    yield table(head, lines) + "\n"


def _settings() -> Iterator[str]:
    yield "## The attacks, as published and as run\n"
    yield (
        "Epochs are over the thief's half of the data (over all queries where the model is queried), and fewer by the "
        "effort of the workload. Extraction and repair that publications train for longer are shortened. The last rows "
        "are accusers, who want an innocent convicted: by a mark in its weights or by triggers.\n"
    )
    keys = ["number", "attack", "source", "published", "run", "models"]
    yield table(
        ["#", "attack", "source", "published", "run", "models"], [[row[k] for k in keys] for row in attack_table()]
    )
    yield ""


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _log2(value: float) -> str:
    return f"{value:.0f}"


if __name__ == "__main__":
    write(Plan.read())
