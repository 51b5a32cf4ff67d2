"""Nobody draws twice: a trainer that keeps what pleases it, of many runs, waits, promises and does not show.

A seed or a mark, once drawn, stays. Another seed takes another run, and in the end every run of which no model stands
has cost its bond, whatever was done in between and in which order. So a trainer sees as many seeds for nothing as it
shows models, which is one a round at most. (docs/threat-model.md: several runs.)
"""

from contextlib import suppress
from dataclasses import dataclass, field
from random import Random

import pytest

from chain.terms import Numerics, PhaseTimes
from chain.types import Bond, Role, from_abi, to_abi, tokens
from tests.chain.madeup import MadeUpRun
from tests.chain.play import digest, task_config
from tests.chain.revm import Refused, Revm, address

CREATOR, MALLORY, VERA, STRANGER = map(address, range(4))
WINDOW, ROUNDS, MOST_RUNS = 100, 2, 3
BOND = tokens(20)
OUT_OF_REACH = 300  # blocks
DEPTH, DEEP = 4, 7
LONG, MANY = 30, 500
SELDOM = {"expire": 0.05, "void": 0.05, "next round": 0.3}
"""What ends most things, or the phase; the other moves have weight 1."""


@dataclass
class Draws:
    """One trainer's submission phase, move by move; who looks on latches nothing, and voids in the end what it can."""

    chain: Revm
    runs: list[MadeUpRun] = field(default_factory=list)
    seen: dict[tuple[int, str], bytes] = field(default_factory=dict)

    def __post_init__(self):
        self.chain.enroll(3)
        start = self.chain.timestamp + WINDOW
        self.id = self.chain.send(CREATOR, "Arena", "createTask", to_abi(terms(start)), "bafy-task")
        for who, role in ((MALLORY, Role.TRAINER), (VERA, Role.VALIDATOR)):
            self.chain.send(who, "StakeVault", "stake", self.id, int(role), tokens(100), 0)
        self.chain.at(start)
        self.purse = self.chain.call("ArenaToken", "balanceOf", MALLORY)

    def moves(self):
        """All that may be tried now; the contracts refuse some of it."""
        if len(self.runs) < MOST_RUNS:
            yield ("register",)
        for number, run in enumerate(self.runs):
            held = run.held()
            yield from ((name, number) for name in wanted(held))
        yield from (("show",), ("expire",), ("next round",))

    def act(self, move):
        """Make a move; returns whether it was possible."""
        try:
            self.make(*move)
        except Refused:
            return False
        self.look()
        return True

    def make(self, name, number=0):
        if name == "register":
            self.runs.append(MadeUpRun(self.chain, MALLORY, self.id, ("run", len(self.runs))))
        elif name == "expire":
            self.chain.mine(OUT_OF_REACH)
        elif name == "next round":
            self.chain.at(self.chain.timestamp + 5 * WINDOW)
        elif name == "show":
            self.show()
        elif name == "commit":
            self.runs[number].commit(self.round())
        elif name == "void":
            self.chain.send(STRANGER, "Arena", "voidRun", self.runs[number].id)
        else:
            getattr(self.runs[number], name)()

    def show(self):
        """Show the model promised in the round before, whichever run it is of."""
        for run in self.runs:
            with suppress(Refused):
                return run.reveal(self.round() - 1)
        raise Refused("nothing to show")

    def round(self):
        return self.chain.call("Arena", "currentRound", self.id)

    def look(self):
        """What was drawn once is the same for ever."""
        for run in self.runs:
            held = run.held()
            for kind, beacon in (("seed", held.beacon), ("mark", held.mark)):
                if beacon.latched:
                    assert self.seen.setdefault((run.id, kind), beacon.value) == beacon.value

    def end(self):
        """The state of every run's bond, and what Mallory paid, when all is over."""
        with self.chain.wound_back():
            closed = from_abi(PhaseTimes, self.chain.call("Arena", "phaseTimes", self.id)).closed_from
            self.chain.at(max(closed, self.chain.timestamp))
            for run in self.runs:
                with suppress(Refused):
                    self.chain.send(STRANGER, "Arena", "voidRun", run.id)
                with suppress(Refused):
                    run.arena("releaseRunBond", run.id)
            self.look()
            bonds = [run.held().bond for run in self.runs]
            return bonds, self.purse - self.chain.call("ArenaToken", "balanceOf", MALLORY)

    def require_paid(self):
        """Every seed that was drawn, but one a shown model, was paid for."""
        bonds, paid = self.end()
        shown = [run for run in self.runs if run.held().first_order]
        burned = bonds.count(Bond.BURNED)
        assert set(bonds) <= {Bond.BURNED, Bond.RETURNED} and paid == burned * BOND
        assert burned >= len(self.runs) - len(shown) and len(shown) <= ROUNDS
        seeds = {value for (_, kind), value in self.seen.items() if kind == "seed"}
        assert len(seeds) <= burned + len(shown)


def wanted(held):
    """What can be tried with a run that is so far."""
    if not held.beacon.latched:
        return ("latch", "void")
    if not held.anchored:
        return ("anchor", "latch", "void")
    if not held.mark.block:
        return ("refer", "void")
    return ("commit", "refer", "void") if held.mark.latched else ("latch_mark", "refer", "void")


def terms(start):
    return task_config(
        {
            "start": start, "round_length": 5 * WINDOW, "window": WINDOW, "challenge_length": 20 * WINDOW,
            "rounds": ROUNDS, "program_digest": digest("program"), "train_root": digest("train"),
            "eval_root": digest("eval"), "final_set_commitment": digest("final"), "numerics": Numerics.EXACT,
            "steps": 1, "segment_length": 1, "q": tokens(1), "alpha_trainer": tokens(1), "alpha_validator": tokens(1),
            "lambda_": 0, "gamma_bps": 0, "round_reward": 1, "final_reward": 1, "deposit": 1, "min_trainer_stake": 1,
            "min_validator_stake": 1, "max_trainers": 1, "max_validators": 1, "run_bond": BOND, "min_delegation": 1,
            "bond": 1, "opening_cost": 0, "sampled": 1, "named": 0, "burn_bps": 0, "slash_bps": 10_000,
            "show_window": WINDOW, "answer_window": WINDOW, "vote_window": WINDOW, "appeal_window": WINDOW,
            "jurors": 1, "appeals": 0,
        }
    )  # fmt: skip


def require_all_paid(game, depth):
    """The law after every row of up to ``depth`` possible moves; returns how many there are."""
    game.require_paid()
    count = 1
    for move in list(game.moves()) if depth else ():
        runs, seen = list(game.runs), dict(game.seen)
        with game.chain.wound_back():
            count += require_all_paid(game, depth - 1) if game.act(move) else 0
        game.runs, game.seen = runs, seen
    return count


@pytest.fixture(scope="module")
def chain():
    return Revm()


def test_no_short_row_of_moves_draws_for_nothing(chain):
    with chain.wound_back():
        assert require_all_paid(Draws(chain), DEPTH) > 100


@pytest.mark.slow
def test_no_longer_row_of_moves_draws_for_nothing(chain):
    with chain.wound_back():
        assert require_all_paid(Draws(chain), DEEP) > 2_000


@pytest.mark.slow
def test_no_long_row_of_random_moves_draws_for_nothing(chain):
    shown = 0
    for seed in range(MANY):
        pick = Random(seed)
        with chain.wound_back():
            game = Draws(chain)
            for _ in range(LONG):
                moves = list(game.moves())
                game.act(*pick.choices(moves, [SELDOM.get(name, 1) for name, *_ in moves]))
            game.require_paid()
            shown += sum(bool(run.held().first_order) for run in game.runs)
    assert shown > 10, "some models were shown"


def test_who_shows_a_model_in_every_round_has_seen_as_many_seeds_for_nothing(chain):
    """The most that there is to have: the honest twin of the law, and the reason for its bound."""
    with chain.wound_back():
        game = Draws(chain)
        for number in range(ROUNDS):
            for move in (
                ("register",),
                *((name, number) for name in ("latch", "anchor", "refer", "latch_mark", "commit")),
            ):
                assert game.act(move), move
            assert game.act(("next round",)) and game.act(("show",))
        game.require_paid()
        assert game.end() == ([Bond.RETURNED] * ROUNDS, 0)
