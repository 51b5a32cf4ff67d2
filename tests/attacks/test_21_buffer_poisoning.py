"""Case 21: what a model keeps besides its parameters: norm statistics, averaged weights, caches, scales.

Source: found in the published code of Jia et al. 2021, which compares ``net.parameters()`` only. A model with other
batch-norm statistics is another model when it is used, and a poisoned cache or scale lets parameters look untouched
while every forward pass computes something else.

Here the digest covers every tensor that a step reads or writes: buffers that are saved and buffers that are not, the
averaged model's, and both names of a tied weight.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from challenge.segments import Policy
from challenge.verdict import ExitCode
from pol import Proof, Submission, seal
from pol.cid import cid_of
from pol.data import Dataset
from pol.program import program_digest
from pol.programs.classifier import ImageClassifier
from pol.proof import states_of
from pol.spec import TrainingSpec
from pol.state import from_safetensors, model_tensors, to_safetensors
from pol.tensors import tensors_digest
from tests.attacks.forging import built, copied, trained_states
from tests.attacks.judging import judged, rejected
from tests.attacks.one_lie import Findings, Forging, flip, forged
from tests.runs import small_spec

BUFFERED = '''
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from pol.program import Program
from pol.seed import draw
from pol.state import TrainingState


class Net(nn.Module):
    """Tied weights, a norm, a cache that is not saved, scales and a mask that the forward pass uses."""

    def __init__(self):
        super().__init__()
        self.inner, self.outer = nn.Linear(64, 16, bias=False), nn.Linear(64, 16, bias=False)
        self.outer.weight = self.inner.weight
        self.norm, self.head = nn.BatchNorm1d(16), nn.Linear(16, 10)
        self.register_buffer("cache", torch.linspace(0.5, 1.5, 16), persistent=False)
        self.register_buffer("scale", torch.ones((), dtype=torch.float64))
        self.register_buffer("halves", torch.ones(16, dtype=torch.float16))
        self.register_buffer("codes", torch.ones(16, dtype=torch.int8))
        self.register_buffer("mask", torch.ones(16, dtype=torch.bool))

    def forward(self, inputs):
        hidden = self.norm(self.inner(inputs) + self.outer(inputs.flip(1))) * self.cache * self.scale.float()
        return self.head(torch.relu(hidden * self.halves.float() * self.codes.float() * self.mask))


class Buffered:
    def build(self, config, seed):
        torch.manual_seed(draw(seed, "init"))
        model = Net()
        ema = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=False)
        return TrainingState(model=model, optimizer=torch.optim.SGD(model.parameters(), lr=0.1, foreach=False), ema=ema)

    def train_step(self, state, batch):
        inputs, labels = batch
        loss = nn.functional.cross_entropy(state.model(inputs), labels)
        loss.backward()
        state.optimizer.step()
        state.optimizer.zero_grad()
        state.ema.update_parameters(state.model)
        state.model.cache.mul_(0.99)
        return loss.detach()
'''
"""A program whose steps read and write every kind of buffer."""


POISONS: dict[str, Forging] = {
    "running mean": flip("model/norm.running_mean"),
    "running variance": flip("model/norm.running_var"),
    "batches seen": flip("model/norm.num_batches_tracked"),
    "a cache that is not saved": flip("buffer/cache"),
    "a scale": flip("model/scale"),
    "halves": flip("model/halves"),
    "codes": flip("model/codes"),
    "a mask": flip("model/mask"),
    "averaged weights": flip("ema/module.inner.weight"),
    "the averaged norm": flip("ema/module.norm.running_mean"),
    "how much was averaged": flip("ema/n_averaged"),
    "the averaged model's cache": flip("ema-buffer/module.cache"),
    "one name of a tied weight": flip("model/inner.weight"),
    "the other name of it": flip("model/outer.weight"),
}


@pytest.fixture(scope="module")
def spec(train_set: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TrainingSpec]:
    folder = tmp_path_factory.mktemp("program")
    (folder / "buffered_program.py").write_text(BUFFERED)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        patch.setenv("PYTHONPATH", str(folder))
        name = "buffered_program:Buffered"
        yield replace(small_spec(train_set), program=name, program_digest=program_digest(name), config={})
    sys.modules.pop("buffered_program", None)


@pytest.fixture(scope="module")
def poisoned(spec: TrainingSpec, train_set: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Findings:
    """What was found of every poison; the honest segments between them passed, which is their honest twin."""
    folder = tmp_path_factory.mktemp("poisoned") / "proof"
    return forged(spec, train_set, POISONS, folder, trusted=frozenset({spec.program_digest}))


@pytest.mark.parametrize("name", POISONS)
def test_every_kind_of_buffer_is_bound(poisoned: Findings, name: str) -> None:
    before, *after = poisoned[name]
    assert "does not replay to the promised state" in before.message
    if name == "one name of a tied weight":
        assert "is not what the program and the seed give" in after[0].message, "which of the two was meant?"


@pytest.mark.parametrize("name", ["running variance", "batches seen by the norm", "a buffer too few"])
def test_those_of_the_built_in_program_too(forged_lies: Findings, name: str) -> None:
    before, *after = forged_lies[name]
    assert "does not replay to the promised state" in before.message
    assert "too few" not in name or "other tensors than the program's" in after[0].message


def test_a_nudge_between_two_steps_leads_elsewhere(told_lies: Findings) -> None:
    (finding,) = told_lies["running mean"]
    assert "does not replay to the promised state" in finding.message


def test_a_verifier_of_parameters_alone_sees_nothing(train_set: Dataset) -> None:
    """The published comparison: all parameters are equal, and the model has become useless."""
    spec, program = small_spec(train_set, steps=40, segment_length=40), ImageClassifier()
    honest = model_tensors(trained_states(spec, train_set)[-1])
    poisoned = honest | {"norms.1.running_mean": honest["norms.1.running_mean"] + 1e3}
    parameters = [name for name, _ in built(spec).model.named_parameters()]
    assert all(torch.equal(honest[name], poisoned[name]) for name in parameters)
    before, after = (program.evaluate(model, spec.config, train_set) for model in (honest, poisoned))
    assert before > 0.4 and after < 0.15


def test_the_submitted_model_may_not_have_other_buffers(honest_run: Path, tmp_path: Path) -> None:
    folder = copied(honest_run, tmp_path / "proof")
    trunk = model_tensors(from_safetensors(states_of(folder).get(Proof.read(folder).states[-1].cid), where="test"))
    model = trunk | {"norms.0.running_mean": trunk["norms.0.running_mean"] + 1e-6}
    for submitted, reason in ((model, "not the trunk's model at the branch"), (trunk, None)):
        again = copied(folder, tmp_path / f"sealed-{reason is None}")
        blob, digest = to_safetensors(submitted), tensors_digest(submitted)
        seal(again, Submission(model_digest=digest, model_cid=cid_of(blob), reference_segment=3), blob, None)
        verdict = judged(again, Policy(segments=[0]))
        if reason:
            rejected(verdict, ExitCode.REPLAY_MISMATCH, reason)
        else:
            assert verdict.exit_code is ExitCode.VERIFIED, "the honest twin is the trunk's own model"
