"""The replay half of a verification: which segments, from which state, and what came out differently."""

from __future__ import annotations

import tempfile
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from challenge.executors import Executor, ProcessPool
from challenge.sampling import DEFAULT_SEGMENTS, strength, unpredictable_segments, with_ends
from challenge.tolerance import compare_steps
from challenge.verdict import ExitCode, Tier, Verdict
from pol.confine import Limits
from pol.encoding import digest, to_hex, u64
from pol.errors import CannotRun, ProofError
from pol.machine import MachineClass
from pol.proof import Proof, StoredState, states_of
from pol.replay import Job, OnSegment, ReplayedSegment, ReplayedSpan, Span
from pol.state import Tensors, from_safetensors
from pol.tensors import tensors_digest

REPRODUCTION_DOMAIN = "aiarena/reproduction/v1"
WRONG_KERNELS = (
    "the compiled kernels of pol.exact gave other bits here than torch's operators, which decided: please report this"
)


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What the verifier decides for itself: never taken from the proof.

    ``segments`` is how many to draw at random, besides the first, the last and those that submitted models come from
    (None: all), or the list a challenge on chain drew, and then exactly that. ``dataset`` is where the data set lies
    (None: the built-in one the spec names), ``trusted`` the digests of programs that may run besides built-in ones.
    ``executor`` is where segments are replayed, on which ``device`` and within which ``limits``.
    """

    segments: int | Sequence[int] | None = DEFAULT_SEGMENTS
    dataset: Path | None = None
    trusted: frozenset[bytes] = field(default=frozenset())
    device: str = "cpu"
    executor: Executor = field(default_factory=ProcessPool)
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True, kw_only=True)
class Watcher:
    """Who hears of a replay as it goes on: how many segments were ``planned``, and each one ``replayed`` (its index,
    and whether it matches bit for bit)."""

    planned: Callable[[int], None] = lambda count: None
    replayed: Callable[[int, bool], None] = lambda index, matched: None


def job_of(proof: Proof, policy: Policy) -> Job:
    """What replays of ``proof`` share under ``policy``."""
    return Job(
        spec=proof.spec,
        seed=proof.seed,
        dataset=policy.dataset,
        trusted=policy.trusted,
        device=policy.device,
        limits=policy.limits,
    )


def replay_sample(folder: Path, proof: Proof, policy: Policy, verdict: Verdict, watcher: Watcher) -> Tensors | None:
    """Rebuild the initial state, replay the policy's sample, and add what was found to ``verdict``.

    Every segment is replayed from the latest stored or opened state before it, so the segments in between are replayed
    too. Returns the initial state's tensors, as the program builds them here, or None if it cannot. Raises
    :class:`ProofError` if the spec cannot be run, :class:`CannotRun` if this machine cannot run it.
    """
    verdict.tier = Tier.EXACT if proof.spec.exact else Tier.BITS
    sample, worth = _sample(policy, proof)
    spans = _spans(folder, proof, sample)
    watcher.planned(sum(span.last - span.first + 1 for span in spans))
    job = job_of(proof, policy)
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "initial.safetensors"
        wanted = [Span(first=0, last=-1, emit={-1: path}), *spans]

        def agrees(result: ReplayedSpan) -> bool:
            if result.problem:
                return False
            if result.span.emit:
                return tensors_digest(_initial(path)) == proof.segments[0].start_digest
            return not any(_mismatch(proof, segment) for segment in result.segments)

        start, *results = replay_decided(
            job, wanted, policy, agrees, verdict,
            lambda segment: watcher.replayed(segment.index, _mismatch(proof, segment) is None),
        )  # fmt: skip
        verdict.limits.extend(dict.fromkeys(note for result in (start, *results) for note in result.notes))
        if start.problem and start.malformed:
            raise ProofError(start.problem)
        verdict.segments, verdict.strength, verdict.total_segments = sample, worth, proof.segment_count
        if start.problem:
            judge_difference(proof, start, start.problem, 0, verdict)
            return None
        initial = _initial(path)
    as_promised = tensors_digest(initial) == proof.segments[0].start_digest
    if as_promised:
        verdict.checks.append(("initial state", "built from config and seed, as committed"))
    else:
        judge_difference(proof, start, "the transcript does not start from the program's initial state", 0, verdict)
    left = _judge(proof, results, verdict)
    if left:
        _judge_elsewhere(folder, proof, job, left, initial if as_promised else None, verdict)
    return initial


def _initial(path: Path) -> Tensors:
    return from_safetensors(path.read_bytes(), where="initial state")


def replay_decided(
    job: Job,
    spans: Sequence[Span],
    policy: Policy,
    agrees: Callable[[ReplayedSpan], bool],
    verdict: Verdict,
    on_segment: OnSegment | None = None,
) -> list[ReplayedSpan]:
    """What replays of ``spans`` give, in their order.

    With exact numerics the compiled kernels speak for nobody's guilt: a span that does not agree is replayed once more
    by torch's operators alone, and that result counts.
    """
    results = policy.executor.replay(job, spans, on_segment)
    doubted = [number for number, result in enumerate(results) if job.spec.exact and not agrees(result)]
    again = policy.executor.replay(replace(job, fused=False), [spans[n] for n in doubted]) if doubted else []
    for number, result in zip(doubted, again, strict=True):
        results[number] = result
        if agrees(result):
            verdict.limits.append(WRONG_KERNELS)
    return results


def _sample(policy: Policy, proof: Proof) -> tuple[list[int], str]:
    """The segments to replay, ascending, and what they are worth."""
    total, branches = proof.segment_count, {mark.reference_segment for mark in proof.earlier}
    if isinstance(policy.segments, int):
        drawn = unpredictable_segments(policy.segments, total)
        sample = with_ends(drawn, total, branches)
    else:
        drawn = sample = sorted(set(range(total) if policy.segments is None else policy.segments))
    if not sample or sample[-1] >= total or sample[0] < 0:
        raise CannotRun(f"segments {str(sample)[:80]} are not all among the {total} of this proof; choose others")
    if len(sample) in (len(drawn), total):
        return sample, strength(sample, total)
    ends = "the first, the last and those before a submitted model" if branches else "the first and the last"
    return sample, f"{strength(drawn, total)}; {ends} are replayed as well"


def _spans(folder: Path, proof: Proof, sample: Sequence[int]) -> list[Span]:
    """The sampled segments grouped by the state they are replayed from."""
    kept = {state.step // proof.spec.segment_length: state for state in _starts(proof)}
    firsts = sorted({0, *kept})
    groups: dict[int, int] = {}
    for segment in sample:  # ascending, so the last one of a group stays
        groups[firsts[bisect_right(firsts, segment) - 1]] = segment
    store = states_of(folder)
    return [
        Span(first=first, last=last, start=store.path(kept[first].cid) if first in kept else None)
        for first, last in sorted(groups.items())
    ]


def _starts(proof: Proof) -> list[StoredState]:
    return [state for state in (*proof.states, *proof.openings) if state.step < proof.steps]


def _judge(proof: Proof, results: Sequence[ReplayedSpan], verdict: Verdict) -> list[int]:
    """Compare every replayed segment with the promised one, up to the first difference of each span.

    Returns the sampled segments of single steps that a machine of another class did not reproduce bit for bit.
    """
    outcomes: list[ReplayedSegment] = []
    matched: set[int] = set()
    left: list[int] = []
    for result in results:
        problem, where = result.problem, result.span.first
        for segment in result.segments:
            outcomes.append(segment)
            difference = _mismatch(proof, segment)
            if difference:
                problem, where = difference, segment.index
                break  # what follows in this span started from a state nobody promised
            matched.add(segment.index)
        span = range(result.span.first, result.span.last + 1)
        unmatched = [segment for segment in verdict.segments if segment in span and segment not in matched]
        single = proof.spec.segment_length == 1 and not proof.spec.exact
        if problem and unmatched and single and _differences(proof, result):
            left.extend(unmatched)
        elif problem:
            judge_difference(proof, result, problem, where, verdict)
    verdict.checks.append(("replay", f"{len(matched)} of {len(outcomes)} replayed segments match bit for bit"))
    parts = [u64(segment.index) + segment.end_digest + segment.batch_root for segment in outcomes]
    verdict.reproduction = to_hex(digest(REPRODUCTION_DOMAIN, b"".join(parts)))
    return left


def _judge_elsewhere(
    folder: Path, proof: Proof, job: Job, segments: Sequence[int], initial: Tensors | None, verdict: Verdict
) -> None:
    """Tier T2, on this machine: compare single steps within a tolerance, where the states at both ends are at hand."""
    steps = {state.step for state in (*proof.states, *proof.openings)} | ({0} if initial is not None else set())
    held = [segment for segment in segments if steps >= set(proof.spec.bounds(segment))]
    # Nobody can open the state before segment 0, and that it has other bits here was said already.
    missing = [segment for segment in segments if segment not in held and (segment or initial is not None)]
    if missing:
        verdict.undecided.append(
            "on this other class of machine the states at both ends of a segment must be at hand; ask for these to be "
            f"opened, then verify again with --segments {','.join(map(str, missing[:200]))},"
        )
    if not held:
        return
    verdict.tier, accepted = Tier.TOLERANCE, 0
    verdict.limits.append(
        "tier T2: on a machine of another class steps were compared within a tolerance measured here; a lie smaller "
        "than that is not seen"
    )
    for comparison in compare_steps(job, folder, proof, held, initial):
        verdict.comparisons.append(comparison.to_json())
        accepted += comparison.accepted
        if not comparison.accepted:
            verdict.undecided.append(f"segment {comparison.segment}: {comparison.text}")
    verdict.checks.append(("tolerance", f"{accepted} of {len(held)} steps within the tolerance measured here"))


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


def _differences(proof: Proof, result: ReplayedSpan) -> list[str]:
    """How the machine that replayed a span differs from the spec's class (here / spec), as far as it decides bits."""
    promised = MachineClass.from_json(proof.spec.machine, where="spec.machine")
    return result.machine.differences(promised, exact=proof.spec.exact)


def judge_difference(proof: Proof, result: ReplayedSpan, problem: str, segment: int | None, verdict: Verdict) -> None:
    """A replay that came out differently: a finding on a machine of the spec's class, undecided on any other."""
    differences = _differences(proof, result)
    if not differences:
        verdict.reject(ExitCode.REPLAY_MISMATCH, problem, segment)
        return
    here = f"{problem}, but this machine is of another class (here / spec): {'; '.join(differences)}"
    if proof.spec.exact:
        verdict.undecided.append(f"{here}; exact numerics are decided by a CPU and that release of torch")
        return
    length = proof.spec.segment_length
    single = "" if length == 1 else f", and segments of {length} steps cannot be compared within a tolerance"
    verdict.undecided.append(f"{here}{single}; replay on a machine of the spec's class")
