"""The proof on disk: manifest, transcript and states, with a strict reader. Torch-free.

Layout (docs/spec/proof-format.md section 7): ``manifest.json``, ``transcript.jsonl``, ``states/<cid>.safetensors`` and,
once states were opened on request, ``openings.json``. Nothing else may be in the folder, nothing is a link, and nothing
is ever unpickled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pol.cid import is_cid, parse_cid
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
from pol.errors import CannotRun, ProofError
from pol.seed import run_seed
from pol.spec import TrainingSpec
from pol.store import LocalStore, write_atomically
from pol.submission import Submission, check_order, parse_earlier, parse_submission
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
class Proof:
    """Everything a proof folder promises, parsed. States and models are named by CID, not loaded.

    ``submission`` is the model that the run submitted last, ``earlier`` are the others in the order of their branches.
    ``theta_ref`` is the segment of theta_ref where no submission branches off there: all of them do later.
    ``stopped`` is set where the trainer declared that the run ended before the promised steps. ``openings`` are states
    that were recomputed and served later: unsigned, and held by the transcript's digests alone.
    """

    spec: TrainingSpec
    seed_source: SeedSource
    segments: tuple[Segment, ...]
    anchors: tuple[Anchor, ...]
    states: tuple[StoredState, ...]
    submission: Submission | None = None
    earlier: tuple[Submission, ...] = ()
    theta_ref: int | None = None
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
    def submissions(self) -> tuple[Submission, ...]:
        """All models that the run submitted, the first branch first."""
        return (*self.earlier, self.submission) if self.submission else ()

    @property
    def reference(self) -> int | None:
        """The segment whose end is theta_ref, the first branch if not before it; None where nothing was submitted."""
        if self.theta_ref is not None:
            return self.theta_ref
        return next((mark.reference_segment for mark in self.submissions), None)

    @property
    def blobs(self) -> set[str]:
        """The CIDs of everything in ``states/``."""
        return {held.cid for held in (*self.states, *self.openings)} | {mark.model_cid for mark in self.submissions}

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
        if self.earlier:
            manifest["earlier"] = [mark.branch_to_json() for mark in self.earlier]
        if self.theta_ref is not None:
            manifest["theta_ref"] = self.theta_ref
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
        proof = cls.parse(folder)
        proof.check()
        if proof.blobs != (present := {path.stem for path in (folder / STATES).iterdir()}):
            gone, extra = sorted(proof.blobs - present), sorted(present - proof.blobs)
            raise ProofError(f"{folder / STATES}: missing {gone}, not named in {MANIFEST} {extra}")
        return proof

    @classmethod
    def parse(cls, folder: Path) -> Proof:
        """What manifest, transcript and openings say, each sound by itself; :class:`ProofError` where one is not.

        Whether they agree with one another, and the folder with them, is for :meth:`read` to say.
        """
        where = str(folder / MANIFEST)
        names = {"format", "spec", "seed", "anchors", "transcript_digest", "states", "submission", "signature"}
        value = parse_canonical_json(_read(folder / MANIFEST, MAX_JSON_BYTES), where=where)
        optional = {"stopped", "earlier", "theta_ref"} & set(value) if isinstance(value, dict) else set()
        manifest = fields(value, names | optional, where=where)
        if manifest["format"] != PROOF_FORMAT:
            raise ProofError(f"{where}: this version reads {PROOF_FORMAT}, found {str(manifest['format'])[:40]!r}")
        signature = manifest["signature"]
        submission = parse_submission(manifest["submission"], where=f"{where}: submission")
        proof = cls(
            spec=TrainingSpec.from_json(manifest["spec"], where=f"{where}: spec"),
            seed_source=parse_seed(manifest["seed"], where=f"{where}: seed"),
            segments=read_segments(folder / TRANSCRIPT),
            anchors=tuple(
                Anchor.from_json(row, where=f"{where}: anchors[{i}]")
                for i, row in enumerate(_rows(manifest["anchors"], where=f"{where}: anchors"))
            ),
            states=parse_states(manifest["states"], where=f"{where}: states"),
            stopped=Stop.from_json(manifest["stopped"], where=f"{where}: stopped") if "stopped" in manifest else None,
            openings=_openings(folder / OPENINGS),
            submission=submission,
            earlier=parse_earlier(manifest["earlier"], submission, where=f"{where}: earlier")
            if "earlier" in manifest
            else (),
            theta_ref=integer(manifest["theta_ref"], where=f"{where}: theta_ref") if "theta_ref" in manifest else None,
            signature=None
            if signature is None
            else from_hex(signature, where=f"{where}: signature", length=SIGNATURE_BYTES),
        )
        # Folded from the spec's digest over the anchors, so that a changed spec shows even where nothing is signed.
        if from_hex(manifest["transcript_digest"], where=f"{where}: transcript_digest") != proof.transcript_digest:
            raise ProofError(f"{where}: transcript_digest is not that of this spec and these anchors")
        return proof

    def check(self) -> None:
        """:class:`ProofError` unless all parts agree with one another; what is in the folder is not looked at."""
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
        check_order(self.submissions)
        for mark in self.submissions:
            self._check_submission(mark)
        if self.theta_ref is not None:
            self._check_reference(self.theta_ref)

    def _check_reference(self, segment: int) -> None:
        if not self.submissions or self.submissions[0].beta is None:
            raise ProofError(f"{MANIFEST}: theta_ref, but no watermark that was drawn after it")
        if segment >= self.submissions[0].reference_segment:
            raise ProofError(f"{MANIFEST}: theta_ref is named only where it is before the first submission's branch")
        self.stored_at(self.spec.bounds(segment)[1])

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
