"""Opening segments: states that were not kept are worked out again, from the nearest kept one, and served."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from pol.errors import CannotRun, SpecError
from pol.proof import Proof, StoredState, states_of, write_openings
from pol.replay import Job, Span, replay
from pol.state import from_safetensors
from pol.tensors import tensors_digest


def open_segments(
    folder: Path,
    segments: Sequence[int],
    *,
    dataset: Path | None = None,
    trusted: frozenset[bytes] = frozenset(),
    device: str = "cpu",
) -> Proof:
    """Add the states at both ends of ``segments`` to the proof in ``folder``; returns the proof as it now stands.

    At most about sqrt(n) segments are computed for each one of n that is opened, fewer where several lie together.
    The signed files do not change: an opened state is held by its digest in the transcript. Raises :class:`SpecError`
    for a segment that the run does not have, :class:`CannotRun` if this machine computes other states than those
    promised: it is of another class than the recording one, then.
    """
    proof = Proof.read(folder)
    if not all(0 <= segment < proof.segment_count for segment in segments):
        raise SpecError(f"the run has segments 0 to {proof.segment_count - 1}")
    ends = {segment - 1 for segment in segments if segment} | set(segments)
    missing = sorted(end for end in ends if proof.find_stored(proof.segments[end].end_step) is None)
    if not missing:
        return proof
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".opening-") as name:
        targets = {end: Path(name) / f"{end}.safetensors" for end in missing}
        spans = _spans(folder, proof, targets)
        for result in replay(
            Job(spec=proof.spec, seed=proof.seed, dataset=dataset, trusted=trusted, device=device), spans
        ):
            if result.problem:
                raise CannotRun(f"segment {result.span.first} cannot be opened here: {result.problem}")
        opened = [_adopt(folder, proof, end, path) for end, path in targets.items()]
    write_openings(folder, [*proof.openings, *opened])
    return Proof.read(folder)


def _spans(folder: Path, proof: Proof, targets: dict[int, Path]) -> list[Span]:
    """One stretch for each kept state that the wanted ones follow, writing all of them on its way."""
    by_start: dict[StoredState | None, dict[int, Path]] = {}
    for end, path in targets.items():
        by_start.setdefault(proof.stored_before(end), {})[end] = path
    spans = []
    for stored, emit in by_start.items():
        first = stored.step // proof.spec.segment_length if stored else 0
        start = states_of(folder).path(stored.cid) if stored else None
        spans.append(Span(first=first, last=max(emit), start=start, emit=emit))
    return spans


def _adopt(folder: Path, proof: Proof, end: int, path: Path) -> StoredState:
    data, segment = path.read_bytes(), proof.segments[end]
    if tensors_digest(from_safetensors(data, where=str(path))) != segment.end_digest:
        raise CannotRun(f"this machine computes another state after segment {end}: open it on the machine that trained")
    return StoredState(step=segment.end_step, cid=states_of(folder).put(data))
