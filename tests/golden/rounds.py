"""Writes rounds.json: what the model of chain/rewards.py says of single rounds, for the contracts to say the same.

``python -m tests.golden.rounds``, from the repository's root. Inputs are drawn once, from a fixed seed; outputs are the
model's, amounts in wei rounded down. Numbers are decimal strings, because JSON's readers have 53 bits.
"""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from random import Random
from typing import Any

from chain.rewards import WAD, Aggregator, RoundRules, TrainerEntry, ValidatorEntry, settle_round

HERE = Path(__file__).parent
EXPONENTS = (0, WAD // 2, WAD, 137 * WAD // 100, 2 * WAD)
ROOM = 10**40  # no cap: an allotment is the share itself


def outcome(case: dict[str, Any]) -> dict[str, Any]:
    """Pools, consensus scores (WAD), ranks (0 = none) and allotments of a case of rounds.json."""
    trainers = [
        TrainerEntry(own=own, delegated=lent, commit_order=order or None, room=ROOM)
        for own, lent, order in zip(*(_numbers(case[name]) for name in ("own", "lent", "orders")), strict=True)
    ]
    judges = (_numbers(case[name]) for name in ("judges_own", "judges_lent"))
    validators = [
        ValidatorEntry(own=own, delegated=lent, scores=_row(row))
        for own, lent, row in zip(*judges, case["rows"], strict=True)
    ]
    settled = settle_round(_rules(case), trainers, validators)
    return {
        "pools": [str(settled.trainer_pot), str(settled.validator_pot)],
        "aggregates": [str(int((mean or 0) * WAD)) for mean in settled.aggregates],
        "ranks": [str(rank or 0) for rank in settled.ranks],
        "trainers": [str(int(amount)) for amount in settled.trainers],
        "validators": [str(int(amount)) for amount in settled.validators],
    }


def _rules(case: dict[str, Any]) -> RoundRules:
    wads = {name: Fraction(int(case[name]), WAD) for name in ("q", "alpha_trainer", "alpha_validator", "sensitivity")}
    aggregator = Aggregator.MEDIAN if case["median"] else Aggregator.MEAN
    return RoundRules(
        reward=int(case["reward"]), gamma=Fraction(int(case["gamma_bps"]), 10_000), aggregator=aggregator, **wads
    )


def _numbers(texts: list[str]) -> list[int]:
    return [int(text) for text in texts]


def _row(row: str) -> tuple[int, ...] | None:
    packed = bytes.fromhex(row.removeprefix("0x"))
    return tuple(int.from_bytes(packed[at : at + 2], "big") for at in range(0, len(packed), 2)) or None


def _amount(random: Random, digits: int) -> str:
    return str(10**15 + random.randint(1, 10 ** random.randint(15, digits)))


def _case(random: Random) -> dict[str, Any]:
    n, m = random.randint(1, 8), random.randint(1, 8)
    orders = random.sample(range(1, 100), n)
    case = {
        "reward": _amount(random, 22),
        "gamma_bps": str(random.choice([0, 1_000, 3_333, 5_000])),
        "q": str(random.choice([WAD, 9 * WAD // 10, random.randint(WAD // 10, WAD)])),
        "alpha_trainer": str(random.choice(EXPONENTS)),
        "alpha_validator": str(random.choice(EXPONENTS)),
        "sensitivity": str(random.choice([0, 5 * WAD, 18 * WAD])),
        "median": random.random() < 0.5,
        "own": [_amount(random, 22) for _ in range(n)],
        "lent": [random.choice(["0", _amount(random, 21)]) for _ in range(n)],
        "orders": [str(order if random.random() < 0.8 else 0) for order in orders],
        "judges_own": [_amount(random, 22) for _ in range(m)],
        "judges_lent": [random.choice(["0", _amount(random, 21)]) for _ in range(m)],
        "rows": [_drawn_row(random, n) if random.random() < 0.8 else "0x" for _ in range(m)],
    }
    return case | outcome(case)


def _drawn_row(random: Random, length: int) -> str:
    scores = (random.choice([5_000, 7_500, random.randint(0, 10_000)]) for _ in range(length))
    return "0x" + b"".join(score.to_bytes(2, "big") for score in scores).hex()


if __name__ == "__main__":
    source = Random(3)
    cases = [_case(source) for _ in range(16)]
    HERE.joinpath("rounds.json").write_text(json.dumps({"cases": cases}, indent=1) + "\n")
