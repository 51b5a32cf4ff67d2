"""Case 24: fewer proofs than promises, and Merkle trees in which one root has two readings.

Source: found in TOPLOC's published code: ``zip(proofs, batches)`` ends with the shorter of the two, so that fewer
proofs mean fewer checks and still no error. CVE-2012-2459: where an odd last node is paired with itself, a list and the
same list with its tail doubled have one root. Second preimage: where leaves and inner nodes are hashed alike, a node
can be shown as a leaf of a shorter tree.

Here every number of things is promised and compared: leaves are counted in the root, positions in the path, segments in
the spec; leaves and nodes are hashed in domains of their own; and an odd last node moves up unchanged.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from challenge.segments import Policy
from challenge.verdict import ExitCode
from pol import Proof, TrainingSpec
from pol.data import Dataset
from pol.encoding import u64
from pol.errors import CannotRun, ProofError
from pol.merkle import MerkleProof, MerkleTree, leaf_digest, merkle_root, root_from_proof, root_record
from pol.program import program_digest
from pol.proof import MANIFEST, STATES, TRANSCRIPT, states_of
from pol.transcript import SEGMENT_DOMAIN, segment_tree
from tests.attacks.forging import copied, reanchored, trained_states, write_forgery
from tests.attacks.judging import judged
from tests.runs import small_spec

leaves = st.lists(st.binary(min_size=32, max_size=32), min_size=1, max_size=24)


def published_check(proofs: list[bytes], batches: list[bytes]) -> bool:
    """As published: every proof that is there is compared with its batch."""
    return all(proof == batch for proof, batch in zip(proofs, batches, strict=False))


def doubling_root(nodes: list[bytes]) -> bytes:
    """The tree of Bitcoin, in which an odd last node is paired with itself."""
    while len(nodes) > 1:
        nodes = nodes + nodes[-1:] if len(nodes) % 2 else nodes
        nodes = [hashlib.sha256(a + b).digest() for a, b in zip(nodes[::2], nodes[1::2], strict=True)]
    return nodes[0]


def test_the_published_checks_pass_with_fewer_and_with_doubled_ones() -> None:
    assert published_check([], [b"forged"] * 9) and published_check([b"a"], [b"a", b"forged"])
    three = [bytes([i]) * 32 for i in range(3)]
    assert doubling_root(three) == doubling_root([*three, three[-1]])
    assert merkle_root(three) != merkle_root([*three, three[-1]])


@given(leaves, st.data())
def test_no_other_list_has_the_root(nodes: list[bytes], data: st.DataObject) -> None:
    """One less, one more, one doubled, the tail doubled, another order, any subtree."""
    root, at = merkle_root(nodes), data.draw(st.integers(0, len(nodes) - 1))
    others = [nodes[:at] + nodes[at + 1 :], [*nodes, nodes[at]], [*nodes, *nodes[-1:]], nodes + nodes, nodes[::-1]]
    others += [nodes[:at], nodes[at:], [*nodes, bytes(32)], nodes + nodes[-2:], nodes + nodes[-4:]]
    for other in others:
        assert not other or other == nodes or merkle_root(other) != root
    assert merkle_root(list(nodes)) == root == MerkleTree(nodes).root


@given(leaves)
def test_a_level_of_nodes_is_no_list_of_leaves(nodes: list[bytes]) -> None:
    """The inner nodes of a tree, handed in as the leaves of a shorter one."""
    pairs = [hashlib.sha256(a + b).digest() for a, b in zip(nodes[::2], nodes[1::2], strict=False)]
    level = pairs + (nodes[-1:] if len(nodes) % 2 else [])
    if len(nodes) > 1:
        assert merkle_root(level) != merkle_root(nodes)


def test_a_node_is_not_taken_for_a_leaf() -> None:
    """The path of an inner node, as a proof in a tree of its true count and of every other."""
    nodes = [leaf_digest(SEGMENT_DOMAIN, i, bytes(8)) for i in range(4)]
    tree = MerkleTree(nodes)
    inner, sibling = hashlib.sha256(nodes[0] + nodes[1]).digest(), hashlib.sha256(nodes[2] + nodes[3]).digest()
    assert hashlib.sha256(inner + sibling).digest(), "which would be the top"
    for count in range(1, 9):
        for position in range(count):
            try:
                found = root_from_proof(inner, MerkleProof(position, count, (sibling,)))
            except ProofError:
                continue
            assert found != tree.root
    assert root_from_proof(nodes[0], tree.prove(0)) == tree.root, "the honest twin"


@given(leaves, st.integers(1, 64))
def test_the_count_is_part_of_the_root(nodes: list[bytes], count: int) -> None:
    top = MerkleTree(nodes)._tools.get_merkle_root()
    assert (root_record(count, bytes.fromhex(top)) == merkle_root(nodes)) == (count == len(nodes))


def test_no_segment_can_be_made_to_look_like_a_node() -> None:
    """64 bytes that a forger chooses: fields of a segment come after a domain that no digest begins with."""
    domain = SEGMENT_DOMAIN.encode()
    assert len(domain) >= 16 and domain.isascii()
    assert leaf_digest(SEGMENT_DOMAIN, 0, bytes(64)) != hashlib.sha256(bytes(64)).digest()
    assert leaf_digest(SEGMENT_DOMAIN, 0, b"x") == hashlib.sha256(domain + u64(0) + b"x").digest()


# A proof with fewer of something


def rewritten(folder: Path, change: Callable[[list[bytes]], list[bytes]]) -> None:
    lines = (folder / TRANSCRIPT).read_bytes().splitlines(keepends=True)
    (folder / TRANSCRIPT).write_bytes(b"".join(change(lines)))


@pytest.mark.parametrize(
    "change",
    [
        lambda lines: [], lambda lines: lines[:-1], lambda lines: lines[1:], lambda lines: [*lines, lines[-1]],
        lambda lines: [lines[0], *lines], lambda lines: lines[::-1], lambda lines: [*lines, b"\n"],
        lambda lines: [*lines, lines[-1].replace(b'"index":3', b'"index":4')], lambda lines: lines * 2,
    ],
    ids=["none", "no last", "no first", "last twice", "first twice", "reversed", "a blank", "one more", "all twice"],
)  # fmt: skip
def test_fewer_or_more_lines_are_refused(honest_run: Path, tmp_path: Path, change: Callable) -> None:
    folder = copied(honest_run, tmp_path / "proof")
    rewritten(folder, change)
    assert judged(folder).exit_code is ExitCode.MALFORMED


def fewer_segments(proof: Proof) -> Proof:
    """With anchors that fit: the whole run is three segments, says the forger."""
    kept = proof.segments[:-1]
    return replace(proof, segments=kept, anchors=proof.anchors[: len(kept)], states=proof.states[:1])


def an_anchor_less(proof: Proof) -> Proof:
    return replace(proof, anchors=proof.anchors[:-1])


def no_anchors(proof: Proof) -> Proof:
    return replace(proof, anchors=())


def an_anchor_twice(proof: Proof) -> Proof:
    return replace(proof, anchors=(*proof.anchors, proof.anchors[-1]))


def anchors_reversed(proof: Proof) -> Proof:
    return replace(proof, anchors=proof.anchors[::-1])


def an_anchor_of_its_tail_twice(proof: Proof) -> Proof:
    """CVE-2012-2459 on the anchors: three segments, the last one doubled, and a root that would not tell."""
    doubled = segment_tree([*proof.segments[:3], proof.segments[2]]).root
    return replace(proof, anchors=(replace(proof.anchors[0], count=3, root=doubled), proof.anchors[-1]))


def no_states(proof: Proof) -> Proof:
    return replace(proof, states=())


@pytest.mark.parametrize(
    "change",
    [
        fewer_segments, an_anchor_less, no_anchors, an_anchor_twice, anchors_reversed, an_anchor_of_its_tail_twice,
        no_states,
    ],
    ids=lambda change: change.__name__,
)  # fmt: skip
def test_fewer_or_more_promises_are_refused(honest_run: Path, tmp_path: Path, change: Callable) -> None:
    folder = copied(honest_run, tmp_path / "proof")
    change(Proof.read(folder)).write(folder)
    verdict = judged(folder)
    assert verdict.exit_code is ExitCode.MALFORMED and not verdict.segments


def test_a_state_less_is_refused(honest_run: Path, tmp_path: Path) -> None:
    folder = copied(honest_run, tmp_path / "proof")
    for path in (folder / STATES).iterdir():
        data = path.read_bytes()
        path.unlink()
        assert judged(folder).exit_code is ExitCode.MALFORMED
        path.write_bytes(data)


def test_regrouped_anchors_are_no_lie_without_a_chain(honest_run: Path, tmp_path: Path) -> None:
    """The honest twin: who counts right may group as he likes; on a chain the anchors are compared one by one."""
    folder = copied(honest_run, tmp_path / "proof")
    proof = Proof.read(folder)
    one = reanchored(replace(proof, anchors=(replace(proof.anchors[0], count=len(proof.segments)),)))
    one.write(folder)
    assert (folder / MANIFEST).read_bytes() != (honest_run / MANIFEST).read_bytes()
    assert judged(folder).exit_code is ExitCode.VERIFIED


# A replay with fewer of something

SHORT = """
import os
from pol.programs.classifier import ImageClassifier

class Short(ImageClassifier):
    def train_step(self, state, batch):
        if state.step == 4:
            os._exit(0)
        return super().train_step(state, batch)
"""


@pytest.fixture
def short(tmp_path: Path, train_set: Dataset, monkeypatch: pytest.MonkeyPatch) -> Iterator[TrainingSpec]:
    (tmp_path / "short_program.py").write_text(SHORT)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    name = "short_program:Short"
    yield replace(small_spec(train_set, steps=8, segment_length=2), program=name, program_digest=program_digest(name))
    sys.modules.pop("short_program", None)


def test_a_replay_that_ends_early_is_no_pass(short: TrainingSpec, tmp_path: Path, train_set: Dataset) -> None:
    """A program that ends its process in the middle leaves fewer results than were asked for: no verdict at all."""
    plain = replace(short, program="pol.programs.classifier:ImageClassifier")
    plain = replace(plain, program_digest=program_digest(plain.program))
    folder = write_forgery(tmp_path / "proof", short, train_set, trained_states(plain, train_set))
    proof, trusted = Proof.read(folder), frozenset({short.program_digest})
    assert len(proof.segments) == len(list(states_of(folder).folder.iterdir())) == 4
    assert judged(folder, Policy(segments=[0, 1], trusted=trusted)).exit_code is ExitCode.VERIFIED
    with pytest.raises(CannotRun, match="ended its replay process"):
        judged(folder, Policy(segments=None, trusted=trusted))
