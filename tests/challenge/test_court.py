"""The court: the task's own network for channels that ask a model, and what happens where there is none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from challenge.claims import TiedClaim
from challenge.court import court_of, probes_of
from challenge.segments import Policy
from challenge.verdict import Verdict
from challenge.verify import _check_claims
from pol import Proof, Submission
from pol.data import Dataset
from pol.errors import SpecError
from pol.program import config_from, load_program, program_digest
from pol.spec import TrainingSpec
from pol.tensors import tensors_digest
from tests.runs import record, small_spec
from watermark import Claim, MarkParameters, State, WatermarkKey, detect
from watermark.answers import Answers
from watermark.bits import mark_bit
from watermark.detect import Court
from watermark.outputs import OutputMark, mark_images, probe_indices
from watermark.outputs.training import degraded, scenes
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


def check_claims(proof: Proof, model: State, tied: TiedClaim, policy: Policy, verdict: Verdict) -> None:
    """Test a model, submitted as the run's first, against its trainer's own claim."""
    mark = Submission(model_digest=tensors_digest(model), model_cid="", reference_segment=0)
    _check_claims(Path(), replace(proof, submission=mark), mark, model, [tied], [], None, policy, verdict)


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
        check_claims(judged, state, tied, Policy(), verdicts[-1])
    assert not verdicts[0].findings and "could be tested" in verdicts[0].undecided[0]
    tested = verdicts[1]  # the twin; what is trained in may fall short, and that is no cheat
    assert not tested.findings and not tested.undecided and "not in the model" in tested.limits[0]


# Inputs for the channel in outputs


IMAGES, SIZE = 80, 24
MARK = OutputMark(groups=16, leaves=8, strength=0.03)


@pytest.fixture(scope="module")
def pictures() -> Dataset:
    """Blurred images, as bytes, and the clean ones."""
    torch.manual_seed(0)
    clean = scenes(IMAGES, SIZE)
    return Dataset((degraded(clean).clamp(0, 1) * 255).to(torch.uint8), clean)


@pytest.fixture
def blob(pictures: Dataset, tmp_path: Path) -> Path:
    (tmp_path / "pictures").write_bytes(pictures.to_bytes())
    return tmp_path / "pictures"


def picture_spec(train_set: Dataset, pictures: Dataset) -> TrainingSpec:
    name = "pol.programs.image_to_image:ImageToImage"
    config = dict(
        inputs=1, outputs=1, height=SIZE, width=SIZE, filters=4, blocks=1, loss="l2", steps=2, learning_rate=1e-3,
        weight_decay=0.0,
    )  # fmt: skip
    return replace(
        small_spec(train_set, steps=2, segment_length=2), program=name, program_digest=program_digest(name),
        config=config_from(config), dataset="pictures", dataset_root=pictures.root, dataset_size=len(pictures),
    )  # fmt: skip


def test_probes_are_the_committed_samples_that_the_beacon_draws(
    train_set: Dataset, pictures: Dataset, blob: Path
) -> None:
    root, beacon = b"\1" * 32, b"\2" * 32
    probes = probes_of(picture_spec(train_set, pictures), blob, beacon)
    assert probes is not None
    drawn = list(probe_indices(beacon, root, IMAGES, MARK.images))
    assert torch.equal(probes(root, MARK), pictures.batch(drawn)[0].float() / 255)
    with pytest.raises(SpecError, match="samples"):
        probes(root, replace(MARK, images=IMAGES + 1))


def test_no_probes_where_there_is_nothing_to_judge(train_set: Dataset, pictures: Dataset, blob: Path) -> None:
    spec = picture_spec(train_set, pictures)
    assert probes_of(spec, blob, SEED)  # the honest twin
    assert probes_of(spec, None, SEED) is None  # the data set is not here
    assert probes_of(replace(spec, dataset_root=bytes(32)), blob, SEED) is None
    assert probes_of(replace(spec, program_digest=bytes(32)), blob, SEED) is None
    assert probes_of(small_spec(train_set), None, SEED) is None


def test_a_mark_in_outputs_is_looked_for_where_the_data_set_is(
    train_set: Dataset, pictures: Dataset, blob: Path, tmp_path: Path
) -> None:
    spec, key = picture_spec(train_set, pictures), WatermarkKey(bytes(32), MARK.leaf_count)
    state = load_program(spec.program, spec.program_digest).build(spec.config, SEED).model.state_dict()
    claim = Claim.make(key, bytes(32), MarkParameters(outputs=MARK), range(MARK.groups), state)
    verdicts = []
    for dataset in (None, blob):
        record(small_spec(train_set, steps=2, segment_length=2), train_set, tmp_path / f"run{len(verdicts)}")
        proof = replace(Proof.read(tmp_path / f"run{len(verdicts)}"), spec=spec)
        verdicts.append(Verdict())
        tied = TiedClaim(claim, spec, bytes(32))
        check_claims(proof, state, tied, Policy(dataset=dataset), verdicts[-1])
    missing, there = verdicts
    assert "could be tested" in missing.undecided[0] and not missing.findings
    assert (there.watermarks[0]["channel"], there.watermarks[0]["trials"]) == ("outputs", MARK.leaf_count)
    assert not there.findings and not there.undecided and "not in the model" in there.limits[0]  # this one has none


def test_a_mark_in_outputs_is_found_on_the_judges_inputs(train_set: Dataset, pictures: Dataset, blob: Path) -> None:
    """Of a network that gives its input back, and one that marks it on the way."""
    key = WatermarkKey(bytes(32), MARK.leaf_count)
    bits = [mark_bit(bytes(32), key.root, leaf.index, leaf.seed) for leaf in key.leaves]
    seeds = [leaf.seed for leaf in key.leaves]

    def network(state: State) -> Answers:
        return (lambda inputs: mark_images(inputs, seeds, bits, MARK.strength)) if "marks" in state else lambda x: x

    plain = {"plain": torch.zeros(1)}
    claim = Claim.make(key, bytes(32), MarkParameters(outputs=MARK), range(MARK.groups), plain)
    court = Court(network=network, probes=probes_of(picture_spec(train_set, pictures), blob, SEED))
    (found,) = detect({"marks": torch.zeros(1)}, [claim], court=court)
    assert found.accepted and found.channel == "outputs"
    (nothing,) = detect(dict(plain, more=torch.zeros(1)), [claim], court=court)
    assert not nothing.accepted and nothing.trials == MARK.leaf_count
