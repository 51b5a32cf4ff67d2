"""Whole tasks played at once on a chain (:class:`tests.chain.revm.Chain`) and in the reference model, and compared.

Equal to the wei (:mod:`tests.chain.model` says from where on) are consensus scores, ranks, distances, the two pools,
what everybody is allotted under the caps, and what delegators claim in the end.

Stakes spread over ten magnitudes, with odd wei. Unless everybody is diligent, there are delegations in any round,
submissions that are late, hidden or missing, and rows that are never revealed. Everything is drawn from a seed, so a
failure repeats.
"""

from dataclasses import dataclass
from random import Random

from chain.commitments import final_set_commitment, scores_commitment
from chain.scoring import pack_scores
from chain.terms import Aggregator, Numerics, PhaseTimes, RoundTimes
from chain.types import Budget, Progress, Role, from_abi, to_abi
from tests.chain.madeup import MadeUpRun
from tests.chain.model import WAD, Model, Operator
from tests.chain.play import digest, task_config
from tests.chain.revm import address

LENDERS = 3
EXPONENTS = (0, WAD // 2, WAD, 137 * WAD // 100, 2 * WAD)


@dataclass(frozen=True)
class Sizes:
    """How large a play is. Account 0 creates the task; then come trainers, validators and lenders.

    ``chunk`` operators are settled a transaction, 0 = any number of up to 8, drawn each time. The ``diligent`` submit
    in every round and reveal all they promised. Without an aggregator, one is drawn.
    """

    trainers: int
    validators: int
    rounds: int = 3
    window: int = 200
    chunk: int = 0
    diligent: bool = False
    aggregator: Aggregator | None = None

    @classmethod
    def drawn(cls, seed, most):
        pick = Random(f"sizes {seed}")
        return cls(trainers=pick.randint(1, most), validators=pick.randint(1, most))

    @property
    def final(self):
        return self.rounds + 1

    @property
    def people(self):
        """Every account but the creator's."""
        return self.trainers + self.validators + LENDERS


def drawn_terms(pick, start, sizes):
    amounts = {
        name: int(10 ** pick.uniform(15, 26)) + pick.randrange(1_000) for name in ("round_reward", "final_reward")
    }
    return task_config(
        {
            "start": start,
            "round_length": 5 * sizes.window,
            "window": sizes.window,
            "challenge_length": 20 * sizes.window,
            "rounds": sizes.rounds,
            "program_digest": digest("program"),
            "train_root": digest("train"),
            "eval_root": digest("eval"),
            "final_set_commitment": final_set_commitment(digest("root"), digest("salt")),
            "numerics": Numerics.EXACT,
            "steps": 1,
            "segment_length": 1,
            "aggregator": pick.choice(list(Aggregator)) if sizes.aggregator is None else sizes.aggregator,
            "q": pick.choice([WAD, 9 * WAD // 10, pick.randint(1, WAD)]),
            "alpha_trainer": pick.choice(EXPONENTS),
            "alpha_validator": pick.choice(EXPONENTS),
            "lambda_": pick.choice([0, 18 * WAD, pick.randint(0, 18 * WAD)]),
            "gamma_bps": pick.choice([0, 5_000, pick.randint(0, 5_000)]),
            "deposit": 7,
            "min_trainer_stake": 1,
            "min_validator_stake": 1,
            "max_trainers": sizes.trainers,
            "max_validators": sizes.validators,
            "run_bond": 1,
            "min_delegation": 1,
            "bond": 1,
            "opening_cost": 0,
            "sampled": 1,
            "named": 0,
            "burn_bps": 1_000,
            "slash_bps": pick.choice([0, 500, 10_000, 10_000]),
            "show_window": 100,
            "answer_window": 100,
            "vote_window": 100,
            "appeal_window": 100,
            "jurors": 1,
            "appeals": 0,
            **amounts,
        }
    )


class Play(Model):
    """One random task, played on the chain and in the model at once."""

    def __init__(self, chain, seed, sizes):
        self.pick, self.sizes = Random(seed), sizes
        self.start = chain.timestamp + 10 * sizes.window
        super().__init__(chain, drawn_terms(self.pick, self.start, sizes), [], [])
        self.id = chain.send(address(0), "Arena", "createTask", to_abi(self.config), "bafy-task")
        self.committed = 0
        numbers = range(1, 1 + sizes.people)
        trainers, others = numbers[: sizes.trainers], numbers[sizes.trainers :]
        self.trainers += [self.enter(number, Role.TRAINER) for number in trainers]
        self.validators += [self.enter(number, Role.VALIDATOR) for number in others[: sizes.validators]]
        self.lenders = [address(number) for number in others[sizes.validators :]]
        self.rows, self.runs = {}, {}

    def happens(self, chance):
        return self.pick.random() < chance or self.sizes.diligent

    def opens(self, round_):
        """When the round's models are revealed, or the final set is opened."""
        times = self.chain.call("Arena", "roundTimes", self.id, round_)
        return from_abi(RoundTimes, times).opens_at

    def amount(self):
        return int(10 ** self.pick.uniform(15, 25)) + self.pick.randrange(1_000)

    def enter(self, number, role):
        operator = Operator(address(number), self.amount(), self.pick.choice([0, 1_000, 3_333, 10_000]))
        terms = (self.id, int(role), operator.own, operator.commission_bps)
        self.chain.send(operator.account, "StakeVault", "stake", *terms)
        return operator

    def play(self):
        self.lend(0)
        self.chain.at(self.start)
        for round_ in range(1, self.sizes.final):
            self.lend(round_)
            self.reveal(round_, self.submit(round_))
            self.score(round_)
            self.settle(round_)
        if self.happens(0.7):
            opened = (self.id, digest("root"), digest("salt"), "bafy")
            self.chain.send(address(0), "Scoring", "openFinalSet", *opened)
            self.score(self.sizes.final)
        self.settle(self.sizes.final)
        self.close()

    def lend(self, round_):
        for _ in range(self.pick.choice([0, 1, 1, 3])):
            lender, operator = self.pick.choice(self.lenders), self.pick.choice([*self.trainers, *self.validators])
            amount = self.amount()
            self.chain.send(lender, "StakeVault", "delegate", self.id, operator.account, amount)
            operator.lent.lend(lender, amount, round_)

    def submit(self, round_):
        """Some trainers commit a model, of a run that they register when they need it; returns what they committed."""
        promised = []
        for trainer in self.pick.sample(self.trainers, len(self.trainers)):
            if not self.happens(0.6):
                continue
            if trainer.account not in self.runs:
                self.runs[trainer.account] = MadeUpRun(self.chain, trainer.account, self.id)
                self.runs[trainer.account].train()
            self.runs[trainer.account].commit(round_)
            self.committed += 1
            promised.append((trainer, self.committed))
        return promised

    def reveal(self, round_, promised):
        self.chain.at(self.opens(round_))
        for trainer, order in self.pick.sample(promised, len(promised)):
            if not self.happens(0.9):
                continue
            self.runs[trainer.account].reveal(round_)
            trainer.orders[round_] = order

    def score(self, round_):
        """Everybody commits a row, most reveal it; rows are often tied, and say something of absent models too."""
        truth = [self.pick.choice([5_000, self.pick.randint(0, 10_000)]) for _ in self.trainers]
        noises = {v.account: self.pick.choice([0, 0, 300, 10_000]) for v in self.validators}
        rows = {v.account: tuple(self.noisy(truth, noises[v.account])) for v in self.validators}
        self.chain.at(self.opens(round_) + self.sizes.window)
        for account, row in rows.items():
            promise = scores_commitment(
                self.chain.site("Scoring"), self.id, round_, account, scores=row, salt=digest("salt")
            )
            self.chain.send(account, "Scoring", "commitScores", self.id, round_, promise)
        self.chain.at(self.opens(round_) + 2 * self.sizes.window)
        self.rows[round_] = {account: row for account, row in rows.items() if self.happens(0.85)}
        for account, row in self.rows[round_].items():
            self.chain.send(account, "Scoring", "revealScores", self.id, round_, pack_scores(row), digest("salt"))

    def noisy(self, truth, noise):
        return [min(max(score + self.pick.randint(-noise, noise), 0), 10_000) for score in truth]

    def settle(self, round_):
        self.chain.at(self.opens(round_) + 3 * self.sizes.window)
        logs = self.settle_in_pieces(round_)
        expected = self.settled(round_, self.counting(round_))
        found = [
            {log.args[who]: tuple(log.args[key] for key in keys) for log in logs if log.name == name}
            for name, who, keys in (
                ("TrainerRewarded", "trainer", ("rank", "aggregate", "amount")),
                ("ValidatorRewarded", "validator", ("distance", "amount")),
            )
        ]
        assert found == list(expected)

    def settle_in_pieces(self, round_):
        """The round's events. However the pieces are cut, in whatever order."""
        logs, stages = [], ["payTrainers", "weighValidators"]
        while not self.piece("rankRound", round_, logs):
            pass
        while stages:
            stage = self.pick.choice(stages)
            if self.piece(stage, round_, logs):
                stages.remove(stage)
                stages += ["payValidators"] if stage == "weighValidators" else []
        assert self.chain.call("Scoring", "settledRounds", self.id) == round_
        return logs

    def piece(self, stage, round_, logs):
        """Do a piece; returns whether the stage is done."""
        now = from_abi(Progress, self.chain.call("Scoring", "progress", self.id, round_))
        stages = {
            "rankRound": now.ranked,
            "payTrainers": now.trainers_paid == len(self.trainers),
            "weighValidators": now.validators_weighed == len(self.validators),
            "payValidators": now.validators_paid == len(self.validators),
        }
        if now.settled or stages[stage]:
            return True
        self.chain.send(
            address(self.pick.randint(0, self.sizes.people)), "Scoring", stage, self.id, round_, self.size(now)
        )
        logs += self.chain.logs()
        return False

    def size(self, now):
        """How many operators the next piece deals with; where all have one size, the first only counts the rows."""
        if not self.sizes.chunk:
            return self.pick.randint(0, 8)
        return self.sizes.chunk if now.scored_round else 0

    def counting(self, round_):
        """The rows that count: the final set's if validators with half of the stake revealed them."""
        rows = self.rows.get(round_, {})
        if round_ < self.sizes.final:
            return rows
        stakes = {v.account: v.stake(round_) for v in self.validators}
        revealed = sum(stakes[account] for account in rows)
        return rows if revealed and 2 * revealed >= sum(stakes.values()) else self.rows[self.sizes.rounds]

    def close(self):
        """What was allotted in all, and what everybody may claim once the task is closed."""
        self.chain.at(from_abi(PhaseTimes, self.chain.call("Arena", "phaseTimes", self.id)).closed_from)
        operators = [*self.trainers, *self.validators]
        assert from_abi(Budget, self.escrow("budgetOf")).allocated == sum(operator.allotted for operator in operators)
        for operator in operators:
            assert self.escrow("allocated", operator.account) == operator.allotted
            assert self.escrow("claimable", operator.account) == operator.mine
            for lender in self.lenders:
                assert self.escrow("claimableDelegated", operator.account, lender) == operator.lent.claimable(lender)

    def escrow(self, name, *args):
        return self.chain.call("RewardEscrow", name, self.id, *args)
