"""Cases played on a node, for what everything in them uses.

Alice and Mallory trained 65,536 segments each, all anchored at once: what is opened of them lies 16 levels deep, and of
Alice's key of 512 leaves 9 levels. A case draws ``sampled`` segments. Mallory's segments 0 and 1 do not join, and her
segment 2 says that it is another. Alice gave up a run before.
"""

import hashlib
from dataclasses import dataclass, replace

from chain.case import CaseVerdict, Ground, MarkChannel, Stage
from chain.types import Beacon, from_abi, to_abi, tokens
from challenge.dispute import LEAVES_A_TRANSACTION, leaf_ranges
from pol.transcript import segment_tree
from tests.chain.courtgame import ALICE, CREATOR, FALSE_JURORS, HONEST_JURORS, LENDER, MALLORY, SYLVIA, VERA, Game
from tests.chain.courtsetting import Setting
from tests.chain.madeup import MadeUpRun
from tests.chain.play import digest
from watermark import DEFAULT_PARAMETERS, WatermarkKey
from watermark.claim import opening_groups

SEGMENTS = 2**16
OPENED_GROUPS = 32
WINDOW = 20_000
KEY = WatermarkKey(hashlib.sha256(b"a trainer's master secret").digest(), DEFAULT_PARAMETERS.leaf_count)
JURORS = (*HONEST_JURORS, *FALSE_JURORS)


@dataclass(frozen=True)
class LongSetting(Setting):
    """A setting with the longest run, and windows of ``WINDOW`` seconds: a node's clock goes on by itself."""

    sampled: int = 1

    def terms(self, start):
        terms = super().terms(start + WINDOW)
        clock = replace(terms.clock, window=WINDOW, round_length=5 * WINDOW, challenge_length=50 * WINDOW)
        windows = {f"{name}_window": WINDOW for name in ("show", "answer", "vote", "appeal")}
        work, court = replace(terms.work, steps=SEGMENTS), replace(terms.court, sampled=self.sampled, **windows)
        return replace(terms, clock=clock, work=work, court=court)


class CourtPlay(Game):
    """Four cases, and what everybody takes when the task is closed."""

    def __init__(self, chain, sampled):
        super().__init__(chain, LongSetting(lent=500, sampled=sampled))

    def enter(self):
        super().enter()
        self.chain.send(LENDER, "StakeVault", "delegate", self.id, ALICE, tokens(500))

    def submit(self):
        self.chain.at(self.config.clock.start)
        self.chain.send(VERA, "RewardEscrow", "sponsor", self.id, 1, tokens(10))
        self.give_up()
        mine = MadeUpRun(self.chain, ALICE, self.id, segments=SEGMENTS, key_root=KEY.root)
        broken = MadeUpRun(self.chain, MALLORY, self.id, segments=SEGMENTS)
        broken.segments[1] = replace(broken.segments[1], start_digest=digest("elsewhere"))
        broken.segments[2] = replace(broken.segments[2], index=9)
        broken.root = segment_tree(broken.segments).root
        self.runs = {ALICE: mine, MALLORY: broken}
        for run in self.runs.values():
            run.train()
            run.commit(1)
        self.chain.at(self.round(1).opens_at)
        for run in self.runs.values():
            run.reveal(1)

    def give_up(self):
        self.stopped = MadeUpRun(self.chain, ALICE, self.id, label="given up", segments=2)
        self.stopped.latch()
        self.stopped.anchor()
        self.stopped.arena("declareStop", self.stopped.id, 2)

    def play(self):
        """All of it."""
        self.convicted_on_appeal()
        self.served_again()
        self.mark_and_broken_join()
        self.wrong_bounds()
        self.chain.at(self.closes)
        self.take()

    def convicted_on_appeal(self):
        number = self.draw(ALICE, MALLORY)
        self.answer(number)
        self.seat(number)
        self.vote(number, True)
        self.appeal(number, SYLVIA)
        self.vote(number, True)
        self.settle(number, CaseVerdict.UPHELD)

    def served_again(self):
        number = self.draw(MALLORY, ALICE)  # no juror: all draws of the jury seat somebody
        self.answer(number)
        self.seat(number)
        for juror in self.fresh_jurors(number, JURORS):
            if self.case(number).stage is Stage.VOTING:
                self.manager(juror, "voteUnavailable", number)
        self.manager(ALICE, "serveAgain", number, "bafy-again")
        self.vote(number, False)
        self.chain.at(self.case(number).reveal_by + WINDOW)
        self.settle(number, CaseVerdict.REJECTED)

    def mark_and_broken_join(self):
        self.chain.send(VERA, "Scoring", "requestOpeningBeacon", self.id)
        self.chain.mine(3)
        self.chain.send(VERA, "Scoring", "latchOpeningBeacon", self.id)
        number = self.draw(ALICE, MALLORY, Ground.WATERMARK)
        beacon = from_abi(Beacon, self.chain.call("Scoring", "openingBeacon", self.id)).value
        groups = opening_groups(beacon, KEY.root, DEFAULT_PARAMETERS.groups, OPENED_GROUPS)
        opened = KEY.open(DEFAULT_PARAMETERS.indices(groups))
        shape = [to_abi(MarkChannel(part.groups, part.leaves)) for part in DEFAULT_PARAMETERS.channels.values()]
        for first in range(0, len(opened), LEAVES_A_TRANSACTION):
            ranges = leaf_ranges(opened[first : first + LEAVES_A_TRANSACTION], DEFAULT_PARAMETERS.leaf_count)
            self.manager(ALICE, "openLeaves", number, shape, [to_abi(part) for part in ranges])
        broken = self.runs[MALLORY]
        self.manager(VERA, "proveDiscontinuity", number, broken.open(0), broken.open(1))
        assert self.case(number).verdict is CaseVerdict.UPHELD

    def wrong_bounds(self):
        number = self.draw(ALICE, MALLORY)
        self.manager(VERA, "proveBadBounds", number, self.runs[MALLORY].open(2), 2)
        assert self.case(number).verdict is CaseVerdict.UPHELD

    def draw(self, who, whom, ground=Ground.REPLAY):
        """A case of ``who`` against ``whom``, with its segment drawn."""
        self.seal(who, whom, ground)
        number = int(self.view("caseCount"))
        self.show(number)
        self.chain.mine(3)
        self.manager(VERA, "latchSeed", number)
        return number

    def seat(self, number):
        """Draw the jury."""
        self.chain.mine(3)
        self.manager(VERA, "latchJury", number)

    def vote(self, number, uphold):
        """All who sit, and did not vote yet, vote so."""
        self.promise(number, JURORS, uphold)
        self.chain.at(self.case(number).deadline)
        self.reveal_all(number)
        self.chain.at(self.case(number).reveal_by)

    def settle(self, number, verdict):
        self.manager(VERA, "settle", number)
        assert self.case(number).verdict is verdict

    def take(self):
        """Everybody takes what there is."""
        self.manager(VERA, "award", self.id, MALLORY)
        for who in (ALICE, VERA):
            self.leave(who)
        for contract, name in (("RewardEscrow", "claimDelegated"), ("StakeVault", "undelegate")):
            self.chain.send(LENDER, contract, name, self.id, ALICE)
        self.chain.send(CREATOR, "RewardEscrow", "reclaim", self.id)
        self.chain.send(VERA, "RewardEscrow", "burnDeposit", self.id)
        self.chain.send(VERA, "Arena", "voidRun", self.stopped.id)
