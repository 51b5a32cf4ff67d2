"""What code can decide a case by: segments that are wrong in themselves, a wrong first state, a refuted step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from hexbytes import HexBytes

from chain.client import ArenaClient
from chain.contract import Receipt
from chain.reverts import refusals
from chain.types import Opening, open_segment
from challenge.evidence import misplaced
from pol.errors import CannotRun
from pol.merkle import MerkleProof
from pol.proof import TRANSCRIPT, read_segments
from pol.state import Tensors, from_safetensors
from pol.tensors import tensors_digest
from pol.transcript import Segment

MAX_STEP_PROOF = 96 * 1024
"""Bytes: nodes take transactions of 128 KiB."""


@dataclass(frozen=True, slots=True)
class Refutation:
    """Something wrong that a contract can see for itself: ``what`` in a line for people, and the call that shows it to
    the contract, which upholds the case at once; anyone may."""

    what: str
    prove: Callable[[], Receipt]


def find_refutation(client: ArenaClient, case_id: int, folder: Path | None = None) -> Refutation | None:
    """The first thing wrong with the segments of a case's run; ``None`` if there is nothing.

    Looked at are the segments that the trainer opened in its answer, and the transcript in the proof's ``folder``, as
    far as it is the anchored one. Raises as :func:`pol.proof.read_segments`.
    """
    found = _between(client, case_id, answered_openings(client, case_id))
    if found is None and folder is not None:
        found = next(_in_transcript(client, case_id, read_segments(folder / TRANSCRIPT)), None)
    return found


def refute_start(client: ArenaClient, case_id: int, folder: Path, first: Path, base: Path) -> Refutation:
    """That the run of a case does not start from the base model it was registered with.

    ``first`` holds the state before its first step and ``base`` the model, both as safetensors, ``folder`` the proof.
    Raises :class:`CannotRun` if they are not these, or do not differ; :class:`ProofError` for files of another kind.
    """
    from challenge.blocks import wrong_start

    run = client.arena.run(client.challenges.case(case_id).run_id)
    opening = _anchored(client, case_id, folder, 0)
    mine, theirs = _tensors(first), _tensors(base)
    if tensors_digest(mine) != opening.segment.start_digest:
        raise CannotRun(f"{first}: this is not the state that segment 0 starts from: give that one")
    if tensors_digest(theirs) != run.base_digest:
        raise CannotRun(f"{base}: this is not the base model that the run was registered with: give that one")
    found = wrong_start(mine, theirs)
    if found is None:
        raise CannotRun(f"{first} starts from the base model in every tensor that both have: nothing is wrong with it")
    what = f"the first state has another block {found.mine.index} of a tensor than the base model"
    return Refutation(
        what, lambda: client.challenges.prove_wrong_start(case_id, opening, found.mine, found.base, found.block)
    )


def refute_step(client: ArenaClient, case_id: int, folder: Path, segment: int, evidence: Path) -> Refutation:
    """That the task's step verifier refutes a segment of a case's run, by the bytes in the file ``evidence``.

    ``folder`` holds the proof with the segment. What the bytes say, that verifier alone knows. Raises
    :class:`CannotRun` for files that are not there or too large.
    """
    opening = _anchored(client, case_id, folder, segment)
    try:
        with evidence.open("rb") as file:
            proof = file.read(MAX_STEP_PROOF + 1)
    except OSError as error:
        raise CannotRun(f"{evidence}: cannot be read ({error.strerror}): give what the step verifier takes") from error
    if len(proof) > MAX_STEP_PROOF:
        raise CannotRun(f"{evidence}: more than {MAX_STEP_PROOF} bytes, which no transaction holds")
    what = f"segment {segment} is to be refuted by the task's step verifier"
    return Refutation(what, lambda: client.challenges.prove_step(case_id, opening, proof))


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


def _between(client: ArenaClient, case_id: int, openings: Iterable[Opening]) -> Refutation | None:
    ordered = sorted(openings, key=lambda opening: opening.segment.index)
    for first, second in pairwise(ordered):
        follows = second.segment.index == first.segment.index + 1
        if follows and second.segment.start_digest != first.segment.end_digest:
            return _not_joined(client, case_id, first, second)
    return None


def _in_transcript(client: ArenaClient, case_id: int, segments: Sequence[Segment]) -> Iterator[Refutation]:
    """What is wrong in the part of a transcript that was anchored, each with openings that hold on chain."""
    case, arena = client.challenges.case(case_id), client.arena
    work, anchors = arena.task_config(case.task_id).work, arena.anchors(case.run_id)
    firsts = {anchor.first + k: anchor.first for anchor in anchors for k in range(anchor.count)}
    ends = {anchor.first: anchor.first + anchor.count for anchor in anchors}
    whole = {index for index, first in firsts.items() if ends[first] <= len(segments)}
    for index in sorted(whole):
        if misplaced(segments[index], index, work.segment_length, work.steps):
            opening = open_segment(segments, anchors, index)
            if arena.anchored_at(case.run_id, opening, index - firsts[index]):
                yield _out_of_place(client, case_id, opening)
        elif index - 1 in whole and segments[index - 1].end_digest != segments[index].start_digest:
            pair = (open_segment(segments, anchors, index - 1), open_segment(segments, anchors, index))
            if all(arena.verify_opening(case.run_id, opening) for opening in pair):
                yield _not_joined(client, case_id, *pair)


def _not_joined(client: ArenaClient, case_id: int, first: Opening, second: Opening) -> Refutation:
    what = f"segment {second.segment.index} does not start where segment {first.segment.index} ends"
    return Refutation(what, lambda: client.challenges.prove_discontinuity(case_id, first, second))


def _out_of_place(client: ArenaClient, case_id: int, opening: Opening) -> Refutation:
    where = opening.segment
    what = f"segment {where.index} covers steps {where.start_step} to {where.end_step}, which no run does there"
    return Refutation(what, lambda: client.challenges.prove_bad_bounds(case_id, opening))


def _anchored(client: ArenaClient, case_id: int, folder: Path, segment: int) -> Opening:
    """The opening of a segment, from the transcript in ``folder``; :class:`CannotRun` unless it is the anchored one."""
    run_id = client.challenges.case(case_id).run_id
    segments, anchors = read_segments(folder / TRANSCRIPT), client.arena.anchors(run_id)
    if segment < len(segments):
        opening = open_segment(segments, anchors, segment)
        if client.arena.verify_opening(run_id, opening):
            return opening
    raise CannotRun(f"{folder}: segment {segment} in its transcript is not the one that run {run_id} anchored")


def _tensors(path: Path) -> Tensors:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CannotRun(f"{path}: cannot be read ({error.strerror}): give a safetensors file") from error
    return from_safetensors(data, where=str(path))
