"""From the trunk to the submitted model: nothing but the promised embedding may lie between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from challenge.claims import TiedClaim
from challenge.segments import WRONG_KERNELS, Policy, job_of, judge_difference
from challenge.states import load_blob
from challenge.verdict import ExitCode, Verdict
from pol.proof import Proof
from pol.state import Tensors, model_tensors
from pol.submission import Submission
from pol.tensors import tensors_digest
from watermark import MarkParameters, verify_embedding
from watermark.branch_replay import branch_of, replay_branch
from watermark.key import Leaf, OpenedKey
from watermark.weights.embed import moved_too_far
from watermark.weights.parameters import WeightMark


def check_branch(
    folder: Path,
    proof: Proof,
    mark: Submission,
    model: Tensors,
    initial: Tensors,
    own: Sequence[TiedClaim],
    policy: Policy,
    verdict: Verdict,
) -> None:
    """Compare ``model``, submitted as ``mark``, with the trunk's at the branch; ``own`` are the trainer's own claims.

    A mark that was trained in is replayed as ``policy`` says; :class:`CannotRun` if that is not possible here.
    """
    promise = proof.spec.watermark
    where = f"after segment {mark.reference_segment}"
    if promise is None or mark.beta is None:
        if promise:
            verdict.note("a watermark was promised, but none was embedded")
        if tensors_digest(model) != tensors_digest(reference_model(folder, proof, mark)):
            problem = f"the submitted model is not the trunk's model at the branch, {where}"
            verdict.reject(ExitCode.REPLAY_MISMATCH, problem)
        verdict.checks.append(("branch", f"the trunk's model {where}, no watermark"))
        return
    parameters = MarkParameters.from_json(promise.parameters, where="spec.watermark.parameters")
    if parameters.weights and not parameters.trained_in:
        reference = reference_model(folder, proof, mark)
        held = _embedded(proof, mark, parameters.weights, reference, model, model_tensors(initial), own, verdict)
    else:
        held = _trained_in(folder, proof, mark, parameters, own, policy, verdict)
    verdict.checks.append(("branch", f"{where}, {held}"))


def opens_all(tied: TiedClaim) -> bool:
    """Whether a claim opens its whole key, so that nobody chose what to open."""
    return len(tied.claim.leaves) == tied.claim.parameters.leaf_count


def reference_model(folder: Path, proof: Proof, mark: Submission) -> Tensors:
    """The trunk's model at the branch, unmarked."""
    return model_tensors(load_blob(folder, proof.stored_at(proof.spec.bounds(mark.reference_segment)[1]).cid))


def _embed(mark: Submission) -> str:
    return f"embed segment after segment {mark.reference_segment}"


def _trained_in(
    folder: Path,
    proof: Proof,
    mark: Submission,
    parameters: MarkParameters,
    own: Sequence[TiedClaim],
    policy: Policy,
    verdict: Verdict,
) -> str:
    """Replay the branch with the whole key, if it was opened; returns how the mark is held."""
    assert mark.beta is not None
    whole = next((tied.claim for tied in own if opens_all(tied)), None)
    if whole is None or not parameters.branch_steps:
        missing = "its number of steps was not promised" if whole else "which takes the whole key"
        verdict.undecided.append(
            f"the mark was trained in, and its {_embed(mark)} was not replayed: {missing}; "
            "what lies between the trunk and the submitted model stays open"
        )
        return "a mark that was trained in"
    leaves = sorted(whole.leaves, key=lambda leaf: leaf.index)
    key = OpenedKey(tuple(Leaf(leaf.index, leaf.seed, leaf.salt) for leaf in leaves))
    branch = branch_of(mark.reference_segment, key, mark.beta, parameters)
    problem: str | None = None
    for fused in (True, False) if proof.spec.exact else (True,):  # as in segments.replay_decided
        job = replace(job_of(proof, policy), branch=branch, fused=fused)
        result, marked = replay_branch(folder, proof, job, policy.executor.replay)
        problem = result.problem
        if problem is None and tensors_digest(marked) != mark.model_digest:
            problem = f"{branch.steps} steps with the promised mark do not replay to the submitted model"
        if problem is None:
            if not fused:
                verdict.note(WRONG_KERNELS)
            break
    for note in result.notes:
        verdict.note(note)
    if problem:
        judge_difference(proof, result, f"{_embed(mark)}: {problem}", None, verdict)
        return "a mark that was trained in, which did not replay here"
    return f"{branch.steps} steps with the whole key replay to the submitted model bit for bit"


def _embedded(
    proof: Proof,
    mark: Submission,
    weights: WeightMark,
    reference: Tensors,
    model: Tensors,
    initial: Tensors,
    own: Sequence[TiedClaim],
    verdict: Verdict,
) -> str:
    """Replay the opened groups of a mark in the weights alone, and hold the others by how far they moved.

    Too far convicts nobody: after a short training an honest mark goes there too. The whole key decides it, and then
    how far is no question. Returns how the mark is held.
    """
    assert proof.spec.watermark is not None and mark.beta is not None
    openings = {leaf.index: leaf for tied in own for leaf in tied.claim.leaves}
    findings = verify_embedding(
        reference,
        model,
        openings.values(),
        beta=mark.beta,
        key_root=proof.spec.watermark.key_root,
        leaf_count=weights.leaf_count,
        mark=weights,
    )
    for message in findings:
        verdict.reject(ExitCode.REPLAY_MISMATCH, f"{_embed(mark)}: {message}")
    if not findings and len(openings) < weights.leaf_count:
        verdict.undecided.extend(
            f"{_embed(mark)}: {message}: a mark may, after a short training, and so may what is no mark; "
            "with the whole key opened (sealed to the verifier) it replays or not"
            for message in moved_too_far(initial, reference, model, weights)
        )
    return f"{len(openings)} leaves opened" if openings else "no leaves opened: the carrier is held by its bound alone"
