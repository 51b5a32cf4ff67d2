"""No strategy before the court pays, whatever a thief and its friends do (:mod:`tests.chain.courtgame`).

A thief who is accused loses, however it challenges itself first, shelters behind weak cases, votes, appeals or keeps
silent; one who is not accused gains nothing by the court. Small trees of moves are searched whole, deep ones by
climbing from random strategies. That the search would find what pays is shown on rules that do pay.
"""

import json
import shutil
import subprocess
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from random import Random

import pytest

from chain.case import CaseVerdict
from tests.chain.courtgame import ALICE, CREATOR, MALLORY, Game
from tests.chain.courtsetting import Setting
from tests.chain.revm import Refused, Revm

CONTRACTS = Path(__file__).parents[2] / "chain" / "contracts"
CAPPED = Setting(stake=400)
"""So little at stake that the cap cuts the reward to it: what burns is exactly what is redirected."""
SETTINGS = {
    "accused": replace(CAPPED, accused=True),
    "unnoticed": CAPPED,
    "a large stake": Setting(stake=2_000, accused=True, burn_bps=1_000),
    "borrowed weight": Setting(stake=300, lent=3_000, accused=True, sybils=Fraction(32, 100)),
    "half slashed": Setting(stake=900, accused=True, slash_bps=5_000),
    "one juror": Setting(stake=400, accused=True, jurors=1, sybils=Fraction(32, 100)),
    "no appeal": Setting(stake=400, accused=True, appeals=0),
    "dear openings": Setting(stake=400, bond=40, opening_cost=40),
}
HURRIED = Setting(stake=400, accused=True, spare=0)
DEPTH, DEEP, DEEPEST = 3, 4, 5
STARTS, STEPS, LENGTH = 12, 60, 16
WAIT = (("wait",),)


@pytest.fixture(scope="module")
def chain():
    return Revm()


def explore(game, depth, visit, made=()):
    """Show ``visit`` every strategy of up to ``depth`` moves, and how it ends if nothing more is done. (Waiting last is
    doing nothing more; a move that is refused is none.)"""
    if made[-1:] != WAIT:
        visit(made, game.outcome())
    for move in [*game.moves(), *WAIT] if depth else ():
        with game.chain.wound_back():
            if possible(game, move):
                explore(game, depth - 1, visit, (*made, move))


def possible(game, move):
    """Make a move, unless it is refused. (What the honest do while the coalition waits may not be.)"""
    try:
        game.act(move)
    except Refused:
        if move in WAIT:
            raise
        return False
    return True


def followed(game, choices):
    """The moves that a row of numbers chooses, one at a time among those there are, and how they end."""
    with game.chain.wound_back():
        made = []
        for choice in choices:
            moves = [*game.moves(), *WAIT]
            made.append(moves[choice % len(moves)])
            possible(game, made[-1])
        return tuple(made), game.outcome()


def climb(game, pick, visit):
    """Show ``visit`` strategies found by climbing: random ones, each changed at random where that gains or costs
    nothing."""
    for _ in range(STARTS):
        row, best = [pick.randrange(60) for _ in range(LENGTH)], None
        for _ in range(STEPS):
            tried = [pick.randrange(60) if pick.random() < 1 / LENGTH else choice for choice in row]
            made, outcome = followed(game, tried)
            visit(made, outcome)
            if best is None or outcome.coalition >= best:
                row, best = tried, outcome.coalition


def wrong(game, outcome):
    """Why this must not be how it ends, or nothing."""
    most = 0 if MALLORY in outcome.convicts else outcome.stolen
    reasons = {
        "the coalition gains": outcome.coalition > most,
        "an honest trainer loses": outcome.victim < 0 or ALICE in outcome.convicts,
        "an accused thief is not convicted": game.setting.accused and MALLORY not in outcome.convicts,
    }
    return ", ".join(reason for reason, holds in reasons.items() if holds)


class Fair:
    """Insists of every strategy that it is fair, and counts them."""

    def __init__(self, game):
        self.game, self.count = game, 0

    def __call__(self, made, outcome):
        reason = wrong(self.game, outcome)
        assert not reason, (reason, self.game.setting, made, outcome)
        self.count += 1


@pytest.mark.parametrize("name", ["accused", "unnoticed"])
def test_no_short_strategy_pays(chain, name):
    with chain.wound_back():
        fair = Fair(Game(chain, SETTINGS[name]))
        explore(fair.game, DEPTH, fair)
    assert fair.count > 50


@pytest.mark.slow
@pytest.mark.parametrize(("name", "depth"), [*((name, DEEP) for name in SETTINGS), ("accused", DEEPEST)])
def test_no_longer_strategy_pays(chain, name, depth):
    with chain.wound_back():
        fair = Fair(Game(chain, SETTINGS[name]))
        explore(fair.game, depth, fair)
    assert fair.count > 200


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_no_long_strategy_that_climbing_finds_pays(chain, seed):
    pick = Random(seed)
    setting = Setting(
        stake=pick.choice([100, 400, 700, 2_000]),
        lent=pick.choice([0, 0, 500, 5_000]),
        sybils=Fraction(pick.randint(2, 32), 100),
        burn_bps=pick.choice([0, 0, 1_000]),
        slash_bps=pick.choice([3_000, 10_000]),
        bond=pick.choice([5, 50, 500]),
        opening_cost=pick.choice([0, 5]),
        jurors=pick.choice([1, 3, 7]),
        appeals=pick.choice([0, 1, 2]),
        accused=pick.random() < 0.7,
    )
    with chain.wound_back():
        fair = Fair(Game(chain, setting))
        climb(fair.game, pick, fair)
    assert fair.count == STARTS * STEPS


class HalfToTheChallenger(Game):
    """With a rule of other courts: half of what is slashed goes to whoever brought the case."""

    def closed(self):
        upheld = [case.challenger for _, case in self.cases() if case.verdict is CaseVerdict.UPHELD]
        slashed = self.chain.call("StakeVault", "slashed", self.id, MALLORY)
        if upheld:
            self.chain.send(CREATOR, "ArenaToken", "transfer", upheld[0], slashed // 2)
        return super().closed()


class OneCaseAtATime(Game):
    """With another: a case is not shown while one against the same trainer is pending."""

    def show(self, number):
        if self.view("pendingCases", self.id, self.charges[number].trainer):
            raise Refused("one case at a time")
        super().show(number)


def reasons_found(game, depth=2):
    """What is wrong with some strategy; with doing nothing, nothing may be."""
    found = []
    explore(game, depth, lambda made, outcome: found.append(wrong(game, outcome)))
    assert not found[0]
    return {reason for reason in found if reason}


@pytest.mark.parametrize(
    ("game", "why"),
    [(HalfToTheChallenger, "the coalition gains"), (OneCaseAtATime, "an accused thief is not convicted")],
)
def test_the_search_finds_what_pays_where_something_does(chain, game, why):
    with chain.wound_back():
        assert any(why in reason for reason in reasons_found(game(chain, HURRIED)))


BUGS = {
    "half is slashed": (
        "StakeVault", "StakeVault.sol", "burned = slashable(taskId, operator);",
        "burned = slashable(taskId, operator) / 2;", "the coalition gains",
    ),
    "the cap forgets earlier rounds": (
        "Scoring", "Scoring.sol", "uint256 allocated = escrow.allocated(taskId, trainer);", "uint256 allocated = 0;",
        "the coalition gains",
    ),
    "one case at a time": (
        "ChallengeManager", "court/Docket.sol", "++pendingCases[taskId][charge.trainer];",
        "if (++pendingCases[taskId][charge.trainer] > 1) revert BadCharge();", "an accused thief is not convicted",
    ),
}  # fmt: skip
"""A contract, an edit of one of its sources, and what it makes possible."""


@pytest.mark.slow
@pytest.mark.node
@pytest.mark.parametrize("name", BUGS)
def test_the_search_finds_a_bug_in_a_contract(tmp_path, name):
    contract, file, before, after, why = BUGS[name]
    chain = Revm(codes={contract: compiled(tmp_path, contract, file, before, after)})
    assert any(why in reason for reason in reasons_found(Game(chain, HURRIED)))


def compiled(folder, contract, file, before, after):
    """The creation code of a contract with the edit in a copy of its sources."""
    for part in ("src", "tools"):
        shutil.copytree(CONTRACTS / part, folder / part)
    shutil.copy(CONTRACTS / "foundry.toml", folder)
    (folder / "node_modules").symlink_to(CONTRACTS / "node_modules")
    source = folder / "src" / file
    text = source.read_text()
    assert text.count(before) == 1, "bring the list of bugs up to date"
    source.write_text(text.replace(before, after))
    forge = folder / "node_modules" / ".bin" / "forge"
    subprocess.run([forge, "build", f"src/{contract}.sol"], cwd=folder, check=True, capture_output=True)
    return json.loads((folder / "out" / f"{contract}.sol" / f"{contract}.json").read_text())["bytecode"]["object"]
