"""Two claims on one model: the table says who took it from whom."""

from __future__ import annotations

import pytest

from tests.watermark import digits, thief
from tests.watermark.conftest import BETA, Owner, make_owner
from watermark import Claim, WatermarkKey, embed
from watermark.ownership import Owner as Owned
from watermark.ownership import Party, compare


@pytest.fixture(scope="module")
def victim(small: Owner) -> Party:
    return Party(small.claim, small.model)


def marked_by_a_thief(small: Owner, model: digits.State) -> Party:
    """A second mark on ``model``, claimed with the stolen model as the thief's own reference."""
    key = WatermarkKey(b"the thief's secret, 32 bytes ...", small.parameters.leaf_count)
    groups = tuple(range(small.parameters.groups))
    claim = Claim.make(key, BETA, small.parameters, groups, model)
    return Party(claim, embed(model, key, BETA, small.parameters))


@pytest.fixture(scope="module")
def taker(small: Owner) -> Party:
    return marked_by_a_thief(small, thief.copy(small.model))


def test_the_thief_has_both_marks_and_the_victim_one(victim: Party, taker: Party) -> None:
    table = compare(victim, taker)
    assert [[cell.accepted for cell in row] for row in (table.of_earlier, table.of_later)] == [
        [True, True],
        [False, True],
    ]
    assert table.owner is Owned.EARLIER


def test_a_thief_who_commits_first_does_not_win(victim: Party, taker: Party) -> None:
    """The clock alone would give it the model."""
    assert compare(taker, victim).owner is Owned.LATER


def test_two_honest_parties_own_what_is_theirs(small: Owner, victim: Party) -> None:
    other = make_owner((64, 256, 256, 10), small.parameters, opened=16, steps=120, seed=5)
    assert compare(victim, Party(other.claim, other.model)).owner is Owned.NOBODY


def test_a_claim_that_is_not_in_its_own_model_takes_nothing(small: Owner, taker: Party) -> None:
    """The unmarked reference with the victim's claim: a party that cannot show its mark at home is no owner."""
    assert compare(Party(small.claim, small.theta_ref), taker).owner is not Owned.EARLIER
