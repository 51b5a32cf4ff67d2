"""Writes delegations.json and emission.json: what the models of chain/ say, for the contracts to say the same.

``python -m tests.golden.shares``, from the repository's root. Inputs are drawn once, from a fixed seed, over all
magnitudes; outputs are the models'. Numbers are decimal strings, because JSON's readers have 53 bits.
"""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from random import Random
from typing import Any

from chain.delegation import Delegations
from chain.rewards import WAD, Tenure, daily_emission, task_emission

HERE = Path(__file__).parent
DAY = 86_400
ROUNDS = 7  # the last is the final one, after which nobody lends
LENDERS = 3


def claims(case: dict[str, Any]) -> dict[str, Any]:
    """The operator's part and every lender's claim (wei) of a case of delegations.json."""
    held = Delegations(int(case["own"]), Fraction(int(case["commission_bps"]), 10_000))
    loans = list(zip(case["delegators"], case["amounts"], case["rounds"], strict=True))
    operator = 0
    for number, reward in enumerate(case["rewards"]):
        for who, amount, round_ in loans:
            if int(round_) == number:
                held.lend(str(who), int(amount), number)
        operator += held.settle(int(reward))
    return {"operator": str(operator), "claims": [str(held.claimable(str(who))) for who in range(LENDERS)]}


def payments(case: dict[str, Any]) -> dict[str, Any]:
    """What every task of a case of emission.json is paid for each of its two rounds (wei, rounded down)."""
    starts, lengths, stakes = ([int(value) for value in case[name]] for name in ("starts", "round_lengths", "stakes"))
    ends = [[start + number * length for number in range(3)] for start, length in zip(starts, lengths, strict=True)]
    tasks = [Tenure(stake, times[0] // DAY + 1, times[2] // DAY - 1) for stake, times in zip(stakes, ends, strict=True)]
    decay, beta = Fraction(int(case["decay"]), WAD), Fraction(int(case["beta"]), WAD)
    amounts = [daily_emission(int(case["first_amount"]), decay, int(case["period"]), day) for day in range(200)]
    paid = [
        [
            str(int(task_emission(tasks, which, range(times[n] // DAY, times[n + 1] // DAY), amounts, beta)))
            for which, times in enumerate(ends)
        ]
        for n in range(2)
    ]
    return {"first_round": paid[0], "second_round": paid[1]}


def _amount(random: Random, digits: int) -> str:
    return str(random.randint(1, 10 ** random.randint(0, digits)))


def _delegations(random: Random) -> dict[str, Any]:
    loans = sorted(random.randrange(ROUNDS) for _ in range(random.randrange(9)))
    case = {
        "own": _amount(random, 27),
        "commission_bps": str(random.choice([0, 1, 1_000, 3_333, 9_999, 10_000])),
        "rewards": [random.choice(["0", _amount(random, 26), _amount(random, 26)]) for _ in range(ROUNDS)],
        "delegators": [str(random.randrange(LENDERS)) for _ in loans],
        "amounts": [_amount(random, 27) for _ in loans],
        "rounds": [str(round_) for round_ in loans],
    }
    return case | claims(case)


def _emission(random: Random) -> dict[str, Any]:
    count = random.randint(1, 5)
    case = {
        "first_amount": _amount(random, 26),
        "decay": str(random.choice([0, WAD // 2, 9 * WAD // 10, WAD])),
        "period": str(random.choice([1, 3, 30])),
        "beta": str(random.choice([0, WAD // 2, WAD, 137 * WAD // 100, 2 * WAD])),
        "starts": [str(random.randint(7_200, DAY - 1) + number * DAY) for number in range(count)],
        "round_lengths": [str(random.randint(DAY, 30 * DAY)) for _ in range(count)],
        "stakes": [str(100 * WAD + int(_amount(random, 28))) for _ in range(count)],
    }
    return case | payments(case)


def _write(name: str, cases: list[dict[str, Any]]) -> None:
    HERE.joinpath(name).write_text(json.dumps({"cases": cases}, indent=1) + "\n")


if __name__ == "__main__":
    source = Random(5)
    _write("delegations.json", [_delegations(source) for _ in range(24)])
    _write("emission.json", [_emission(source) for _ in range(12)])
