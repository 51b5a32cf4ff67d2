"""What a trainer signs under a proof: the EIP-712 message made from the proof itself."""

from __future__ import annotations

from chain.accounts import Account
from chain.eip712 import Domain, ManifestMessage, recover_manifest, sign_manifest
from pol.encoding import to_hex
from pol.errors import ProofError
from pol.proof import Proof
from pol.spec import TaskRef


def manifest_domain(proof: Proof) -> Domain:
    """The chain and the Arena that the proof's task lives on; :class:`ProofError` if it has none."""
    task = _task(proof)
    return Domain(chain_id=task.chain_id, verifying_contract=to_hex(task.arena))


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


def sign_proof(proof: Proof, account: Account) -> bytes:
    """The trainer's 65-byte signature, for :func:`pol.seal`."""
    return sign_manifest(account, manifest_domain(proof), manifest_message(proof))


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
    signer = recover_manifest(proof.signature, manifest_domain(proof), manifest_message(proof))
    if bytes.fromhex(signer.removeprefix("0x")) != proof.spec.trainer:
        raise ProofError(f"manifest: signed by {signer}, the spec names trainer {to_hex(proof.spec.trainer)}")
    return signer


def _task(proof: Proof) -> TaskRef:
    if proof.spec.task is None:
        raise ProofError("a proof recorded without a task cannot be signed for one")
    return proof.spec.task
