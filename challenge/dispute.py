"""Cases on chain, from both sides of the table: the trainer's answer and the juror's judgement."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from eth_utils.address import to_checksum_address

from chain.anchoring import read_run
from chain.client import ArenaClient
from chain.commitments import new_salt
from chain.errors import ChainError
from chain.types import Opening, open_segment
from challenge.bundle import fetch_proof, publish_proof
from challenge.claims import TiedClaim
from challenge.segments import Policy
from challenge.verdict import ExitCode, Outcome, Verdict
from challenge.verify import verify
from pol.encoding import digest, to_hex
from pol.errors import CannotRun, ProofError
from pol.proof import Proof
from pol.state import from_safetensors
from pol.store import BlobStore

NO_REPRODUCTION_DOMAIN = "aiarena/no-reproduction/v1"


def open_segments(proof: Proof, segments: Sequence[int]) -> list[Opening]:
    """The openings of ``segments``, in their order, each against the anchor it first appeared in."""
    return [open_segment(proof.segments, proof.anchors, index) for index in segments]


def answer_case(client: ArenaClient, case_id: int, folder: Path, store: BlobStore) -> str:
    """Answer a case as its trainer: serve the proof through ``store`` and open the drawn segments on chain.

    Returns the CID of the served bundle. The contract checks every opening and refuses the whole answer if one fails.
    """
    proof = Proof.read(folder)
    bundle = publish_proof(folder, store)
    openings = open_segments(proof, client.challenges.sampled_segments(case_id))
    client.challenges.respond(case_id, openings, bundle)
    return bundle


def judge_case(
    client: ArenaClient,
    case_id: int,
    store: BlobStore,
    *,
    claims: Sequence[TiedClaim] = (),
    policy: Policy | None = None,
) -> Verdict:
    """A juror's own verdict on an answered case: fetch what was served, replay the segments that were drawn."""
    case = client.challenges.case(case_id)
    drawn = client.challenges.sampled_segments(case_id)
    mine = replace(policy or Policy(), segments=drawn)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "proof"
        try:
            fetch_proof(served_bundle(client, case_id), store, folder)
            proof = Proof.read(folder)
            task = proof.spec.task
            if task is None or (task.task_id, to_hex(proof.spec.trainer)) != (case.task_id, case.trainer.lower()):
                raise ProofError("the served proof is of another run than the case")
            if max(drawn) >= proof.segment_count:
                raise ProofError("the served proof lacks segments that the case drew")
        except ProofError as error:
            verdict = Verdict()
            verdict.reject(ExitCode.MALFORMED, str(error))
            return verdict
        return verify(folder, mine, claims=[with_model(tied, client, store) for tied in claims], chain=client)


def with_model(tied: TiedClaim, client: ArenaClient, store: BlobStore) -> TiedClaim:
    """``tied`` with the model that its trainer submitted, where that is revealed and in ``store``."""
    task = tied.spec.task
    with suppress(CannotRun, ChainError, ProofError):  # who shows no run or no model has none to compare
        trainer = to_checksum_address(tied.spec.trainer)
        submission = read_run(client, task.task_id, trainer).submission if task else None
        if submission and submission.model_cid:
            data = store.get(submission.model_cid)
            return replace(tied, model=from_safetensors(data, where=f"model {submission.model_cid}"))
    return tied


def served_bundle(client: ArenaClient, case_id: int) -> str:
    """The CID of the bundle that the trainer's answer names; :class:`ProofError` if there is no answer."""
    seed_block = client.challenges.case(case_id).seed.block  # no answer is older than the drawn segments
    for event in client.challenges.events("CaseAnswered", first_block=seed_block, caseId=case_id):
        return str(event.args["bundleCid"])
    raise ProofError(f"case {case_id} was not answered")


def vote(client: ArenaClient, case_id: int, verdict: Verdict) -> tuple[bool, bytes, bytes] | None:
    """Commit a juror's vote from its verdict; returns (uphold, reproduction, salt) for the reveal.

    An inconclusive verdict casts no vote, and None is returned: it is neither a pass nor an accusation.
    """
    if verdict.outcome is Outcome.INCONCLUSIVE:
        return None
    uphold = verdict.outcome is Outcome.REJECTED
    reproduction = bytes.fromhex(verdict.reproduction[2:]) if verdict.reproduction else _nothing_to_replay(verdict)
    salt = new_salt()
    client.challenges.commit_vote(case_id, uphold=uphold, reproduction=reproduction, salt=salt)
    return uphold, reproduction, salt


def _nothing_to_replay(verdict: Verdict) -> bytes:
    """What jurors agree on when a proof is too broken to be replayed: the reason's code."""
    return digest(NO_REPRODUCTION_DOMAIN, bytes([int(verdict.exit_code)]))
