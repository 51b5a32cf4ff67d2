"""Case 19: a momentum buffer worked out backwards, so that one honest step lands on stolen weights.

Source: found in the published code of Jia et al. 2021, whose verifier loads the prover's optimizer state and compares
weights only. For SGD, ``buffer = ((w - stolen) / lr - gradient) / momentum`` makes the program's own next step go from
any w to the stolen weights (measured: L2 error 2.3e-6). It needs a last segment of length 1, and no training at all.

Here the optimizer's state is part of the state digest, so the injected buffer itself would have to be replayed: the
segment that ends with it leads elsewhere. Checked alone, the segment after it is perfect, and a sample that draws only
that one sees nothing: what a verdict says of its strength counts the forged segment among those that can be missed.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from challenge.segments import Policy
from challenge.verdict import ExitCode
from pol import TrainingSpec
from pol.data import Dataset
from pol.order import DataOrder
from pol.program import config_from, load_program, program_digest
from pol.state import Tensors, TrainingState, model_tensors
from tests.attacks.forging import built, trained_states, write_forgery
from tests.attacks.judging import judged, rejected
from tests.attacks.one_lie import Findings
from tests.runs import SEED, small_spec

PROGRAM = "pol.programs.convnet:ConvNetClassifier"
CONFIG = dict(
    network="cnn", channels=1, height=8, width=8, filters=4, classes=10, steps=7, learning_rate=0.1, momentum=0.9,
    weight_decay=1e-4, dropout=0.0, crop=0, flip=False, ranks=1,
)  # fmt: skip
TAIL = 2
"""The last segment, of one step. The state before it, which segment 1 ends with, is given the buffer."""


def sgd_spec(dataset: Dataset) -> TrainingSpec:
    """A small convolutional network under SGD with momentum: seven steps in segments of three."""
    spec = small_spec(dataset, steps=7, segment_length=3)
    return replace(spec, program=PROGRAM, program_digest=program_digest(PROGRAM), config=config_from(CONFIG))


def restored(spec: TrainingSpec, tensors: Tensors, layout: Tensors, step: int) -> TrainingState:
    state = built(spec)
    if step:
        state.restore(tensors, layout=layout, seed=SEED, step=step)
    return state


def one_step(spec: TrainingSpec, state: TrainingState, dataset: Dataset) -> None:
    order = DataOrder(SEED, spec.dataset_size, spec.batch_size)
    state.key_generators(SEED)
    load_program(spec.program, spec.program_digest).train_step(state, dataset.batch(order.batch(state.step)))
    state.step += 1


def inject(spec: TrainingSpec, tensors: Tensors, dataset: Dataset, stolen: Tensors) -> Tensors:
    """The state with the buffers that lead to ``stolen`` in one step: what SGD will add to them is found by a trial."""
    trial = restored(spec, tensors, tensors, spec.bounds(TAIL)[0])
    rate = trial.optimizer.param_groups[0]["lr"]
    names = [name for name, _ in trial.model.named_parameters()]
    one_step(spec, trial, dataset)
    forged = dict(tensors)
    for index, name in enumerate(names):
        slot, weight = f"optimizer/{index}/momentum_buffer", tensors[f"model/{name}"].double()
        used = trial.capture(SEED)[slot].double() - CONFIG["momentum"] * tensors[slot].double()
        forged[slot] = (((weight - stolen[name]) / rate - used) / CONFIG["momentum"]).float()
    return forged


@pytest.fixture(scope="module")
def stolen(train_set: Dataset) -> Tensors:
    """The weights of somebody else's run: another seed, another start, as far away as two runs are."""
    return model_tensors(trained_states(sgd_spec(train_set), train_set, seed=bytes(32))[-1])


@pytest.fixture(scope="module")
def states(train_set: Dataset, stolen: Tensors) -> list[Tensors]:
    """Honest states, then the injected one, then whatever the program itself makes of it in the last step."""
    spec = sgd_spec(train_set)
    honest = trained_states(spec, train_set)
    forged = inject(spec, honest[TAIL], train_set, stolen)
    landing = restored(spec, forged, honest[TAIL], spec.bounds(TAIL)[0])
    one_step(spec, landing, train_set)
    return [*honest[:TAIL], forged, landing.capture(SEED)]


@pytest.fixture
def forgery(tmp_path: Path, train_set: Dataset, states: list[Tensors]) -> Path:
    return write_forgery(tmp_path / "proof", sgd_spec(train_set), train_set, states)


def distance(one: Tensors, other: Tensors, names: list[str]) -> float:
    return sum(float((one[name].double() - other[name].double()).square().sum()) for name in names) ** 0.5


def test_one_step_lands_on_the_stolen_weights(states: list[Tensors], stolen: Tensors, train_set: Dataset) -> None:
    """The attack works: as published, to within rounding, from an unrelated start."""
    names = [name for name, _ in built(sgd_spec(train_set)).model.named_parameters()]
    start, end = model_tensors(states[TAIL]), model_tensors(states[TAIL + 1])
    assert distance(start, stolen, names) > 1.0
    assert distance(end, stolen, names) < 1e-5


def test_a_verifier_of_weights_alone_accepts_every_segment(states: list[Tensors], train_set: Dataset) -> None:
    """The published check: load the prover's whole checkpoint, replay, compare the weights. All distances are zero."""
    spec = sgd_spec(train_set)
    names = [name for name, _ in built(spec).model.named_parameters()]
    for index in range(spec.segments):
        start, end = spec.bounds(index)
        replayed = restored(spec, states[index], states[1], start)
        for _ in range(start, end):
            one_step(spec, replayed, train_set)
        assert distance(model_tensors(replayed.capture(SEED)), model_tensors(states[index + 1]), names) == 0


def test_the_buffer_itself_does_not_replay(forgery: Path) -> None:
    verdict = judged(forgery)
    assert rejected(verdict, ExitCode.REPLAY_MISMATCH, "does not replay to the promised state") == {TAIL - 1}
    assert len(verdict.findings) == 1


def test_a_sample_that_misses_it_says_what_it_is_worth(forgery: Path) -> None:
    """The landing is bit for bit the program's, and so is what comes before the buffer: they convict nobody.

    This is the honest twin as well: the same tools, the same program, honest segments.
    """
    verdict = judged(forgery, Policy(segments=[0, TAIL]))
    assert verdict.exit_code is ExitCode.VERIFIED
    assert "2 of 3 segments replayed" in verdict.strength and "missed with p = 0.33" in verdict.strength


@pytest.mark.parametrize("moment", ["first moment", "second moment", "Adam's count"])
def test_the_smallest_nudge_of_a_moment_is_seen(told_lies: Findings, forged_lies: Findings, moment: str) -> None:
    """Adam's too: between two steps of a segment, or written into the state at its end."""
    for finding in (*told_lies[moment], *forged_lies[moment]):
        assert "does not replay to the promised state" in finding.message


@pytest.mark.parametrize(
    "moment", ["a moment too many", "a moment too few", "a moment in double precision", "a moment of another shape"]
)
def test_nothing_else_can_be_handed_in_as_a_moment(forged_lies: Findings, moment: str) -> None:
    before, after = forged_lies[moment]
    assert "does not replay to the promised state" in before.message
    assert "than the program's" in after.message, "the optimizer never sees it"
