"""What only the chain knows of a proof and of a claim: when things were promised, and which beacons followed."""

from __future__ import annotations

from eth_utils.address import to_checksum_address

from chain.anchoring import ChainRun, read_run
from chain.client import ArenaClient
from chain.types import Role
from challenge.claims import OPENED_GROUPS, TiedClaim
from challenge.verdict import ExitCode, Verdict
from pol.encoding import to_hex
from pol.machine import MachineClass
from pol.proof import Proof
from pol.state import Tensors
from pol.tensors import tensors_digest
from pol.transcript import Stop
from watermark import opening_groups

ANY_CLASS = bytes(32)


def check_run_on_chain(proof: Proof, chain: ArenaClient, verdict: Verdict) -> None:
    """Compare the whole proof with the registration, the beacons, the anchors and the task it names.

    A difference is a finding with exit code 13, or 10 where the spec is not one the task allows.
    """
    task = proof.spec.task
    assert task is not None
    here = (chain.deployment.chain_id, bytes.fromhex(chain.deployment.arena.removeprefix("0x")))
    if here != (task.chain_id, task.arena):
        verdict.reject(ExitCode.ANCHOR, f"the proof is of chain {task.chain_id}, arena {to_hex(task.arena)}")
        return
    trainer = to_checksum_address(proof.spec.trainer)
    if not chain.arena.run(task.task_id, trainer).registered:
        verdict.reject(ExitCode.ANCHOR, f"{trainer} has registered no run in task {task.task_id}")
        return
    problems = _run_problems(proof, read_run(chain, task.task_id, trainer))
    for problem in problems:
        verdict.reject(ExitCode.ANCHOR, problem)
    if not problems:
        blocks = f"blocks {proof.anchors[0].block} to {proof.anchors[-1].block}"
        verdict.checks.append(("anchors", f"{len(proof.anchors)} anchors in {blocks}, all on chain"))
        if proof.stopped:
            verdict.checks.append(("early stop", f"declared on chain: {_described(proof.stopped)}"))
    for problem in _task_problems(proof, chain):
        verdict.reject(ExitCode.MALFORMED, problem)
    verdict.anchors_checked = True


def check_claim_on_chain(tied: TiedClaim, proof: Proof, chain: ArenaClient, verdict: Verdict) -> bool:
    """Whether a claim was promised in time and opens what its beacon drew; if not, a note says why it is ignored.

    A claim speaks against another trainer's proof only if its own submission was committed earlier.
    """
    task = proof.spec.task
    reason = "the proof names no task" if task is None else _claim_problem(tied, proof, chain)
    if reason:
        verdict.limits.append(f"claim of key {to_hex(tied.claim.key_root)[:14]}… ignored: {reason}")
    return reason is None


def committed_model(tied: TiedClaim, proof: Proof, chain: ArenaClient) -> Tensors | None:
    """The claim's ``model``, if it is the one that its trainer committed and revealed in the proof's task."""
    if tied.model is None or proof.spec.task is None:
        return None
    run = chain.arena.run(proof.spec.task.task_id, to_checksum_address(tied.spec.trainer))
    return tied.model if run.revealed and run.model_digest == tensors_digest(tied.model) else None


def suspects_of(proof: Proof, chain: ArenaClient) -> int:
    """How many models of the task a claim may be tested on in all: the union bound counts them."""
    return len(chain.vault.operators(proof.spec.task.task_id, Role.TRAINER)) if proof.spec.task else 1


def _run_problems(proof: Proof, run: ChainRun) -> list[str]:
    seed, mark, promise = proof.seed_source, proof.submission, proof.spec.watermark
    problems = []
    if run.spec_digest != proof.spec.digest:
        return ["the spec is not the one registered on chain"]
    if run.key_root != (promise.key_root if promise else bytes(32)):
        problems.append("the watermark key root is not the one registered on chain")
    if (run.beacon.value, run.beacon.block) != (seed.value, seed.block):
        problems.append("the seed's beacon is not the one latched on chain")
    if run.anchors != proof.anchors or run.transcript_digest != proof.transcript_digest:
        problems.append("the anchors are not those on chain")
    if run.stopped != proof.stopped:
        mine, theirs = _described(proof.stopped), _described(run.stopped)
        problems.append(f"the early stop is not what was declared on chain (proof: {mine}; chain: {theirs})")
    if mark and mark.beta is not None:
        boundary = proof.segments[mark.reference_segment].end_digest
        if (run.reference_segment, run.reference_digest) != (mark.reference_segment, boundary):
            problems.append("the branch does not leave the trunk where the reference was anchored")
        if (run.mark.value, run.mark.block) != (mark.beta, mark.beta_block):
            problems.append("the watermark's beacon is not the one latched on chain")
    if mark and mark.beta is None and run.mark.latched:
        problems.append("the run drew a watermark's beacon, but the proof embeds no watermark")
    if mark is None and run.submission is not None:
        problems.append("the proof shows no model, but the run committed one: only half of it was served")
    if mark and (run.submission is None or run.submission.model_digest not in (None, mark.model_digest)):
        problems.append("the submitted model is not the one committed on chain")
    return problems


def _described(stop: Stop | None) -> str:
    if stop is None:
        return "none"
    return f"after {stop.segments} segments, in block {stop.block} by {to_hex(stop.tx)[:14]}…"


def _task_problems(proof: Proof, chain: ArenaClient) -> list[str]:
    spec = proof.spec
    assert spec.task is not None
    terms = chain.arena.task_config(spec.task.task_id)
    promised = {
        "program": (spec.program_digest, terms.program_digest),
        "training data": (spec.dataset_root, terms.train_root),
        "number of steps": (spec.steps, terms.steps),
        "segment length": (spec.segment_length, terms.segment_length),
    }
    problems = [f"spec: {name} is not the task's" for name, (mine, theirs) in promised.items() if mine != theirs]
    machine = MachineClass.from_json(spec.machine, where="spec.machine")
    if terms.machine_class not in (ANY_CLASS, machine.digest):
        problems.append("spec: the machine class is not one the task accepts")
    return problems


def _claim_problem(tied: TiedClaim, proof: Proof, chain: ArenaClient) -> str | None:
    assert proof.spec.task is not None
    task_id, claim = proof.spec.task.task_id, tied.claim
    run = chain.arena.run(task_id, to_checksum_address(tied.spec.trainer))
    if (run.spec_digest, run.key_root) != (tied.spec.digest, claim.key_root):
        return "its trainer registered no run of this task with its key and spec"
    if run.mark.value != claim.beta or run.reference_digest != tied.reference_digest:
        return "its beacon or its reference state is not the one anchored on chain"
    beacon = chain.arena.opening_beacon(task_id)
    if not beacon.latched:
        return "the task's opening beacon is not drawn yet"
    count = min(OPENED_GROUPS, claim.parameters.groups)
    if claim.groups != opening_groups(beacon.value, claim.key_root, claim.parameters.groups, count):
        return "it does not open the groups the task's beacon drew"
    mine = chain.arena.run(task_id, to_checksum_address(proof.spec.trainer))
    if not run.commit_order or 0 < mine.commit_order < run.commit_order:
        return "its own submission was committed later than this one"
    return None
