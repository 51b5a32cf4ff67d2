"""The replay half of a verification: which segments, from which stored state, and what came out differently."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from challenge.sampling import DEFAULT_SEGMENTS, strength, unpredictable_segments
from challenge.verdict import ExitCode, Verdict
from pol.encoding import digest, to_hex, u64
from pol.errors import CannotRun, ProofError
from pol.machine import MachineClass, this_machine
from pol.proof import Proof, states_of
from pol.replay import ReplayedSegment, ReplayedSpan, Span, replay
from pol.state import Tensors, from_safetensors
from pol.tensors import tensors_digest

REPRODUCTION_DOMAIN = "aiarena/reproduction/v1"


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What the verifier decides for itself: never taken from the proof.

    ``segments`` is how many to draw at random (None: all), or the list a challenge on chain drew. ``dataset``
    is a dataset blob (None: the built-in one the spec names), ``trusted`` the digests of programs that may run besides
    built-in ones.
    """

    segments: int | Sequence[int] | None = DEFAULT_SEGMENTS
    dataset: Path | None = None
    trusted: frozenset[bytes] = field(default=frozenset())


def replay_sample(
    folder: Path,
    proof: Proof,
    policy: Policy,
    verdict: Verdict,
    on_segment: Callable[[int, bool], None] | None = None,
) -> Tensors | None:
    """Rebuild the initial state, replay the policy's sample, and add what was found to ``verdict``.

    Every segment is replayed from the latest stored state before it, so the segments in between are replayed too.
    Returns the initial state's tensors, as the program builds them here, or None if it cannot. Raises
    :class:`ProofError` if the spec cannot be run, :class:`CannotRun` if this machine cannot run it.
    """
    sample = _sample(policy, proof.spec.segments)
    verdict.segments, verdict.total_segments = sample, proof.spec.segments
    verdict.strength = strength(sample, proof.spec.segments)

    def heard(segment: ReplayedSegment) -> None:
        if on_segment:
            on_segment(segment.index, _mismatch(proof, segment) is None)

    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "initial.safetensors"
        spans = [Span(first=0, last=-1, emit={-1: path}), *_spans(folder, proof, sample)]
        start, *results = replay(
            proof.spec, proof.seed, spans, dataset=policy.dataset, trusted=policy.trusted, on_segment=heard
        )
        if start.problem and start.malformed:
            raise ProofError(start.problem)
        if start.problem:
            _different(proof, start.problem, 0, verdict)
            return None
        initial = from_safetensors(path.read_bytes(), where="initial state")
    if tensors_digest(initial) == proof.segments[0].start_digest:
        verdict.checks.append(("initial state", "built from config and seed, as committed"))
    else:
        _different(proof, "the transcript does not start from the program's initial state", 0, verdict)
    _judge(proof, results, verdict)
    return initial


def _sample(policy: Policy, total: int) -> list[int]:
    wanted = range(total) if policy.segments is None else policy.segments
    sample = unpredictable_segments(wanted, total) if isinstance(wanted, int) else sorted(set(wanted))
    if not sample or sample[-1] >= total or sample[0] < 0:
        raise CannotRun(f"segments {sample} are not all among the {total} of this proof; choose others")
    return sample


def _spans(folder: Path, proof: Proof, sample: Sequence[int]) -> list[Span]:
    """The sampled segments grouped by the stored state they are replayed from."""
    groups: dict[int, list[int]] = {}
    for segment in sample:
        stored = proof.stored_before(segment)
        groups.setdefault(stored.step if stored else 0, []).append(segment)
    spans = []
    for step, segments in sorted(groups.items()):
        path = states_of(folder).path(proof.stored_at(step).cid) if step else None
        spans.append(Span(first=step // proof.spec.segment_length, last=max(segments), start=path))
    return spans


def _judge(proof: Proof, results: Iterable[ReplayedSpan], verdict: Verdict) -> None:
    """Compare every replayed segment with the promised one, up to the first difference of each span."""
    outcomes: list[ReplayedSegment] = []
    matched = 0
    for result in results:
        if result.problem:
            _different(proof, result.problem, result.span.first, verdict)
        for segment in result.segments:
            outcomes.append(segment)
            problem = _mismatch(proof, segment)
            if problem:
                _different(proof, problem, segment.index, verdict)
                break  # what follows in this span started from a state nobody promised
            matched += 1
    verdict.checks.append(("replay", f"{matched} of {len(outcomes)} replayed segments match bit for bit"))
    parts = [u64(segment.index) + segment.end_digest + segment.batch_root for segment in outcomes]
    verdict.reproduction = to_hex(digest(REPRODUCTION_DOMAIN, b"".join(parts)))


def _mismatch(proof: Proof, result: ReplayedSegment) -> str | None:
    """What does not match in one replayed segment, or None."""
    segment = proof.segments[result.index]
    name = f"segment {result.index} (steps {segment.start_step} to {segment.end_step})"
    if result.start_digest != segment.start_digest:
        return f"{name} does not start where the transcript says"
    if result.batch_root != segment.batch_root:
        return f"{name} was not trained on the committed batches"
    if result.end_digest != segment.end_digest:
        return f"{name} does not replay to the promised state"
    return None


def _different(proof: Proof, problem: str, segment: int, verdict: Verdict) -> None:
    """A replay that came out differently: a finding on a machine of the spec's class, undecided on any other."""
    promised = MachineClass.from_json(proof.spec.machine, where="spec.machine")
    differences = this_machine(threads=promised.threads).differences(promised)
    if not differences:
        verdict.reject(ExitCode.REPLAY_MISMATCH, problem, segment)
        return
    verdict.undecided.append(
        f"{problem}, but this machine is of another class (here / spec): {'; '.join(differences)}; "
        "replay on a machine of the spec's class"
    )
