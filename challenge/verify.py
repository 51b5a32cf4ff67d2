"""Verification of a proof folder: the numbered procedure of docs/spec/proof-format.md section 9.

A pure engine: it prints nothing and exits nowhere. Every number it relies on comes from the committed program or
from the verifier; from the prover it takes only digests to compare with.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from chain.client import ArenaClient
from chain.errors import BadSignature
from challenge.branch import check_branch, opens_all, reference_model
from challenge.claims import TiedClaim
from challenge.court import court_of, probes_of
from challenge.onchain import check_claim_on_chain, check_run_on_chain, committed_model, suspects_of
from challenge.segments import Policy, Watcher, replay_sample
from challenge.signing import signer_of
from challenge.states import check_blobs, load_blob
from challenge.verdict import ExitCode, Verdict
from pol.encoding import to_hex
from pol.errors import ProofError, SpecError
from pol.proof import Proof
from pol.state import Tensors, model_tensors
from pol.store import BlobStore
from pol.submission import Submission
from watermark import Claim, Evidence, detect
from watermark.detect import Court
from watermark.ownership import Owner, Party, compare


def verify(
    folder: Path,
    policy: Policy | None = None,
    *,
    claims: Sequence[TiedClaim] = (),
    chain: ArenaClient | None = None,
    watcher: Watcher | None = None,
    store: BlobStore | None = None,
) -> Verdict:
    """Verify the proof in ``folder`` and the branch to each submitted model.

    ``claims`` are watermark claims to test the models against, the trainer's own or others'. ``chain`` answers for
    registrations, anchors, beacons and the task's terms; without it they stay unchecked and the verdict says so.
    ``watcher`` hears how the replay goes on. ``store`` serves the task's description, where its terms bind lists.

    Raises :class:`CannotRun` when the check could not be made here, :class:`ProofError` if a claim is unsound. A
    malformed proof is a verdict, not an exception.
    """
    policy = policy or Policy()
    claims = list({(tied.spec.trainer, tied.claim.digest): tied for tied in claims}.values())
    for tied in claims:
        tied.claim.check()
    verdict = Verdict()
    verdict.limits += [
        f"claim of key {to_hex(tied.claim.key_root)[:14]}… unsigned: made without a task, nothing ties it to an account"
        for tied in claims
        if tied.spec.task is None
    ]
    try:
        proof = Proof.read(folder)
        _check_signature(proof, verdict)
        verdict.checks.append(("files", f"{check_blobs(folder, proof)} states, all digests as committed"))
    except (ProofError, BadSignature) as error:
        verdict.reject(ExitCode.MALFORMED, str(error))
        return verdict
    if proof.stopped:
        verdict.limits.append(
            f"early stop: {proof.segment_count} of {proof.spec.segments} promised segments were trained"
        )
    try:
        _check_times(proof, chain, verdict, store)
        if verdict.findings:  # not the registered run, or not the task's: nothing here may depend on running it
            return verdict
        initial = replay_sample(folder, proof, policy, verdict, watcher or Watcher())
        if initial is None:
            return verdict
        own = own_claims(proof, claims, verdict)
        if chain is not None and proof.spec.task:  # or a trainer could open the groups of its choice
            last = proof.submission
            own = [tied for tied in own if opens_all(tied) or check_claim_on_chain(tied, proof, last, chain, verdict)]
        for mark in proof.submissions:
            model = load_blob(folder, mark.model_cid)
            check_branch(folder, proof, mark, model, initial, own, policy, verdict)
    except (ProofError, SpecError) as error:
        verdict.reject(ExitCode.MALFORMED, str(error))
        return verdict
    if proof.submission is None:
        verdict.limits.append("no model was submitted: only the trunk was checked")
    foreign = foreign_claims(proof, claims)
    own = [replace(tied, claim=replace(tied.claim, theta_0=model_tensors(initial))) for tied in own]
    for mark in proof.submissions if own or foreign else ():
        _check_claims(folder, proof, mark, load_blob(folder, mark.model_cid), own, foreign, chain, policy, verdict)
    return verdict


def own_claims(proof: Proof, claims: Sequence[TiedClaim], verdict: Verdict) -> list[TiedClaim]:
    """The claims of the proof's own trainer that are whole and of this run; a note says why others are ignored.

    A claim belongs to the trainer whose spec it carries, not to a key root: those are public, and a thief may copy one.

    Leaves and specs are public once opened, so anybody can hand in a claim in the trainer's name: one with leaves
    left out, or of another reference, must not speak against the trainer.
    """
    mark, reference = proof.submission, proof.reference
    if mark is None or reference is None:
        return []
    boundary = proof.segments[reference].end_digest
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


def _check_times(proof: Proof, chain: ArenaClient | None, verdict: Verdict, store: BlobStore | None) -> None:
    if proof.spec.task is None:
        verdict.limits.append(
            "recorded without a chain: order and initial state could have been ground, times are unproven"
        )
    elif chain is None:
        verdict.limits.append(
            "anchors not checked: no chain was asked, so the seed could have been ground and the times are unproven"
        )
    else:
        check_run_on_chain(proof, chain, verdict, store)


def _check_signature(proof: Proof, verdict: Verdict) -> None:
    signer = signer_of(proof)
    if signer:
        verdict.checks.append(("signature", f"by {signer}"))
    else:
        verdict.limits.append("unsigned: nothing ties this proof to an account")


def _where_put_in(folder: Path, proof: Proof, mark: Submission, claim: Claim) -> Claim:
    """The trainer's own claim as it is tried on its model ``mark``: in the coordinates of the trunk at that branch.

    theta_ref is the trunk at the first branch, and nothing else is aligned to others' models. But of a later model of
    the same run it is known what its mark was put into, and an honest mark must not be missed because training went on.
    """
    if mark.reference_segment == proof.reference:
        return claim
    return replace(claim, theta_ref=reference_model(folder, proof, mark))


def _check_claims(
    folder: Path,
    proof: Proof,
    mark: Submission,
    model: Tensors,
    own: Sequence[TiedClaim],
    foreign: Sequence[TiedClaim],
    chain: ArenaClient | None,
    policy: Policy,
    verdict: Verdict,
) -> None:
    """The trainer's own mark must be in ``model``, submitted as ``mark``, and nobody's who committed earlier may be."""
    tested = [_where_put_in(folder, proof, mark, tied.claim) for tied in own] + [tied.claim for tied in foreign]
    suspects = suspects_of(proof, chain) if chain else len(proof.submissions)
    court = court_of(proof.spec)
    if any(claim.parameters.outputs for claim in tested):
        court = replace(court, probes=probes_of(proof.spec, policy.dataset, _probe_beacon(proof, chain)))
    evidence = detect(model, tested, suspects=suspects, court=court)
    mine = Party(own[0].claim, model) if own else None
    where = f" after segment {mark.reference_segment}" if proof.earlier else ""
    for number, (tied, found) in enumerate(zip([*own, *foreign], evidence, strict=True)):
        is_own = number < len(own)
        verdict.watermarks.append(
            {
                "key_root": to_hex(tied.claim.key_root),
                "own": is_own,
                "branch": mark.reference_segment,
                "channel": found.channel,
                "matches": found.matches,
                "trials": found.trials,
                "log2_p": round(found.log2_p_corrected, 1),
                "found": found.accepted,
            }
        )
        if is_own and found.void and not found.trials:
            verdict.undecided.append(f"the trainer's own watermark{where}: {found.void}")
        elif is_own and not found.accepted:
            problem = f"the trainer's own watermark is not in the model{where} ({_odds(found)})"
            _judge_own(problem, tied, verdict)
        elif not is_own and found.accepted:
            key = to_hex(tied.claim.key_root)[:18]
            message = f"the model{where} carries the watermark of key {key}… ({_odds(found)})"
            _judge_foreign(message, tied, mine, proof, mark, chain, court, verdict)


def _judge_own(message: str, tied: TiedClaim, verdict: Verdict) -> None:
    """A mark that is put in without training is there, or was not put in; one that is trained in may fall short."""
    if tied.claim.parameters.trained_in:
        verdict.limits.append(message)
    else:
        verdict.reject(ExitCode.WATERMARK, message)


def _probe_beacon(proof: Proof, chain: ArenaClient | None) -> bytes:
    """What draws the inputs that outputs are judged by: the task's opening beacon, or the verifier's own generator."""
    drawn = chain.scoring.opening_beacon(proof.spec.task.task_id) if chain and proof.spec.task else None
    return drawn.value if drawn and drawn.latched else secrets.token_bytes(32)


def _judge_foreign(
    message: str,
    tied: TiedClaim,
    mine: Party | None,
    proof: Proof,
    mark: Submission,
    chain: ArenaClient | None,
    court: Court,
    verdict: Verdict,
) -> None:
    """Another trainer's mark convicts only if the chain says that it was promised in time.

    Whoever may choose the beacon or the reference afterwards can make a claim that fits an innocent model. Where the
    trainer's own claim (``mine``) and the other's committed model are at hand, the two-claims table must agree.
    """
    if chain is None:
        verdict.undecided.append(f"{message}, if that was promised in time: ask a chain")
        return
    if not check_claim_on_chain(tied, proof, mark, chain, verdict):
        return
    theirs = committed_model(tied, proof, chain)
    owner = Owner.EARLIER
    if mine and theirs:
        suspects = suspects_of(proof, chain)
        owner = compare(Party(tied.claim, theirs), mine, suspects=suspects, court=court).owner
    if owner is Owner.EARLIER:
        verdict.reject(ExitCode.WATERMARK, message)
    elif owner is Owner.UNDECIDED:
        verdict.undecided.append(f"{message}, and the model of that key's trainer carries this trainer's own")
    else:
        verdict.limits.append(f"{message}, which does not count: that key's trainer has not both models marked")


def _odds(found: Evidence) -> str:
    what = "labels" if found.channel == "triggers" else "bits"
    return found.void or f"{found.matches} of {found.trials} {what}, p = 2^{found.log2_p_corrected:.0f}"
