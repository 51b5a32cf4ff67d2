"""The reward model's powers, exponentials and medians against vectors that others published.

Solady's are what its 18-decimal functions answer: for the exponential the true value rounded down, otherwise off by a
unit or a few. PRB-Math takes another way, through base 2, and loses more of the last digits. Both are compared with
through the shares alone: the ratio of two shares is the quotient of what they were made from.
"""

import json
from fractions import Fraction
from pathlib import Path

import pytest

from chain.rewards import shares, validator_shares, weighted_median
from tests.golden.rounds import outcome

ROUNDS = json.loads((Path(__file__).parents[1] / "golden/rounds.json").read_text())["cases"]
WAD = 10**18
ONE = Fraction(1)


def exp(exponent):
    """exp(x), x >= 0, as the model has it: how much more the nearer of two equal validators is paid."""
    near, far = validator_shares([Fraction(0), ONE], [1, 1], exponent, ONE)
    return near / far


def power(base, exponent):
    """base^exponent of whole numbers in WAD, as the model has it: what stakes are worth."""
    of_base, of_one = shares([ONE, ONE], [base, WAD], Fraction(exponent, WAD))
    return of_base / of_one


@pytest.mark.parametrize(
    ("x", "rounded_down"),
    [
        (-1 * WAD, 367_879441171442321),
        (WAD // 2, 1_648721270700128146),
        (-41_446531673892822312, 1),
        (-41_446531673892822313, 0),
        (0, WAD),
    ],
)
def test_exp_is_what_solady_rounds_down(x, rounded_down):
    value = exp(Fraction(abs(x), WAD))
    assert int((value if x >= 0 else 1 / value) * WAD) == rounded_down


@pytest.mark.parametrize(
    ("x", "logarithm"),
    [
        (2_718281828459045235, 999999999999999999),
        (11_723640096265400935, 2_461607324344817918),
        (2**128, 47_276307437780177293),
    ],
)
def test_exp_undoes_soladys_logarithm(x, logarithm):
    assert exp(Fraction(logarithm - 1, WAD)) * WAD < x < exp(Fraction(logarithm + 1, WAD)) * WAD


@pytest.mark.parametrize(
    ("x", "value"),
    [
        (2 * WAD, 7_389056098930650223),
        (11_892150000000000000, 146115_107851442195738190),
        (20_820000000000000000, 1101567497_354306722521735975),
        (33_333333000000000000, 299559147061116_199277615819889397),
    ],
)
def test_exp_agrees_with_prb_math(x, value):
    assert abs(exp(Fraction(x, WAD)) * WAD / value - 1) < 1e-15


@pytest.mark.parametrize(
    ("base", "exponent", "value"),
    [
        (2 * WAD, 1_500000000000000000, 2_828427124746190097),
        (11 * WAD, 28_500000000000000000, 478290249106383504389245497918_050372801213485439),
        (32_150000000000000000, 23_990000000000000000, 1436387590627448555101723413293079116_943375472179194989),
        (406 * WAD, 250000000000000000, 4_488812947719016318),
        (1729 * WAD, 980000000000000000, 1489_495149922256917866),
        (33441 * WAD, 2_189100000000000000, 8018621589_681923269491820156),
        (450000000000000000, 2_200000000000000000, 172610627076774731),
        (500000000000000000, 481000000000000000, 716480825186549911),
        (700000000000000000, 3_100000000000000000, 330981655626097448),
    ],
)
def test_powers_agree_with_prb_math(base, exponent, value):
    assert abs(power(base, exponent) * WAD / value - 1) < 1e-15


def test_a_cube_agrees_with_solady():
    assert power(2 * WAD, 3 * WAD) == 8
    assert abs(power(2 * WAD, 3 * WAD) * WAD - 7_999999999999999989) < 12  # its powWad is not rounded exactly


@pytest.mark.parametrize(
    ("stakes", "medians"),
    [([0, 75, 25, 0], (0, 2000, 4000)), ([0, 30, 20, 50], (0, 0, 4000))],
)
def test_medians_are_those_of_yuma_consensus(stakes, medians):
    """Subtensor's ``test_math_weighted_median_col``, stakes as hundredths, weights as scores."""
    last = {75: [0, 4000, 5000], 30: [0, 0, 5000]}[stakes[1]]
    scores = [[0, 1000, 0], [0, 2000, 4000], [0, 3000, 1000], last]
    assert weighted_median(scores, stakes) == [Fraction(median, 10_000) for median in medians]


@pytest.mark.parametrize("case", ROUNDS, ids=range(len(ROUNDS)))
def test_golden_rounds(case):
    """The same file that the contracts are held to (chain/contracts/test/RewardVectors.t.sol)."""
    found = outcome(case)
    assert {name: case[name] for name in found} == found
