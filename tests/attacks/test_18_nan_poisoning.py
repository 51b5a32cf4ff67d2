"""Case 18: a NaN in whatever the verifier compares, because every comparison with NaN is false.

Source: found in the published verifier of Jia et al. 2021, which counts ``np.sum(distance > threshold)``: a distance of
NaN is not over the threshold, so one NaN in a checkpoint made the two segments beside it pass, whatever else they held.
Here no number of a proof reaches a comparison before it is known to be finite, and what is compared are digests.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from challenge.verdict import ExitCode, Verdict
from pol import Proof, Submission, seal
from pol.data import Dataset
from pol.errors import ProofError, RecordingError
from pol.proof import STATES, StoredState, states_of, write_openings
from pol.state import Tensors, from_safetensors, model_tensors, to_safetensors
from pol.tensors import DTYPES, check_values, tensors_digest
from tests.attacks.forging import built, copied, edit_boundary, edit_state, write_forgery
from tests.attacks.judging import judged, rejected
from tests.runs import record, small_spec

BAD = [float("nan"), float("inf"), -float("inf")]
POISONED = {
    "a weight": "model/layers.1.weight",
    "a bias": "model/layers.2.bias",
    "a buffer": "model/norms.0.running_var",
    "a first moment": "optimizer/0/exp_avg",
    "a second moment": "optimizer/3/exp_avg_sq",
    "a number without dimensions": "optimizer/2/step",
}


def poison(tensors: Tensors, name: str, bad: float) -> None:
    tensors[name].view(-1)[-1] = bad


def refused(folder: Path, name: str) -> None:
    verdict = judged(folder)
    rejected(verdict, ExitCode.MALFORMED, "NaN or infinity")
    assert name in verdict.findings[0].message
    assert not verdict.segments, "nothing was replayed"


def published_check(replayed: Tensors, claimed: Tensors, threshold: float) -> bool:
    """The comparison of the published verifier: how many distances are over the threshold?"""
    distances = [float(torch.linalg.vector_norm(replayed[name] - claimed[name])) for name in claimed]
    return int(np.sum(np.array(distances) > threshold)) == 0


def test_the_published_check_lets_it_through() -> None:
    honest = {"w": torch.zeros(1000)}
    stolen = {"w": torch.full((1000,), 7.0)}
    assert not published_check(honest, stolen, 10.0)
    poison(stolen, "w", float("nan"))
    assert published_check(honest, stolen, 10.0), "one NaN, and the stolen weights pass"


@pytest.mark.parametrize("name", POISONED.values(), ids=POISONED)
@pytest.mark.parametrize("bad", BAD)
def test_no_kind_of_tensor_of_a_state_may_hold_it(honest_run: Path, tmp_path: Path, name: str, bad: float) -> None:
    folder = copied(honest_run, tmp_path / "proof")
    edit_state(folder, 1, lambda tensors: poison(tensors, name, bad))
    refused(folder, name)


def test_every_tensor_of_floats_is_looked_at(honest_run: Path) -> None:
    """The kinds above are all there are: nothing else of a state is a floating-point number."""
    proof = Proof.read(honest_run)
    state = from_safetensors(states_of(honest_run).get(proof.states[0].cid), where="test")
    for name, value in state.items():
        if value.is_floating_point():
            bad = {**state, name: value.clone()}
            poison(bad, name, float("nan"))
            with pytest.raises(ProofError, match="NaN or infinity"):
                check_values(bad, where="test")
        else:
            assert name.startswith(("rng/", "scalars")) or name.endswith("num_batches_tracked")


def test_the_submitted_model_may_not_hold_it(honest_run: Path, tmp_path: Path) -> None:
    folder = copied(honest_run, tmp_path / "proof")
    proof = Proof.read(folder)
    model = model_tensors(from_safetensors(states_of(folder).get(proof.states[-1].cid), where="test"))
    poison(model, "layers.0.weight", float("nan"))
    blob = to_safetensors(model)
    cid = states_of(folder).put(blob)
    (folder / STATES / f"{cid}.safetensors").unlink()
    seal(folder, Submission(model_digest=tensors_digest(model), model_cid=cid, reference_segment=3), blob, None)
    refused(folder, "layers.0.weight")


def test_an_opened_state_may_not_hold_it(honest_run: Path, tmp_path: Path) -> None:
    folder = copied(honest_run, tmp_path / "proof")
    proof = Proof.read(folder)
    state = from_safetensors(states_of(folder).get(proof.states[0].cid), where="test")
    poison(state, "optimizer/0/exp_avg", float("inf"))
    edit_boundary(folder, 0, tensors_digest(state))
    write_openings(folder, [StoredState(step=10, cid=states_of(folder).put(to_safetensors(state)))])
    refused(folder, "optimizer/0/exp_avg")


@pytest.mark.parametrize("dtype", [dtype for dtype in DTYPES if dtype.is_floating_point], ids=str)
@pytest.mark.parametrize("shape", [(), (1,), (3, 5), (70_000,)], ids=str)
@pytest.mark.parametrize("bad", BAD)
def test_no_precision_and_no_shape_hides_it(dtype: torch.dtype, shape: tuple[int, ...], bad: float) -> None:
    """The honest twin is the largest, the smallest and the negative zero of the same precision."""
    limits = torch.finfo(dtype)
    for fine in (limits.max, limits.smallest_normal / 2, -0.0):
        check_values({"w": torch.full(shape, fine, dtype=dtype)}, where="test")
    value = torch.zeros(shape, dtype=dtype)
    value.view(-1)[-1] = bad
    with pytest.raises(ProofError, match="NaN or infinity"):
        check_values({"w": value}, where="test")


def test_every_spelling_of_nan_is_one() -> None:
    """Quiet or signalling, of either sign, whatever its payload."""
    for bits in (0x7FC00000, 0x7F800001, -0x400000, 0x7FFFFFFF):
        value = torch.tensor([bits], dtype=torch.int32).view(torch.float32)
        with pytest.raises(ProofError, match="NaN or infinity"):
            check_values({"w": value}, where="test")


def test_a_run_of_nothing_but_nan_is_refused(tmp_path: Path, train_set: Dataset) -> None:
    """Anything computed from NaN is NaN, so such a run would even replay bit for bit."""
    spec = small_spec(train_set, steps=2, segment_length=1)
    initial = built(spec).capture(bytes(32))
    nothing = {name: v * float("nan") if v.is_floating_point() else v for name, v in initial.items()}
    refused(write_forgery(tmp_path / "proof", spec, train_set, [initial, nothing, nothing]), "model/")


def test_a_trainer_hears_of_it_while_training(tmp_path: Path, train_set: Dataset) -> None:
    """Buffers and moments too: the loss may be finite and the state not."""

    def break_down(step: int, state, _batch: list[torch.Tensor]) -> None:
        if step == 5:
            dict(state.model.named_buffers())["norms.0.running_mean"][0] = float("inf")

    with pytest.raises(RecordingError, match="NaN or infinity"):
        record(small_spec(train_set), train_set, tmp_path / "proof", break_down)


def test_the_honest_twin_passes(honest_verdict: Verdict, honest_run: Path, tmp_path: Path) -> None:
    folder = copied(honest_run, tmp_path / "proof")
    edit_state(folder, 1, lambda tensors: None)
    assert replace(Proof.read(folder), states=()) == replace(Proof.read(honest_run), states=())
    assert honest_verdict.exit_code is ExitCode.VERIFIED
