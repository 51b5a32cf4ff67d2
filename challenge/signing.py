"""What a trainer signs: the EIP-712 messages under a proof and under a watermark claim, made from these themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chain.eip712 import ClaimMessage, Domain, ManifestMessage, recover, sign
from chain.errors import BadSignature
from pol.encoding import to_hex
from pol.errors import ProofError, SpecError
from pol.proof import Proof
from pol.spec import TaskRef, TrainingSpec

if TYPE_CHECKING:
    from chain.signers import Signer


def domain_of(task: TaskRef) -> Domain:
    """Where signatures for ``task`` are valid: on its chain, for its Arena."""
    return Domain(chain_id=task.chain_id, verifying_contract=to_hex(task.arena))


def manifest_domain(proof: Proof) -> Domain:
    """The chain and the Arena that the proof's task lives on; :class:`ProofError` if it has none."""
    return domain_of(_task(proof))


def manifest_message(proof: Proof) -> ManifestMessage:
    """The message that binds run, transcript, model and manifest (a trunk without a model has a zero digest)."""
    return ManifestMessage(
        task_id=_task(proof).task_id,
        trainer=to_hex(proof.spec.trainer),
        spec_digest=proof.spec.digest,
        transcript_digest=proof.transcript_digest,
        model_digest=proof.submission.model_digest if proof.submission else bytes(32),
        manifest_digest=proof.manifest_digest,
    )


def sign_proof(proof: Proof, account: Signer) -> bytes:
    """The trainer's 65-byte signature, for :func:`pol.seal`."""
    return sign(account, manifest_domain(proof), manifest_message(proof))


def signer_of(proof: Proof) -> str | None:
    """The account under the proof, which is its trainer's; None where there is no task to sign for.

    Raises :class:`ProofError` for a signature that is missing, in excess or somebody else's, and
    :class:`chain.errors.BadSignature` for one that is malformed.
    """
    if proof.spec.task is None:
        if proof.signature is not None:
            raise ProofError("manifest: a signature without a task cannot be checked")
        return None
    if proof.signature is None:
        raise ProofError("manifest: not signed; the trainer must seal the proof with its account")
    signer = recover(proof.signature, manifest_domain(proof), manifest_message(proof))
    if bytes.fromhex(signer.removeprefix("0x")) != proof.spec.trainer:
        raise ProofError(f"manifest: signed by {signer}, the spec names trainer {to_hex(proof.spec.trainer)}")
    return signer


def claim_message(spec: TrainingSpec, task: TaskRef, parameters_digest: bytes) -> ClaimMessage:
    """The message that binds a watermark's key and parameters to a run of ``task``; the spec promises a watermark."""
    assert spec.watermark is not None
    return ClaimMessage(
        trainer=to_hex(spec.trainer),
        task_id=task.task_id,
        spec_digest=spec.digest,
        key_root=spec.watermark.key_root,
        parameters_digest=parameters_digest,
    )


def sign_claim(spec: TrainingSpec, parameters_digest: bytes, account: Signer | None) -> bytes | None:
    """The trainer's 65-byte signature under its watermark claim; None where there is no task to sign for.

    Raises :class:`SpecError` if the account is missing, in excess or not the trainer's.
    """
    if (spec.task is None) != (account is None):
        raise SpecError("a claim is signed by its trainer's account if its spec names a task, and only then")
    if spec.task is None or account is None:
        return None
    try:
        return sign(account, domain_of(spec.task), claim_message(spec, spec.task, parameters_digest))
    except ValueError as error:
        raise SpecError(f"watermark claim: {error}") from error


def check_claim_signature(spec: TrainingSpec, parameters_digest: bytes, signature: bytes | None, *, where: str) -> None:
    """Raise :class:`ProofError` unless the claim is signed by the spec's trainer (unsigned, where there is no task).

    Specs and key roots are public: without it anybody could put a claim in a trainer's name.
    """
    if (spec.task is None) != (signature is None):
        raise ProofError(f"{where}: a claim is signed by its trainer if its spec names a task, and only then")
    if spec.task is None or signature is None:
        return
    try:
        signer = recover(signature, domain_of(spec.task), claim_message(spec, spec.task, parameters_digest))
    except BadSignature as error:
        raise ProofError(f"{where}: {error}") from error
    if bytes.fromhex(signer.removeprefix("0x")) != spec.trainer:
        raise ProofError(f"{where}: signed by {signer}, the spec names trainer {to_hex(spec.trainer)}")


def _task(proof: Proof) -> TaskRef:
    if proof.spec.task is None:
        raise ProofError("a proof recorded without a task cannot be signed for one")
    return proof.spec.task
