"""Plays tasks and cases on anvil and writes what each kind of transaction used: ``python -m experiments.gas.run``.

The plays of tasks are those of tests/chain/test_full_size.py, model and all. Receipts' gas: with the 21,000 of a
transaction and its calldata. The same on every machine, but for what blocks' hashes draw in a case. What was measured
with the same contracts is kept: a run that was cut short goes on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mpmath import mp

import chain
from chain.anvil import Anvil
from chain.terms import Aggregator
from tests.chain.anatomy import Anatomy, TracedNode
from tests.chain.courtplay import CourtPlay
from tests.chain.rounds import Play, Sizes

RESULTS = Path(__file__).with_name("results.json")
ARTIFACTS = Path(chain.__file__).with_name("artifacts")
SIZES = ((153, 172, Aggregator.MEAN), (110, 456, Aggregator.MEDIAN))
SMALL = tuple((n, m, Aggregator.MEAN) for n in (16, 64) for m in (16, 64))
CHUNK = 64


def main() -> None:
    """Measure what is missing, and write the results as they come."""
    found = _kept()
    for part, sizes in (("sizes", SIZES), ("small", SMALL)):
        found.setdefault(part, [])
        for size in sizes[len(found[part]) :]:
            found[part].append(measure(*size))
            _write(found)
    if "anatomy" not in found:
        found |= take_apart()
        _write(found)


def measure(trainers: int, validators: int, aggregator: Aggregator) -> dict[str, Any]:
    """Transactions, the most gas of one, and that of all, by contract and function."""
    with _node() as node:
        _play(node, trainers, validators, aggregator)
    gas = {label: {"count": len(used), "most": max(used), "all": sum(used)} for label, used in node.gas.items()}
    return {"trainers": trainers, "validators": validators, "aggregator": aggregator.name, "gas": gas}


def take_apart() -> dict[str, Any]:
    """The costliest transaction of each kind in a small task and in cases, by contract and function; and what each
    segment that an answer opens uses besides the first."""
    with _node() as task, _node() as cases, _node() as longer:
        _play(task, *SMALL[0])
        CourtPlay(cases, sampled=1).play()
        CourtPlay(longer, sampled=2).play()
    answers = (node.anatomies["ChallengeManager.respond"].executed for node in (longer, cases))
    anatomies = task.anatomies | cases.anatomies
    anatomies |= {label: max(one, anatomies[label], key=_used) for label, one in task.anatomies.items()}
    two, one = answers
    return {"opening": two - one, "anatomy": {label: asdict(anatomies[label]) for label in sorted(anatomies)}}


def _used(anatomy: Anatomy) -> int:
    return anatomy.used


@contextmanager
def _node() -> Iterator[TracedNode]:
    with TemporaryDirectory() as folder, Anvil(Path(folder) / "state.json", accounts=0) as anvil:
        yield TracedNode(anvil)


def _play(node: TracedNode, trainers: int, validators: int, aggregator: Aggregator) -> None:
    sizes = Sizes(trainers, validators, rounds=1, window=20_000, chunk=CHUNK, diligent=True, aggregator=aggregator)
    node.enroll(sizes.people)
    with mp.workdps(50):
        Play(node, 1, sizes).play()


def _kept() -> dict[str, Any]:
    """What was measured with these contracts before."""
    artifacts = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(ARTIFACTS.glob("*.json")))).hexdigest()
    found: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    same = (found.get("artifacts"), found.get("chunk")) == (artifacts, CHUNK)
    return found if same else {"artifacts": artifacts, "chunk": CHUNK}


def _write(found: dict[str, Any]) -> None:
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
