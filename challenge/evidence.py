"""Evidence in a case: from a verdict, or from a transcript that no reader takes, to what is sealed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from challenge.verdict import ExitCode, Outcome, Verdict
from pol.encoding import MAX_JSON_BYTES, check_json_shape, digest
from pol.errors import CannotRun, ProofError
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
        if misplaced(segment, index, segment_length, steps):
            found.append(index)
        elif index and segments[index - 1].end_digest != segment.start_digest:
            found += [index - 1, index]
    return list(dict.fromkeys(found))


def misplaced(segment: Segment, index: int, length: int, steps: int) -> bool:
    """Whether ``segment`` is not number ``index`` of a run of ``steps``, in segments of ``length``."""
    bounds = (index * length, min((index + 1) * length, steps))
    return segment.index != index or (segment.start_step, segment.end_step) != bounds
