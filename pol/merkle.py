"""Merkle trees with bound positions and counts, on merkletools.

A leaf is ``SHA256(domain || u64(index) || payload)``, an inner node ``SHA256(left || right)``, and an odd node at the
end of a level moves up unchanged (merkletools' shape; it is never duplicated). The published *root* is the root
record ``SHA256("aiarena/root-record/v1" || u64(count) || top)``, so two trees of different size never share a root.
``chain/contracts/src/libraries/MerkleProof.sol`` checks the same proofs; both read tests/golden/merkle.json.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from blockcerts_merkletools import MerkleTools

from pol.encoding import DIGEST_BYTES, digest, u64
from pol.errors import ProofError

ROOT_DOMAIN = "aiarena/root-record/v1"
MAX_DEPTH = 64


def leaf_digest(domain: str, index: int, payload: bytes) -> bytes:
    """The digest of leaf ``index`` (any length of payload)."""
    return digest(domain, u64(index), payload)


def root_record(count: int, top: bytes) -> bytes:
    """The root that binds the number of leaves to the tree's top node."""
    return digest(ROOT_DOMAIN, u64(count), top)


@dataclass(frozen=True, slots=True)
class MerkleProof:
    """The path of one leaf: its ``position`` in [0, count), and the siblings from the bottom up (32 bytes each)."""

    position: int
    count: int
    siblings: tuple[bytes, ...]


class MerkleTree:
    """A tree over leaf digests (32 bytes each, at least one)."""

    def __init__(self, leaves: Sequence[bytes]) -> None:
        if not leaves:
            raise ValueError("a Merkle tree needs at least one leaf")
        self._tools = MerkleTools(hash_type="sha256")
        self._tools.add_leaf([leaf.hex() for leaf in leaves])
        self._tools.make_tree()
        self.count = len(leaves)

    @property
    def root(self) -> bytes:
        """The root record (32 bytes)."""
        return root_record(self.count, bytes.fromhex(self._tools.get_merkle_root()))

    def prove(self, position: int) -> MerkleProof:
        """The proof of the leaf at ``position``; raises ``IndexError`` outside [0, count)."""
        if not 0 <= position < self.count:
            raise IndexError(f"leaf {position} of {self.count}")
        steps = self._tools.get_proof(position)
        siblings = tuple(bytes.fromhex(next(iter(step.values()))) for step in steps)
        return MerkleProof(position=position, count=self.count, siblings=siblings)


def merkle_root(leaves: Iterable[bytes]) -> bytes:
    """The root record over ``leaves`` (32 bytes each, at least one), in one pass that keeps O(log n) nodes.

    The same root as :class:`MerkleTree`'s, for data sets whose trees would not fit in memory.
    """
    return root_record(*_count_and_top(leaves))


def top_node(leaves: Iterable[bytes]) -> bytes:
    """The top of the tree over ``leaves`` (at least one), which is also what a larger tree has over a run of them.

    The run begins at a multiple of a power of two, and has that many leaves or those up to the larger tree's end.
    """
    return _count_and_top(leaves)[1]


def _count_and_top(leaves: Iterable[bytes]) -> tuple[int, bytes]:
    peaks: list[tuple[int, bytes]] = []  # (height, top) of the perfect trees so far, the highest first
    count = 0
    for leaf in leaves:
        height, node = 0, leaf
        while peaks and peaks[-1][0] == height:
            node = _node(peaks.pop()[1], node)
            height += 1
        peaks.append((height, node))
        count += 1
    if not count:
        raise ValueError("a Merkle tree needs at least one leaf")
    _, top = peaks.pop()
    while peaks:
        top = _node(peaks.pop()[1], top)
    return count, top


def root_from_proof(leaf: bytes, proof: MerkleProof) -> bytes:
    """The root record that ``leaf`` and ``proof`` lead to; raises :class:`ProofError` if the path is malformed.

    The side of each sibling follows from the position and the count alone, so a proof cannot be moved to another
    position. Exactly as many siblings as the shape asks for are accepted.
    """
    if not 0 <= proof.position < proof.count or len(proof.siblings) > MAX_DEPTH:
        raise ProofError(f"Merkle proof: position {proof.position} of {proof.count} is impossible")
    node, index, width, used = leaf, proof.position, proof.count, 0
    while width > 1:
        if index % 2 == 1 or index + 1 < width:
            if used == len(proof.siblings):
                raise ProofError("Merkle proof: too few siblings")
            sibling = proof.siblings[used]
            if len(sibling) != DIGEST_BYTES:
                raise ProofError("Merkle proof: a sibling is not 32 bytes")
            node = _node(sibling, node) if index % 2 else _node(node, sibling)
            used += 1
        index, width = index // 2, (width + 1) // 2
    if used != len(proof.siblings):
        raise ProofError("Merkle proof: too many siblings")
    return root_record(proof.count, node)


def range_siblings(first: MerkleProof, last: MerkleProof) -> tuple[bytes, ...]:
    """The siblings that lead all leaves from ``first`` to ``last`` to the root together.

    From the bottom up, and of a level the left one before the right one: what stands left of the range where it begins
    with a right child, and right of it where it ends with a left child that is not the level's end. Raises
    ``ValueError`` for proofs of two trees, or in the wrong order, and ``IndexError`` for one that lacks siblings.
    """
    if first.count != last.count or first.position > last.position:
        raise ValueError("the two ends of a range are proofs from one tree, in order")
    left, right, width = first.position, last.position, first.count
    used_left = used_right = 0
    siblings = []
    while width > 1:
        if left % 2:
            siblings.append(first.siblings[used_left])
        if right % 2 == 0 and right + 1 < width:
            siblings.append(last.siblings[used_right])
        used_left += left % 2 or left + 1 < width
        used_right += right % 2 or right + 1 < width
        left, right, width = left // 2, right // 2, (width + 1) // 2
    return tuple(siblings)


def _node(left: bytes, right: bytes) -> bytes:
    # The one digest without a domain: leaves and records start with at least 16 ASCII bytes, which no digest
    # can be made to start with, so an inner node is never mistaken for either.
    return hashlib.sha256(left + right).digest()
