"""Who plays in the story of many processes, on what terms, and who types what when."""

import re

from chain.types import tokens
from tests.challenge.arena_shell import task_text

SUPPLY, PURSE, PURSES = tokens(1_000_000), tokens(5_000), 15
TRAINERS = {"alice": (1_000, 2_000), "bob": (800, 0), "carol": (600, 5_000), "dave": (100, 1_000)}
THIEF = {"mallory": (1_200, 3_000)}
VALIDATORS = {"vera": (1_000, 1_000), "victor": (900, 0), "viola": (1_100, 0), "wanda": (1_000, 0), "will": (500, 0)}
OPERATORS = {**TRAINERS, **THIEF, **VALIDATORS}
LOANS = [
    ("dora", "dave", 2_000, 0), ("dora", "vera", 250, 0), ("dan", "alice", 400, 0), ("dina", "mallory", 300, 0),
    ("dan", "alice", 725, 1), ("dina", "victor", 500, 1),
]  # fmt: skip
"""Who has lent what to whom in all, from which round's submissions on (0: before the first)."""
DELEGATORS = ("dora", "dan", "dina")
PEOPLE = ("creator", *OPERATORS, *DELEGATORS)
LAZY = {"wanda": "9000,9500,9000,8000,9300", "will": "9100,9000,9200,9300,9400"}
"""Validators who make their scores up, and how."""
TERMS = {
    "steps": 40, "width": 512, "learning_rate": "1e-2", "rounds": 2, "sampled": 2, "jurors": 31, "appeals": 0,
}  # fmt: skip
AGAINST_THIEF, AGAINST_ALICE = 1, 2
THIEFS_RUN = 5
"""The others registered theirs a round before."""


class Script:
    """The acts of the story: when each begins, and who types what in it."""

    def __init__(self, folder, address):
        self.folder, self.address = folder, address
        self.store = ("--store", folder / "store")
        self.times, self.lines = [], {name: [] for name in PEOPLE}
        self.registration(), self.first_round(), self.second_round(), self.final_round(), self.court()
        self.act(lambda reader: reader.arena.phase_times(1).closed_from)
        self.types("dora", "run", "void", THIEFS_RUN)
        for name in PEOPLE:
            self.types(name, "claim", 1)

    def act(self, time=None):
        """A new act, which begins at ``time`` (of a reading client), or at once."""
        self.times.append(time)

    def types(self, name, *words, tool="arena"):
        self.runs(name, tool, *words, "--yes", "--json")

    def runs(self, name, *words):
        self.lines[name].append((len(self.times), [str(word) for word in words]))

    def registration(self):
        self.act()
        self.types("creator", "deploy", "--purse", PURSE // tokens(1))
        self.types("creator", "task", "create", self.folder / "task.toml", *self.store)
        self.act()
        for name, (stake, commission) in OPERATORS.items():
            side = "validator" if name in VALIDATORS else "trainer"
            self.types(name, "stake", 1, side, stake, "--commission", commission)
        self.act()
        self.lend(0)

    def lend(self, round_):
        for name, operator, amount, since in LOANS:
            if since == round_:
                self.types(name, "delegate", 1, self.address(operator), amount)

    def first_round(self):
        self.act(lambda reader: reader.arena.phase_times(1).submission_from)
        self.lend(1)
        for name in TRAINERS:
            run = self.register(name)
            self.types(name, "run", "train", run)
            self.types(name, "submit", "commit", run, *self.store)
        self.round(1, TRAINERS)

    def second_round(self):
        self.act()
        run = self.register("mallory")
        self.runs("mallory", "python", "-m", "tests.e2e.thief", run, self.address("alice"), self.store[1])
        self.types("mallory", "submit", "commit", run, *self.store)
        self.round(2, THIEF)

    def final_round(self):
        self.act(lambda reader: reader.arena.round_times(1, 3).opens_at)
        self.types("creator", "task", "final", 1, "digits/final-validation", *self.store)
        self.round(3, ())

    def register(self, name):
        run = self.folder / f"run-{name}"
        self.types(name, "run", "register", 1, run, *self.store)
        return run

    def round(self, number, revealing):
        """Show models; promise scores, show them; two settle at once."""
        if revealing:
            self.act(lambda reader: reader.arena.round_times(1, number).opens_at)
        for name in revealing:
            self.types(name, "submit", "reveal", 1)
        self.act(lambda reader: reader.arena.round_times(1, number).scores_from)
        for name in VALIDATORS:
            made_up = ("--scores", LAZY[name]) if name in LAZY else ()
            self.types(name, "score", "commit", 1, "--round", number, *self.store, *made_up)
        self.act(lambda reader: reader.arena.round_times(1, number).reveal_from)
        for name in VALIDATORS:
            self.types(name, "score", "reveal", 1, "--round", number)
        self.act(lambda reader: reader.arena.round_times(1, number).settle_from)
        for name in ("creator", "dora"):
            self.types(name, "score", "settle", 1, "--chunk", 2)

    def court(self):
        """Alice proves the theft, Wanda accuses Alice of nothing. Most of the others judge."""
        thief, alice = self.address("mallory"), self.address("alice")
        proof = {name: self.folder / f"run-{name}" / "proof" for name in ("mallory", "alice")}
        jurors = ("vera", "victor", "viola")
        cases = {AGAINST_THIEF: (*jurors, "wanda"), AGAINST_ALICE: jurors}
        self.act(lambda reader: reader.arena.phase_times(1).challenge_from)
        self.types("alice", "open", 1, thief, "--proof", proof["mallory"], tool="challenge")
        self.act()
        self.types("wanda", "open", 1, alice, tool="challenge")
        self.act()
        self.types("mallory", "respond", AGAINST_THIEF, proof["mallory"], *self.store, tool="challenge")
        self.types("alice", "respond", AGAINST_ALICE, proof["alice"], *self.store, tool="challenge")
        self.act()
        self.vote(cases)
        self.act(lambda reader: max(reader.challenges.case(case).deadline for case in cases))
        self.vote(cases)
        self.act(lambda reader: max(reader.challenges.case(case).reveal_by for case in cases))
        self.types("creator", "settle", AGAINST_THIEF, tool="challenge")
        self.types("dan", "settle", AGAINST_ALICE, tool="challenge")

    def vote(self, cases):
        for case, jurors in cases.items():
            for name in jurors:
                self.types(name, "vote", case, *self.store, tool="challenge")


def terms(start):
    """The example's task, starting then, small and short."""
    text = task_text(start)
    for name, value in TERMS.items():
        text = re.sub(rf"^{name} = .*$", f"{name} = {value}", text, flags=re.MULTILINE)
    return text
