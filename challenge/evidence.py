"""Evidence in a case: from a verdict to what is sealed, and from a transcript to what a contract can decide at once."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from hexbytes import HexBytes

from chain.client import ArenaClient
from chain.contract import Receipt
from chain.reverts import refusals
from chain.types import Opening, open_segment
from challenge.verdict import ExitCode, Outcome, Verdict
from pol.encoding import MAX_JSON_BYTES, check_json_shape, digest
from pol.errors import CannotRun, ProofError
from pol.merkle import MerkleProof
from pol.proof import TRANSCRIPT, read_segments
from pol.transcript import Segment

EVIDENCE_DOMAIN = "aiarena/evidence/v1"


@dataclass(frozen=True, slots=True)
class Suspicion:
    """What speaks against a submission.

    ``segments`` are to be opened by name, the most telling first. ``marked`` says that a watermark of another trainer
    is all there is. ``digest`` (32 bytes) commits to the verdict behind it; zeros without one.
    """

    segments: tuple[int, ...] = ()
    marked: bool = False
    digest: bytes = bytes(32)


@dataclass(frozen=True, slots=True)
class Refutation:
    """Something wrong that a contract can see for itself: one segment with wrong bounds, or two that do not join."""

    openings: tuple[Opening, ...]

    @property
    def what(self) -> str:
        """A line for people."""
        if len(self.openings) == 1:
            where = self.openings[0].segment
            return f"segment {where.index} covers steps {where.start_step} to {where.end_step}, which no run does there"
        first, second = (opening.segment.index for opening in self.openings)
        return f"segment {second} does not start where segment {first} ends"

    def prove(self, client: ArenaClient, case_id: int) -> Receipt:
        """Show it to the contract, which upholds the case at once; anyone may."""
        if len(self.openings) == 1:
            return client.challenges.prove_bad_bounds(case_id, self.openings[0])
        return client.challenges.prove_discontinuity(case_id, *self.openings)


def read_verdict(path: Path) -> dict[str, Any]:
    """The verdict that ``challenge verify --json`` wrote to ``path``.

    Raises :class:`CannotRun` if it cannot be read, :class:`ProofError` if it is no such verdict.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_JSON_BYTES + 1)
    except OSError as error:
        raise CannotRun(
            f"{path}: cannot be read ({error.strerror}): give the output of `challenge verify --json`"
        ) from error
    if len(data) > MAX_JSON_BYTES:
        raise ProofError(f"{path}: more than {MAX_JSON_BYTES} bytes, which no verdict has")
    check_json_shape(data, where=str(path))
    try:
        value = json.loads(data)
        rows = [(row["code"], row["segment"]) for row in value["findings"]]
        sound = value["format"] == Verdict().to_json()["format"] and isinstance(value["outcome"], str)
    except (ValueError, KeyError, TypeError) as error:
        raise ProofError(f"{path}: not a verdict: give the output of `challenge verify --json`") from error
    if not sound or not all(type(code) is int and (segment is None or type(segment) is int) for code, segment in rows):
        raise ProofError(f"{path}: not a verdict: give the output of `challenge verify --json`")
    return dict(value)


def suspect(verdict: Mapping[str, Any]) -> Suspicion:
    """What a verdict (its JSON object) has against a submission.

    Raises :class:`CannotRun` if that is nothing: an accusation without a finding costs its bond.
    """
    if verdict["outcome"] != Outcome.REJECTED.value:
        raise CannotRun(
            f"the verdict is {verdict['outcome'][:20]}: nothing speaks against the submission, so open no case"
        )
    codes = {finding["code"] for finding in verdict["findings"]}
    segments = [finding["segment"] for finding in verdict["findings"] if finding["segment"] is not None]
    text = json.dumps(verdict, sort_keys=True).encode()
    return Suspicion(tuple(dict.fromkeys(segments)), codes == {ExitCode.WATERMARK}, digest(EVIDENCE_DOMAIN, text))


def broken_segments(folder: Path, segment_length: int, steps: int) -> list[int]:
    """The segments in a proof's transcript that are not of these lengths, or do not join; with the one before those.

    For transcripts that no reader of proofs takes. Raises as :func:`pol.proof.read_segments`.
    """
    segments, found = read_segments(folder / TRANSCRIPT), []
    for index, segment in enumerate(segments):
        if _misplaced(segment, index, segment_length, steps):
            found.append(index)
        elif index and segments[index - 1].end_digest != segment.start_digest:
            found += [index - 1, index]
    return list(dict.fromkeys(found))


def find_refutation(client: ArenaClient, case_id: int, folder: Path | None = None) -> Refutation | None:
    """The first thing that code can decide the case by; ``None`` if there is nothing.

    Looked at are the segments that the trainer opened in its answer, and the transcript in the proof's ``folder``, as
    far as it is the anchored one. Raises as :func:`pol.proof.read_segments`.
    """
    found = _between(answered_openings(client, case_id))
    if found is None and folder is not None:
        found = next(_in_transcript(client, case_id, read_segments(folder / TRANSCRIPT)), None)
    return found


def answered_openings(client: ArenaClient, case_id: int) -> list[Opening]:
    """The segments that the trainer opened, from the transaction of its answer; none without an answer, or if that was
    sent through another contract."""
    case = client.challenges.case(case_id)
    if not case.answered:
        return []
    answered = client.challenges.events("CaseAnswered", first_block=case.seed.block, caseId=case_id)
    anchors, openings = client.arena.anchors(case.run_id), []
    for segment, number, siblings in _arguments(client, answered[-1].tx):
        known = Segment(**dict(zip(Segment.__slots__, segment, strict=True)))
        anchor = anchors[number]
        path = MerkleProof(known.index - anchor.first, anchor.count, tuple(siblings))
        openings.append(Opening(known, number, path))
    return openings


def _arguments(client: ArenaClient, tx: bytes) -> list[Any]:
    """The openings in the call of ``respond`` that a transaction made, as ABI tuples."""
    challenges = client.challenges
    contract = challenges.connection.contract(challenges.name, challenges.address)
    with refusals("reading an answer"):
        sent = client.web3.eth.get_transaction("0x" + tx.hex())  # type: ignore[arg-type]
    respond = contract.functions.respond
    if sent.get("to") != challenges.address:
        return []
    try:
        called, arguments = contract.decode_function_input(HexBytes(sent["input"]))
    except ValueError:
        return []
    rows = arguments["openings"] if called.fn_name == respond.fn_name else []
    return [_plain(row) for row in rows]


def _plain(value: Any) -> Any:
    """Named tuples and objects, as the decoder gives them, as plain tuples."""
    if isinstance(value, Mapping):
        return tuple(_plain(part) for part in value.values())
    return tuple(_plain(part) for part in value) if isinstance(value, tuple | list) else value


def _between(openings: Iterable[Opening]) -> Refutation | None:
    ordered = sorted(openings, key=lambda opening: opening.segment.index)
    for first, second in pairwise(ordered):
        follows = second.segment.index == first.segment.index + 1
        if follows and second.segment.start_digest != first.segment.end_digest:
            return Refutation((first, second))
    return None


def _in_transcript(client: ArenaClient, case_id: int, segments: Sequence[Segment]) -> Iterator[Refutation]:
    """What is wrong in the part of a transcript that was anchored, each with openings that hold on chain."""
    case, arena = client.challenges.case(case_id), client.arena
    work, anchors = arena.task_config(case.task_id).work, arena.anchors(case.run_id)
    firsts = {anchor.first + k: anchor.first for anchor in anchors for k in range(anchor.count)}
    ends = {anchor.first: anchor.first + anchor.count for anchor in anchors}
    whole = {index for index, first in firsts.items() if ends[first] <= len(segments)}
    for index in sorted(whole):
        if _misplaced(segments[index], index, work.segment_length, work.steps):
            opening = open_segment(segments, anchors, index)
            if arena.anchored_at(case.run_id, opening, index - firsts[index]):
                yield Refutation((opening,))
        elif index - 1 in whole and segments[index - 1].end_digest != segments[index].start_digest:
            pair = (open_segment(segments, anchors, index - 1), open_segment(segments, anchors, index))
            if all(arena.verify_opening(case.run_id, opening) for opening in pair):
                yield Refutation(pair)


def _misplaced(segment: Segment, index: int, length: int, steps: int) -> bool:
    bounds = (index * length, min((index + 1) * length, steps))
    return segment.index != index or (segment.start_step, segment.end_step) != bounds
