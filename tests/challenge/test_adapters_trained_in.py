"""A mark trained into adapters: the pinned base is no part of what is marked, shaken or replayed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from challenge.claims import TiedClaim
from challenge.segments import Policy
from challenge.verdict import ExitCode
from challenge.verify import verify
from pol import Proof, Recorder, SeedSource, Submission, seal
from pol.cid import cid_of
from pol.order import DataOrder
from pol.programs.base_model import VARIABLE
from pol.spec import WatermarkPromise
from pol.state import Tensors, TrainingState, from_safetensors, model_tensors, to_safetensors
from pol.tensors import tensors_digest
from tests.pol.programs import BATCH, LICENCE, SEED, Case, case, tiny_base
from watermark import Claim, MarkParameters, WatermarkKey, detect
from watermark.branch import MarkedProgram, Marking, train_branch
from watermark.branch_replay import mark_run
from watermark.triggers import TriggerMark, Windows
from watermark.weights.parameters import Carrier, WeightMark

BETA = bytes(range(32))
TRUNK, STEPS, SEGMENT = 8, 6, 1
MODULES = [f"model.layers.{layer}.mlp.{side}_proj" for layer in range(2) for side in ("gate", "up")]
CARRIERS = tuple(Carrier(f"base_model.model.{name}.lora_B.default.weight", 4, 8, 2.0) for name in MODULES)
WEIGHTS = MarkParameters(WeightMark("lora", CARRIERS, 6), branch_steps=STEPS)
BOTH = replace(WEIGHTS, triggers=TriggerMark(Windows(128, 16), classes=10, groups=2, leaves=8))


@pytest.fixture(scope="module", autouse=True)
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, "")
        tiny_base(tmp_path_factory.mktemp("models"))
        yield


def key_of(parameters: MarkParameters) -> WatermarkKey:
    return WatermarkKey(b"the owner's secret, 32 bytes ...", parameters.leaf_count)


def adapters() -> Case:
    return case("lora/tiny-llama").but(targets=["gate_proj", "up_proj"], rank=8, alpha=16)


def branched(trunk: Tensors, parameters: MarkParameters) -> TrainingState:
    """The branch of ``trunk`` (a captured state), taken in this process."""
    chosen, end = adapters(), TRUNK + STEPS
    state, order = chosen.build(), DataOrder(SEED, len(chosen.samples), BATCH)
    state.restore(trunk, layout=trunk, seed=SEED, step=TRUNK)
    program = MarkedProgram(chosen.program, Marking(state, key_of(parameters), BETA, parameters), end)
    train_branch(program, state, [chosen.samples.batch(order.batch(step)) for step in range(TRUNK, end)], SEED)
    return state


@pytest.mark.parametrize("parameters", [WEIGHTS, BOTH], ids=["weights", "weights and triggers"])
def test_the_branch_marks_the_adapters_alone_and_repeats_to_the_bit(parameters: MarkParameters) -> None:
    trunk = adapters().train(adapters().build(), TRUNK).capture(SEED)
    first, again = (branched(trunk, parameters).capture(SEED) for _ in range(2))
    assert tensors_digest(first) == tensors_digest(again) != tensors_digest(trunk)
    assert torch.equal(first["pinned"], trunk["pinned"]), "the base is as it was"
    claim = Claim.make(key_of(WEIGHTS), BETA, WEIGHTS, range(WEIGHTS.groups), model_tensors(trunk))
    if parameters is WEIGHTS:
        plain = adapters().train(adapters().build(), TRUNK + STEPS).capture(SEED)
        found = [detect(model_tensors(state), [claim])[0].accepted for state in (first, plain)]
        assert found == [True, False]


@pytest.mark.slow
def test_an_honest_branch_of_adapters_verifies_and_another_does_not(tmp_path: Path) -> None:
    chosen, key = adapters(), key_of(WEIGHTS)
    promise = WatermarkPromise(key_root=key.root, parameters=WEIGHTS.to_json())
    spec = replace(chosen.spec(steps=TRUNK, segment_length=TRUNK // 2), watermark=promise)
    with Recorder(spec, tmp_path / "run", seed_source=SeedSource(kind="chosen", value=SEED)) as recorder:
        state = recorder.program.build(spec.config, recorder.seed)
        recorder.attach(model=state.model, optimizer=state.optimizer, scheduler=state.scheduler)
        for batch in recorder.batches(chosen.samples):
            recorder.step(recorder.program.train_step(state, batch))
    proof = Proof.read(tmp_path / "run")
    marked = mark_run(tmp_path / "run", SEGMENT, key, BETA, dataset=LICENCE)
    trunk = chosen.train(chosen.build(), TRUNK).capture(SEED)
    assert tensors_digest(model_tensors(branched(trunk, WEIGHTS).capture(SEED))) == tensors_digest(marked)
    claim = Claim.make(key, BETA, WEIGHTS, range(WEIGHTS.groups), model_tensors(trunk))
    name = CARRIERS[0].tensor
    nudged = marked | {name: torch.nextafter(marked[name], torch.tensor(2.0))}
    for model, code in ((marked, ExitCode.VERIFIED), (nudged, ExitCode.REPLAY_MISMATCH)):
        blob = to_safetensors(model)
        assert set(from_safetensors(blob, where="")) == set(model_tensors(trunk)), "adapters alone are submitted"
        submission = Submission(
            model_digest=tensors_digest(model), model_cid=cid_of(blob), reference_segment=SEGMENT, beta=BETA
        )
        folder = Path(shutil.copytree(tmp_path / "run", tmp_path / code.name))
        seal(folder, submission, blob, None)
        tied = TiedClaim(claim, proof.spec, proof.segments[SEGMENT].end_digest)
        verdict = verify(folder, Policy(segments=[0], dataset=LICENCE), claims=[tied])
        assert verdict.exit_code is code, (verdict.findings, verdict.undecided)
        assert verdict.watermarks[0]["found"]
