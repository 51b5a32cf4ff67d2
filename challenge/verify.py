"""Verification of a proof folder: the numbered procedure of docs/spec/proof-format.md section 9.

A pure engine: it prints nothing and exits nowhere. Every number it relies on comes from the committed program or
from the verifier; from the prover it takes only digests to compare with.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from chain.client import ArenaClient
from chain.eip712 import recover_manifest
from chain.errors import BadSignature
from challenge.claims import TiedClaim
from challenge.onchain import check_claim_on_chain, check_run_on_chain, suspects_of
from challenge.segments import Policy, replay_sample
from challenge.signing import manifest_domain, manifest_message
from challenge.verdict import ExitCode, Verdict
from pol.encoding import to_hex
from pol.errors import CannotRun, ProofError, SpecError
from pol.proof import Proof, states_of
from pol.state import Tensors, from_safetensors, model_tensors
from pol.tensors import check_values, tensors_digest
from watermark import Evidence, MarkParameters, detect, verify_embedding

MAX_EMBED_CHANGE = 0.25
"""The verifier's own limit on an embed segment: the carrier moves by at most this share of its way from theta_0 to
theta_ref (honest embeddings with the default parameters need 0.17 to 0.24)."""


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

    Raises :class:`CannotRun` when the check could not be made here, :class:`ProofError` if a claim is unsound. A
    malformed proof is a verdict, not an exception.
    """
    policy = policy or Policy()
    claims = list({(tied.spec.trainer, tied.claim.digest): tied for tied in claims}.values())
    for tied in claims:
        tied.claim.check()
    verdict = Verdict()
    try:
        proof = Proof.read(folder)
        _check_signature(proof, verdict)
        states = _load_states(folder, proof)
        verdict.checks.append(("files", f"{len(states)} states, all digests as committed"))
    except (ProofError, BadSignature) as error:
        verdict.reject(ExitCode.MALFORMED, str(error))
        return verdict
    try:
        _check_times(proof, chain, verdict)
        if verdict.findings:  # not the registered run, or not the task's: nothing here may depend on running it
            return verdict
        initial = replay_sample(folder, proof, policy, verdict, on_segment)
        if initial is None:
            return verdict
        own = own_claims(proof, claims, verdict)
        _check_branch(proof, states, initial, own, verdict)
    except (ProofError, SpecError) as error:
        verdict.reject(ExitCode.MALFORMED, str(error))
        return verdict
    _check_claims(proof, states, initial, own, foreign_claims(proof, claims), chain, verdict)
    return verdict


def own_claims(proof: Proof, claims: Sequence[TiedClaim], verdict: Verdict) -> list[TiedClaim]:
    """The claims of the proof's own trainer that are whole and of this branch; a note says why others are ignored.

    A claim belongs to the trainer whose spec it carries, not to a key root: those are public, and a thief may copy one.

    Leaves and specs are public once opened, so anybody can hand in a claim in the trainer's name: one with leaves
    left out, or of another reference, must not speak against the trainer.
    """
    mark = proof.submission
    if mark is None:
        return []
    boundary = proof.segments[mark.reference_segment].end_digest
    own = []
    for tied in claims:
        if tied.spec.trainer != proof.spec.trainer:
            continue
        whole = len(tied.claim.leaves) == len(tied.claim.expected)
        promised = tied.spec.digest == proof.spec.digest
        if promised and whole and (tied.claim.beta, tied.reference_digest) == (mark.beta, boundary):
            own.append(tied)
        else:
            verdict.limits.append("a claim in the trainer's name ignored: not whole, or of another spec or branch")
    return own


def foreign_claims(proof: Proof, claims: Sequence[TiedClaim]) -> list[TiedClaim]:
    """The claims of other trainers."""
    return [tied for tied in claims if tied.spec.trainer != proof.spec.trainer]


def _check_times(proof: Proof, chain: ArenaClient | None, verdict: Verdict) -> None:
    if proof.spec.task is None:
        verdict.limits.append(
            "recorded without a chain: order and initial state could have been ground, times are unproven"
        )
    elif chain is None:
        verdict.limits.append("anchors not checked: no chain was asked, so the times of the anchors are unproven")
    else:
        check_run_on_chain(proof, chain, verdict)


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
        check_values(tensors, where=where)
        loaded[state.cid] = tensors
    if proof.submission:
        where = f"states/{proof.submission.model_cid}"
        model = from_safetensors(_blob(store.get, proof.submission.model_cid), where=where)
        if tensors_digest(model) != proof.submission.model_digest:
            raise ProofError(f"{where}: not the submitted model")
        check_values(model, where=where)
        loaded[proof.submission.model_cid] = model
    return loaded


def _blob(get: Callable[[str], bytes], cid: str) -> bytes:
    try:
        return get(cid)
    except CannotRun as error:  # a proof that lacks a file it names is the prover's fault, not this machine's
        raise ProofError(str(error)) from error


def _check_branch(
    proof: Proof, states: dict[str, Tensors], initial: Tensors, own: Sequence[TiedClaim], verdict: Verdict
) -> None:
    """The submitted model must be the trunk's at the branch, moved by nothing but the promised embedding."""
    mark, spec = proof.submission, proof.spec
    if mark is None:
        verdict.limits.append("no model was submitted: only the trunk was checked")
        return
    model = states[mark.model_cid]
    reference = model_tensors(states[proof.stored_at(spec.bounds(mark.reference_segment)[1]).cid])
    parameters = None
    if spec.watermark:
        parameters = MarkParameters.from_json(spec.watermark.parameters, where="spec.watermark.parameters")
    if spec.watermark is None or parameters is None or mark.beta is None:
        if spec.watermark:
            verdict.limits.append("a watermark was promised, but none was embedded")
        if tensors_digest(model) != tensors_digest(reference):
            verdict.reject(ExitCode.REPLAY_MISMATCH, "the submitted model is not the trunk's model at the branch")
        verdict.checks.append(("branch", f"the trunk's model after segment {mark.reference_segment}, no watermark"))
        return
    key_root = spec.watermark.key_root
    openings = {leaf.index: leaf for tied in own for leaf in tied.claim.leaves}
    findings = verify_embedding(
        reference,
        model,
        openings.values(),
        beta=mark.beta,
        key_root=key_root,
        parameters=parameters,
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
    initial: Tensors,
    own: Sequence[TiedClaim],
    foreign: Sequence[TiedClaim],
    chain: ArenaClient | None,
    verdict: Verdict,
) -> None:
    """The trainer's own mark must be in the submitted model, and nobody's who committed earlier may be."""
    if proof.submission is None or not (own or foreign):
        return
    tested = [replace(tied.claim, theta_0=model_tensors(initial)) for tied in own]
    tested += [tied.claim for tied in foreign]
    suspects = suspects_of(proof, chain) if chain else 1
    evidence = detect(states[proof.submission.model_cid], tested, suspects=suspects)
    for number, (tied, found) in enumerate(zip([*own, *foreign], evidence, strict=True)):
        is_own = number < len(own)
        verdict.watermarks.append(
            {
                "key_root": to_hex(tied.claim.key_root),
                "own": is_own,
                "matches": found.matches,
                "trials": found.trials,
                "log2_p": round(found.log2_p_corrected, 1),
                "found": found.accepted,
            }
        )
        if is_own and not found.accepted:
            verdict.reject(ExitCode.WATERMARK, f"the trainer's own watermark is not in the model ({_odds(found)})")
        elif not is_own and found.accepted:
            _judge_foreign(tied, found, proof, chain, verdict)


def _judge_foreign(tied: TiedClaim, found: Evidence, proof: Proof, chain: ArenaClient | None, verdict: Verdict) -> None:
    """Another trainer's mark convicts only if the chain says that it was promised in time.

    Whoever may choose the beacon or the reference afterwards can make a claim that fits an innocent model.
    """
    message = f"the model carries the watermark of key {to_hex(tied.claim.key_root)[:18]}… ({_odds(found)})"
    if chain is None:
        verdict.undecided.append(f"{message}, if that was promised in time: ask a chain")
    elif check_claim_on_chain(tied, proof, chain, verdict):
        verdict.reject(ExitCode.WATERMARK, message)


def _odds(found: Evidence) -> str:
    return found.void or f"{found.matches} of {found.trials} bits, p = 2^{found.log2_p_corrected:.0f}"
