"""Case 20: hyper-parameters that travel in the state, so that the prover chooses what the verifier trains with.

Source: found in the published code of Jia et al. 2021: ``optimizer.load_state_dict`` restores learning rate, momentum
and weight decay from the prover's checkpoint. Asked for a rate of 0.1 the verifier trained with 0.0, and so confirmed a
run in which nothing moved: the whole of the infinitesimal-update attack (case 7) without any effort. The same holds for
the schedule's position, the gradient scaler's scale and the decay of averaged weights.

Here the program decides. Of a state only learned numbers are taken; hyper-parameters, schedule and generators are
worked out from spec, seed and step, and the state must agree. The scale and the averaged weights are learned, so they
are part of the digest, and a state that holds others is one that no replay reaches.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from challenge.segments import Policy
from challenge.verdict import ExitCode
from pol.data import Dataset
from pol.machine import this_machine
from pol.program import config_from, program_digest
from pol.programs.language import averaging
from pol.sources import TokenFile
from pol.spec import TrainingSpec
from pol.state import TrainingState
from tests.attacks.forging import built, trained_states, write_forgery
from tests.attacks.judging import judged, rejected
from tests.attacks.one_lie import Findings, after_steps, change_text, flip, forged, told
from tests.runs import small_spec

PROMISED = [
    "learning rate", "first beta", "second beta", "epsilon", "weight decay", "amsgrad", "maximize",
    "schedule's position", "schedule's end", "schedule's kind", "optimizer's kind", "step", "one more field",
]  # fmt: skip
MIXED = "pol.programs.language:LanguageModel"


@pytest.mark.parametrize("name", PROMISED)
def test_what_the_state_says_is_not_believed(forged_lies: Findings, name: str) -> None:
    before, after = forged_lies[name]
    assert "does not replay to the promised state" in before.message
    assert "scalars is not what the program and the seed give" in after.message


@pytest.mark.parametrize("name", ["torch's generator", "numpy's generator", "python's generator"])
def test_nor_what_it_says_of_the_generators(forged_lies: Findings, name: str) -> None:
    before, after = forged_lies[name]
    assert "does not replay to the promised state" in before.message
    assert "is not what the program and the seed give" in after.message


@pytest.mark.parametrize(
    "name", ["learning rate", "betas", "epsilon", "weight decay", "dropout", "norm's momentum", "generator"]
)
def test_another_value_in_one_step_leads_elsewhere(told_lies: Findings, name: str) -> None:
    """The states say what was promised; one step was taken with something else."""
    (finding,) = told_lies[name]
    assert "does not replay to the promised state" in finding.message


def rival_restores(state: TrainingState, checkpoint: dict) -> float:
    """What the published verifier does with the prover's checkpoint; returns the rate it will train with."""
    state.optimizer.load_state_dict(checkpoint)
    return state.optimizer.param_groups[0]["lr"]


def test_the_published_verifier_trains_with_the_provers_rate(train_set: Dataset) -> None:
    state = built(small_spec(train_set))
    checkpoint = state.optimizer.state_dict()
    checkpoint["param_groups"][0]["lr"] = 0.0
    assert state.optimizer.param_groups[0]["lr"] == 1e-3
    assert rival_restores(state, checkpoint) == 0.0


def test_a_run_of_rate_zero_is_rejected_everywhere(tmp_path: Path, train_set: Dataset) -> None:
    """The whole attack: initial weights for ever, and states that say so of their rate."""

    def stand_still(_step: int, state: TrainingState, _batch: list[torch.Tensor]) -> None:
        for group in state.optimizer.param_groups:
            group["lr"] = 0.0

    spec = small_spec(train_set, steps=6, segment_length=2)
    states = trained_states(spec, train_set, cheat=stand_still)
    assert torch.equal(states[0]["model/layers.1.weight"], states[-1]["model/layers.1.weight"])
    verdict = judged(write_forgery(tmp_path / "proof", spec, train_set, states))
    rejected(verdict, ExitCode.REPLAY_MISMATCH, "scalars is not what the program and the seed give")
    assert {finding.segment for finding in verdict.findings} == {0, 1, 2}


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of tokens: this project's licence, letter by letter."""
    path = tmp_path_factory.mktemp("text") / "tokens"
    path.write_bytes((Path(__file__).parents[2] / "LICENSE").read_bytes())
    return path


@pytest.fixture(scope="module")
def mixed(text: Path) -> TrainingSpec:
    """A small language model in mixed precision: with a gradient scaler and averaged weights."""
    config = dict(
        vocabulary=128, context=16, layers=1, heads=2, width=16, dropout=0.1, steps=100, warmup=3, learning_rate=1e-2,
        weight_decay=0.1, clip=1.0, micro_batches=2, ema=0.9, precision="fp16", ranks=1,
    )  # fmt: skip
    samples = TokenFile(text, dtype="uint8", length=16)
    return TrainingSpec(
        program=MIXED, program_digest=program_digest(MIXED), config=config_from(config),
        dataset="tokens/uint8/16/licence", dataset_root=samples.root, dataset_size=len(samples), batch_size=12,
        steps=1, segment_length=1, machine=this_machine(threads=1).to_json(), trainer=bytes(20),
    )  # fmt: skip


SCALED = {
    "scale": flip("scaler/scale"),
    "growth": flip("scaler/growth_tracker"),
    "growth factor": change_text((2.0).hex().encode(), (4.0).hex().encode()),
    "growth interval": change_text(b'"growth_interval":2000', b'"growth_interval":1'),
    "averaged weights": flip("ema/module.norm.weight"),
    "averages begin again": flip("ema/n_averaged"),
}


def other_scale(state: TrainingState, _batch: list[torch.Tensor]) -> None:
    state.scaler.update(2 * state.scaler.get_scale())


def other_decay(state: TrainingState, _batch: list[torch.Tensor]) -> None:
    """The averaged weights follow the others faster, once: they are averaged after the optimizer's step."""
    honest, state.ema.avg_fn = state.ema.avg_fn, averaging(0.5)
    after_steps(state, 2, lambda: setattr(state.ema, "avg_fn", honest))


def other_clip(state: TrainingState, _batch: list[torch.Tensor]) -> None:
    honest, state.model.config = state.model.config, replace(state.model.config, clip=0.01)
    after_steps(state, 1, lambda: setattr(state.model, "config", honest))


def test_scale_and_averages_are_part_of_the_state(mixed: TrainingSpec, text: Path, tmp_path: Path) -> None:
    samples = TokenFile(text, dtype="uint8", length=16)
    found = forged(mixed, samples, SCALED, tmp_path / "proof", dataset=text)
    for name, (before, *after) in found.items():
        assert "does not replay to the promised state" in before.message, name
        assert name not in ("growth factor", "growth interval") or "scalars is not what" in after[0].message


def test_another_scale_or_decay_in_one_step_leads_elsewhere(mixed: TrainingSpec, text: Path, tmp_path: Path) -> None:
    samples = TokenFile(text, dtype="uint8", length=16)
    lies = {"scale": other_scale, "decay": other_decay, "clipping": other_clip}
    assert set(told(mixed, samples, lies, tmp_path / "proof", dataset=text)) == set(lies)


def test_the_honest_twin_passes(mixed: TrainingSpec, text: Path, tmp_path: Path) -> None:
    """Scale and averages that training gave are no lie."""
    spec, samples = replace(mixed, steps=3), TokenFile(text, dtype="uint8", length=16)
    folder = write_forgery(tmp_path / "proof", spec, samples, trained_states(spec, samples))
    assert judged(folder, Policy(segments=None, dataset=text)).exit_code is ExitCode.VERIFIED
