"""The court: the task's own network for channels that ask a model, and what happens where there is none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from challenge.claims import TiedClaim
from challenge.court import court_of
from challenge.verdict import ExitCode, Verdict
from challenge.verify import _check_claims
from pol import Proof
from pol.data import Dataset
from pol.errors import SpecError
from pol.program import load_program
from tests.runs import record, small_spec
from watermark import Claim, MarkParameters, WatermarkKey
from watermark.triggers import Images, TriggerMark

SEED = bytes(32)


@pytest.fixture
def folder(train_set: Dataset, tmp_path: Path) -> Path:
    record(small_spec(train_set, steps=2, segment_length=2), train_set, tmp_path / "run")
    return tmp_path / "run"


def test_the_network_answers_as_the_program_does(folder: Path, train_set: Dataset) -> None:
    spec = Proof.read(folder).spec
    built = load_program(spec.program, spec.program_digest).build(spec.config, SEED)
    network = court_of(spec).network
    assert network is not None
    inputs = train_set.batch(range(5))[0]
    wanted = built.model.eval()(inputs)
    assert torch.equal(network(built.model.state_dict())(inputs.view(5, 1, 8, 8)), wanted)


def test_other_tensors_are_refused(folder: Path) -> None:
    spec = Proof.read(folder).spec
    state = load_program(spec.program, spec.program_digest).build(spec.config, SEED).model.state_dict()
    network = court_of(spec).network
    assert network is not None
    name = "layers.0.weight"
    for odd in ({}, {name: state[name]}, {**state, "more": state[name]}, {**state, name: state[name][:-1]}):
        with pytest.raises(SpecError):
            network(odd)
    with pytest.raises(SpecError, match="finite"):
        network({**state, name: state[name] * torch.nan})


def test_what_cannot_be_tested_here_is_undecided_and_no_theft(folder: Path) -> None:
    """A mark in answers alone, of a program that is not built in: nothing in this process may run it."""
    proof = Proof.read(folder)
    unknown = replace(proof, spec=replace(proof.spec, program_digest=bytes(32)))
    assert court_of(unknown.spec).network is None
    state = (
        load_program(proof.spec.program, proof.spec.program_digest).build(proof.spec.config, SEED).model.state_dict()
    )
    parameters = MarkParameters(triggers=TriggerMark(Images(1, 8, 8), classes=10, groups=2, leaves=8))
    key = WatermarkKey(bytes(32), parameters.leaf_count)
    tied = TiedClaim(Claim.make(key, bytes(32), parameters, [0, 1], state), proof.spec, bytes(32))
    verdicts = []
    for judged in (unknown, proof):
        verdicts.append(Verdict())
        _check_claims(judged, state, {}, [tied], [], None, verdicts[-1])
    assert not verdicts[0].findings and "could be tested" in verdicts[0].undecided[0]
    assert [finding.code for finding in verdicts[1].findings] == [ExitCode.WATERMARK]  # the twin: tested, and not there
