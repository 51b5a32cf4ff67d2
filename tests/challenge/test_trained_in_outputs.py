"""A mark in outputs that was trained in is part of the recorded run: with the whole key its branch replays."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from challenge.claims import TiedClaim
from challenge.court import probes_of
from challenge.segments import Policy
from challenge.states import load_blob
from challenge.verdict import ExitCode, Outcome
from challenge.verify import verify
from pol import Proof, Submission, seal
from pol.cid import cid_of
from pol.data import Dataset
from pol.errors import SpecError
from pol.program import config_from, load_program, program_digest
from pol.spec import TrainingSpec, WatermarkPromise
from pol.state import Tensors, TrainingState, model_tensors, to_safetensors
from pol.tensors import tensors_digest
from tests.challenge.test_trained_in import Remembering
from tests.runs import SEED, record, small_spec
from watermark import Claim, Evidence, MarkParameters, WatermarkKey
from watermark.branch import Marking
from watermark.branch_replay import mark_run
from watermark.outputs import OutputMark, output_matches, translator
from watermark.outputs.embed import OutputLoss
from watermark.outputs.extractor import public_extractor
from watermark.outputs.training import degraded, scenes

BETA = bytes(range(32))
IMAGES, SIZE, SEGMENT, STEPS = 160, 24, 1, 30
PROGRAM = "pol.programs.image_to_image:ImageToImage"
MARK = OutputMark(groups=16, leaves=8, strength=0.125)
PARAMETERS = MarkParameters(outputs=MARK, branch_steps=STEPS)
KEY = WatermarkKey(b"the owner's secret, 32 bytes ...", PARAMETERS.leaf_count)


@pytest.fixture(scope="module")
def pictures() -> Dataset:
    """Blurred images, as bytes, and the clean ones."""
    torch.manual_seed(0)
    clean = scenes(IMAGES, SIZE)
    return Dataset((degraded(clean).clamp(0, 1) * 255).to(torch.uint8), clean)


@pytest.fixture(scope="module")
def blob(pictures: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pictures") / "pictures"
    path.write_bytes(pictures.to_bytes())
    return path


def picture_spec(pictures: Dataset) -> TrainingSpec:
    config = dict(
        inputs=1, outputs=1, height=SIZE, width=SIZE, filters=8, blocks=2, loss="l2", steps=80, learning_rate=4e-3,
        weight_decay=0.0,
    )  # fmt: skip
    return replace(
        small_spec(pictures, steps=40, segment_length=20), program=PROGRAM, program_digest=program_digest(PROGRAM),
        config=config_from(config), dataset="pictures",
        watermark=WatermarkPromise(key_root=KEY.root, parameters=PARAMETERS.to_json()),
    )  # fmt: skip


@pytest.fixture(scope="module")
def run(pictures: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("outputs") / "run"
    record(picture_spec(pictures), pictures, folder)
    return folder


@pytest.fixture(scope="module")
def marked(run: Path, blob: Path) -> Tensors:
    """The honest trainer's model."""
    return mark_run(run, SEGMENT, KEY, BETA, dataset=blob)


def theta_ref(run: Path) -> Tensors:
    proof = Proof.read(run)
    return model_tensors(load_blob(run, proof.stored_at(proof.spec.bounds(SEGMENT)[1]).cid))


def judged(run: Path, model: Tensors, folder: Path) -> TiedClaim:
    """A copy of the run in ``folder``, with ``model`` submitted as its branch, and the trainer's own whole claim."""
    shutil.copytree(run, folder)
    data = to_safetensors(model)
    submission = Submission(
        model_digest=tensors_digest(model), model_cid=cid_of(data), reference_segment=SEGMENT, beta=BETA
    )
    seal(folder, submission, data, None)
    proof = Proof.read(folder)
    claim = Claim.make(KEY, BETA, PARAMETERS, list(range(MARK.groups)), theta_ref(run))
    return TiedClaim(claim, proof.spec, proof.segments[SEGMENT].end_digest)


def matches(run: Path, blob: Path, model: Tensors) -> Evidence:
    probes = probes_of(Proof.read(run).spec, blob, bytes(32))
    assert probes
    before, after = (translator(state, where="test") for state in (theta_ref(run), model))
    found = output_matches(after, before, probes(KEY.root, MARK), KEY.leaves, BETA, KEY.root, MARK)
    return Evidence(found, MARK.leaf_count)


def test_the_branch_replays_and_any_other_model_does_not(
    run: Path, blob: Path, marked: Tensors, tmp_path: Path
) -> None:
    policy = Policy(segments=[0], dataset=blob, executor=Remembering())
    verdict = verify(tmp_path / "honest", policy, claims=[judged(run, marked, tmp_path / "honest")])
    assert verdict.outcome is Outcome.VERIFIED, (verdict.findings, verdict.undecided)
    assert f"{STEPS} steps with the whole key replay" in dict(verdict.checks)["branch"]
    nudged = marked | {"tail.bias": torch.nextafter(marked["tail.bias"], torch.tensor(2.0))}
    for number, cheat in enumerate((nudged, theta_ref(run))):
        folder = tmp_path / f"cheat {number}"
        verdict = verify(folder, policy, claims=[judged(run, cheat, folder)])
        assert verdict.exit_code is ExitCode.REPLAY_MISMATCH


def test_the_branch_writes_bits_and_the_trunk_has_none(run: Path, blob: Path, marked: Tensors) -> None:
    """So short a branch writes some of them: of innocents, fewer than one in 250 has as many."""
    assert matches(run, blob, marked).log2_p < -8
    assert matches(run, blob, theta_ref(run)).matches == 0, "nothing was changed, so nothing can be read"


def test_a_model_that_gives_no_images_is_refused(train_set: Dataset) -> None:
    spec = small_spec(train_set)
    state: TrainingState = load_program(spec.program, spec.program_digest).build(spec.config, SEED)
    marking = Marking(state, KEY, BETA, PARAMETERS)
    batch = train_set.batch(range(4))
    with marking.watching(state.model):
        state.model(batch[0].flatten(1).float())
        with pytest.raises(SpecError, match="are not 4 images"):
            marking.push(state.model, batch)
    for call in (lambda: None, lambda: state.model(inputs=batch[0].flatten(1).float())):
        with marking.watching(state.model):
            call()
            with pytest.raises(SpecError, match="did not call its model with one tensor"):
                marking.push(state.model, batch)


def test_the_loss_draws_no_random_numbers(run: Path, pictures: Dataset) -> None:
    network = translator(theta_ref(run), where="test")
    images = pictures.batch(range(8))[1]
    public_extractor.cache_clear()
    before = torch.get_rng_state()
    loss = OutputLoss(network, KEY.leaves, BETA, KEY.root, MARK)
    assert float(loss(network, images)) == pytest.approx(1.0), "nothing is there yet, and nothing was changed"
    assert torch.equal(torch.get_rng_state(), before)
    assert float(loss(network, 8 * images)) == pytest.approx(1.0), "images beyond [0, 1] are not clipped on one side"


def test_exact_runs_are_told_that_their_outputs_cannot_be_marked(
    run: Path, blob: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TrainingSpec, "exact", True)
    with pytest.raises(SpecError, match="exact numerics"):
        mark_run(run, SEGMENT, KEY, BETA, dataset=blob)
