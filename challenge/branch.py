"""From the trunk to the submitted model: nothing but the promised embedding may lie between them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from challenge.claims import TiedClaim
from challenge.states import load_blob
from challenge.verdict import ExitCode, Verdict
from pol.proof import Proof, Submission
from pol.state import Tensors, model_tensors
from pol.tensors import tensors_digest
from watermark import MarkParameters, verify_embedding
from watermark.weights.parameters import WeightMark

MAX_EMBED_CHANGE = 0.25
"""The verifier's own limit on an embed segment: each tensor it may change moves by at most this share of its way from
theta_0 to theta_ref (honest embeddings with the default parameters need 0.17 to 0.24)."""


def check_branch(
    folder: Path, proof: Proof, model: Tensors | None, initial: Tensors, own: Sequence[TiedClaim], verdict: Verdict
) -> None:
    """Compare the submitted ``model`` with the trunk's at the branch; ``own`` are the trainer's own claims."""
    mark, promise = proof.submission, proof.spec.watermark
    if mark is None or model is None:
        verdict.limits.append("no model was submitted: only the trunk was checked")
        return
    reference = model_tensors(load_blob(folder, proof.stored_at(proof.spec.bounds(mark.reference_segment)[1]).cid))
    where = f"after segment {mark.reference_segment}"
    if promise is None or mark.beta is None:
        if promise:
            verdict.limits.append("a watermark was promised, but none was embedded")
        if tensors_digest(model) != tensors_digest(reference):
            verdict.reject(ExitCode.REPLAY_MISMATCH, "the submitted model is not the trunk's model at the branch")
        verdict.checks.append(("branch", f"the trunk's model {where}, no watermark"))
        return
    parameters = MarkParameters.from_json(promise.parameters, where="spec.watermark.parameters")
    if parameters.weights and len(parameters.channels) == 1:
        findings, held = _embedded(proof, mark, parameters.weights, reference, model, initial, own)
    else:
        findings, held = [], "a mark that was trained in"
        verdict.undecided.append(
            "the mark was trained in, and its embed segment was not replayed, which takes the whole key: "
            "what lies between the trunk and the submitted model stays open"
        )
    for message in findings:
        verdict.reject(ExitCode.REPLAY_MISMATCH, f"embed segment: {message}")
    verdict.checks.append(("branch", f"{where}, {held}"))


def _embedded(
    proof: Proof,
    mark: Submission,
    weights: WeightMark,
    reference: Tensors,
    model: Tensors,
    initial: Tensors,
    own: Sequence[TiedClaim],
) -> tuple[list[str], str]:
    """What speaks against a mark in the weights alone, whose opened groups replay one by one; and how it is held."""
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
        theta_0=model_tensors(initial),
        bound=MAX_EMBED_CHANGE,
    )
    alone = "no leaves opened: the carrier is held by its bound alone"
    return findings, f"{len(openings)} leaves opened" if openings else alone
