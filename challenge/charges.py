"""A challenger's charge: made of what was found, sealed with a salt that the journal keeps, shown, and drawn for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from chain.case import Charge, Ground, Stage
from chain.commitments import charge_commitment
from chain.errors import ChainError
from challenge.arena.beacons import latched
from challenge.arena.runfolder import RunFolder
from challenge.arena.session import NotYet, Session
from challenge.claims import OPENED_GROUPS, write_claim
from challenge.console import print_verdict
from challenge.dispute import open_claim
from challenge.evidence import Suspicion, broken_segments, read_verdict, suspect
from challenge.onchain import claimed_run
from challenge.verify import verify
from pol.errors import CannotRun, ProofError
from pol.proof import Proof, states_of
from pol.state import from_safetensors, model_tensors
from pol.store import BlobStore
from watermark import Claim, MarkParameters, WatermarkKey, opening_groups

if TYPE_CHECKING:
    from challenge.claims import TiedClaim
    from challenge.segments import Policy

CHARGE = "charge"


def last_round(session: Session, task: int, trainer: str) -> int:
    """The last round of which the trainer's submission stands; raises :class:`ChainError` if there is none."""
    arena = session.client.arena
    for number in range(arena.task_config(task).clock.rounds, 0, -1):
        if arena.submission(task, trainer, number).stands:
            return number
    raise ChainError(f"no submission of {trainer} stands in task {task}: there is nothing to challenge")


def own_cases(session: Session, task: int, trainer: str, round_: int) -> list[int]:
    """The cases that this account opened on this machine against the submission, by the chain and the journal."""
    challenges = session.client.challenges
    sealed = challenges.events("CaseSealed", taskId=task, challenger=session.me)
    found = []
    for event in sealed:
        charge = _sealed_charge(session, task, bytes(event.args["commitment"]))
        if charge and (charge[0].trainer, charge[0].round) == (trainer, round_):
            found.append(int(event.args["caseId"]))
    return found


def _sealed_charge(session: Session, task: int, commitment: bytes) -> tuple[Charge, bytes] | None:
    """The charge under ``commitment`` and its salt, from the journal."""
    site = session.client.challenges.site
    for content, salt in session.promises.salted(CHARGE):
        if (content["manager"], content["task"]) == (site.address, task):
            charge = Charge(
                trainer=content["trainer"],
                round=content["round"],
                ground=Ground(content["ground"]),
                claim=content["claim"],
                evidence_digest=bytes.fromhex(content["evidence"]),
                named=tuple(content["named"]),
            )
            if charge_commitment(site, task, session.me, charge, salt) == commitment:
                return charge, salt
    return None


def suspicion(
    session: Session,
    task: int,
    trainer: str,
    proof: Path | None,
    verdict: Path | None,
    claims: list[TiedClaim],
    policy: Policy,
    store: BlobStore | None,
) -> Suspicion:
    """What the files say against the trainer; an empty one without files. A proof without a verdict is verified, with
    what the task lists from ``store``.

    Raises :class:`CannotRun` if nothing speaks against it, or the proof is of another trainer; else as what reads them.
    """
    if verdict is not None:
        found = suspect(read_verdict(verdict))
    elif proof is not None:
        made = verify(proof, policy, claims=claims, chain=session.client, store=store)
        print_verdict(str(proof), made)
        found = suspect(made.to_json())
    else:
        return Suspicion()
    if proof is None:
        return found
    try:
        of = "0x" + Proof.read(proof).spec.trainer.hex()
    except ProofError:
        work = session.client.arena.task_config(task).work
        return replace(found, segments=(*broken_segments(proof, work.segment_length, work.steps), *found.segments))
    if of != trainer.lower():
        raise CannotRun(f"{proof} is a proof of {of}: give one of {trainer}")
    return found


def charge(
    session: Session,
    task: int,
    trainer: str,
    round_: int,
    found: Suspicion,
    named: list[int],
    claims: list[TiedClaim],
) -> Charge:
    """The charge: of a watermark if the claim is the account's own and all there is, else that it does not replay.

    Without segments to be ``named`` it names those that were found wrong, or else the one that the accused model leaves
    the trunk after, where a stolen model would have come in. It has those that were anchored, as many as the task
    allows. Raises :class:`ChainError` for a claim without a run.
    """
    client = session.client
    most = client.arena.task_config(task).court.named
    accused = client.arena.submission(task, trainer, round_)
    anchored = client.arena.run(accused.run_id).anchored
    own = [tied for tied in claims if "0x" + tied.spec.trainer.hex() == session.me.lower()]
    marked = bool(own) and (found.marked or not any(found.digest))
    run = claimed_run(own[0], task, client) if marked else None
    if marked and run is None:
        raise ChainError(
            "you registered no run of this task with the claim's key and spec: it cannot accuse anybody here"
        )
    telling = (named, found.segments, () if marked else (accused.branch,))
    opened = ([number for number in dict.fromkeys(numbers) if number < anchored] for numbers in telling)
    return Charge(
        trainer=trainer,
        round=round_,
        ground=Ground.WATERMARK if marked else Ground.REPLAY,
        claim=run or 0,
        evidence_digest=found.digest,
        named=tuple(next(filter(None, opened), ()))[:most],
    )


def seal(session: Session, task: int, charge: Charge, earlier: int) -> int:
    """Seal the charge, pay the bond, and return the case. ``earlier`` cases against the same submission were opened:
    their charges were shown, so this one has another salt."""
    challenges, court = session.client.challenges, session.client.arena.task_config(task).court
    content = {
        "manager": challenges.address, "task": task, "trainer": charge.trainer, "round": charge.round,
        "ground": int(charge.ground), "claim": charge.claim, "evidence": charge.evidence_digest.hex(),
        "named": list(charge.named), "earlier": earlier,
    }  # fmt: skip
    return challenges.seal_case(task, charge, session.promises.salt(CHARGE, content), bond=court.bond)


def make_claim(session: Session, kept: RunFolder, out: Path, wait: float) -> None:
    """Write the claim of a run of the account to the folder ``out``: the leaves that the task's opening beacon draws.

    The beacon is promised and latched, if nobody has. Raises :class:`NotYet` where its block does not come within
    ``wait`` seconds, :class:`CannotRun` for a run without a mark.
    """
    scoring, proof = session.client.scoring, Proof.read(kept.proof)
    mark, reference, promise = proof.submission, proof.reference, kept.spec.watermark
    if mark is None or mark.beta is None or reference is None or promise is None:
        raise CannotRun(f"{kept.path}: this run has no watermark to claim: `arena submit commit` embeds it")
    if not scoring.opening_beacon(kept.task).block:
        scoring.request_opening_beacon(kept.task)
    beacon = latched(
        lambda: scoring.opening_beacon(kept.task), lambda: scoring.latch_opening_beacon(kept.task), wait
    )  # fmt: skip
    if beacon is None:
        raise NotYet("the block that draws the leaves to open is not there yet")
    parameters = MarkParameters.from_json(promise.parameters, where="spec.watermark")
    key = WatermarkKey.load(kept.key)
    groups = opening_groups(beacon.value, key.root, parameters.groups, min(OPENED_GROUPS, parameters.groups))
    step = kept.spec.bounds(reference)[1]
    state = from_safetensors(states_of(kept.proof).get(proof.stored_at(step).cid), where="reference")
    made = Claim.make(key, mark.beta, parameters, groups, model_tensors(state))
    write_claim(out, made, kept.spec, state, session.signer)


def bring_to_court(session: Session, case_id: int, claims: list[TiedClaim], wait: float) -> None:
    """Do whatever the challenger still has to do: show the charge, draw the segments, open the leaves of its claim.

    Raises :class:`NotYet` where the block that draws does not come within ``wait`` seconds.
    """
    challenges = session.client.challenges
    held = challenges.case(case_id)
    if held.stage is Stage.SEALED:
        known = _sealed_charge(session, held.task_id, held.commitment)
        assert known is not None, "only cases that the journal knows are carried on"
        challenges.show_case(case_id, *known)
        held = challenges.case(case_id)
    if held.stage is Stage.SHOWN:
        if latched(lambda: challenges.case(case_id).seed, lambda: challenges.latch_seed(case_id), wait) is None:
            raise NotYet(f"case {case_id} is shown, but the block that draws its segments is not there yet")
        held = challenges.case(case_id)
    if held.stage is Stage.DRAWN and held.charge.ground is Ground.WATERMARK and not held.leaves_opened:
        if not claims:
            raise CannotRun("the case rests on your watermark: repeat the command with --claim, or it is rejected")
        open_claim(session.client, case_id, claims[0])
