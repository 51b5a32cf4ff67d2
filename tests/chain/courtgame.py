"""A thief before the court, with friends and their strategies; everybody else is honest. On the contracts, by revm.

Mallory won a task with a stolen model. Two validators are hers as well, and whoever lends to her. The challenging phase
is a game: the coalition makes any of its moves (:meth:`Game.moves`) and then waits; the honest do what is theirs, and
when that is done and nobody moves, time goes by. They latch what can be latched, answer, vote for the truth, appeal
what is wrong, settle. One of them may accuse Mallory, as soon as the coalition waits. In the end everybody takes what
there is to take.
"""

from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache

from chain.case import Case, CaseVerdict, Charge, Ground, Stage
from chain.commitments import charge_commitment, scores_commitment, vote_commitment
from chain.scoring import pack_scores
from chain.terms import PhaseTimes, RoundTimes
from chain.types import Role, from_abi, to_abi, tokens
from tests.chain.courtsetting import WINDOW
from tests.chain.madeup import SALT, MadeUpRun
from tests.chain.play import digest
from tests.chain.revm import SUPPLY, Refused, address

CREATOR, ALICE, MALLORY, VERA, VICTOR, VIOLA, SYLVIA, SYBIL, LENDER = map(address, range(9))
PEOPLE = 8
HONEST_JURORS, FALSE_JURORS = (VERA, VICTOR, VIOLA), (SYLVIA, SYBIL)
COALITION = (MALLORY, *FALSE_JURORS, LENDER)
MOST_CASES = 2


class Game:
    """The challenging phase of one task, begun. A move is a tuple: what, and of which case or whom.

    ``act`` makes a move; ``outcome`` says how it all ends if the coalition does nothing more. What is known of cases is
    on the chain, so winding it back winds the game back.
    """

    def __init__(self, chain, setting):
        self.chain, self.setting = chain, setting
        self.config = setting.terms(chain.timestamp + WINDOW)
        chain.enroll(PEOPLE)
        for who in (ALICE, *COALITION):
            chain.send(who, "ArenaToken", "approve", chain.addresses["ChallengeManager"], SUPPLY)
        self.purses = {who: chain.call("ArenaToken", "balanceOf", who) for who in (ALICE, *COALITION)}
        self.id = chain.send(CREATOR, "Arena", "createTask", to_abi(self.config), "bafy-task")
        self.charges = {}
        self.enter()
        self.submit()
        self.settle_rounds()
        self.closes = self.times(PhaseTimes, "phaseTimes").closed_from

    # Before the game

    def enter(self):
        sybils = int(3_000 * self.setting.sybils / (1 - self.setting.sybils))
        stakes = {ALICE: 1_000, MALLORY: self.setting.stake, **dict.fromkeys(HONEST_JURORS, 1_000)}
        stakes |= dict.fromkeys(FALSE_JURORS, sybils // 2)
        for who, stake in stakes.items():
            role = Role.TRAINER if who in (ALICE, MALLORY) else Role.VALIDATOR
            self.chain.send(who, "StakeVault", "stake", self.id, int(role), tokens(stake), 0)
        if self.setting.lent:
            self.chain.send(LENDER, "StakeVault", "delegate", self.id, MALLORY, tokens(self.setting.lent))

    def submit(self):
        """Both train and promise a model, and show it; Mallory's is the better one."""
        self.chain.at(self.config.clock.start)
        self.runs = {who: MadeUpRun(self.chain, who, self.id, segments=2) for who in (ALICE, MALLORY)}
        for run in self.runs.values():
            run.train()
            run.commit(1)
        self.chain.at(self.round(1).opens_at)
        for run in self.runs.values():
            run.reveal(1)

    def settle_rounds(self):
        row, times = (8_000, 9_500), self.round(1)
        for moment, step in ((times.scores_from, "commitScores"), (times.reveal_from, "revealScores")):
            self.chain.at(moment)
            for who in (*HONEST_JURORS, *FALSE_JURORS):
                promise = scores_commitment(self.chain.site("Scoring"), self.id, 1, who, scores=row, salt=SALT)
                shown = (promise,) if step == "commitScores" else (pack_scores(row), SALT)
                self.chain.send(who, "Scoring", step, self.id, 1, *shown)
        for number in (1, 2):
            self.chain.at(self.round(number).settle_from)
            for step in ("rankRound", "payTrainers", "weighValidators", "payValidators"):
                self.chain.send(CREATOR, "Scoring", step, self.id, number, 8)
        self.chain.at(self.times(PhaseTimes, "phaseTimes").challenge_from)

    def times(self, kind, name, *args):
        return from_abi(kind, self.chain.call("Arena", name, self.id, *args))

    def round(self, number):
        return self.times(RoundTimes, "roundTimes", number)

    # The coalition's moves

    def moves(self):
        """What the coalition can do now, besides letting time go by."""
        for number, case in self.cases():
            if self.chain.timestamp < case.deadline:
                yield from self.timely(number, case)
            elif case.stage is Stage.VOTING and self.may_appeal(case):
                yield ("appeal", number)
        sealed = sum(case.challenger in COALITION for _, case in self.cases())
        if sealed < MOST_CASES and self.in_time():
            yield from (("seal", who, whom) for who in (MALLORY, SYLVIA) for whom in (MALLORY, ALICE))
            yield ("seal", MALLORY, MALLORY, Ground.WATERMARK)  # a weak one: she opens no leaves of her key

    def timely(self, number, case):
        """Moves before a case's deadline."""
        against = case.charge.trainer == MALLORY
        if case.stage is Stage.SEALED and case.challenger in COALITION:
            yield ("show", number)
        elif case.stage is Stage.DRAWN and against and not case.answered:
            yield ("answer", number)
        elif case.stage is Stage.SERVING and against:
            yield ("serve", number)
        elif case.stage is Stage.VOTING and self.fresh_jurors(number, FALSE_JURORS):
            yield from ((vote, number) for vote in ("uphold", "reject", "unavailable"))

    def act(self, move):
        """Make a move of :meth:`moves`, or ``("wait",)``."""
        getattr(self, move[0])(*move[1:])

    def seal(self, who, whom, ground=Ground.REPLAY):
        claim = self.runs[who].id if ground is Ground.WATERMARK else 0
        charge = Charge(trainer=whom, round=1, ground=ground, claim=claim, evidence_digest=digest("evidence"))
        promise = charge_commitment(self.chain.site("ChallengeManager"), self.id, who, charge, SALT)
        number = self.manager(who, "sealCase", self.id, promise)
        self.charges[number] = charge

    def show(self, number):
        self.manager(self.case(number).challenger, "showCase", number, to_abi(self.charges[number]), SALT)

    def answer(self, number):
        case = self.case(number)
        opened = [self.runs[case.charge.trainer].open(index) for index in self.view("segmentsToOpen", number)]
        self.manager(case.charge.trainer, "respond", number, opened, "bafy")

    def serve(self, number):
        self.manager(MALLORY, "serveAgain", number, "bafy")

    def uphold(self, number):
        self.vote(number, True)

    def reject(self, number):
        self.vote(number, False)

    def vote(self, number, uphold):
        for juror in FALSE_JURORS:
            with suppress(Refused):  # one that said "unavailable" before
                self.promise(number, [juror], uphold)

    def unavailable(self, number):
        for juror in self.fresh_jurors(number, FALSE_JURORS):
            if self.case(number).stage is Stage.VOTING:
                self.manager(juror, "voteUnavailable", number)

    def appeal(self, number, who=SYLVIA):
        self.manager(who, "appeal", number)

    def wait(self):
        """Let the honest act; if there is nothing for them to do, let time go by to when something changes."""
        before = self.cases()
        self.honest()
        if self.cases() == before:
            moments = [moment for _, case in before for moment in self.moments(case)]
            self.chain.at(min((moment for moment in moments if moment > self.chain.timestamp), default=self.closes))

    # The honest

    def honest(self):
        """All that the honest can do at this moment."""
        if self.setting.accused and all(case.challenger != ALICE for _, case in self.cases()):
            self.seal(ALICE, MALLORY)
        for number, _ in self.cases():
            self.go_on(number)

    def go_on(self, number):
        case = self.case(number)
        if case.stage is Stage.SEALED and case.challenger == ALICE:
            with suppress(Refused):
                self.show(number)
            case = self.case(number)
        if case.stage is Stage.SHOWN and self.chain.timestamp < case.deadline:
            self.chain.mine(3)
            self.manager(VERA, "latchSeed", number)
            case = self.case(number)
        if case.stage is Stage.DRAWN and case.charge.trainer == ALICE and not case.answered:
            self.answer(number)
            case = self.case(number)
        if case.stage is Stage.VOTING:
            self.sit(number, case)
        elif case.stage is Stage.SERVING and case.charge.trainer == ALICE:
            self.manager(ALICE, "serveAgain", number, "bafy")
        elif case.stage is not Stage.SETTLED and self.chain.timestamp >= case.deadline:
            self.manager(VERA, "settle", number)

    def sit(self, number, case):
        now, court = self.chain.timestamp, self.config.court
        if now < case.deadline:
            if case.jury.block and not case.jury.latched:
                self.chain.mine(3)
                self.manager(VERA, "latchJury", number)
            self.promise(number, HONEST_JURORS, case.charge.trainer == MALLORY)
        elif now < case.reveal_by:
            self.reveal_all(number)
        elif self.may_appeal(case) and self.looming(number) is not self.just(case):
            self.appeal(number, ALICE)
        elif now >= case.reveal_by + (court.appeal_window if case.level < court.appeals else 0):
            self.manager(VERA, "settle", number)

    def reveal_all(self, number):
        for juror in (*HONEST_JURORS, *FALSE_JURORS):
            if self.view("voteCommitment", number, juror) == bytes(32):
                continue
            for uphold in (True, False):
                with suppress(Refused):
                    self.manager(juror, "revealVote", number, uphold, digest("truth") if uphold else bytes(32), SALT)

    def promise(self, number, jurors, uphold):
        site, said = self.chain.site("ChallengeManager"), digest("truth") if uphold else bytes(32)
        for who in self.fresh_jurors(number, jurors):
            vote = vote_commitment(site, number, who, uphold=uphold, reproduction=said, salt=SALT)
            self.manager(who, "commitVote", number, vote)

    def just(self, case):
        """The verdict that the truth asks for."""
        return CaseVerdict.UPHELD if case.charge.trainer == MALLORY else CaseVerdict.REJECTED

    def looming(self, number):
        """The verdict if nobody appeals."""
        with self.chain.wound_back():
            self.chain.at(self.case(number).reveal_by + WINDOW)
            self.manager(VERA, "settle", number)
            return self.case(number).verdict

    # The end

    def outcome(self):
        """How it ends if the coalition does nothing more; afterwards all is as it was."""
        with self.chain.wound_back():
            while (
                any(case.stage is not Stage.SETTLED for _, case in self.cases()) or self.chain.timestamp < self.closes
            ):
                self.wait()
            return self.closed()

    def closed(self):
        for whom in (MALLORY, ALICE):
            with suppress(Refused):
                self.manager(VERA, "award", self.id, whom)
        wages = sum(self.escrow("allocated", who) for who in FALSE_JURORS)
        reward, own = self.escrow("allocated", MALLORY), self.escrow("allocated", ALICE)
        convicts = {who for who in (MALLORY, ALICE) if self.escrow("forfeited", who)}
        for who in (ALICE, *COALITION):
            self.leave(who)
        gains = {who: self.chain.call("ArenaToken", "balanceOf", who) - had for who, had in self.purses.items()}
        return Outcome(
            coalition=sum(gains[who] for who in COALITION) - wages,
            victim=gains[ALICE] - own,
            stolen=reward,
            convicts=frozenset(convicts),
        )

    def leave(self, who):
        """Take all there is, as anybody would."""
        takings = [("StakeVault", "withdraw", self.id), ("RewardEscrow", "claim", self.id)]
        takings += [("ChallengeManager", "withdrawCredit")]
        takings += [("StakeVault", "undelegate", self.id, MALLORY)] if who == LENDER else []
        takings += [("RewardEscrow", "claimDelegated", self.id, MALLORY)] if who == LENDER else []
        takings += [("Arena", "releaseRunBond", self.runs[who].id)] if who in self.runs else []
        for taking in takings:
            with suppress(Refused):
                self.chain.send(who, *taking)

    # The chain

    def cases(self):
        """Those of this game, by number."""
        return [(number, self.case(number)) for number in range(1, self.view("caseCount") + 1)]

    def in_time(self):
        """Whether a case can still be sealed."""
        return self.chain.timestamp + self.config.court.longest_case <= self.closes

    def live(self):
        return any(case.stage is not Stage.SETTLED for _, case in self.cases())

    def case(self, number):
        return read_case(self.view("caseOf", number))

    def moments(self, case):
        if case.stage is Stage.SETTLED:
            return ()
        return (case.deadline, case.reveal_by, case.reveal_by + self.config.court.appeal_window)

    def may_appeal(self, case):
        now, court = self.chain.timestamp, self.config.court
        return case.level < court.appeals and case.reveal_by <= now < case.reveal_by + court.appeal_window

    def fresh_jurors(self, number, jurors):
        """Those who sit, and have not voted."""
        return [
            who
            for who in jurors
            if self.view("jurorWeight", number, who) and self.view("voteCommitment", number, who) == bytes(32)
        ]

    def manager(self, who, name, *args):
        return self.chain.send(who, "ChallengeManager", name, *args)

    def view(self, name, *args):
        return self.chain.call("ChallengeManager", name, *args)

    def escrow(self, name, *args):
        return self.chain.call("RewardEscrow", name, self.id, *args)


@lru_cache(4096)
def read_case(values):
    return from_abi(Case, values)


@dataclass(frozen=True)
class Outcome:
    """What came of it, in wei: what the coalition gained beyond its validators' wages, what Alice gained beyond her
    reward, what Mallory had been allotted; and who was convicted."""

    coalition: int
    victim: int
    stolen: int
    convicts: frozenset[str]
