"""Cases on chain, from every side: ``challenge open``, ``respond``, ``vote`` and so on."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from chain.case import Stage
from chain.errors import ChainError
from challenge.arena.amounts import address
from challenge.arena.beacons import WaitOption
from challenge.arena.session import NotYet, Session, TaskArgument, TrustOption, command, token_amount
from challenge.arena.task import StoreOption
from challenge.console import say
from challenge.sealing_cli import read_claims
from challenge.stakes import say_charged, say_stakes, state
from pol.errors import CannotRun
from pol.store import open_store

if TYPE_CHECKING:
    from challenge.refutation import Refutation
    from challenge.segments import Policy

CaseArgument = Annotated[int, typer.Argument(metavar="CASE", min=1, help="The case's number.")]
ProofOption = Annotated[Path | None, typer.Option("--proof", help="The folder of the trainer's proof.")]
DataOption = Annotated[Path | None, typer.Option(help="The data set, where the spec names no built-in one.")]


def _numbers(text: str | None) -> str | None:
    if text is not None and not re.fullmatch(r"\d{1,6}(,\d{1,6}){0,15}", text):
        raise typer.BadParameter(f"{text[:40]!r}: give segments such as 3,17")
    return text


def commands() -> typer.Typer:
    """The commands of this file."""
    app = typer.Typer()
    command(app, "open")(open_case)
    command(app, "claim")(claim)
    command(app, "respond")(respond)
    command(app, "vote")(vote)
    command(app, "appeal")(appeal)
    command(app, "settle")(settle)
    command(app, "status", reads=True)(status)
    return app


def open_case(
    session: Session,
    task: TaskArgument,
    trainer: Annotated[str, typer.Argument(metavar="TRAINER", parser=address, help="Whose submission is challenged.")],
    proof: ProofOption = None,
    verdict: Annotated[
        Path | None, typer.Option(help="What `challenge verify --json` said of it; else it is verified here.")
    ] = None,
    claim: Annotated[Path | None, typer.Option(help="Your own watermark claim: its folder.")] = None,
    name: Annotated[
        str | None, typer.Option(callback=_numbers, help="Segments to be opened besides those drawn, such as 3,17.")
    ] = None,
    round_: Annotated[
        int | None, typer.Option("--round", min=1, help="The round of the submission; by default the last shown.")
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="Another case, although one of yours was settled.")] = False,
    data: DataOption = None,
    store: Annotated[str | None, typer.Option(help="Where what the task lists is fetched from.")] = None,
    trust_program: TrustOption = None,
    wait: WaitOption = 60,
) -> dict[str, Any]:
    """Challenge a submission: pay the bond, seal the charge, show it, and draw the segments that must be opened.

    The segments that a verdict found wrong are named, or else the one that the model comes from. A proof that verifies
    is not challenged. Without proof and verdict the case rests on that segment and what is drawn. If all that was found
    is the mark of your claim, its leaves are opened too.

    Example:

        challenge open 1 0x70997970C51812dc3A010C7d01b50e0d17dc79C8 --proof runs/mallory --claim runs/alice-claim
    """
    from challenge import charges

    number = round_ or charges.last_round(session, task, trainer)
    claims = read_claims([claim] if claim else [], None, None)
    earlier = charges.own_cases(session, task, trainer, number)
    case = earlier[-1] if earlier else None
    if case is None or (again and session.client.challenges.case(case).stage is Stage.SETTLED):
        policy = _policy(data, trust_program)
        blobs = open_store(store) if store else None
        found = charges.suspicion(session, task, trainer, proof, verdict, claims, policy, blobs)
        named = [int(part) for part in name.split(",")] if name else []
        charge = charges.charge(session, task, trainer, number, found, named, claims)
        say_charged(session, task, charge)
        case = charges.seal(session, task, charge, len(earlier))
    charges.bring_to_court(session, case, claims, wait)
    return state(session, case)


def claim(
    session: Session,
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of your run, with its watermark key.")],
    out: Annotated[Path, typer.Option(help="The claim's folder; a new one.")],
    wait: WaitOption = 60,
) -> dict[str, Any]:
    """Make your watermark claim: draw, once a task, which leaves are opened, and open those of your run's key.

    Whoever sees the claim can look for the mark in a model. `challenge seal` shows it to the jurors of a case only.

    Example:

        challenge claim runs/alice --out runs/alice-claim
    """
    from challenge.arena.run import open_run
    from challenge.charges import make_claim

    kept = open_run(session, folder)
    if not out.exists():
        make_claim(session, kept, out, wait)
    return {"task": kept.task, "run": kept.number, "claim": str(out)}


def respond(
    session: Session,
    case: CaseArgument,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="The folder of your run's proof.")],
    store: StoreOption,
) -> dict[str, Any]:
    """Answer a case against you: serve your proof, and open on chain the segments that were drawn and named.

    Type it again when jurors could not have what you served.

    Example:

        challenge respond 1 runs/alice/proof --store ipfs
    """
    from challenge.bundle import publish_proof
    from challenge.dispute import answer_case, shows_accused
    from challenge.onchain import run_of
    from pol.proof import Proof

    held, client = session.client.challenges.case(case), session.client
    if held.stage < Stage.DRAWN:
        raise NotYet(f"nothing is drawn in case {case} yet: it is {held.stage.name.lower()}")
    if held.charge.trainer != session.me:
        raise ChainError(f"case {case} is against {held.charge.trainer}: there is nothing for you to answer")
    serves = held.stage is Stage.SERVING
    if serves or (held.stage is Stage.DRAWN and not held.answered):
        proof = Proof.read(folder)
        if run_of(proof, client) != held.run_id:
            raise CannotRun(f"{folder} is not the proof of run {held.run_id}, which the case is about: give that one")
        if not shows_accused(client, held, proof):
            raise CannotRun(f"{folder} does not show the model of round {held.charge.round}: give the proof that does")
        say_stakes(session, held.task_id, held.charge.trainer, "unless you answer in time,")
        if serves:
            client.challenges.serve_again(case, publish_proof(folder, open_store(store)))
        else:
            answer_case(client, case, folder, open_store(store))
    return state(session, case)


def vote(
    session: Session,
    case: CaseArgument,
    store: StoreOption,
    claim: Annotated[
        list[Path] | None, typer.Option(help="A watermark claim: its folder, or a file sealed to you; repeatable.")
    ] = None,
    juror_key: Annotated[Path | None, typer.Option(help="Your juror key, if a claim is sealed to it.")] = None,
    unavailable: Annotated[
        bool, typer.Option("--unavailable", help="Say that what was served cannot be had: openly, and for good.")
    ] = False,
    data: DataOption = None,
    trust_program: TrustOption = None,
    wait: WaitOption = 60,
) -> dict[str, Any]:
    """Judge a case as its juror: replay what was opened and promise your vote; typed again later, show it.

    The salt that shows it is in this machine's journal, and nowhere else. An inconclusive check casts no vote.

    Example:

        challenge vote 1 --store ipfs --claim alice.sealed --juror-key juror.json
    """
    from challenge import ballots

    held, challenges = session.client.challenges.case(case), session.client.challenges
    if held.stage in (Stage.VOTING, Stage.SERVING) and ballots.has_cast(session, case, "UnavailableVoted"):
        return {"vote": "unavailable", **state(session, case)}
    if held.stage is Stage.SETTLED:
        raise ChainError(f"case {case} is settled: {held.verdict.name.lower()}")
    if held.stage is not Stage.VOTING:
        raise NotYet(f"nobody votes in case {case} now: it is {held.stage.name.lower()}")
    if _now(session) >= held.deadline:
        return {"vote": ballots.show_vote(session, case), **state(session, case)}
    weight = ballots.require_juror(session, case, wait)
    say(f"{'at stake':<14}nothing of yours; your vote weighs {weight}")
    if unavailable:
        challenges.vote_unavailable(case)
        return {"vote": "unavailable", **state(session, case)}
    claims = read_claims(claim or [], juror_key, case)
    cast = ballots.promise_vote(session, case, open_store(store), claims, _policy(data, trust_program))
    return {"vote": cast, **state(session, case)}


def appeal(session: Session, case: CaseArgument) -> dict[str, Any]:
    """Take the verdict of a case, which its votes came to, to the next level. Anyone may.

    Example:

        challenge appeal 1
    """
    held, challenges = session.client.challenges.case(case), session.client.challenges
    appealed = challenges.events("CaseAppealed", caseId=case, appellant=session.me)
    mine = any(event.args["level"] == held.level for event in appealed)
    if not (mine and (_now(session) < held.reveal_by or held.stage is not Stage.VOTING)):
        court = session.client.arena.task_config(held.task_id).court
        bond = court.bond << (held.level + 1)
        say(
            f"{'at stake':<14}a bond of {token_amount(bond)}: it returns if the final verdict is another, else it burns"
        )
        challenges.appeal(case, bond=bond)
    return state(session, case)


def settle(
    session: Session,
    case: CaseArgument,
    proof: ProofOption = None,
    first: Annotated[Path | None, typer.Option(help="The state before the first step: safetensors.")] = None,
    base: Annotated[Path | None, typer.Option(help="The base model that the run was registered with.")] = None,
    segment: Annotated[int | None, typer.Option(min=0, help="A segment that --evidence refutes.")] = None,
    evidence: Annotated[Path | None, typer.Option(help="What the task's step verifier takes: a file.")] = None,
) -> dict[str, Any]:
    """End a case: at once if code can see what is wrong, else when its windows are over. Anyone may.

    Looked at are the segments that the trainer opened, and with --proof its whole transcript. With --first and --base
    it is shown that the run did not start from its base model, with --segment and --evidence that a step is wrong, if
    the task names a contract that decides that. `arena claim` then pays.

    Examples:

        challenge settle 1 --proof runs/mallory

        challenge settle 1 --proof runs/mallory --first state0.safetensors --base smollm.safetensors
    """
    challenges = session.client.challenges
    held = challenges.case(case)
    if held.stage is not Stage.SETTLED:
        if held.run_id:
            say_stakes(session, held.task_id, held.charge.trainer, "if the case is upheld,")
        refutation = _refutation(session, case, proof, first, base, segment, evidence)
        if refutation:
            say(f"{'found':<14}{refutation.what}")
            refutation.prove()
        else:
            challenges.settle(case)
    return state(session, case)


def _refutation(
    session: Session,
    case: int,
    proof: Path | None,
    first: Path | None,
    base: Path | None,
    segment: int | None,
    evidence: Path | None,
) -> Refutation | None:
    """What the files show; what can be seen without, where there are none; nothing before segments are drawn."""
    from challenge.refutation import find_refutation, refute_start, refute_step

    given = [option is not None for option in (first, base, segment, evidence)]
    if given not in ([False] * 4, [True, True, False, False], [False, False, True, True]) or (any(given) and not proof):
        raise typer.BadParameter("give --proof with --first and --base, or with --segment and --evidence")
    if session.client.challenges.case(case).stage < Stage.DRAWN:
        return None
    if proof and first and base:
        return refute_start(session.client, case, proof, first, base)
    if proof and segment is not None and evidence:
        return refute_step(session.client, case, proof, segment, evidence)
    return find_refutation(session.client, case, proof)


def status(session: Session, case: CaseArgument) -> dict[str, Any]:
    """Show a case: its stage and deadline, what was drawn, the votes, and what is at stake. Sends nothing.

    Example:

        challenge status 1
    """
    return state(session, case)


def _now(session: Session) -> int:
    return session.web3.eth.get_block("latest")["timestamp"]


def _policy(data: Path | None, trust_program: list[str] | None) -> Policy:
    from challenge.segments import Policy

    return Policy(dataset=data, trusted=frozenset(bytes.fromhex(text[2:]) for text in trust_program or []))
