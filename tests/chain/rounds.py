"""Whole tasks played at once on a chain (:class:`tests.chain.revm.Chain`) and in the reference model, and compared.

Powers and exponentials have 18 decimals on chain, so two things are shown of every round:

1. each weight that the contracts use is the exact one within 1e-17 of it, and a few units of the last of its 18
   decimals (more for late ranks: every power of q is rounded down);
2. from these weights on everything is whole numbers, and equal: consensus scores, ranks, distances, the two pools,
   what everybody is allotted under the caps, and what delegators claim in the end.

Stakes spread over ten magnitudes, with odd wei. Unless everybody is diligent, there are delegations in any round,
submissions that are late, hidden or missing, and rows that are never revealed. Everything is drawn from a seed, so a
failure repeats.
"""

from dataclasses import dataclass, field
from fractions import Fraction
from random import Random

from mpmath import mp, mpf

from chain.commitments import final_set_commitment, scores_commitment, submission_commitment
from chain.delegation import Delegations
from chain.rewards import aggregate, distance, portions, ranking, split, weighted_median
from chain.scoring import pack_scores
from chain.terms import Aggregator, Numerics, PhaseTimes, RoundTimes
from chain.types import BaseModel, Budget, ChainAnchor, Progress, Role, Run, from_abi, open_segment, to_abi
from pol.transcript import Segment, segment_tree
from tests.chain.play import digest, task_config
from tests.chain.revm import address

WAD = 10**18
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


@dataclass
class Operator:
    """A trainer or validator, and what the model knows of it. ``orders`` are its standing models, by round."""

    account: str
    own: int
    commission_bps: int
    run_id: int = 0
    orders: dict[int, int] = field(default_factory=dict)
    allotted: int = 0
    mine: int = 0

    def __post_init__(self):
        self.lent = Delegations(self.own, Fraction(self.commission_bps, 10_000))

    def stake(self, round_):
        return self.own + self.lent.delegated(round_)

    def order(self, round_):
        return next((self.orders[past] for past in range(round_, 0, -1) if past in self.orders), None)


class Play:
    """One random task, played on the chain and in the model at once."""

    def __init__(self, chain, seed, sizes):
        self.chain, self.pick, self.sizes = chain, Random(seed), sizes
        self.start = chain.timestamp + 10 * sizes.window
        self.config = drawn_terms(self.pick, self.start, sizes)
        self.pay = to_abi(self.config.pay)
        self.id = chain.send(address(0), "Arena", "createTask", to_abi(self.config), "bafy-task")
        self.committed = 0
        numbers = range(1, 1 + sizes.people)
        trainers, others = numbers[: sizes.trainers], numbers[sizes.trainers :]
        self.trainers = [self.enter(number, Role.TRAINER) for number in trainers]
        self.validators = [self.enter(number, Role.VALIDATOR) for number in others[: sizes.validators]]
        self.lenders = [address(number) for number in others[sizes.validators :]]
        self.rows = {}

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
            trainer.run_id = trainer.run_id or self.run(trainer)
            model = digest(trainer.account, round_)
            transcript = from_abi(Run, self.chain.call("Arena", "run", trainer.run_id)).transcript_digest
            values = {"branch": 0, "model_digest": model, "model_cid": "bafy", "salt": digest("salt")}
            commitment = submission_commitment(
                self.chain.site("Arena"),
                self.id,
                trainer.account,
                run_id=trainer.run_id,
                round_=round_,
                transcript_digest=transcript,
                **values,
            )
            self.chain.send(trainer.account, "Arena", "commitSubmission", trainer.run_id, commitment)
            self.committed += 1
            promised.append((trainer, model, self.committed))
        return promised

    def run(self, trainer):
        """A run of one segment, anchored and marked; returns its id."""
        keys = (digest("spec"), digest("keys"), to_abi(BaseModel()))
        run_id = self.chain.send(trainer.account, "Arena", "registerRun", self.id, *keys)
        self.chain.mine(3)
        self.chain.send(trainer.account, "Arena", "latchBeacon", run_id)
        states = {"start_digest": digest("start"), "end_digest": digest("end"), "batch_root": digest("batch")}
        segment = Segment(index=0, start_step=0, end_step=1, **states)
        root = segment_tree([segment]).root
        self.chain.send(trainer.account, "Arena", "anchor", run_id, 0, 1, root)
        opening = open_segment([segment], [ChainAnchor(0, 1, 0, root)], 0)
        self.chain.send(trainer.account, "Arena", "anchorReference", run_id, opening.to_abi())
        self.chain.mine(3)
        self.chain.send(trainer.account, "Arena", "latchMark", run_id)
        return run_id

    def reveal(self, round_, promised):
        self.chain.at(self.opens(round_))
        for trainer, model, order in self.pick.sample(promised, len(promised)):
            if not self.happens(0.9):
                continue
            shown = (self.id, round_, 0, model, "bafy", digest("salt"))
            self.chain.send(trainer.account, "Arena", "revealSubmission", *shown)
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
        expected = self.model(round_, self.counting(round_))
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

    def model(self, round_, rows):
        """What the two kinds of event must say, from the contracts' weights; books what it allots."""
        standing = [t for t in self.trainers if t.order(round_) is not None]
        places = [self.trainers.index(t) for t in standing]
        judges = [v for v in self.validators if v.account in rows]
        if not standing or not judges:
            self.book(self.trainers, {}), self.book(self.validators, {})
            return {}, {}
        seen = [[rows[v.account][place] for place in places] for v in judges]
        stakes = [v.stake(round_) for v in judges]
        median = self.config.pay.aggregator is Aggregator.MEDIAN
        means = (weighted_median if median else aggregate)(seen, stakes)
        ranks = ranking(means, [t.order(round_) for t in standing])
        rules = self.config.round_rules(round_)
        owns = [sum(o.own for o in side) for side in (self.trainers, self.validators)]
        pots = split(rules.reward, rules.gamma, *owns)

        weights = self.trainer_weights([t.stake(round_) for t in standing], ranks)
        shares = dict(zip((t.account for t in standing), portions(pots[0], weights), strict=True))
        amounts = {t.account: min(shares[t.account], self.room(t)) for t in standing}
        gaps = [int(distance(row, means) * WAD) for row in seen]
        rewards = portions(pots[1], self.validator_weights(stakes, gaps))
        paid = dict(zip((v.account for v in judges), rewards, strict=True))
        self.book(self.trainers, amounts), self.book(self.validators, paid)
        of_trainers = {
            t.account: (rank, int(mean * WAD), amounts[t.account])
            for t, rank, mean in zip(standing, ranks, means, strict=True)
        }
        return of_trainers, {v.account: (gap, paid[v.account]) for v, gap in zip(judges, gaps, strict=True)}

    def room(self, trainer):
        cap = trainer.own * self.config.court.slash_bps // 10_000
        return max(0, cap - trainer.allotted)

    def book(self, operators, amounts):
        for operator in operators:
            amount = amounts.get(operator.account, 0)
            operator.allotted += amount
            operator.mine += operator.lent.settle(amount)

    def trainer_weights(self, stakes, ranks):
        found = self.chain.call("TaskRules", "trainerWeights", self.pay, stakes, ranks)
        q = mpf(self.config.pay.q) / WAD
        for weight, stake, rank in zip(found, stakes, ranks, strict=True):
            staked = power(stake, self.config.pay.alpha_trainer)
            exact = staked * q ** (rank - 1)
            assert abs(weight - exact) <= 2 + exact * mpf("1e-17") + rank * staked / WAD
        return found

    def validator_weights(self, stakes, gaps):
        found = self.chain.call("TaskRules", "validatorWeights", self.pay, stakes, gaps)
        for weight, stake, gap in zip(found, stakes, gaps, strict=True):
            staked = power(stake, self.config.pay.alpha_validator)
            exact = staked * mp.exp(-mpf(self.config.pay.lambda_) * gap / WAD**2)
            assert abs(weight - exact) <= 2 + exact * mpf("1e-17") + 2 * staked / WAD
        return found

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


def power(stake, alpha):
    """stake^alpha as the contracts scale it: in whole tokens, in units of 1e-18."""
    return (mpf(stake) / WAD) ** (mpf(alpha) / WAD) * WAD
