"""What there is to run: config.toml as a list of cells, each with the digest of the settings that it depends on."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from experiments.attacks import ATTACKS
from experiments.stolen_model.bench import IMITATORS, OURS, accuser_of, attack_of
from experiments.stolen_model.store import digest_of
from experiments.stolen_model.workloads import Workload

HERE: Final = Path(__file__).parent
ROOT: Final = HERE.parent.parent
SCRATCH: Final = HERE / "scratch"
"""What is not kept in the repository: trained models, and the pages of quick and tuning runs."""
COMPOSED: Final = ("everything-gently",)
"""After these attacks in one the null hypothesis is tested again, by other owners' keys."""
BY_OWNERS_ALGORITHM: Final = {"mark", "copies", "claim"}
"""What only our own channels give to a thief's setting (``Attack.needs``)."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One thing to do to one owner's model.

    ``what`` is "cost", "released", "innocent-<n>", "null-<channel>-<n>", "others-<attack>", "accuser-<name>", or an
    attack, with a parameter changed or not (:func:`experiments.stolen_model.bench.attack_of`).
    """

    workload: str
    mark: str
    seed: int
    what: str

    @property
    def name(self) -> str:
        """The name of its record."""
        return f"{self.workload}/{self.mark}/{self.seed}/{self.what}"


@dataclass(frozen=True)
class Plan:
    """config.toml: in full or quick, on the reported seeds or on those for tuning; and where everything goes."""

    processes: int
    seeds: tuple[int, ...]
    pairs: int
    curves: dict[str, dict[str, list[float]]]
    goals: tuple[dict[str, Any], ...]
    workloads: dict[str, Workload]
    results: Path
    cache: Path
    page: Path
    plots: Path = field(default=HERE / "plots")

    @classmethod
    def read(cls, *, quick: bool = False, tuning: bool = False) -> Plan:
        """The plan; only the full one on the reported seeds writes into the repository."""
        config = tomllib.loads((HERE / "config.toml").read_text())
        small = config["quick"]
        plan = cls(
            processes=config["processes"],
            seeds=tuple(config["seeds"]["tuning" if tuning else "reported"]),
            pairs=config["null"]["pairs"],
            curves=config["curves"],
            goals=tuple(config["goals"]),
            workloads={name: Workload.parse(name, table) for name, table in config["workloads"].items()},
            results=HERE / "results",
            cache=SCRATCH / "cache",
            page=ROOT / "docs" / "watermark-results.md",
        )
        if quick:
            chosen = [plan.workloads[name] for name in small["workloads"]]
            sizes = (small["steps"], small["accusers"], small["effort"], small["innocents"])
            works = {work.name: work.shortened(*sizes) for work in chosen}
            plan = replace(plan, workloads=works, curves={}, seeds=tuple(small["seeds"]), pairs=small["pairs"])
        if quick or tuning:
            folder = SCRATCH / ("quick" if quick else "tuning")
            plan = replace(plan, results=folder / "results", cache=folder / "cache", plots=folder / "plots")
            plan = replace(plan, page=folder / "watermark-results.md")
        return plan

    def cells(self, workload: Workload) -> Iterator[Cell]:
        """The cells of a workload, what matters most first, so that a run that is stopped early says most."""
        first, innocents = ["cost", "released"], [f"innocent-{n}" for n in range(workload.innocents)]
        if OURS in workload.marks:
            tested = [*workload.channels, *workload.nulls]
            nulls = [f"null-{channel}-{n}" for channel in tested for n in range(workload.innocents)]
            attacks = self._attacks(workload, OURS)
            nulls += [f"others-{name}" for name in COMPOSED if name in attacks and "weights" in workload.channels]
            accusers = [f"accuser-{accuser}" for accuser in workload.accusers]
            imitation = ["imitation"] * workload.imitation
            ours = [*first, *attacks, *innocents, *nulls, *accusers, *imitation]
            yield from (Cell(workload.name, OURS, seed, what) for seed in self.seeds for what in ours)
        for mark in workload.marks:
            rest = self._curves(workload) if mark == OURS else [*first, *innocents, *self._attacks(workload, mark)]
            yield from (Cell(workload.name, mark, seed, what) for seed in self.seeds for what in rest)

    def digest(self, cell: Cell) -> str:
        """The digest of what the cell's record depends on."""
        attack = cell.what.removeprefix("others-")
        run: dict[str, Any] = dict(attack_of(attack).run) if attack.partition("@")[0] in ATTACKS else {}
        run |= {part: dict(ATTACKS[part].run) for part in run.get("parts", ())}
        if cell.what.startswith("accuser-"):
            run = dict(accuser_of(cell.what.removeprefix("accuser-")).run)
        if cell.what.startswith("null-"):
            run = dict(self.workloads[cell.workload].nulls.get(cell.what.split("-")[1], {}))
        if cell.what == "imitation":
            run = {name: dict(ATTACKS[name].run) for name in IMITATORS}
        return digest_of([self.models_digest(cell), run, self.keys(cell)])

    def keys(self, cell: Cell) -> int:
        """How many keys a model is tested with, so that there are ``pairs`` a channel; none where it is not a null."""
        models = {"null": self.workloads[cell.workload].innocents, "others": 1}.get(cell.what.split("-")[0], 0)
        return math.ceil(self.pairs / (len(self.seeds) * models)) if models else 0

    def models_digest(self, cell: Cell) -> str:
        """The digest of what the models that are kept depend on."""
        return digest_of(self.workloads[cell.workload].table())

    def _attacks(self, workload: Workload, mark: str) -> list[str]:
        chosen = workload.attacks or [name for name, attack in ATTACKS.items() if attack.applies(workload.kind)]
        means = set() if mark == OURS else BY_OWNERS_ALGORITHM
        return [name for name in chosen if not means & set(ATTACKS[name].needs)]

    def _curves(self, workload: Workload) -> list[str]:
        attacks = self._attacks(workload, OURS) if workload.curves else []
        chosen = [(name, curve) for name, curve in self.curves.items() if name in attacks]
        return [f"{name}@{key}={value}" for name, curve in chosen for key in curve for value in curve[key]]
