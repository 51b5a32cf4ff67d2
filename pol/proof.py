"""The proof on disk: manifest, transcript and states, with a strict reader. Torch-free.

Layout (docs/spec/proof-format.md section 7): ``manifest.json``, ``transcript.jsonl``, ``states/<cid>.safetensors`` and,
once states were opened on request, ``openings.json``. Nothing else may be in the folder, nothing is a link, and nothing
is ever unpickled.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pol.cid import cid_of, is_cid, parse_cid
from pol.encoding import (
    MAX_JSON_BYTES,
    Json,
    canonical_json,
    digest,
    fields,
    from_hex,
    integer,
    parse_canonical_json,
    text,
    to_hex,
)
from pol.errors import CannotRun, ProofError, RecordingError
from pol.seed import run_seed
from pol.spec import TrainingSpec
from pol.store import LocalStore, write_atomically
from pol.transcript import MAX_SEGMENTS, Anchor, Segment, Stop, check_anchors, check_shape, transcript_digest

PROOF_FORMAT = "aiarena.proof/1"
MANIFEST_DOMAIN = "aiarena/proof-manifest/v1"
OPENINGS_FORMAT = "aiarena.openings/1"
MANIFEST, TRANSCRIPT, STATES, OPENINGS = "manifest.json", "transcript.jsonl", "states", "openings.json"
MAX_TRANSCRIPT_BYTES = 24 * 1024 * 1024
SIGNATURE_BYTES = 65


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedSource:
    """Where the seed came from: a ``beacon`` latched on chain at ``block``, or ``chosen`` by the trainer (block 0)."""

    kind: str
    value: bytes
    block: int = 0

    def to_json(self) -> dict[str, Json]:
        """The object stored in the manifest."""
        return {"kind": self.kind, "value": to_hex(self.value), "block": self.block}

    def seed(self, spec: TrainingSpec) -> bytes:
        """The run's 32-byte seed; :class:`ProofError` if the kind does not fit the spec."""
        if self.kind == "chosen" and spec.task is None:
            return self.value
        if self.kind == "beacon" and spec.task is not None:
            task = spec.task
            return run_seed(
                chain_id=task.chain_id,
                arena=task.arena,
                task_id=task.task_id,
                trainer=spec.trainer,
                spec_digest=spec.digest,
                beacon=self.value,
            )
        raise ProofError(
            f"seed: kind {self.kind!r} does not fit: a run of a task has a beacon, any other a chosen seed"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredState:
    """A trunk state kept after ``step`` steps, under ``cid``."""

    step: int
    cid: str

    def to_json(self) -> dict[str, Json]:
        """The object stored in the manifest."""
        return {"step": self.step, "cid": self.cid}


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """The submitted model, and the segment at whose end it branched off the trunk.

    ``beta`` is the second beacon (32 bytes, latched at ``beta_block``), or None where no watermark was embedded: then
    the model must be the trunk's own at that boundary.
    """

    model_digest: bytes
    model_cid: str
    reference_segment: int
    beta: bytes | None = None
    beta_block: int = 0

    def to_json(self) -> dict[str, Json]:
        """The object stored in the manifest."""
        return {
            "model_digest": to_hex(self.model_digest),
            "model_cid": self.model_cid,
            "reference_segment": self.reference_segment,
            "beta": None if self.beta is None else to_hex(self.beta),
            "beta_block": self.beta_block,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """Everything a proof folder promises, parsed. States and models are named by CID, not loaded.

    ``stopped`` is set where the trainer declared that the run ended before the promised steps. ``openings`` are states
    that were recomputed and served later: unsigned, and held by the transcript's digests alone.
    """

    spec: TrainingSpec
    seed_source: SeedSource
    segments: tuple[Segment, ...]
    anchors: tuple[Anchor, ...]
    states: tuple[StoredState, ...]
    submission: Submission | None = None
    stopped: Stop | None = None
    openings: tuple[StoredState, ...] = ()
    signature: bytes | None = None

    @property
    def segment_count(self) -> int:
        """How many segments the run has: those promised, or those declared when it was stopped."""
        return self.stopped.segments if self.stopped else self.spec.segments

    @property
    def steps(self) -> int:
        """How many steps the run has."""
        return self.spec.bounds(self.segment_count - 1)[1]

    @property
    def seed(self) -> bytes:
        """The run's seed (32 bytes)."""
        return self.seed_source.seed(self.spec)

    @property
    def transcript_digest(self) -> bytes:
        """The digest of the transcript, as the Arena keeps it (32 bytes)."""
        return transcript_digest(self.spec.digest, self.anchors)

    @property
    def manifest_digest(self) -> bytes:
        """What the trainer signs: the digest of the manifest without its signature (32 bytes)."""
        return digest(MANIFEST_DOMAIN, canonical_json(self._unsigned()))

    def stored_before(self, segment: int) -> StoredState | None:
        """The latest stored or opened state at or before the start of ``segment``; None means the initial state."""
        start, _ = self.spec.bounds(segment)
        earlier = [state for state in (*self.states, *self.openings) if state.step <= start]
        return max(earlier, key=lambda state: state.step, default=None)

    def find_stored(self, step: int) -> StoredState | None:
        """The state stored or opened after exactly ``step`` steps, if there is one."""
        return next((state for state in (*self.states, *self.openings) if state.step == step), None)

    def stored_at(self, step: int) -> StoredState:
        """The state that the manifest names after exactly ``step`` steps; :class:`ProofError` if there is none."""
        for state in self.states:
            if state.step == step:
                return state
        raise ProofError(f"{MANIFEST}: no state is stored after step {step}")

    def _unsigned(self) -> dict[str, Json]:
        manifest: dict[str, Json] = {
            "format": PROOF_FORMAT,
            "spec": self.spec.to_json(),
            "seed": self.seed_source.to_json(),
            "anchors": [anchor.to_json() for anchor in self.anchors],
            "transcript_digest": to_hex(self.transcript_digest),
            "states": [state.to_json() for state in self.states],
            "submission": self.submission.to_json() if self.submission else None,
        }
        return manifest | ({"stopped": self.stopped.to_json()} if self.stopped else {})

    def write(self, folder: Path) -> None:
        """Write the transcript, then the manifest that makes the folder a proof, each atomically."""
        lines = b"".join(canonical_json(segment.to_json()) + b"\n" for segment in self.segments)
        write_atomically(folder / TRANSCRIPT, lines)
        signature = None if self.signature is None else to_hex(self.signature)
        write_atomically(folder / MANIFEST, canonical_json(self._unsigned() | {"signature": signature}))

    @classmethod
    def read(cls, folder: Path) -> Proof:
        """Parse and check everything that needs no computation (steps 1 to 4 of the verification procedure).

        Raises :class:`CannotRun` if the folder is missing, :class:`ProofError` for everything else that is wrong.
        """
        if not folder.is_dir():
            raise CannotRun(f"{folder}: no such folder; give the path of a proof (it holds {MANIFEST})")
        check_files(folder)
        where = str(folder / MANIFEST)
        names = {"format", "spec", "seed", "anchors", "transcript_digest", "states", "submission", "signature"}
        value = parse_canonical_json(_read(folder / MANIFEST, MAX_JSON_BYTES), where=where)
        stopped = isinstance(value, dict) and "stopped" in value
        manifest = fields(value, names | ({"stopped"} if stopped else set()), where=where)
        if manifest["format"] != PROOF_FORMAT:
            raise ProofError(f"{where}: this version reads {PROOF_FORMAT}, found {str(manifest['format'])[:40]!r}")
        signature = manifest["signature"]
        proof = cls(
            spec=TrainingSpec.from_json(manifest["spec"], where=f"{where}: spec"),
            seed_source=parse_seed(manifest["seed"], where=f"{where}: seed"),
            segments=read_segments(folder / TRANSCRIPT),
            anchors=tuple(
                Anchor.from_json(row, where=f"{where}: anchors[{i}]")
                for i, row in enumerate(_rows(manifest["anchors"], where=f"{where}: anchors"))
            ),
            states=parse_states(manifest["states"], where=f"{where}: states"),
            stopped=Stop.from_json(manifest["stopped"], where=f"{where}: stopped") if stopped else None,
            openings=_openings(folder / OPENINGS),
            submission=_submission(manifest["submission"], where=f"{where}: submission"),
            signature=None
            if signature is None
            else from_hex(signature, where=f"{where}: signature", length=SIGNATURE_BYTES),
        )
        # Folded from the spec's digest over the anchors, so that a changed spec shows even where nothing is signed.
        if from_hex(manifest["transcript_digest"], where=f"{where}: transcript_digest") != proof.transcript_digest:
            raise ProofError(f"{where}: transcript_digest is not that of this spec and these anchors")
        proof._check(folder)
        return proof

    def _check(self, folder: Path) -> None:
        spec = self.spec
        if self.stopped and self.stopped.segments >= spec.segments:
            raise ProofError(f"{MANIFEST}: stopped after {self.stopped.segments} segments of {spec.segments} promised")
        check_shape(self.segments, steps=self.steps, segment_length=spec.segment_length)
        check_anchors(self.segments, self.anchors)
        boundaries = {spec.bounds(i)[1] for i in range(self.segment_count)}
        kept = [*self.states, *self.openings]
        if any(state.step not in boundaries for state in kept):
            raise ProofError(f"{MANIFEST}: a state is stored inside a segment, not at its end")
        if len({state.step for state in kept}) < len(kept):
            raise ProofError(f"{OPENINGS}: a state is opened that {MANIFEST} names")
        self.stored_at(self.steps)
        self.seed_source.seed(spec)
        receipts: list[Anchor | Stop] = [*self.anchors, *([self.stopped] if self.stopped else [])]
        if spec.task is None and (self.seed_source.block or any(r.block or any(r.tx) for r in receipts)):
            raise ProofError(f"{MANIFEST}: a run without a task has no blocks and no transactions")
        if self.submission:
            self._check_submission(self.submission)
        named = {state.cid for state in kept} | ({self.submission.model_cid} if self.submission else set())
        present = {path.stem for path in (folder / STATES).iterdir()}
        if named != present:
            gone, extra = sorted(named - present), sorted(present - named)
            raise ProofError(f"{folder / STATES}: missing {gone}, not named in {MANIFEST} {extra}")

    def _check_submission(self, mark: Submission) -> None:
        if mark.reference_segment >= self.segment_count:
            raise ProofError(f"{MANIFEST}: the submission branches off segment {mark.reference_segment}")
        self.stored_at(self.spec.bounds(mark.reference_segment)[1])
        if mark.beta is None and mark.beta_block:
            raise ProofError(f"{MANIFEST}: a watermark block without a watermark beacon")
        if mark.beta is not None and self.spec.watermark is None:
            raise ProofError(f"{MANIFEST}: a watermark beacon, but the spec promises no watermark")


def states_of(folder: Path) -> LocalStore:
    """The content-addressed states of a proof folder."""
    return LocalStore(folder / STATES, suffix=".safetensors", fault=ProofError)


def check_files(folder: Path) -> None:
    """Insist on exactly the files of a proof, all of them regular; :class:`ProofError` names the first other one."""
    expected = {MANIFEST: False, TRANSCRIPT: False, STATES: True, OPENINGS: False}
    for path in folder.iterdir():
        right = path.is_dir() if expected.get(path.name) else path.is_file()  # neither is true of a pipe or a device
        if path.name not in expected or path.is_symlink() or not right:
            raise ProofError(f"{path}: not part of a proof; keep the folder as the recorder wrote it")
    missing = [name for name in (MANIFEST, TRANSCRIPT, STATES) if not (folder / name).exists()]
    if missing:
        raise ProofError(f"{folder}: {', '.join(missing)} missing; the recording did not finish, or this is no proof")
    for path in (folder / STATES).iterdir():
        if path.is_symlink() or not path.is_file() or path.suffix != ".safetensors" or not is_cid(path.stem):
            raise ProofError(f"{path}: not a state of a proof")


def write_openings(folder: Path, openings: Sequence[StoredState]) -> None:
    """List the opened states of a proof folder, ascending by step; their blobs must be in ``states/`` already."""
    rows: list[Json] = [state.to_json() for state in sorted(openings, key=lambda state: state.step)]
    write_atomically(folder / OPENINGS, canonical_json({"format": OPENINGS_FORMAT, "states": rows}))


def seal(folder: Path, submission: Submission, model: bytes, sign: Callable[[Proof], bytes] | None) -> Proof:
    """Add the submitted ``model`` (a safetensors blob) to the recorded proof in ``folder`` and sign the whole.

    ``sign`` returns a 65-byte signature for a proof (see ``chain.eip712``); None leaves the proof unsigned. Returns
    the proof as it now stands on disk. A folder that was sealed before is refused.
    """
    recorded = Proof.read(folder)
    if recorded.submission is not None:
        raise RecordingError(f"{folder}: already sealed; a run submits one branch")
    if cid_of(model) != submission.model_cid:
        raise RecordingError(f"the submission names model {submission.model_cid}, the bytes are {cid_of(model)}")
    sealed = replace(recorded, submission=submission)
    sealed = replace(sealed, signature=sign(sealed) if sign else None)
    states_of(folder).put(model)
    sealed.write(folder)
    return Proof.read(folder)


def _read(path: Path, limit: int) -> bytes:
    if path.stat().st_size > limit:
        raise ProofError(f"{path}: larger than the limit of {limit} bytes")
    return path.read_bytes()


def _rows(value: Json, *, where: str) -> Sequence[Json]:
    if not isinstance(value, list) or len(value) > 2**16 + 1:
        raise ProofError(f"{where}: expected a list of at most 65537 rows")
    return value


def read_segments(path: Path) -> tuple[Segment, ...]:
    """The rows of a transcript, each sound by itself; whether they are a run, :meth:`Proof.read` checks.

    Raises :class:`ProofError`.
    """
    data = _read(path, MAX_TRANSCRIPT_BYTES)
    if not data.endswith(b"\n"):
        raise ProofError(f"{path}: the last line is torn")
    if data.count(b"\n") > MAX_SEGMENTS:
        raise ProofError(f"{path}: more than the limit of {MAX_SEGMENTS} segments")
    lines = data.split(b"\n")[:-1]
    return tuple(
        Segment.from_json(parse_canonical_json(line, where=f"{path}:{n}"), where=f"{path}:{n}")
        for n, line in enumerate(lines, start=1)
    )


def parse_seed(value: Json, *, where: str) -> SeedSource:
    """Strict inverse of :meth:`SeedSource.to_json`; raises :class:`ProofError`."""
    row = fields(value, {"kind", "value", "block"}, where=where)
    kind = text(row["kind"], where=f"{where}.kind", limit=16)
    return SeedSource(
        kind=kind,
        value=from_hex(row["value"], where=f"{where}.value"),
        block=integer(row["block"], where=f"{where}.block"),
    )


def parse_states(value: Json, *, where: str) -> tuple[StoredState, ...]:
    """Strict inverse of :meth:`StoredState.to_json` for a list; :class:`ProofError` unless steps rise."""
    states = []
    for number, item in enumerate(_rows(value, where=where)):
        row = fields(item, {"step", "cid"}, where=f"{where}[{number}]")
        states.append(
            StoredState(
                step=integer(row["step"], where=f"{where}[{number}].step", low=1),
                cid=parse_cid(row["cid"], where=f"{where}[{number}].cid"),
            )
        )
    steps = [state.step for state in states]
    if steps != sorted(set(steps)):
        raise ProofError(f"{where}: steps must rise")
    return tuple(states)


def _openings(path: Path) -> tuple[StoredState, ...]:
    if not path.exists():
        return ()
    row = fields(
        parse_canonical_json(_read(path, MAX_JSON_BYTES), where=str(path)), {"format", "states"}, where=str(path)
    )
    states = parse_states(row["states"], where=f"{path}: states")
    if row["format"] != OPENINGS_FORMAT or not states:
        raise ProofError(f"{path}: not a list of opened states of format {OPENINGS_FORMAT}")
    return states


def _submission(value: Json, *, where: str) -> Submission | None:
    if value is None:
        return None
    row = fields(value, {"model_digest", "model_cid", "reference_segment", "beta", "beta_block"}, where=where)
    return Submission(
        model_digest=from_hex(row["model_digest"], where=f"{where}.model_digest"),
        model_cid=parse_cid(row["model_cid"], where=f"{where}.model_cid"),
        reference_segment=integer(row["reference_segment"], where=f"{where}.reference_segment"),
        beta=None if row["beta"] is None else from_hex(row["beta"], where=f"{where}.beta"),
        beta_block=integer(row["beta_block"], where=f"{where}.beta_block"),
    )
