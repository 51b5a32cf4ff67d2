"""A mark that is too much for so short a training: its trainer is told in time, and nobody is convicted.

An honest mark and what hides in the rows of a mark look alike until the whole key is shown. Then the mark replays.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from challenge.branch import check_branch
from challenge.claims import TiedClaim
from challenge.segments import Policy
from challenge.states import load_blob
from challenge.verdict import ExitCode, Outcome, Verdict
from pol import Proof, Submission
from pol.cid import cid_of
from pol.data import Dataset
from pol.errors import ProofError, SpecError
from pol.program import load_program
from pol.spec import WatermarkPromise
from pol.state import Tensors, model_tensors, to_safetensors
from pol.tensors import tensors_digest
from tests.runs import record, small_spec
from watermark import Claim, MarkParameters, WatermarkKey, embed, mark_run, mlp_mark
from watermark.trial import require_bearable

BETA = bytes(range(32))
CARRIER = "layers.1.weight"
LIGHT = mlp_mark(CARRIER, groups=4, rows=16, leaves=16, margin=0.5)
HEAVY = mlp_mark(CARRIER, groups=16, rows=16, leaves=16, margin=3.0)
SEGMENT = 1


def recorded(dataset: Dataset, folder: Path, parameters: MarkParameters) -> Path:
    promise = WatermarkPromise(key_root=key_of(parameters).root, parameters=parameters.to_json())
    spec = small_spec(dataset, steps=20, segment_length=10, width=256, batch_norm=False)
    record(replace(spec, watermark=promise), dataset, folder)
    return folder


def key_of(parameters: MarkParameters) -> WatermarkKey:
    return WatermarkKey(b"the owner's secret, 32 bytes ...", parameters.leaf_count)


@pytest.fixture(scope="module")
def light(train_set: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return recorded(train_set, tmp_path_factory.mktemp("short") / "light", LIGHT)


@pytest.fixture(scope="module")
def heavy(train_set: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return recorded(train_set, tmp_path_factory.mktemp("short") / "heavy", HEAVY)


def reference(run: Path) -> Tensors:
    proof = Proof.read(run)
    return load_blob(run, proof.stored_at(proof.spec.steps).cid)


def marked(run: Path) -> Tensors:
    """What a trainer gets who works around :func:`watermark.mark_run`."""
    return embed(model_tensors(reference(run)), key_of(HEAVY), BETA, HEAVY)


def judged(run: Path, model: Tensors, opened: int, parameters: MarkParameters = HEAVY) -> Verdict:
    """The verdict on ``model`` as the run's branch, with that many groups of the key opened by its trainer."""
    digest, cid = tensors_digest(model), cid_of(to_safetensors(model))
    submission = Submission(model_digest=digest, model_cid=cid, reference_segment=SEGMENT, beta=BETA)
    proof, verdict = replace(Proof.read(run), submission=submission), Verdict()
    claim = Claim.make(key_of(parameters), BETA, parameters, range(opened), model_tensors(reference(run)))
    own = [TiedClaim(claim, proof.spec, proof.segments[SEGMENT].end_digest)] if opened else []
    program = load_program(proof.spec.program, proof.spec.program_digest)
    initial = program.build(proof.spec.config, proof.seed).capture(proof.seed)
    check_branch(run, proof, submission, model, initial, own, Policy(), verdict)
    return verdict


def test_a_light_mark_is_put_in_and_verifies(light: Path) -> None:
    assert judged(light, mark_run(light, SEGMENT, key_of(LIGHT), BETA), 0, LIGHT).outcome is Outcome.VERIFIED


def test_the_trainer_is_told_before_anything_is_committed(heavy: Path) -> None:
    with pytest.raises(SpecError, match=r"too strong for so short a training.*submitted unmarked"):
        mark_run(heavy, SEGMENT, key_of(HEAVY), BETA)


def test_or_before_it_promises_anything(train_set: Dataset) -> None:
    """A trial of the same training; a longer one may bear the mark, and one that is trained in has no such bound."""
    spec = small_spec(train_set, steps=20, segment_length=10, width=256, batch_norm=False)
    program = load_program(spec.program, spec.program_digest)
    require_bearable(spec, program, train_set, LIGHT)
    require_bearable(replace(spec, steps=10_000), program, train_set, HEAVY)
    require_bearable(spec, program, train_set, replace(HEAVY, branch_steps=5))
    with pytest.raises(SpecError, match=r"too strong for so short a training.*trial of 20 steps"):
        require_bearable(spec, program, train_set, HEAVY)


def test_only_the_promised_key_and_a_stored_state_will_do(light: Path) -> None:
    with pytest.raises(SpecError, match="does not promise"):
        mark_run(light, SEGMENT, WatermarkKey(bytes(32), LIGHT.leaf_count), BETA)
    with pytest.raises(ProofError, match="no state is stored"):
        mark_run(light, 0, key_of(LIGHT), BETA)


@pytest.mark.parametrize("opened", [0, HEAVY.groups - 1])
def test_an_honest_mark_that_went_too_far_convicts_nobody(heavy: Path, opened: int) -> None:
    verdict = judged(heavy, marked(heavy), opened)
    assert (verdict.outcome, verdict.findings) == (Outcome.INCONCLUSIVE, [])
    assert "moved by" in verdict.undecided[0] and "with the whole key" in verdict.undecided[0]


def test_with_the_whole_key_it_verifies(heavy: Path) -> None:
    assert judged(heavy, marked(heavy), HEAVY.groups).outcome is Outcome.VERIFIED


def tampered(run: Path) -> Tensors:
    """The last group's rows hide something else."""
    model = marked(run)
    model[CARRIER][-16:] *= 4
    return model


def test_what_is_hidden_in_closed_groups_never_passes(heavy: Path) -> None:
    for opened in (0, HEAVY.groups - 1):
        assert judged(heavy, tampered(heavy), opened).outcome is Outcome.INCONCLUSIVE
    verdict = judged(heavy, tampered(heavy), HEAVY.groups)
    assert verdict.exit_code is ExitCode.REPLAY_MISMATCH and "does not replay" in verdict.findings[0].message
