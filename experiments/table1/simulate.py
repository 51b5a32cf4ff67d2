"""A task of the paper's size, day by day, by the reward equations: in floating point, held to the reference model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from chain.rewards import RoundRules, TrainerEntry, ValidatorEntry, settle_round

Floats: TypeAlias = NDArray[np.float64]
TOKEN = 10**18
FULL = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """How many take part, for how many days, under which numbers; see config.toml.

    ``final_share`` of the nodes' reward is paid by one ranking at the end, the rest day by day.
    """

    nodes: int
    validators: int
    days: int
    q: float
    alpha: float
    sensitivity: float
    final_share: float
    stake_spread: float
    persistence: float
    attendance: float
    noise_bps: float


@dataclass(frozen=True, slots=True)
class Day:
    """Stakes of both sides, and the scores of the validators who were there (basis points): [validators, nodes]."""

    nodes: Floats
    validators: Floats
    scores: NDArray[np.int64]


def qualities(pick: np.random.Generator, nodes: int, days: int, persistence: float) -> Floats:
    """How good each model is, [days + 1, nodes], the last row at final validation: standard normal each day."""
    lasting, daily = pick.normal(size=nodes), pick.normal(size=(days + 1, nodes))
    return np.asarray(persistence * lasting + np.sqrt(1 - persistence**2) * daily)


def stakes(pick: np.random.Generator, count: int, spread: float) -> Floats:
    """Log-normal stakes with median 1."""
    return np.asarray(np.exp(spread * pick.normal(size=count)), dtype=np.float64)


def node_shares(quality: Floats, stake: Floats, q: float, alpha: float, final_share: float) -> Floats:
    """Each node's part of what all nodes are paid, if consensus ranks by quality; sums to 1."""
    daily = np.array([_shares(q ** (_ranks(row) - 1), stake, alpha) for row in quality])
    return np.asarray((1 - final_share) * daily[:-1].mean(axis=0) + final_share * daily[-1])


def settle(day: Day, q: float, alpha: float, sensitivity: float) -> tuple[Floats, Floats]:
    """Every node's and every present validator's part of what its side is paid on a day, as in
    :func:`chain.rewards.settle_round` with the mean and no caps."""
    weights = day.validators / day.validators.sum()
    consensus = weights @ day.scores / FULL
    distances = np.abs(day.scores / FULL - consensus).mean(axis=1)
    nodes = _shares(q ** (_ranks(consensus) - 1), day.nodes, alpha)
    return nodes, _shares(np.exp(-sensitivity * distances), day.validators, alpha)


def disagreement(pick: np.random.Generator, q: float, alpha: float, sensitivity: float) -> float:
    """The largest difference between :func:`settle` and the reference model, on one random day."""
    day = Day(stakes(pick, 20, 1.0), stakes(pick, 30, 1.0), pick.integers(0, FULL, size=(30, 20)))
    rules = RoundRules(
        reward=TOKEN,
        gamma=Fraction(0),
        q=Fraction(q),
        alpha_trainer=Fraction(alpha),
        alpha_validator=Fraction(alpha),
        sensitivity=Fraction(sensitivity),
    )
    nodes, validators = ([int(value * TOKEN) for value in side] for side in (day.nodes, day.validators))
    exact = settle_round(
        rules,
        [TrainerEntry(own=own, delegated=0, commit_order=order, room=TOKEN) for order, own in enumerate(nodes)],
        [
            ValidatorEntry(own=own, delegated=0, scores=tuple(row))
            for own, row in zip(validators, day.scores.tolist(), strict=True)
        ],
    )
    pots = (exact.trainer_pot, exact.validator_pot)
    sides = zip(settle(day, q, alpha, sensitivity), (exact.trainers, exact.validators), pots, strict=True)
    return max(float(np.abs(ours - [float(amount) / pot for amount in side]).max()) for ours, side, pot in sides)


def play(task: Task, seed: int) -> dict[str, Floats]:
    """What nodes and validators are paid over the whole task, as parts of what their side is paid."""
    pick = np.random.default_rng(seed)
    quality = qualities(pick, task.nodes, task.days, task.persistence)
    own, judges = stakes(pick, task.nodes, task.stake_spread), stakes(pick, task.validators, task.stake_spread)
    careless = task.noise_bps * np.exp(pick.normal(size=task.validators))
    nodes, validators = np.zeros(task.nodes), np.zeros(task.validators)
    for number, row in enumerate(quality):
        present = pick.random(task.validators) < task.attendance
        day = Day(own, judges[present], _scores(pick, row, careless[present]))
        of_nodes, of_validators = settle(day, task.q, task.alpha, task.sensitivity)
        final = number == task.days
        nodes += of_nodes * (task.final_share if final else (1 - task.final_share) / task.days)
        validators[present] += 0 if final else of_validators / task.days
    return {"nodes": nodes, "validators": validators}


def summary(parts: Sequence[Floats]) -> dict[str, float]:
    """Deviation, least and most of what one is paid, in means, averaged over several plays."""
    scaled = [part / part.mean() for part in parts]
    found = {
        "deviation": [part.std() for part in scaled],
        "least": [part.min() for part in scaled],
        "most": [part.max() for part in scaled],
    }
    return {name: float(np.mean(values)) for name, values in found.items()}


def _ranks(merits: Floats) -> NDArray[np.int64]:
    """From 1, the best first; of equals the first."""
    return np.asarray(1 + np.argsort(np.argsort(-merits, kind="stable"), kind="stable"))


def _shares(merits: NDArray[np.floating[Any]], stake: Floats, alpha: float) -> Floats:
    weights = merits * stake**alpha
    return np.asarray(weights / weights.sum())


def _scores(pick: np.random.Generator, quality: Floats, careless: Floats) -> NDArray[np.int64]:
    errors = careless[:, None] * pick.normal(size=(len(careless), len(quality)))
    return np.clip(FULL / 2 + 1_000 * quality + errors, 0, FULL).astype(np.int64)
