"""From raw records to numbers: who was found, how much of a mark is left, and whether innocents are coin flips."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy.stats import binom, kstest

from experiments.attacks import ATTACKS
from experiments.stolen_model.bench import OURS
from experiments.stolen_model.store import Record
from watermark.evidence import Evidence, Trials

EXTRACTION: Final = "extraction"
THRESHOLD: Final = -64.0


@dataclass(frozen=True)
class Row:
    """One record: ``what`` was done to the model of ``mark`` and ``seed``, and what came of it."""

    mark: str
    seed: int
    what: str
    record: Record

    @property
    def attack(self) -> str:
        """The attack, without a changed parameter; nothing for what is no attack."""
        name = self.what.partition("@")[0]
        return name if name in ATTACKS else ""

    @property
    def family(self) -> str | None:
        """The attack's family; "copy" for the released model as it is, nothing for what was not stolen.

        An attack composed of others is extraction if one of them is: its model was taught, not modified.
        """
        if self.what == "released":
            return "copy"
        if not self.attack:
            return None
        parts: Any = ATTACKS[self.attack].run.get("parts", ())
        taught = any(ATTACKS[part].family == EXTRACTION for part in parts)
        return EXTRACTION if taught else ATTACKS[self.attack].family

    @property
    def innocent(self) -> bool:
        """Whether this is an innocent's model."""
        return self.what.startswith("innocent-")

    @property
    def failed(self) -> str | None:
        """What went wrong in this cell."""
        failed: str | None = self.record.get("failed")
        return failed

    def reading(self, scheme: str) -> dict[str, Any] | None:
        """What ``scheme`` read, if it could."""
        readings: dict[str, dict[str, Any]] = self.record.get("readings", {})
        return readings.get(scheme)


def rows_of(records: Iterable[Record]) -> list[Row]:
    """The rows of one workload, in the order of their names."""
    rows = []
    for record in records:
        _, mark, seed, what = record["cell"].split("/")
        rows.append(Row(mark, int(seed), what, record))
    return sorted(rows, key=lambda row: (row.mark, row.seed, row.what))


def schemes_of(rows: Sequence[Row]) -> list[str]:
    """Every scheme that read anything, ours first."""
    found: dict[str, None] = {}
    for row in sorted(rows, key=lambda row: row.mark != OURS):
        found |= dict.fromkeys(row.record.get("readings", {}))
    return list(found)


def scores(rows: Sequence[Row], scheme: str, *, stolen: bool, family: str | None = None) -> list[float]:
    """What ``scheme`` scored on stolen models (of extraction, or of all other attacks), or on the innocents."""
    found = []
    for row in rows:
        reading = row.reading(scheme)
        if reading is None or "@" in row.what:
            continue
        if not stolen:
            if row.innocent:
                found.append(reading["score"])
        elif row.family is not None and (row.family == EXTRACTION) == (family == EXTRACTION):
            found.append(reading["score"])
    return found


def found_share(rows: Sequence[Row], scheme: str, *, family: str | None = None) -> float:
    """The share of stolen models (of extraction, or of all other attacks) found at the threshold; NaN without any."""
    told = [
        bool(reading["found"])
        for row in rows
        if (reading := row.reading(scheme)) and "@" not in row.what
        if row.family is not None and (row.family == EXTRACTION) == (family == EXTRACTION)
    ]
    return sum(told) / len(told) if told else math.nan


def auc(stolen: Sequence[float], independent: Sequence[float]) -> float:
    """The chance that a stolen model scores above an independent one, ties counted half; NaN without either."""
    if not stolen or not independent:
        return math.nan
    left, right = np.array(stolen)[:, None], np.array(independent)[None, :]
    return float((left > right).mean() + (left == right).mean() / 2)


def roc(stolen: Sequence[float], independent: Sequence[float]) -> tuple[list[float], list[float]]:
    """The shares of independent and of stolen models at or above each threshold, from strict to lenient."""
    thresholds = sorted({*stolen, *independent}, reverse=True)
    rates = [[sum(score >= t for score in side) / len(side) for t in thresholds] for side in (independent, stolen)]
    return [0.0, *rates[0]], [0.0, *rates[1]]


@dataclass(frozen=True)
class Null:
    """The null hypothesis put to the test: ``pairs`` of keys and innocents, each of ``trials`` at least.

    ``p_values`` have their ties broken at random.
    """

    pairs: int
    trials: int
    ks: float
    least_log2_p: float
    below: int
    log2_ps: list[float]
    p_values: npt.NDArray[np.float64]


def nulls(rows: Sequence[Row]) -> Iterator[tuple[str, Null]]:
    """One a channel, over all seeds and innocents; then those of other owners' keys on stolen models."""
    parts: dict[str, list[Record]] = {}
    for row in rows:
        kind, _, rest = row.what.partition("-")
        if kind in ("null", "others") and not row.failed:
            name = rest.partition("-")[0] if kind == "null" else f"weights, other keys after {rest}"
            parts.setdefault(name, []).append(row.record)
    for name in sorted(parts):
        matches = np.concatenate([part["matches"] for part in parts[name]])
        trials = np.concatenate([np.full(len(part["matches"]), part["trials"]) for part in parts[name]])
        yield name, null_of(matches, trials, Fraction(parts[name][0]["chance"]))


def null_of(matches: npt.NDArray[np.int64], trials: npt.NDArray[np.int64], chance: Fraction) -> Null:
    """The Kolmogorov-Smirnov test of the p-values of ``matches`` of as many ``trials`` each against the uniform law.

    A binomial p-value takes few values; the share of its own step is drawn at random, which makes it exactly uniform.
    """
    dice = np.random.default_rng(0).random(len(matches))
    p_values = binom.sf(matches, trials, float(chance)) + dice * binom.pmf(matches, trials, float(chance))
    pairs = [(int(m), int(t)) for m, t in zip(matches, trials, strict=True)]
    exact = {(m, t): Evidence(m, t, null=(Trials(chance, t),)).log2_p for m, t in set(pairs)}
    log2_ps = [exact[pair] for pair in pairs]
    below = sum(value <= THRESHOLD for value in log2_ps)
    ks, least = float(kstest(p_values, "uniform").pvalue), int(trials.min())
    return Null(len(matches), least, ks, min(log2_ps), below, log2_ps, p_values)
