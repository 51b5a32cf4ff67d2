"""Does the watermark convict thieves and never the innocent? ``python -m experiments.stolen_model.run``

Runs every cell of config.toml that has no record yet, in as many processes as the config says, and writes
docs/watermark-results.md with its plots. It can be killed at any time and goes on where it stopped. ``--quick`` runs a
small plan that only shows that everything works, ``--tuning`` the seeds on which parameters may be chosen; both write
under ``scratch/`` beside this file. ``--only NAME`` runs one workload.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import lru_cache

import torch
from rich.progress import track

from experiments.stolen_model import page
from experiments.stolen_model.bench import Bench
from experiments.stolen_model.plan import Cell, Plan
from experiments.stolen_model.store import Record, Results
from experiments.stolen_model.workloads import Workload
from pol.errors import CannotRun

KEPT_BENCHES = 2


@lru_cache(maxsize=KEPT_BENCHES)
def bench_of(workload: str, mark: str, seed: int, quick: bool, tuning: bool) -> Bench:
    """A process keeps the owners that it worked for last."""
    plan = Plan.read(quick=quick, tuning=tuning)
    settings = plan.models_digest(Cell(workload, mark, seed, "released"))
    return Bench(plan.workloads[workload], mark, seed, plan.cache, settings)


def work(cell: Cell, digest: str, keys: int, quick: bool, tuning: bool) -> Record:
    """The record of one cell. What goes wrong in it is recorded too, shown on the page, and tried again next time."""
    record: Record = {"cell": cell.name, "digest": digest}
    try:
        return record | measured(bench_of(cell.workload, cell.mark, cell.seed, quick, tuning), cell.what, keys)
    except Exception as error:  # one broken cell must not end a run of ten hours
        return record | {"failed": f"{type(error).__name__}: {error}"[:500]}


def measured(bench: Bench, what: str, keys: int) -> Record:
    """What a cell called ``what`` says of the bench."""
    kind, _, rest = what.partition("-")
    match kind:
        case "cost":
            return bench.cost()
        case "imitation":
            return bench.imitation()
        case "null":
            channel, _, number = rest.partition("-")
            return bench.null(channel, int(number), keys)
        case "others":
            return bench.others(rest, keys)
        case "accuser":
            return bench.accuse(rest)
        case _:
            return bench.examine(what)


def run(plan: Plan, workload: Workload, *, quick: bool, tuning: bool) -> None:
    """Run the cells of ``workload`` that have no record with these settings."""
    results = Results(plan.results / f"{workload.name}.jsonl")
    wanted = {cell.name: plan.digest(cell) for cell in plan.cells(workload)}
    missing = [cell for cell in plan.cells(workload) if not results.has(cell.name, wanted[cell.name])]
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(plan.processes, spawn, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        jobs = [pool.submit(work, cell, wanted[cell.name], plan.keys(cell), quick, tuning) for cell in missing]
        for job in track(as_completed(jobs), workload.name, total=len(jobs), disable=not sys.stderr.isatty()):
            results.add(job.result())
    results.tidy(wanted)


def main() -> None:
    """Run what is missing, then write the page."""
    parser = argparse.ArgumentParser(prog="python -m experiments.stolen_model.run", description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--tuning", action="store_true")
    parser.add_argument("--only", metavar="WORKLOAD")
    arguments = parser.parse_args()
    plan = Plan.read(quick=arguments.quick, tuning=arguments.tuning)
    for name, workload in plan.workloads.items():
        if arguments.only not in (None, name):
            continue
        try:
            workload.split(plan.seeds[0])
        except CannotRun as error:
            print(f"{name} is left out: {error}", file=sys.stderr)
            continue
        print(name, file=sys.stderr)
        run(plan, workload, quick=arguments.quick, tuning=arguments.tuning)
    page.write(plan)


if __name__ == "__main__":
    main()
