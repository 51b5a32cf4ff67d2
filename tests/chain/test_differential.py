"""Random tasks on the EVM, settled round by round, against the reference model of the reward equations.

The stated rounding, with pot = the side's reward of the round and everything in wei:

- the split, the aggregates and the ranks are equal, exactly;
- a trainer's allotment is at most 1 wei + 1e-15 of the pot away from the model (the contract rounds weights to 18
  decimals and the allotment down to a wei);
- a validator's likewise, plus 1e-17 * exp(lambda * least distance) of the pot: the contract keeps 18 decimals of
  exp(-lambda * distance), which are few where everybody is far from the consensus.

Plays are drawn from a seed, so a failure repeats; each has three rounds.
"""

import math
import random
from fractions import Fraction

import pytest

from chain.rewards import TrainerEntry, ValidatorEntry, settle_round
from chain.types import FINAL_ROUND, Role, tokens
from tests.chain.play import digest

TRAINERS, VALIDATORS, LENDERS = range(1, 5), range(5, 9), range(9, 12)
EXPONENTS = ["0", "0.5", "1", "1", "1", "1.37", "2"]


class Play:
    """One random task: who stakes what, who submits when, who scores how."""

    def __init__(self, world, seed):
        self.world, self.random = world, random.Random(seed)
        pick = self.random
        self.task = world.task(
            gamma_bps=pick.choice([0, 5_000, pick.randint(0, 5_000)]),
            q=pick.choice([tokens(1), tokens("0.9"), pick.randint(10**15, 10**18)]),
            alpha_trainer=tokens(pick.choice(EXPONENTS)),
            alpha_validator=tokens(pick.choice(EXPONENTS)),
            lambda_=pick.choice([0, tokens(18), pick.randint(0, 18 * 10**18)]),
            round_reward=self.amount(1, 10_000),
            final_reward=self.amount(1, 10_000),
            slash_bps=pick.choice([0, 500, 10_000, 10_000, 10_000]),
            round_length=2_000,
            window=300,
        )
        self.trainers = [
            self.task.trainer(index, self.amount(100, 50_000))
            for index in pick.sample(TRAINERS, pick.choice([1, 3, 4, 4]))
        ]
        self.validators = [
            self.task.validator(index, self.amount(100, 50_000))
            for index in pick.sample(VALIDATORS, pick.choice([1, 3, 4, 4]))
        ]
        for operator in [*self.trainers, *self.validators]:
            if pick.random() < 0.5:
                lender = world.clients[pick.choice(LENDERS)]
                lender.vault.delegate(self.task.id, operator.address, self.amount(1, 9_000))
        self.orders = {}
        self.rounds = {trainer: pick.choice([1, 1, 1, 1, 2, 2, None]) for trainer in self.trainers}

    def amount(self, low, high):
        """A random amount of tokens, spread over the magnitudes, with odd wei."""
        return int(math.exp(self.random.uniform(math.log(low), math.log(high))) * 10**9) * 10**9 + self.random.randint(
            0, 999
        )

    def submissions(self, round_):
        proofs = {}
        starters = [trainer for trainer in self.trainers if self.rounds[trainer] == round_]
        self.random.shuffle(starters)
        for trainer in starters:
            proofs[trainer] = self.task.submit(trainer, (self.task.id, trainer.address))
            self.orders[trainer] = len(self.orders) + 1
        self.task.to_round_end(round_)
        for trainer, proof in proofs.items():
            self.task.reveal(trainer, proof)

    def scores(self):
        """Random rows, often tied, from careful, opposite and sloppy validators; some commit and never reveal."""
        pick = self.random
        truth = {trainer: pick.choice([5_000, 5_000, pick.randint(0, 10_000)]) for trainer in self.orders}
        rows = {}
        for validator in self.validators:
            noise = pick.choice([0, 0, 300, 10_000])
            row = [
                min(max(truth[t] + pick.randint(-noise, noise), 0), 10_000) if t in truth else 0 for t in self.trainers
            ]
            rows[validator] = None if pick.random() < 0.15 else row
        return rows

    def settle(self, round_, rows):
        """Settle on chain and in the model; returns (model, events) of the round."""
        arena, vault, escrow = (getattr(self.world.reader, name) for name in ("arena", "vault", "escrow"))
        stakes = {role: {stake.operator: stake for stake in vault.stakes(self.task.id, role)} for role in Role}
        trainers = [
            TrainerEntry(
                own=stakes[Role.TRAINER][t.address].own,
                delegated=stakes[Role.TRAINER][t.address].delegated,
                commit_order=self.orders.get(t),
                room=max(0, vault.slashable(self.task.id, t.address) - escrow.allocated(self.task.id, t.address)),
            )
            for t in self.trainers
        ]
        validators = [
            ValidatorEntry(
                own=stakes[Role.VALIDATOR][v.address].own,
                delegated=stakes[Role.VALIDATOR][v.address].delegated,
                scores=tuple(rows[v]) if rows[v] is not None else None,
            )
            for v in self.validators
        ]
        model = settle_round(arena.task_config(self.task.id).round_rules(round_), trainers, validators)
        return model, self.task.settle(round_).events


def compare(play, model, events):
    paid_trainers = {e.args["trainer"]: e.args for e in events if e.name == "TrainerRewarded"}
    paid_validators = {e.args["validator"]: e.args for e in events if e.name == "ValidatorRewarded"}
    settled = next(e.args for e in events if e.name == "RoundSettled")
    if sum(model.validators) + sum(model.trainers) > 0:
        assert (settled["trainersPool"], settled["validatorsPool"]) == (model.trainer_pot, model.validator_pot)
    for i, trainer in enumerate(play.trainers):
        found = paid_trainers.get(trainer.address)
        assert (found["rank"] if found else None) == model.ranks[i]
        assert (Fraction(found["aggregate"], 10**18) if found else None) == model.aggregates[i]
        assert abs((found["amount"] if found else 0) - model.trainers[i]) <= 1 + model.trainer_pot * 1e-15
    for j, validator in enumerate(play.validators):
        found = paid_validators.get(validator.address)
        amount = found["amount"] if found else 0
        assert abs(amount - model.validators[j]) <= 1 + model.validator_pot * (
            1e-15 + coarseness(play, paid_validators)
        )
    paid = [args["amount"] for args in [*paid_trainers.values(), *paid_validators.values()]]
    assert sum(paid) == settled["allocated"] <= model.trainer_pot + model.validator_pot


def coarseness(play, paid_validators):
    least = min((args["distance"] for args in paid_validators.values()), default=0)
    return 1e-17 * math.exp(play.task.config.lambda_ * least / 10**36)


def run(world, seed):
    play = Play(world, seed)
    for round_ in (1, 2):
        if round_ == 1:
            play.task.to_submission()
        play.submissions(round_)
        rows = play.scores()
        play.task.score(round_, rows)
        compare(play, *play.settle(round_, rows))
    play.task.to(world.reader.arena.round_times(play.task.id, FINAL_ROUND).opens_at)
    if play.random.random() < 0.7:
        world.creator.arena.open_final_set(play.task.id, digest("final root"), digest("final salt"), "bafy")
        final = play.scores()
        play.task.score(FINAL_ROUND, final)
        if quorum(play, final):
            rows = final
    compare(play, *play.settle(FINAL_ROUND, rows))


def quorum(play, rows):
    """The final scores count if validators with half of all their side's stake revealed them."""
    weights = {s.operator: s.own + s.delegated for s in play.world.reader.vault.stakes(play.task.id, Role.VALIDATOR)}
    revealed = sum(weights[validator.address] for validator, row in rows.items() if row is not None)
    return revealed > 0 and 2 * revealed >= sum(weights.values())


@pytest.mark.parametrize("seed", range(5))
def test_the_contracts_pay_what_the_model_says(world, seed):
    run(world, seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 150))
def test_the_contracts_pay_what_the_model_says_at_length(world, seed):
    run(world, seed)
