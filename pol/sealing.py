"""A trainer's own folder: what is recorded of its run so far, and the models that are added at its end. Torch-free.

Models are submitted while the run goes on (:func:`recorded` says from where), and all of them are in its one proof.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from pol.cid import cid_of, is_cid
from pol.errors import CannotRun, RecordingError
from pol.journal import JOURNAL, Journal
from pol.proof import MANIFEST, STATES, Proof, states_of
from pol.store import PARTIAL
from pol.submission import Submission


def recorded(folder: Path) -> Proof:
    """The run in the folder of a :class:`pol.Recorder`, as far as it is recorded, which it may still be elsewhere.

    Its segments, kept states and anchors are those that are safe on disk. For the trainer's own eyes: what others sent
    is read with :meth:`pol.Proof.read`. Raises :class:`CannotRun` if nothing is, :class:`RecordingError` for a damaged
    journal.
    """
    progress = Journal.read(folder / JOURNAL)
    if progress is None:
        return _finished(folder)
    return Proof(
        spec=progress.spec,
        seed_source=progress.seed_source,
        segments=progress.segments,
        anchors=progress.anchors,
        states=progress.states,
        stopped=progress.stopped,
    )


def seal(
    folder: Path,
    submission: Submission,
    model: bytes,
    sign: Callable[[Proof], bytes] | None,
    *,
    earlier: Iterable[tuple[Submission, bytes]] = (),
    theta_ref: int | None = None,
) -> Proof:
    """Add the submitted ``model`` (a safetensors blob) to the recorded proof in ``folder`` and sign the whole.

    ``earlier`` are the models that the run submitted before, by branch; a generator needs the memory of one.
    ``theta_ref`` is the segment at whose end the run's reference was anchored, by default the first branch.
    ``sign`` returns a 65-byte signature for a proof (see ``chain.eip712``); None leaves the proof unsigned. Returns
    the proof as it now stands on disk. A folder that was sealed before is refused; one in which sealing was interrupted
    is as good as new.
    """
    recording = _finished(folder)
    if recording.submission is not None:
        raise RecordingError(f"{folder}: already sealed; one proof shows all models of its run")
    _sweep(folder, recording)
    recording = Proof.read(folder)
    try:
        before = tuple(_kept(folder, mark, blob) for mark, blob in earlier)
        sealed = replace(recording, submission=_kept(folder, submission, model), earlier=before)
        if theta_ref not in (None, sealed.reference):
            sealed = replace(sealed, theta_ref=theta_ref)
        sealed.check()
        sealed = replace(sealed, signature=sign(sealed) if sign else None)
    except BaseException:
        _sweep(folder, recording)
        raise
    sealed.write(folder)
    return Proof.read(folder)


def _finished(folder: Path) -> Proof:
    """What the folder's manifest says, whatever a sealing that was interrupted left beside it."""
    if not (folder / MANIFEST).is_file():
        raise CannotRun(f"{folder}: no recorded run is here; give the folder that the recorder wrote")
    return Proof.parse(folder)


def _kept(folder: Path, submission: Submission, model: bytes) -> Submission:
    """The submission, its model in ``states/``."""
    if cid_of(model) != submission.model_cid:
        raise RecordingError(f"the submission names model {submission.model_cid}, the bytes are {cid_of(model)}")
    states_of(folder).put(model)
    return submission


def _sweep(folder: Path, proof: Proof) -> None:
    """Remove the models that an interrupted sealing left: no manifest names them."""
    for path in [*folder.glob(f"{PARTIAL}*"), *(folder / STATES).iterdir()]:
        if path.name.startswith(PARTIAL) or (is_cid(path.stem) and path.stem not in proof.blobs):
            path.unlink()
