"""Segments, anchors and the append-only transcript they form. Torch-free: the chain package reads it too."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pol.encoding import Json, digest, fields, from_hex, integer, to_hex, u64
from pol.errors import ProofError
from pol.merkle import MerkleTree, leaf_digest

SEGMENT_DOMAIN = "aiarena/segment/v1"
TRANSCRIPT_DOMAIN = "aiarena/transcript/v1"
MAX_SEGMENTS = 2**16


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """Steps [start_step, end_step) of the trunk: state digests at both ends and the Merkle root of the batch digests.

    Digests and the root are 32 bytes. ``index`` counts from 0 over the whole run.
    """

    index: int
    start_step: int
    end_step: int
    start_digest: bytes
    end_digest: bytes
    batch_root: bytes

    def leaf(self) -> bytes:
        """The Merkle leaf (docs/spec/proof-format.md section 6): all six fields are bound, at fixed width."""
        payload = u64(self.start_step) + u64(self.end_step) + self.start_digest + self.end_digest + self.batch_root
        return leaf_digest(SEGMENT_DOMAIN, self.index, payload)

    def to_json(self) -> dict[str, Json]:
        """The object of one line of ``transcript.jsonl``."""
        return {
            "index": self.index,
            "start_step": self.start_step,
            "end_step": self.end_step,
            "start_digest": to_hex(self.start_digest),
            "end_digest": to_hex(self.end_digest),
            "batch_root": to_hex(self.batch_root),
        }

    @classmethod
    def from_json(cls, value: Json, *, where: str) -> Segment:
        """Strict inverse of :meth:`to_json`; raises :class:`ProofError`."""
        names = {"index", "start_step", "end_step", "start_digest", "end_digest", "batch_root"}
        row = fields(value, names, where=where)
        return cls(
            index=integer(row["index"], where=f"{where}.index", high=MAX_SEGMENTS - 1),
            start_step=integer(row["start_step"], where=f"{where}.start_step"),
            end_step=integer(row["end_step"], where=f"{where}.end_step"),
            start_digest=from_hex(row["start_digest"], where=f"{where}.start_digest"),
            end_digest=from_hex(row["end_digest"], where=f"{where}.end_digest"),
            batch_root=from_hex(row["batch_root"], where=f"{where}.batch_root"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchor:
    """Segments [first, first + count) promised by their Merkle root, in ``block`` by transaction ``tx``.

    A run recorded without a chain has anchors too, with block 0 and a zero transaction: they fix the shape, and the
    verdict says that their time is unproven.
    """

    first: int
    count: int
    root: bytes
    block: int
    tx: bytes

    def to_json(self) -> dict[str, Json]:
        """The object stored in the manifest."""
        return {
            "first": self.first,
            "count": self.count,
            "root": to_hex(self.root),
            "block": self.block,
            "tx": to_hex(self.tx),
        }

    @classmethod
    def from_json(cls, value: Json, *, where: str) -> Anchor:
        """Strict inverse of :meth:`to_json`; raises :class:`ProofError`."""
        row = fields(value, {"first", "count", "root", "block", "tx"}, where=where)
        return cls(
            first=integer(row["first"], where=f"{where}.first", high=MAX_SEGMENTS),
            count=integer(row["count"], where=f"{where}.count", low=1, high=MAX_SEGMENTS),
            root=from_hex(row["root"], where=f"{where}.root"),
            block=integer(row["block"], where=f"{where}.block"),
            tx=from_hex(row["tx"], where=f"{where}.tx"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """A run declared to end after ``segments`` segments, fewer than promised, in ``block`` by transaction ``tx``.

    Without a chain, block and transaction are zero.
    """

    segments: int
    block: int
    tx: bytes

    def to_json(self) -> dict[str, Json]:
        """The object stored in the manifest."""
        return {"segments": self.segments, "block": self.block, "tx": to_hex(self.tx)}

    @classmethod
    def from_json(cls, value: Json, *, where: str) -> Stop:
        """Strict inverse of :meth:`to_json`; raises :class:`ProofError`."""
        row = fields(value, {"segments", "block", "tx"}, where=where)
        return cls(
            segments=integer(row["segments"], where=f"{where}.segments", low=1, high=MAX_SEGMENTS),
            block=integer(row["block"], where=f"{where}.block"),
            tx=from_hex(row["tx"], where=f"{where}.tx"),
        )


def segment_tree(segments: Sequence[Segment]) -> MerkleTree:
    """The tree of one anchor: the leaves of consecutive segments, at positions ``index - first``."""
    return MerkleTree([segment.leaf() for segment in segments])


def extend_transcript(transcript_digest: bytes, first: int, count: int, root: bytes) -> bytes:
    """The transcript digest after one more anchor; it starts as the spec digest (32 bytes).

    The chain of digests makes the list of anchors append-only: the contract keeps the same value.
    """
    return digest(TRANSCRIPT_DOMAIN, transcript_digest, u64(first), u64(count), root)


def transcript_digest(spec_digest: bytes, anchors: Iterable[Anchor]) -> bytes:
    """The digest of a whole transcript, folded from the spec digest over its anchors."""
    value = spec_digest
    for anchor in anchors:
        value = extend_transcript(value, anchor.first, anchor.count, anchor.root)
    return value


def check_shape(segments: Sequence[Segment], *, steps: int, segment_length: int) -> None:
    """Insist that ``segments`` cut [0, steps) as the spec says and join end to start; raises :class:`ProofError`.

    Every segment has ``segment_length`` steps but the last, which may be shorter.
    """
    expected = -(-steps // segment_length)
    if len(segments) != expected:
        raise ProofError(f"transcript: {len(segments)} segments where the spec promises {expected}")
    for index, segment in enumerate(segments):
        bounds = (index * segment_length, min((index + 1) * segment_length, steps))
        if segment.index != index or (segment.start_step, segment.end_step) != bounds:
            raise ProofError(f"transcript: segment {index} should cover steps {bounds[0]} to {bounds[1]}")
        if index and segments[index - 1].end_digest != segment.start_digest:
            raise ProofError(f"transcript: segment {index} does not start where segment {index - 1} ends")


def check_anchors(segments: Sequence[Segment], anchors: Sequence[Anchor]) -> None:
    """Insist that ``anchors`` cover ``segments`` in order, once each, with the right roots; raises ProofError."""
    covered = 0
    for number, anchor in enumerate(anchors):
        if anchor.first != covered or covered + anchor.count > len(segments):
            raise ProofError(f"anchor {number}: covers segments from {anchor.first}, expected {covered}")
        part = segments[anchor.first : anchor.first + anchor.count]
        if segment_tree(part).root != anchor.root:
            raise ProofError(f"anchor {number}: its root is not the root of segments {anchor.first} to {covered}")
        covered += anchor.count
    if covered != len(segments):
        raise ProofError(f"anchors cover {covered} of {len(segments)} segments")
