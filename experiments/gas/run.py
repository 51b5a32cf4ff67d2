"""Plays the largest tasks on anvil and writes what each kind of transaction used: ``python -m experiments.gas.run``.

The play is the one of tests/chain/test_full_size.py, model and all. Receipts' gas: with the 21,000 of a transaction
and its calldata. The same on every machine.
"""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mpmath import mp

from chain.anvil import Anvil
from chain.terms import Aggregator
from tests.chain.node import Node
from tests.chain.rounds import Play, Sizes

RESULTS = Path(__file__).with_name("results.json")
SIZES = ((153, 172, Aggregator.MEAN), (110, 456, Aggregator.MEDIAN))
CHUNK = 64


def measure(trainers: int, validators: int, aggregator: Aggregator) -> dict[str, Any]:
    """Transactions, the most gas of one, and that of all, by contract and function."""
    sizes = Sizes(trainers, validators, rounds=1, window=20_000, chunk=CHUNK, diligent=True, aggregator=aggregator)
    with TemporaryDirectory() as folder, Anvil(Path(folder) / "state.json", accounts=0) as anvil, mp.workdps(50):
        node = Node(anvil)
        node.enroll(sizes.people)
        Play(node, 1, sizes).play()
    gas = {label: {"count": len(used), "most": max(used), "all": sum(used)} for label, used in node.gas.items()}
    return {"trainers": trainers, "validators": validators, "aggregator": aggregator.name, "gas": gas}


def main() -> None:
    """Measure, and write the results."""
    RESULTS.write_text(json.dumps({"chunk": CHUNK, "sizes": [measure(*size) for size in SIZES]}, indent=1) + "\n")


if __name__ == "__main__":
    main()
