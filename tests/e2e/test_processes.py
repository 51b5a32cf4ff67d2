"""A task played by fourteen processes on a node, with the real commands, while at random they are killed and go on.

A creator, four trainers, five validators, three delegators and a thief (:mod:`tests.e2e.cast`). In the end everybody
has what the reference model says, to the wei, and every transaction was sent once.
"""

from collections import Counter
from types import SimpleNamespace

import pytest
from mpmath import mp

from chain.accounts import dev_account
from chain.anvil import Anvil
from chain.artifact import artifact
from chain.case import CaseVerdict
from chain.client import ArenaClient
from chain.deployment import planned_deployment
from chain.journal import open_journal
from chain.types import Role, tokens
from tests.chain.anvil import require_anvil
from tests.chain.model import Model, Operator
from tests.e2e.cast import (
    AGAINST_ALICE,
    AGAINST_THIEF,
    DELEGATORS,
    LOANS,
    OPERATORS,
    PEOPLE,
    PURSE,
    PURSES,
    SUPPLY,
    THIEF,
    Script,
    terms,
)
from tests.e2e.company import Company

pytestmark = [pytest.mark.slow, pytest.mark.node]

SEED = 5
CONTRACTS = ("vault", "escrow", "arena", "scoring", "challenges")


class Books:
    """What everybody must have in the end, from what people staked, lent and scored."""

    def __init__(self, reader, address):
        self.reader, self.address, self.config = reader, address, reader.arena.task_config(1)
        self.known = {address(name): name for name in PEOPLE}
        sides = [[self.operator(account) for account in reader.vault.operators(1, role)] for role in list(Role)[1:]]
        self.model = Model(self, self.config, *sides)
        self.operators = {self.known[operator.account]: operator for side in sides for operator in side}
        self.book_loans()
        for round_ in range(1, self.config.clock.final_round + 1):
            self.settle(round_)

    def call(self, _, name, *args):
        """Ask TaskRules, as the model does."""
        rules = self.reader.web3.eth.contract(self.rules_address, abi=artifact("TaskRules").abi)
        return rules.functions[name](*args).call()

    @property
    def rules_address(self):
        return self.reader.arena.call("rules")

    def operator(self, account):
        stake, commission = OPERATORS[self.known[account]]
        return Operator(account, tokens(stake), commission)

    def book_loans(self):
        lent = Counter()
        for name, operator, amount, since in LOANS:
            more = tokens(amount) - lent[name, operator]
            self.operators[operator].lent.lend(name, more, since)
            lent[name, operator] += more

    def settle(self, round_):
        orders = self.reader.arena.standing_orders(1, round_)
        for trainer, order in zip(self.model.trainers, orders, strict=True):
            trainer.orders |= {round_: order} if order else {}
        rows = {v.account: self.reader.scoring.scores_of(1, round_, v.account) for v in self.model.validators}
        self.model.settled(round_, rows)

    @property
    def stolen(self):
        """Everything that the thief was allotted, and what of it burns."""
        amount = self.operators["mallory"].allotted
        return amount, amount * self.config.court.burn_bps // 10_000

    @property
    def compensation(self):
        """What Alice's answer to a wrong accusation cost."""
        return self.config.court.opening_cost * len(self.reader.challenges.segments_to_open(AGAINST_ALICE))

    @property
    def burned(self):
        court = self.config.court
        slash = self.operators["mallory"].own * court.slash_bps // 10_000
        return slash + self.config.pay.run_bond + self.stolen[1] + court.bond - self.compensation

    def wallets(self):
        """What everybody has, by name."""
        court, pay = self.config.court, self.config.pay
        has = dict.fromkeys(PEOPLE, PURSE)
        allotted = sum(operator.allotted for operator in self.operators.values())
        has["creator"] = SUPPLY - PURSES * PURSE - allotted
        for name, operator in self.operators.items():
            if name not in THIEF:
                has[name] += operator.mine
                for delegator in DELEGATORS:
                    has[delegator] += operator.lent.claimable(delegator)
        has["mallory"] -= self.operators["mallory"].own + pay.run_bond
        has["alice"] += self.stolen[0] - self.stolen[1] + self.compensation
        has["wanda"] -= court.bond
        return has


@pytest.fixture(scope="module")
def end(tmp_path_factory):
    """The company when all is over, and a reader of its chain."""
    require_anvil()
    folder = tmp_path_factory.mktemp("company")
    addresses = {name: dev_account(index).address for index, name in enumerate(PEOPLE)}
    with Anvil(folder / "chain.json", block_time_s=1) as node:
        plan = planned_deployment(node.web3.eth.chain_id, addresses["creator"], 0)
        (folder / "task.toml").write_text(terms(node.now() + 3_600))
        script = Script(folder, addresses.get)
        company = Company(folder / "people", node, plan.arena, script.lines, SEED)
        try:
            for act, time in enumerate(script.times, start=1):
                begins = time(ArenaClient(node.web3, plan)) if time else 0
                if node.now() < begins:
                    node.advance_to(begins)
                company.play(act)
        finally:
            company.disperse()
        reader = ArenaClient(node.web3, plan)
        with mp.workdps(50):
            yield SimpleNamespace(company=company, reader=reader, books=Books(reader, addresses.get))


def test_it_is_a_story_of_many_deaths(end):
    assert len(end.company.names) == 14
    assert sum(end.company.kills.values()) >= 30, end.company.kills
    assert all(process.returncode == 0 for process in end.company.processes.values())


def test_the_thief_is_convicted_and_the_honest_are_not(end):
    challenges = end.reader.challenges
    assert challenges.case_count() == 2, "however often they died, a case was opened once"
    verdicts = [challenges.case(number).verdict for number in (AGAINST_THIEF, AGAINST_ALICE)]
    assert verdicts == [CaseVerdict.UPHELD, CaseVerdict.REJECTED]


def test_everybody_has_what_the_model_says_to_the_wei(end):
    books, token = end.books, end.reader.token
    expected = books.wallets()
    assert {name: token.balance_of(books.address(name)) for name in PEOPLE} == expected
    assert token.total_supply() == SUPPLY - books.burned


def test_the_story_has_what_makes_it_hard(end):
    """A reward that its cap cuts, a thief with something to lose, lenders who earn, scores that differ."""
    operators = end.books.operators
    assert operators["dave"].allotted == operators["dave"].own, "the cap"
    assert operators["mallory"].allotted > 0
    assert min(operator.mine for name, operator in operators.items() if name not in THIEF) > 0
    assert operators["alice"].lent.claimable("dan") > 0


def test_contracts_keep_nothing_but_dust(end):
    held = {name: end.reader.token.balance_of(getattr(end.reader.deployment, name)) for name in CONTRACTS}
    assert held.pop("escrow") <= 2 * len(LOANS)
    assert set(held.values()) == {0}


ONCE = {
    "creator": {"Arena.createTask": 1, "Scoring.openFinalSet": 1},
    "alice": {
        "StakeVault.stake": 1, "Arena.registerRun": 1, "Arena.anchor": 4, "Arena.anchorReference": 1,
        "Arena.commitSubmission": 1, "Arena.revealSubmission": 1, "ChallengeManager.sealCase": 1,
        "ChallengeManager.showCase": 1, "ChallengeManager.respond": 1,
    },
    "mallory": {"Arena.anchor": 4, "Arena.commitSubmission": 1, "ChallengeManager.respond": 1},
    "victor": {
        "Scoring.commitScores": 3, "Scoring.revealScores": 3, "ChallengeManager.commitVote": 2,
        "ChallengeManager.revealVote": 2,
    },
    "dan": {"StakeVault.delegate": 2, "StakeVault.undelegate": 1},
}  # fmt: skip


@pytest.mark.parametrize("name", ONCE)
def test_what_they_sent_they_sent_once(end, name):
    account = end.books.address(name)
    (kept,) = (end.company.folder / name / "home").glob(f"*/{account}.jsonl")
    with open_journal(kept, account) as journal:
        sent = Counter(label for label, _ in journal.mined())
        assert not journal.outstanding()
    assert {label: sent[label] for label in ONCE[name]} == ONCE[name]
    assert sent.total() == end.reader.web3.eth.get_transaction_count(account)
