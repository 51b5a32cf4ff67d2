"""What the daily emission gives to tasks: laws of the model, and the file that the contract is held to."""

import json
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chain.rewards import Tenure, task_emission
from tests.golden.shares import payments

GOLDEN = json.loads((Path(__file__).parents[1] / "golden/emission.json").read_text())["cases"]
TOKEN = 10**18
DAYS = 12
tenures = st.builds(
    lambda tokens, first, length: Tenure(tokens * TOKEN, first, first + length),
    st.integers(1, 10**9),
    st.integers(0, 6),
    st.integers(0, 5),
)
amounts = st.lists(st.integers(0, 10**27), min_size=DAYS, max_size=DAYS)
betas = st.sampled_from([Fraction(0), Fraction(1, 2), Fraction(1), Fraction(137, 100), Fraction(2)])


@given(st.lists(tenures, min_size=1, max_size=5), amounts, betas)
def test_every_day_with_tasks_is_handed_out_whole(tasks, per_day, beta):
    paid = sum(task_emission(tasks, which, range(DAYS), per_day, beta) for which in range(len(tasks)))
    active = (any(task.first_day <= day <= task.last_day for task in tasks) for day in range(DAYS))
    assert float(paid) == pytest.approx(sum(amount for amount, some in zip(per_day, active, strict=True) if some))


@given(tenures, amounts, betas, st.integers(0, DAYS))
def test_a_task_alone_gets_its_days_however_rounds_cut_them(task, per_day, beta, cut):
    first, second = (task_emission([task], 0, days, per_day, beta) for days in (range(cut), range(cut, DAYS)))
    assert float(first + second) == pytest.approx(sum(per_day[task.first_day : task.last_day + 1]))


@pytest.mark.parametrize("case", GOLDEN, ids=range(len(GOLDEN)))
def test_golden_payments(case):
    """The same file that the contract is held to (chain/contracts/test/Emission.t.sol)."""
    assert {name: case[name] for name in ("first_round", "second_round")} == payments(case)
