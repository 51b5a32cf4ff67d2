"""Cases on chain, from all sides of the table: the trainer's answer, the accuser's leaves, the juror's judgement."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from chain.anchoring import read_run
from chain.case import Case, Ground, LeafRange, MarkChannel
from chain.client import ArenaClient
from chain.commitments import new_salt
from chain.contract import Event
from chain.errors import ChainError
from chain.types import Opening, from_abi, open_segment
from challenge.bundle import fetch_proof, publish_proof
from challenge.claims import TiedClaim
from challenge.onchain import claimed_run, run_of
from challenge.segments import Policy
from challenge.verdict import ExitCode, Outcome, Verdict
from challenge.verify import verify
from pol.encoding import digest
from pol.errors import CannotRun, ProofError
from pol.merkle import MerkleProof, range_siblings
from pol.proof import Proof
from pol.state import from_safetensors
from pol.store import BlobStore
from watermark import LeafOpening

NO_REPRODUCTION_DOMAIN = "aiarena/no-reproduction/v1"
LEAVES_A_TRANSACTION = 128
"""At most some 45 KB, of 32 groups that do not touch; nodes take transactions of 128 KiB."""


def open_segments(proof: Proof, segments: Sequence[int]) -> list[Opening]:
    """The openings of ``segments``, in their order, each against the anchor it first appeared in."""
    return [open_segment(proof.segments, proof.anchors, index) for index in segments]


def answer_case(client: ArenaClient, case_id: int, folder: Path, store: BlobStore) -> str:
    """Answer a case as its trainer: serve the proof through ``store`` and open the drawn segments on chain.

    Returns the CID of the served bundle. The contract checks every opening and refuses the whole answer if one fails.
    """
    proof = Proof.read(folder)
    bundle = publish_proof(folder, store)
    openings = open_segments(proof, client.challenges.segments_to_open(case_id))
    client.challenges.respond(case_id, openings, bundle)
    return bundle


def open_claim(client: ArenaClient, case_id: int, tied: TiedClaim) -> None:
    """Open a claim's leaves on chain, as the challenger of a watermark case, in as many transactions as it takes.

    Goes on where an earlier call was interrupted. The contract refuses leaves that the beacon did not draw.
    """
    claim = tied.claim
    for start in range(client.challenges.case(case_id).leaves, len(claim.leaves), LEAVES_A_TRANSACTION):
        some = claim.leaves[start : start + LEAVES_A_TRANSACTION]
        client.challenges.open_leaves(case_id, shape_of(tied), leaf_ranges(some, claim.parameters.leaf_count))


def leaf_ranges(leaves: Sequence[LeafOpening], leaf_count: int) -> list[LeafRange]:
    """Opened leaves as contracts take them: those that follow each other in the key have one path together."""
    ranges: list[list[LeafOpening]] = []
    for leaf in leaves:
        if ranges and leaf.index == ranges[-1][-1].index + 1:
            ranges[-1].append(leaf)
        else:
            ranges.append([leaf])
    return [_leaf_range(part, leaf_count) for part in ranges]


def _leaf_range(leaves: Sequence[LeafOpening], leaf_count: int) -> LeafRange:
    first, last = (MerkleProof(leaf.index, leaf_count, leaf.siblings) for leaf in (leaves[0], leaves[-1]))
    secrets = tuple(secret for leaf in leaves for secret in (leaf.seed, leaf.salt))
    return LeafRange(secrets, range_siblings(first, last))


def judge_case(
    client: ArenaClient,
    case_id: int,
    store: BlobStore,
    *,
    claims: Sequence[TiedClaim] = (),
    policy: Policy | None = None,
) -> Verdict:
    """A juror's own verdict on an answered case: fetch what was served, replay the segments that were opened.

    Of a challenger who rests a case on a watermark, only the claim counts whose leaves it opened on chain, in the shape
    that its spec promises: see :func:`opened_as_promised`.
    Raises :class:`pol.errors.CannotRun` if the files are not to be had: then ``challenges.vote_unavailable`` says so.
    """
    case = client.challenges.case(case_id)
    drawn = client.challenges.segments_to_open(case_id)
    mine = replace(policy or Policy(), segments=drawn)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "proof"
        try:
            fetch_proof(served_bundle(client, case_id), store, folder)
            proof = Proof.read(folder)
            if run_of(proof, client) != case.run_id:
                raise ProofError("the served proof is of another run than the case")
            if not shows_accused(client, case, proof):
                raise ProofError("the served proof does not show the model that the case is about")
            if max(drawn) >= proof.segment_count:
                raise ProofError("the served proof lacks segments that the case drew")
        except ProofError as error:
            verdict = Verdict()
            verdict.reject(ExitCode.MALFORMED, str(error))
            return verdict
        sound = [tied for tied in claims if opened_as_promised(client, case_id, tied)]
        whole = [with_model(tied, client, store) for tied in sound]
        verdict = verify(folder, mine, claims=whole, chain=client, store=store)
        if len(sound) < len(claims):
            verdict.note(
                "a claim of the challenger's was left aside: its leaves, as promised, were not opened on chain"
            )
        return verdict


def opened_as_promised(client: ArenaClient, case_id: int, tied: TiedClaim) -> bool:
    """Whether a claim may be heard in a case: if its challenger rests it on a watermark, and brings the claim, then it
    is of the run that was named, and its leaves were opened on chain in the shape that the spec promises.

    The contract knows of a key only how many leaves it has, and takes any groups of that many: in fewer leaves a group,
    fewer would be drawn. Raises :class:`CannotRun` if the node does not give the events of the opening.
    """
    case = client.challenges.case(case_id)
    challenger = bytes.fromhex(case.challenger[2:])
    if case.charge.ground is not Ground.WATERMARK or tied.spec.trainer != challenger:
        return True
    opened = client.challenges.events("LeavesOpened", first_block=case.seed.block, caseId=case_id)
    if case.leaves and not opened:
        raise CannotRun(f"the node does not give the events of case {case_id}: ask one that keeps its logs")
    shapes = [[from_abi(MarkChannel, part) for part in event.args["shape"]] for event in opened]
    named = claimed_run(tied, case.task_id, client) == case.charge.claim
    return named and all(shape == shape_of(tied) for shape in shapes)


def shape_of(tied: TiedClaim) -> list[MarkChannel]:
    """The groups and leaves of each channel that the claim's spec promises."""
    return [MarkChannel(part.groups, part.leaves) for part in tied.claim.parameters.channels.values()]


def shows_accused(client: ArenaClient, case: Case, proof: Proof) -> bool:
    """Whether the model that the case is about is in the proof: of a run, every round may have another."""
    accused = client.arena.submission(case.task_id, case.charge.trainer, case.charge.round)
    return accused.model_digest in {mark.model_digest for mark in proof.submissions}


def with_model(tied: TiedClaim, client: ArenaClient, store: BlobStore) -> TiedClaim:
    """``tied`` with the model of its run whose branch is the first, where that is revealed and in ``store``.

    It lies nearest to theta_ref, in whose coordinates the table of two claims reads its mark.
    """
    task = tied.spec.task
    with suppress(CannotRun, ChainError, ProofError):  # who shows no run or no model has none to compare
        run_id = claimed_run(tied, task.task_id, client) if task else None
        models = read_run(client, run_id).submissions if run_id is not None else ()
        shown = [(model.branch, model.model_cid) for model in models if model.branch is not None and model.model_cid]
        if shown:
            _, cid = min(shown)
            return replace(tied, model=from_safetensors(store.get(cid), where=f"model {cid}"))
    return tied


def served_bundle(client: ArenaClient, case_id: int) -> str:
    """The CID of the bundle that the trainer served last; :class:`ProofError` if there is no answer."""
    seed_block = client.challenges.case(case_id).seed.block  # no answer is older than the drawn segments

    def events(name: str) -> list[Event]:
        return client.challenges.events(name, first_block=seed_block, caseId=case_id)

    for event in reversed(events("CaseAnswered") + events("ServedAgain")):
        return str(event.args["bundleCid"])
    raise ProofError(f"case {case_id} was not answered")


def vote(client: ArenaClient, case_id: int, verdict: Verdict) -> tuple[bool, bytes, bytes] | None:
    """Commit a juror's vote from its verdict; returns (uphold, reproduction, salt) for the reveal.

    None is returned, and no vote cast, where :func:`ballot` has none.
    """
    cast = ballot(verdict)
    if cast is None:
        return None
    salt = new_salt()
    client.challenges.commit_vote(case_id, uphold=cast[0], reproduction=cast[1], salt=salt)
    return (*cast, salt)


def ballot(verdict: Verdict) -> tuple[bool, bytes] | None:
    """What a juror with this verdict votes: (uphold, reproduction).

    An inconclusive verdict has no vote, None: it is neither a pass nor an accusation.
    """
    if verdict.outcome is Outcome.INCONCLUSIVE:
        return None
    reproduction = bytes.fromhex(verdict.reproduction[2:]) if verdict.reproduction else _nothing_to_replay(verdict)
    return verdict.outcome is Outcome.REJECTED, reproduction


def _nothing_to_replay(verdict: Verdict) -> bytes:
    """What jurors agree on when a proof is too broken to be replayed: the reason's code."""
    return digest(NO_REPRODUCTION_DOMAIN, bytes([int(verdict.exit_code)]))
