"""The part of docs/benchmarks.md that is about gas."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from experiments.tables import table
from tests.chain.anatomy import CHANGED, CONTRACT, STORED, WORD, Anatomy

COMMIT, REVEAL, SETTLE_ONE = 45_231, 299_044, 113_570
AGGREGATE_AND_RANK = 410_009 + 4_100_000
"""What a prototype used at 153 x 172, sending included: for a commitment, a row of scores, a validator settled, and
once a round. It added every row to sums in storage when it was revealed, and left trainers' payment to their claims."""

STEPS = (
    ("commit scores", ("commitScores",)),
    ("reveal scores", ("revealScores",)),
    ("aggregate and rank", ("rankRound",)),
    ("settle validators", ("weighValidators", "payValidators")),
    ("pay trainers", ("payTrainers",)),
)
"""The steps of a round, and their transactions."""

ACTIONS = (
    ("commit scores", ("Scoring.commitScores",), "23,655"),
    ("open a case", ("ChallengeManager.sealCase", "ChallengeManager.showCase"), "67,814"),
    ("fix its seed", ("ChallengeManager.latchSeed",), "28,265"),
    ("answer, one opening", ("ChallengeManager.respond",), ""),
    ("commit a vote", ("ChallengeManager.commitVote",), "23,165"),
    ("reveal a vote", ("ChallengeManager.revealVote",), "28,637"),
    ("claim a reward", ("RewardEscrow.claim",), "28,211, without the transfer"),
)
"""Actions that the prototype had too: their transactions here, and its gas without sending."""


def gas(results: dict[str, Any]) -> Iterator[str]:
    """What every action costs on chain."""
    yield "## Gas\n"
    yield from _whole_tasks(results)
    yield from _a_round(results["sizes"][0])
    yield from _growth(results)
    yield from _cases(results)
    yield from _apart(results["anatomy"])


def _whole_tasks(results: dict[str, Any]) -> Iterator[str]:
    yield (
        "Whole tasks of one submission round and the final one, from staking to claims, on anvil; receipts, so with "
        f"the 21,000 of a transaction and its calldata. {results['chunk']} operators are settled a transaction. Each "
        "cell: how many transactions, and the gas of the costliest; one may use 16,777,216 (EIP-7825).\n"
    )
    sizes = results["sizes"]
    labels = sorted({label for size in sizes for label in size["gas"] if label != "deploy"})
    rows = []
    for label in labels:
        used = [size["gas"].get(label) for size in sizes]
        rows.append([f"`{label}`", *(f"{kind['count']} x {kind['most']:,}" if kind else "" for kind in used)])
    yield table(["transaction", *map(_name, sizes)], rows) + "\n"


def _a_round(size: dict[str, Any]) -> Iterator[str]:
    """Step by step, because the prototype does the same work at other steps."""
    yield (
        f"One round of {_name(size)}, all its transactions, beside a prototype's figures (another layout, the "
        "optimiser at 10,000 runs over the intermediate language; here it runs at 200 without). The prototype adds a "
        "row to sums in storage when it is revealed; here a row is kept as code, and rows are added up when the round "
        "is ranked. So revealing is cheaper here, ranking is dearer, and only the sum compares.\n"
    )
    judges, ours = size["validators"], _round(size)
    theirs = [judges * COMMIT, judges * REVEAL, AGGREGATE_AND_RANK, judges * SETTLE_ONE, 0]
    rows = [
        [step, f"{here / 1e6:.2f} M", f"{there / 1e6:.2f} M" if there else "with the claims"]
        for (step, here), there in zip(ours.items(), theirs, strict=True)
    ]
    rows.append(["all", f"{sum(ours.values()) / 1e6:.2f} M", f"{sum(theirs) / 1e6:.2f} M"])
    yield table(["step", "here", "prototype"], rows) + "\n"
    one = ours["settle validators"] / judges
    yield f"To settle one validator takes {one:,.0f} here, and {SETTLE_ONE:,} there.\n"


def _growth(results: dict[str, Any]) -> Iterator[str]:
    """A plane through four small sizes, held against the large ones."""
    base, judge, model, both = (
        sum(_round(size).values()) for size in results["small"]
    )  # 16 x 16, 16 x 64, 64 x 16, 64 x 64
    few, many = results["small"][0]["trainers"], results["small"][3]["trainers"]
    step = many - few
    pair = (both - judge - model + base) / step**2
    a_judge, a_model = (judge - base) / step - few * pair, (model - base) / step - few * pair
    fixed = base - few * (a_judge + a_model) - few * few * pair
    yield (
        f"How a round grows: by the mean, {few} and {many} of each give {fixed / 1e3:,.0f},000 a round, "
        f"{a_model:,.0f} a model, {a_judge:,.0f} a validator and {pair:,.0f} a pair of them, all transactions "
        "together. Foretold so, and measured (sorting, and what each further piece of a round reads again, are not in "
        "it; a median sorts every model's scores):\n"
    )
    rows = []
    for size in results["sizes"]:
        n, m = size["trainers"], size["validators"]
        foretold, whole = fixed + n * a_model + m * a_judge + n * m * pair, sum(_round(size).values())
        cells = (f"{value / 1e6:.1f} M" for value in (foretold, whole))
        rows.append([_name(size), *cells, f"{whole / foretold:.3f}", f"{whole / n / m:.0f}"])
    yield table(["task", "foretold", "measured", "ratio", "a pair"], rows) + "\n"


def _cases(results: dict[str, Any]) -> Iterator[str]:
    yield (
        "Actions beside the prototype's, without what sending them costs. What is counted of ours: contracts called "
        f"and words of storage touched for the first time ({CONTRACT:,} and {WORD:,} each), words of zeros and others "
        f"overwritten ({STORED:,} and {CHANGED:,} more). *The rest* is computing and events, so no compiler's settings "
        "save more than that; less what is given back for words set to zero again, which may be more.\n"
    )
    rows: list[list[str]] = []
    for what, labels, theirs in ACTIONS:
        parts = [Anatomy(**results["anatomy"][label]) for label in labels]
        counts = [sum(getattr(part, name) for part in parts) for name in ("contracts", "words", "stored", "changed")]
        executed, rest = (sum(getattr(part, name) for part in parts) for name in ("executed", "rest"))
        rows.append([what, f"{executed:,}", theirs, *map(str, counts), f"{rest:,}"])
    rows.insert(4, ["each further opening, 16 levels", f"{results['opening']:,}", "37,968", "", "", "", "", ""])
    yield table(["action", "here", "prototype", "contracts", "words", "zeros", "others", "the rest"], rows) + "\n"
    yield WHY


WHY = f"""A new word costs {STORED + WORD:,}, so the prototype's 23,655, 28,265, 23,165 and 28,637 have room for one
each and its 67,814 for three, and for little else. What they leave out is in the columns: terms, runs, submissions and
stakes are in other contracts, and every action asks them. Scores are committed by staked validators, in the round's
window, once. A case is sealed with its bond and shown later, so that nobody learns of it early; its whole charge is
kept, and the model, the run and the claim are looked up. A vote asks who sits on the jury of this level and with what
stake, and its revealing is added to two counters. The answer draws its segments again, and opens the vote. An opening
by itself, SHA-256 and all, is cheaper here.
"""


def _apart(anatomy: dict[str, Any]) -> Iterator[str]:
    yield (
        "Every kind of transaction of a small task (16 x 16) and of four cases in another: the costliest, with all "
        "that it costs, taken apart as above. Runs have 65,536 segments in one anchor; an answer opens one of them; "
        "a key has 512 leaves, of which 128 are opened a transaction; two levels of votes, the settled case is a "
        "conviction on appeal.\n"
    )
    rows = []
    for label, counted in anatomy.items():
        part = Anatomy(**counted)
        counts = (part.contracts, part.words, part.stored, part.changed)
        rows.append([f"`{label}`", f"{part.used:,}", f"{part.sent:,}", *counts, f"{part.rest:,}"])
    yield table(["transaction", "gas", "sending", "contracts", "words", "zeros", "others", "the rest"], rows) + "\n"


def _name(size: dict[str, Any]) -> str:
    return f"{size['trainers']} x {size['validators']}, {size['aggregator'].lower()}"


def _round(size: dict[str, Any]) -> dict[str, float]:
    """What each step of a round used: the played tasks have two rounds."""
    return {step: sum(size["gas"][f"Scoring.{kind}"]["all"] for kind in kinds) / 2 for step, kinds in STEPS}
