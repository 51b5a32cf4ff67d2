"""Verification of a proof folder: the numbered procedure of docs/spec/proof-format.md section 9.

A pure engine: it prints nothing and exits nowhere. Every number it relies on comes from the committed program or
from the verifier; from the prover it takes only digests to compare with.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from chain.client import ArenaClient
from chain.eip712 import recover_manifest
from chain.errors import BadSignature
from challenge.claims import TiedClaim
from challenge.onchain import check_claim_on_chain, check_run_on_chain
from challenge.sampling import DEFAULT_SEGMENTS, strength, unpredictable_segments
from challenge.signing import manifest_domain, manifest_message
from challenge.verdict import ExitCode, Verdict
from pol.encoding import digest, to_hex, u64
from pol.errors import CannotRun, ProofError, SpecError
from pol.machine import MachineClass, this_machine
from pol.proof import Proof, states_of
from pol.replay import ReplayedSegment, Span, replay
from pol.state import Tensors, from_safetensors, model_tensors
from pol.tensors import check_finite, tensors_digest
from watermark import Evidence, MarkParameters, detect, verify_embedding

REPRODUCTION_DOMAIN = "aiarena/reproduction/v1"
MAX_EMBED_CHANGE = 0.5  # of the way each carrier tensor came from its initial value; see docs/threat-model.md
"""The verifier's own limit on what an embed segment may move."""


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


def verify(
    folder: Path,
    policy: Policy | None = None,
    *,
    claims: Sequence[TiedClaim] = (),
    chain: ArenaClient | None = None,
    on_segment: Callable[[int, bool], None] | None = None,
) -> Verdict:
    """Verify the proof in ``folder`` and the branch to the submitted model.

    ``claims`` are watermark claims to test the model against, the trainer's own or others'. ``chain`` answers for
    registrations, anchors and beacons; without it they stay unchecked and the verdict says so. ``on_segment`` hears
    of every replayed segment (index, whether it matched).

    Raises :class:`CannotRun` when the check could not be made here. A malformed proof is a verdict, not an exception.
    """
    policy = policy or Policy()
    verdict = Verdict()
    try:
        proof = Proof.read(folder)
        _check_signature(proof, verdict)
        states = _load_states(folder, proof)
        verdict.checks.append(("files", f"{len(states)} states, all digests as committed"))
    except (ProofError, BadSignature) as error:
        verdict.reject(ExitCode.MALFORMED, str(error))
        return verdict
    if chain is not None and proof.spec.task is not None:
        check_run_on_chain(proof, chain, verdict)
    else:
        verdict.limits.append("anchors not checked: no chain was asked, so the times of the anchors are unproven")
    if proof.spec.task is None:
        verdict.limits.append("recorded without a chain: order and initial state could have been ground")
    try:
        initial = _initial_state(proof, policy, verdict)
        _replay_sample(folder, proof, policy, verdict, on_segment)
        _check_branch(proof, states, initial, claims, verdict)
    except (ProofError, SpecError) as error:
        verdict.reject(ExitCode.MALFORMED, str(error))
        return verdict
    _check_claims(proof, states, claims, chain, verdict)
    return verdict


def _check_signature(proof: Proof, verdict: Verdict) -> None:
    if proof.spec.task is None:
        if proof.signature is not None:
            raise ProofError("manifest: a signature without a task cannot be checked")
        verdict.limits.append("unsigned: nothing ties this proof to an account")
        return
    if proof.signature is None:
        raise ProofError("manifest: not signed; the trainer must seal the proof with its account")
    signer = recover_manifest(proof.signature, manifest_domain(proof), manifest_message(proof))
    if bytes.fromhex(signer.removeprefix("0x")) != proof.spec.trainer:
        raise ProofError(f"manifest: signed by {signer}, the spec names trainer {to_hex(proof.spec.trainer)}")
    verdict.checks.append(("signature", f"by {signer}"))


def _load_states(folder: Path, proof: Proof) -> dict[str, Tensors]:
    """Every blob of the proof by CID, each with the CID in its name and the digest the transcript promises."""
    store, loaded = states_of(folder), {}
    ends = {segment.end_step: segment.end_digest for segment in proof.segments}
    for state in proof.states:
        where = f"states/{state.cid}"
        tensors = from_safetensors(_blob(store.get, state.cid), where=where)
        if tensors_digest(tensors) != ends[state.step]:
            raise ProofError(f"{where}: not the state the transcript promises after step {state.step}")
        check_finite(tensors, where=where)
        loaded[state.cid] = tensors
    if proof.submission:
        where = f"states/{proof.submission.model_cid}"
        model = from_safetensors(_blob(store.get, proof.submission.model_cid), where=where)
        if tensors_digest(model) != proof.submission.model_digest:
            raise ProofError(f"{where}: not the submitted model")
        check_finite(model, where=where)
        loaded[proof.submission.model_cid] = model
    return loaded


def _blob(get: Callable[[str], bytes], cid: str) -> bytes:
    try:
        return get(cid)
    except CannotRun as error:  # a proof that lacks a file it names is the prover's fault, not this machine's
        raise ProofError(str(error)) from error


def _initial_state(proof: Proof, policy: Policy, verdict: Verdict) -> Tensors:
    """What the program builds from config and seed, in a process of its own; the transcript must start there."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "initial.safetensors"
        span = Span(first=0, last=-1, emit={-1: path})
        replay(proof.spec, proof.seed, span, dataset=policy.dataset, trusted=policy.trusted)
        initial = from_safetensors(path.read_bytes(), where="initial state")
    if tensors_digest(initial) == proof.segments[0].start_digest:
        verdict.checks.append(("initial state", "built from config and seed, as committed"))
    else:
        _mismatched(proof, "the transcript does not start from the program's initial state", 0, verdict)
    return initial


def _mismatched(proof: Proof, problem: str, segment: int, verdict: Verdict) -> None:
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


def _replay_sample(
    folder: Path,
    proof: Proof,
    policy: Policy,
    verdict: Verdict,
    on_segment: Callable[[int, bool], None] | None,
) -> None:
    total = proof.spec.segments
    wanted = range(total) if policy.segments is None else policy.segments
    sample = unpredictable_segments(wanted, total) if isinstance(wanted, int) else sorted(set(wanted))
    if not sample or sample[-1] >= total or sample[0] < 0:
        raise CannotRun(f"segments {sample} are not all among the {total} of this proof; choose others")
    verdict.segments, verdict.total_segments, verdict.strength = sample, total, strength(sample, total)
    outcomes: dict[int, ReplayedSegment] = {}
    matched = 0
    for start, span in _spans(folder, proof, sample):
        try:
            replayed = replay(proof.spec, proof.seed, span, dataset=policy.dataset, trusted=policy.trusted)
        except ProofError as error:
            verdict.reject(ExitCode.REPLAY_MISMATCH, str(error), span.first)
            continue
        for result in replayed:
            problem = _mismatch(proof, result, start)
            outcomes[result.index] = result
            matched += problem is None
            if on_segment:
                on_segment(result.index, problem is None)
            if problem is None:
                continue
            _mismatched(proof, problem, result.index, verdict)
            break  # what follows in this span started from a state nobody promised
    verdict.checks.append(("replay", f"{matched} of {len(outcomes)} replayed segments match bit for bit"))
    parts = [u64(i) + outcomes[i].end_digest + outcomes[i].batch_root for i in sample if i in outcomes]
    verdict.reproduction = to_hex(digest(REPRODUCTION_DOMAIN, b"".join(parts)))


def _spans(folder: Path, proof: Proof, sample: Sequence[int]) -> list[tuple[int, Span]]:
    """The sampled segments grouped by the stored state they are replayed from."""
    groups: dict[int, list[int]] = {}
    for segment in sample:
        stored = proof.stored_before(segment)
        groups.setdefault(stored.step if stored else 0, []).append(segment)
    spans = []
    for step, segments in sorted(groups.items()):
        first = step // proof.spec.segment_length
        path = states_of(folder).path(proof.stored_at(step).cid) if step else None
        spans.append((step, Span(first=first, last=max(segments), start=path)))
    return spans


def _mismatch(proof: Proof, result: ReplayedSegment, span_start: int) -> str | None:
    """What does not match in one replayed segment, or None."""
    segment = proof.segments[result.index]
    name = f"segment {result.index} (steps {segment.start_step} to {segment.end_step})"
    if result.start_digest != segment.start_digest:
        origin = "the program's initial state" if span_start == 0 else "the stored state"
        return f"{name} does not start from {origin}"
    if result.batch_root != segment.batch_root:
        return f"{name} was not trained on the committed batches"
    if result.end_digest != segment.end_digest:
        return f"{name} does not replay to the promised state"
    return None


def _check_branch(
    proof: Proof, states: dict[str, Tensors], initial: Tensors, claims: Sequence[TiedClaim], verdict: Verdict
) -> None:
    """The submitted model must be the trunk's at the branch, moved by nothing but the promised embedding."""
    mark, spec = proof.submission, proof.spec
    if mark is None:
        verdict.limits.append("no model was submitted: only the trunk was checked")
        return
    model = states[mark.model_cid]
    reference = model_tensors(states[proof.stored_at(spec.bounds(mark.reference_segment)[1]).cid])
    if spec.watermark is None or mark.beta is None:
        if tensors_digest(model) != tensors_digest(reference):
            verdict.reject(ExitCode.REPLAY_MISMATCH, "the submitted model is not the trunk's model at the branch")
        verdict.checks.append(("branch", f"the trunk's model after segment {mark.reference_segment}, no watermark"))
        return
    key_root = spec.watermark.key_root
    own = [tied.claim for tied in claims if tied.claim.key_root == key_root]
    openings = [leaf for claim in own for leaf in claim.leaves]
    findings = verify_embedding(
        reference,
        model,
        openings,
        beta=mark.beta,
        key_root=key_root,
        parameters=MarkParameters.from_json(spec.watermark.parameters, where="spec.watermark.parameters"),
        theta_0=model_tensors(initial),
        bound=MAX_EMBED_CHANGE,
    )
    for message in findings:
        verdict.reject(ExitCode.REPLAY_MISMATCH, f"embed segment: {message}")
    opened = (
        f"{len(openings)} leaves opened" if openings else "no leaves opened: the carrier is held by its bound alone"
    )
    verdict.checks.append(("branch", f"after segment {mark.reference_segment}, {opened}"))


def _check_claims(
    proof: Proof,
    states: dict[str, Tensors],
    claims: Sequence[TiedClaim],
    chain: ArenaClient | None,
    verdict: Verdict,
) -> None:
    """The trainer's own mark must be in the submitted model, and nobody else's may be."""
    if proof.submission is None or not claims:
        return
    model = states[proof.submission.model_cid]
    evidence = detect(model, [tied.claim for tied in claims])
    if chain is None:
        verdict.limits.append("claims not checked: no chain was asked whether they were promised before these models")
    own_root = proof.spec.watermark.key_root if proof.spec.watermark else None
    for tied, found in zip(claims, evidence, strict=True):
        root, own = tied.claim.key_root, tied.claim.key_root == own_root
        sound = chain is None or check_claim_on_chain(tied, proof, chain, verdict)
        verdict.watermarks.append(
            {
                "key_root": to_hex(root),
                "own": own,
                "matches": found.matches,
                "trials": found.trials,
                "log2_p": round(found.log2_p_corrected, 1),
                "found": found.accepted,
            }
        )
        if own and found.void is None and tied.claim.beta != proof.submission.beta:
            verdict.reject(ExitCode.WATERMARK, "the claim's beacon is not the one of this submission")
        elif own and not found.accepted:
            verdict.reject(ExitCode.WATERMARK, f"the trainer's own watermark is not in the model ({_odds(found)})")
        elif not own and found.accepted and sound:
            verdict.reject(
                ExitCode.WATERMARK, f"the model carries the watermark of {to_hex(root)[:18]}… ({_odds(found)})"
            )


def _odds(found: Evidence) -> str:
    return found.void or f"{found.matches} of {found.trials} bits, p = 2^{found.log2_p_corrected:.0f}"
