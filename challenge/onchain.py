"""What only the chain knows of a proof and of a claim: when things were promised, and which beacons followed."""

from __future__ import annotations

from collections.abc import Iterable

from eth_utils.address import to_checksum_address

from chain.anchoring import ChainRun, SubmittedModel, read_run
from chain.client import ArenaClient
from chain.types import Role
from challenge.allowed import base_of, objections
from challenge.claims import OPENED_GROUPS, TiedClaim
from challenge.task import TaskDescription, describe
from challenge.verdict import ExitCode, Verdict
from pol.encoding import to_hex
from pol.errors import CannotRun
from pol.proof import Proof
from pol.state import Tensors
from pol.store import BlobStore
from pol.submission import Submission
from pol.tensors import tensors_digest
from pol.transcript import Stop
from watermark import opening_groups


def check_run_on_chain(proof: Proof, chain: ArenaClient, verdict: Verdict, store: BlobStore | None = None) -> None:
    """Compare the whole proof with the registration, the beacons, the anchors and the task it names.

    A difference is a finding with exit code 13, or 10 where the spec is not one the task allows. The task's lists are
    fetched from ``store``; if they are needed and not to be had, whether it allows the spec is undecided.
    """
    task = proof.spec.task
    assert task is not None
    here = (chain.deployment.chain_id, bytes.fromhex(chain.deployment.arena.removeprefix("0x")))
    if here != (task.chain_id, task.arena):
        verdict.reject(ExitCode.ANCHOR, f"the proof is of chain {task.chain_id}, arena {to_hex(task.arena)}")
        return
    run_id = run_of(proof, chain)
    if run_id is None:
        trainer = to_checksum_address(proof.spec.trainer)
        verdict.reject(ExitCode.ANCHOR, f"{trainer} has registered no run in task {task.task_id}")
        return
    problems = _run_problems(proof, read_run(chain, run_id))
    for problem in problems:
        verdict.reject(ExitCode.ANCHOR, problem)
    if not problems:
        blocks = f"blocks {proof.anchors[0].block} to {proof.anchors[-1].block}"
        verdict.checks.append(("anchors", f"{len(proof.anchors)} anchors in {blocks}, all on chain"))
        if proof.stopped:
            verdict.checks.append(("early stop", f"declared on chain: {_described(proof.stopped)}"))
    _check_allowed(proof, task.task_id, chain, verdict, store)
    verdict.anchors_checked = True


def check_claim_on_chain(
    tied: TiedClaim, proof: Proof, mark: Submission | None, chain: ArenaClient, verdict: Verdict
) -> bool:
    """Whether a claim was promised in time and opens what its beacon drew; if not, a note says why it is ignored.

    It speaks against the model ``mark`` of another trainer's proof only if its own submission was committed earlier.
    """
    task = proof.spec.task
    reason = "the proof names no task" if task is None else _claim_problem(tied, proof, mark, chain)
    if reason:
        verdict.note(f"claim of key {to_hex(tied.claim.key_root)[:14]}… ignored: {reason}")
    return reason is None


def run_of(proof: Proof, chain: ArenaClient) -> int | None:
    """The id of the run that the proof is of: of its trainer's in its task, the one that agrees with most of it.

    ``None`` if the proof names no task, or the trainer registered no run there.
    """

    def agreement(run_id: int) -> tuple[bool, bool, bool]:
        run = chain.arena.run(run_id)
        seeded = (run.beacon.value, run.beacon.block) == (proof.seed_source.value, proof.seed_source.block)
        return run.spec_digest == proof.spec.digest, seeded, run.transcript_digest == proof.transcript_digest

    task = proof.spec.task
    runs = chain.arena.runs_of(task.task_id, to_checksum_address(proof.spec.trainer)) if task else ()
    return max(runs, key=agreement, default=None)


def claimed_run(tied: TiedClaim, task_id: int, chain: ArenaClient) -> int | None:
    """The run of the task that was registered with the claim's key and spec; of several, that of its mark."""
    trainer = to_checksum_address(tied.spec.trainer)
    runs = {run_id: chain.arena.run(run_id) for run_id in chain.arena.runs_of(task_id, trainer)}
    promised = (tied.spec.digest, tied.claim.key_root)
    own = [run_id for run_id, run in runs.items() if (run.spec_digest, run.key_root) == promised]
    return max(own, key=lambda run_id: runs[run_id].mark.value == tied.claim.beta, default=None)


def committed_model(tied: TiedClaim, proof: Proof, chain: ArenaClient) -> Tensors | None:
    """The claim's ``model``, if it is the one that its trainer committed and revealed in the proof's task."""
    if tied.model is None or proof.spec.task is None:
        return None
    run_id, digest = claimed_run(tied, proof.spec.task.task_id, chain), tensors_digest(tied.model)
    submissions = () if run_id is None else read_run(chain, run_id).submissions
    return tied.model if digest in {submission.model_digest for submission in submissions} else None


def suspects_of(proof: Proof, chain: ArenaClient) -> int:
    """How many models of the task a claim may be tested on in all: the union bound counts them."""
    if proof.spec.task is None:
        return max(1, len(proof.submissions))
    task = proof.spec.task.task_id
    return len(chain.vault.operators(task, Role.TRAINER)) * chain.arena.task_config(task).clock.rounds


def _run_problems(proof: Proof, run: ChainRun) -> list[str]:
    seed, mark, promise = proof.seed_source, proof.submission, proof.spec.watermark
    problems = []
    if run.spec_digest != proof.spec.digest:
        return ["the spec is not the one registered on chain"]
    if run.key_root != (promise.key_root if promise else bytes(32)):
        problems.append("the watermark key root is not the one registered on chain")
    if run.base_digest != base_of(proof.spec.config):
        problems.append("the base model that the config pins is not the one that the run was registered with")
    if (run.beacon.value, run.beacon.block) != (seed.value, seed.block):
        problems.append("the seed's beacon is not the one latched on chain")
    if run.anchors != proof.anchors or run.transcript_digest != proof.transcript_digest:
        problems.append("the anchors are not those on chain")
    if run.stopped != proof.stopped:
        mine, theirs = _described(proof.stopped), _described(run.stopped)
        problems.append(f"the early stop is not what was declared on chain (proof: {mine}; chain: {theirs})")
    reference = proof.reference
    if mark and mark.beta is not None and reference is not None:
        if (run.reference_segment, run.reference_digest) != (reference, proof.segments[reference].end_digest):
            problems.append("theta_ref, or else the first branch, is not where the reference was anchored")
        if (run.mark.value, run.mark.block) != (mark.beta, mark.beta_block):
            problems.append("the watermark's beacon is not the one latched on chain")
    if mark and mark.beta is None and run.mark.latched:
        problems.append("the run drew a watermark's beacon, but the proof embeds no watermark")
    if mark is None and run.submissions:
        problems.append("the proof shows no model, but the run committed one: only half of it was served")
    if mark and not run.submissions:
        problems.append("the proof shows a model, but the run committed none")
    return problems + (_left_out(proof, run.submissions) if mark else [])


def _left_out(proof: Proof, submissions: Iterable[SubmittedModel]) -> list[str]:
    """What the run showed on chain, so that it could be paid for it, and the proof does not have.

    The proof may have more: what was never shown speaks for nobody, and is checked like the rest.
    """
    held = {(mark.reference_segment, mark.model_digest) for mark in proof.submissions}
    return [
        f"the model that the run showed in round {shown.round} is not in the proof, or has another branch there"
        for shown in submissions
        if shown.model_digest is not None and not shown.struck and (shown.branch, shown.model_digest) not in held
    ]


def _described(stop: Stop | None) -> str:
    if stop is None:
        return "none"
    return f"after {stop.segments} segments, in block {stop.block} by {to_hex(stop.tx)[:14]}…"


def _check_allowed(proof: Proof, task_id: int, chain: ArenaClient, verdict: Verdict, store: BlobStore | None) -> None:
    def described() -> TaskDescription:
        if store is None:
            raise CannotRun("no store was named; give --store")
        return describe(chain, task_id, store)

    found = objections(proof.spec, chain.arena.task_config(task_id).work, described)
    for problem in found.forbidden:
        verdict.reject(ExitCode.MALFORMED, f"spec: {problem}")
    verdict.undecided.extend(f"spec: {reason}" for reason in found.unknown)


def _claim_problem(tied: TiedClaim, proof: Proof, mark: Submission | None, chain: ArenaClient) -> str | None:
    assert proof.spec.task is not None
    task_id, claim = proof.spec.task.task_id, tied.claim
    claimed = claimed_run(tied, task_id, chain)
    if claimed is None:
        return "its trainer registered no run of this task with its key and spec"
    run = chain.arena.run(claimed)
    if run.mark.value != claim.beta or run.reference_digest != tied.reference_digest:
        return "its beacon or its reference state is not the one anchored on chain"
    beacon = chain.scoring.opening_beacon(task_id)
    if not beacon.latched:
        return "the task's opening beacon is not drawn yet"
    count = min(OPENED_GROUPS, claim.parameters.groups)
    if claim.groups != opening_groups(beacon.value, claim.key_root, claim.parameters.groups, count):
        return "it does not open the groups the task's beacon drew"
    if not run.first_order or 0 < _order(proof, mark, chain) < run.first_order:
        return "its own submission was committed later than this one"
    return None


def _order(proof: Proof, mark: Submission | None, chain: ArenaClient) -> int:
    """The commit order of the proof's submission ``mark``; 0 while it is not revealed."""
    run_id = run_of(proof, chain)
    if run_id is None or mark is None:
        return 0
    submissions = read_run(chain, run_id).submissions
    return next((shown.order for shown in submissions if shown.model_digest == mark.model_digest), 0)
