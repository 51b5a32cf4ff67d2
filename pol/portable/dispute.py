"""Where two parties part: the first operation of a step that they do not share, found by a few questions.

One party has committed to the root of its operations (:attr:`pol.portable.trace.OperatorTrace.root`); the other took
the step itself. A question is the number of an operation, an answer that operation with its Merkle proof. The path
holds the tops of all that comes after: the lowest of them that differs has the first difference in it, and there the
next question goes. Each question halves what is left: n operations take at most ceil(log2(n)) + 1 questions.

What is found is evidence: an operation that the root commits to, of which anyone can recompute the output, or one
element of it, if its operator, attributes and inputs are agreed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from pol.errors import ProofError
from pol.merkle import MerkleProof, MerkleTree, root_from_proof, top_node
from pol.portable.trace import Operation

Answer: TypeAlias = tuple[Operation, MerkleProof]


@dataclass(frozen=True, slots=True)
class Parting:
    """The ``index`` of the first operation that differs, and what the other party has there, proven against its root.

    ``theirs`` is None where the other party's operations end before mine; ``proof`` is then of its last one.
    """

    index: int
    theirs: Operation | None
    proof: MerkleProof


def opened(operations: Sequence[Operation]) -> Callable[[int], Answer]:
    """What answers for a party that has ``operations``, at least one; ``IndexError`` for a number that it has not."""
    tree = MerkleTree([operation.leaf(index) for index, operation in enumerate(operations)])
    return lambda index: (operations[index], tree.prove(index))


def parting(mine: Sequence[Operation], root: bytes, ask: Callable[[int], Answer]) -> Parting | None:
    """The first operation in which ``mine`` and those under ``root`` differ; None if they are the same.

    ``ask`` puts a question to the other party. Raises :class:`ProofError` for an answer that ``root`` does not hold.
    """
    leaves = [operation.leaf(index) for index, operation in enumerate(mine)]
    index: int | None = 0
    while index is not None:
        theirs, proof = ask(index)
        leaf = theirs.leaf(index)
        if proof.position != index or root_from_proof(leaf, proof) != root:
            raise ProofError(f"operation {index}: the answer is not under the root that was committed to: ask again")
        if leaves[index : index + 1] != [leaf]:
            return Parting(index, theirs, proof)
        index = _next(leaves, proof)
    return Parting(proof.count, None, proof) if proof.count < len(mine) else None


def _next(leaves: Sequence[bytes], proof: MerkleProof) -> int | None:
    """Where the lowest node right of the path begins that ``leaves`` do not have; None if they have them all."""
    siblings, place, width, height = iter(proof.siblings), proof.position, proof.count, 0
    while width > 1:
        if place % 2:
            next(siblings)
        elif place + 1 < width:
            start = (place + 1) << height
            end = min(start + (1 << height), proof.count)
            sibling = next(siblings)
            if end > len(leaves) or top_node(leaves[start:end]) != sibling:
                return start
        place, width, height = place // 2, (width + 1) // 2, height + 1
    return None
