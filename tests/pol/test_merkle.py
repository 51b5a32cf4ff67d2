"""Merkle trees: against golden vectors, an independent recursion, and everything a forger could bend."""

from __future__ import annotations

import contextlib
import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pol.errors import ProofError
from pol.merkle import MerkleProof, MerkleTree, leaf_digest, merkle_root, range_siblings, root_from_proof, root_record
from pol.transcript import Segment, extend_transcript

GOLDEN = json.loads((Path(__file__).parents[1] / "golden/merkle.json").read_text())["cases"]
leaves = st.lists(st.binary(min_size=32, max_size=32), min_size=1, max_size=40)


def unhex(text: str) -> bytes:
    return bytes.fromhex(text[2:])


def top(nodes: list[bytes]) -> bytes:
    """The same tree, written as a recursion: split at the largest power of two below the size."""
    if len(nodes) == 1:
        return nodes[0]
    cut = 1 << ((len(nodes) - 1).bit_length() - 1)
    return hashlib.sha256(top(nodes[:cut]) + top(nodes[cut:])).digest()


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: f"{case['count']}-{case['position']}")
def test_golden_vectors(case: dict) -> None:
    segment = Segment.from_json(case["segment"], where="golden")
    assert segment.leaf() == unhex(case["leaf"])
    proof = MerkleProof(case["position"], case["count"], tuple(map(unhex, case["siblings"])))
    assert root_from_proof(segment.leaf(), proof) == unhex(case["root"])
    before, root = unhex(case["transcript_before"]), unhex(case["root"])
    assert extend_transcript(before, case["first"], case["count"], root) == unhex(case["transcript_after"])


@given(leaves)
def test_root_agrees_with_an_independent_recursion(nodes: list[bytes]) -> None:
    assert merkle_root(nodes) == root_record(len(nodes), top(nodes))


@given(leaves, st.data())
def test_every_leaf_is_proven_at_its_own_position_only(nodes: list[bytes], data: st.DataObject) -> None:
    tree = MerkleTree(nodes)
    position = data.draw(st.integers(0, len(nodes) - 1))
    proof = tree.prove(position)
    assert root_from_proof(nodes[position], proof) == tree.root
    other = data.draw(st.integers(0, len(nodes) - 1))
    if other != position and nodes[other] != nodes[position]:
        moved = replace(proof, position=other)
        with contextlib.suppress(ProofError):
            assert root_from_proof(nodes[position], moved) != tree.root


@given(leaves, st.data())
def test_count_and_path_length_are_bound(nodes: list[bytes], data: st.DataObject) -> None:
    tree, position = MerkleTree(nodes), data.draw(st.integers(0, len(nodes) - 1))
    proof = tree.prove(position)
    with pytest.raises(ProofError):
        root_from_proof(nodes[position], replace(proof, siblings=(*proof.siblings, bytes(32))))
    if proof.siblings:
        with pytest.raises(ProofError):
            root_from_proof(nodes[position], replace(proof, siblings=proof.siblings[:-1]))
    with pytest.raises(ProofError):
        root_from_proof(nodes[position], replace(proof, position=len(nodes)))
    grown = MerkleTree([*nodes, nodes[-1]])
    assert grown.root != tree.root, "duplicating the last leaf must change the root (CVE-2012-2459)"


def neighbours(nodes: list[bytes], first: int, last: int) -> tuple[bytes, ...]:
    """Beside leaves [first, last] on every level, from all leaves: left of what is known, then right of it."""
    found = []
    while len(nodes) > 1:
        found += [nodes[first - 1]] * (first % 2) + nodes[last + 1 : last + 2] * (1 - last % 2)
        pairs = [nodes[start : start + 2] for start in range(0, len(nodes), 2)]
        nodes, first, last = [top(pair) for pair in pairs], first // 2, last // 2
    return tuple(found)


@given(leaves, st.data())
def test_two_paths_give_their_range_one(nodes: list[bytes], data: st.DataObject) -> None:
    """Contracts check it: chain/contracts/test/libraries reads ranges of tests/golden/mark.json."""
    tree, first = MerkleTree(nodes), data.draw(st.integers(0, len(nodes) - 1))
    last = data.draw(st.integers(first, len(nodes) - 1))
    assert range_siblings(tree.prove(first), tree.prove(last)) == neighbours(nodes, first, last)
    assert range_siblings(tree.prove(first), tree.prove(first)) == tree.prove(first).siblings
    if first < last:
        with pytest.raises(ValueError, match="in order"):
            range_siblings(tree.prove(last), tree.prove(first))


def test_two_trees_have_no_range() -> None:
    one, other = (MerkleTree([bytes(32)] * count) for count in (2, 3))
    with pytest.raises(ValueError, match="one tree"):
        range_siblings(one.prove(0), other.prove(1))


def test_an_inner_node_is_no_leaf() -> None:
    """Second preimage: a tree over one inner node must not have the root of the tree over its two children."""
    left, right = (leaf_digest("aiarena/segment/v1", i, b"x") for i in range(2))
    assert merkle_root([hashlib.sha256(left + right).digest()]) != merkle_root([left, right])


def test_short_domains_are_refused() -> None:
    with pytest.raises(ValueError, match="16 bytes"):
        leaf_digest("too/short", 0, b"")


def test_leaves_of_different_index_differ() -> None:
    assert leaf_digest("aiarena/segment/v1", 0, b"x") != leaf_digest("aiarena/segment/v1", 1, b"x")
