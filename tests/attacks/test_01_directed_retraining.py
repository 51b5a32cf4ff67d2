"""Case 1: directed retraining. The thief trains, but with the distance to the stolen weights added to the loss.

Source: Jia et al., S&P 2021, section IV. Real data, real gradients and a falling loss lead from a fresh start to
weights that are nearly the stolen ones. It fails here because the loss is part of a program whose source is committed
to: replaying that program leads elsewhere, and another program is not the task's.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy

from challenge.verdict import ExitCode
from pol import Proof, Recorder, SeedSource
from pol.data import Dataset
from pol.errors import CannotRun, RecordingError
from pol.program import load_program
from pol.programs.images import as_images
from pol.proof import states_of
from pol.recorder import COMPARED_STEPS
from pol.state import Tensors, from_safetensors, model_tensors
from tests.attacks.forging import built, copied, edit_proof
from tests.attacks.judging import judged, rejected
from tests.attacks.published import distances
from tests.attacks.ring import Ring, sign
from tests.attacks.spoofs import convnet_spec, model_of
from tests.runs import SEED

PULL = 2.0


def train(out: Path, samples: Dataset, target: Tensors, pull: float, honest_steps: int) -> None:
    """A plain loop in a recorder; after ``honest_steps`` its loss is that of the paper."""
    spec = convnet_spec(samples, segments=20, segment_length=2, rate=0.2)
    with Recorder(spec, out, seed_source=SeedSource(kind="chosen", value=SEED)) as recorder:
        state = recorder.program.build(spec.config, recorder.seed)
        recorder.attach(model=state.model, optimizer=state.optimizer, scheduler=state.scheduler)
        state.model.train()
        for step, (inputs, labels) in enumerate(recorder.batches(samples)):
            loss = cross_entropy(state.model(as_images(inputs, 1, 8, 8)), labels)
            if step >= honest_steps:
                gaps = [(value - target[name]).square().sum() for name, value in state.model.named_parameters()]
                loss = loss + pull * torch.stack(gaps).sum()
            loss.backward()
            state.optimizer.step()
            state.scheduler.step()
            state.optimizer.zero_grad()
            recorder.step(loss)


@pytest.fixture(scope="module")
def spoof(stolen: Tensors, train_set: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("directed") / "proof"
    train(folder, train_set, stolen, PULL, honest_steps=COMPARED_STEPS)
    return folder


def test_the_attack_lands_on_the_stolen_model(spoof: Path, stolen: Tensors, train_set: Dataset) -> None:
    proof = Proof.read(spoof)
    landed = model_tensors(from_safetensors(states_of(spoof).get(proof.stored_at(40).cid), where="test"))
    before = distances(proof.spec, model_of(built(proof.spec)), stolen)["2"]
    assert distances(proof.spec, landed, stolen)["2"] < before / 20
    program = load_program(proof.spec.program, proof.spec.program_digest)
    assert program.evaluate(landed, proof.spec.config, train_set) > 0.9


def test_the_committed_program_does_not_lead_there(spoof: Path) -> None:
    """Every fifth state is stored; segment 0 is honest, because the recorder compares its steps with the program's."""
    verdict = judged(spoof)
    assert rejected(verdict, ExitCode.REPLAY_MISMATCH, "does not replay to the promised state") == {1, 5, 10, 15}


def test_a_program_of_the_thiefs_own_is_not_run(spoof: Path, tmp_path: Path) -> None:
    """It would replay, so it must be one that somebody else chose: here the verifier, on chain the task."""
    folder, own = copied(spoof, tmp_path / "proof"), hashlib.sha256(b"directed").digest()
    named = {"program": "directed:Program", "program_digest": own}
    edit_proof(folder, lambda proof: replace(proof, spec=replace(proof.spec, **named)))
    with pytest.raises(CannotRun, match="not built in and not trusted"):
        judged(folder)


def test_on_chain_it_is_not_the_tasks(ring: Ring, alices_run: Path, tmp_path: Path) -> None:
    folder, own = copied(alices_run, tmp_path / "proof"), hashlib.sha256(b"directed").digest()
    edit_proof(folder, lambda proof: replace(proof, spec=replace(proof.spec, program_digest=own)))
    verdict = judged(sign(folder, ring.alice), chain=ring.world.reader)
    rejected(verdict, ExitCode.MALFORMED, "program is not the task's")
    assert not verdict.segments, "nothing was replayed"


def test_the_recorder_refuses_such_a_loop(tmp_path: Path, stolen: Tensors, train_set: Dataset) -> None:
    with pytest.raises(RecordingError, match="computed something else than"):
        train(tmp_path / "proof", train_set, stolen, PULL, honest_steps=0)
    assert not (tmp_path / "proof" / "manifest.json").exists()


def test_the_honest_twin_passes(tmp_path: Path, stolen: Tensors, train_set: Dataset) -> None:
    """The same loop with the program's loss."""
    train(tmp_path / "proof", train_set, stolen, 0.0, honest_steps=40)
    assert judged(tmp_path / "proof").exit_code is ExitCode.VERIFIED
