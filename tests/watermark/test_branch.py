"""A mark that is trained in: a pure function of trunk, key and beacon, found by every channel it was trained into."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from pol.data import Dataset
from pol.errors import SpecError
from pol.order import DataOrder
from pol.program import config_from, load_program, program_digest
from pol.state import TrainingState
from tests.watermark import digits
from watermark import Claim, MarkParameters, WatermarkKey, mlp_mark
from watermark.answers import Answers
from watermark.branch import MarkedProgram, Marking, train_branch
from watermark.detect import Court, detect_channels
from watermark.triggers import Images, TriggerMark
from watermark.weights.arrays import State
from watermark.weights.embed import embed_weights

SEED, BETA = b"\3" * 32, b"\4" * 32
NAME = "pol.programs.classifier:ImageClassifier"
TRUNK, BRANCH, BATCH = 150, 80, 64
PARAMETERS = MarkParameters(
    weights=mlp_mark("layers.1.weight", groups=8, rows=16, leaves=16, margin=2.0).weights,
    triggers=TriggerMark(Images(1, 8, 8), classes=10, groups=8, leaves=16),
)


class Run:
    """A recorded trunk, as far as a branch needs it: program, data, order, and theta_ref's whole state."""

    def __init__(self, data: Dataset) -> None:
        self.data, self.program = data, load_program(NAME, program_digest(NAME))
        self.order = DataOrder(SEED, len(data), BATCH)
        self.config = config_from(
            dict(
                inputs=64, width=256, hidden=2, classes=10, steps=TRUNK + 400, learning_rate=2e-3,
                weight_decay=0.0, dropout=0.1, batch_norm=False,
            )
        )  # fmt: skip
        state = self.program.build(self.config, SEED)
        for batch in self.batches(0, TRUNK):
            state.key_generators(SEED)
            self.program.train_step(state, batch)
            state.step += 1
        self.trunk = state.capture(SEED)

    def batches(self, start: int, end: int) -> list[tuple[torch.Tensor, ...]]:
        return [self.data.batch(self.order.batch(step)) for step in range(start, end)]

    def theta_ref(self) -> TrainingState:
        """A fresh state, restored from the trunk's."""
        state = self.program.build(self.config, SEED)
        state.restore(self.trunk, layout=self.trunk, seed=SEED, step=TRUNK)
        return state

    def branch(
        self, key: WatermarkKey, beta: bytes = BETA, steps: int = BRANCH, finished: bool = True
    ) -> dict[str, torch.Tensor]:
        state = self.theta_ref()
        marking = Marking(state, key, beta, PARAMETERS)
        marked = MarkedProgram(self.program, marking, end=TRUNK + steps + (not finished))
        train_branch(marked, state, self.batches(TRUNK, TRUNK + steps), SEED)
        return {name: value.clone() for name, value in state.model.state_dict().items()}


def court() -> Court:
    def network(state: State) -> Answers:
        return lambda inputs: digits.forward(dict(state), inputs.flatten(1))

    return Court(network=network)


@pytest.fixture(scope="module")
def run(train_set: Dataset) -> Run:
    return Run(train_set)


@pytest.fixture(scope="module")
def key() -> WatermarkKey:
    return WatermarkKey(b"the owner's secret, 32 bytes ...", PARAMETERS.leaf_count)


@pytest.fixture(scope="module")
def marked(run: Run, key: WatermarkKey) -> dict[str, torch.Tensor]:
    return run.branch(key)


def claim(run: Run, key: WatermarkKey, beta: bytes = BETA) -> Claim:
    reference = run.theta_ref().model.state_dict()
    return Claim.make(key, beta, PARAMETERS, range(PARAMETERS.groups), reference)


def test_both_channels_find_the_mark_and_neither_finds_it_in_the_trunk(
    run: Run, key: WatermarkKey, marked: dict[str, torch.Tensor]
) -> None:
    (found,) = detect_channels(marked, [claim(run, key)], court=court())
    assert {evidence.channel: evidence.accepted for evidence in found} == {"weights": True, "triggers": True}
    later = run.theta_ref()
    for batch in run.batches(TRUNK, TRUNK + BRANCH):
        later.key_generators(SEED)
        run.program.train_step(later, batch)
    (found,) = detect_channels(later.model.state_dict(), [claim(run, key)], court=court())
    assert not any(evidence.accepted or evidence.log2_p < -20 for evidence in found)


def test_the_branch_replays_to_the_bit(run: Run, key: WatermarkKey, marked: dict[str, torch.Tensor]) -> None:
    again = run.branch(key)
    assert all(torch.equal(again[name], value) for name, value in marked.items())


def test_another_key_or_beacon_makes_another_model(run: Run, key: WatermarkKey) -> None:
    models = [
        run.branch(*how, steps=2) for how in ((key,), (WatermarkKey(bytes(32), key.leaf_count),), (key, bytes(32)))
    ]
    assert len({models[i]["layers.1.weight"].numpy().tobytes() for i in range(3)}) == 3


def test_training_writes_the_bits_before_the_last_step_does(run: Run, key: WatermarkKey) -> None:
    (found,) = detect_channels(run.branch(key, finished=False), [claim(run, key)], court=court())
    assert {evidence.channel: evidence.accepted for evidence in found} == {"weights": True, "triggers": True}


@pytest.mark.parametrize("percent", [100, 30])
def test_triggers_weigh_as_much_beside_the_task_as_was_promised(run: Run, percent: int) -> None:
    triggers = PARAMETERS.triggers
    assert triggers
    key, pushed = WatermarkKey(bytes(32), triggers.leaf_count), []
    for promised in (100, percent):
        state = run.theta_ref()
        marking = Marking(state, key, BETA, MarkParameters(triggers=replace(triggers, percent=promised)))
        state.key_generators(SEED)
        marking.push(state.model, run.batches(TRUNK, TRUNK + 1)[0])
        pushed.append(torch.cat([parameter.grad.flatten() for parameter in state.model.parameters()]))
    torch.testing.assert_close(pushed[1], pushed[0] * percent / 100)


def test_the_last_step_writes_the_bits_that_are_still_short(run: Run, key: WatermarkKey) -> None:
    before, after = (run.branch(key, steps=2, finished=finished) for finished in (False, True))
    assert PARAMETERS.weights
    wanted = embed_weights(before, key, BETA, PARAMETERS.weights)
    assert all(torch.equal(after[name], value) for name, value in wanted.items())
    assert not torch.equal(after["layers.1.weight"], before["layers.1.weight"])


def test_marking_costs_little_accuracy(run: Run, marked: dict[str, torch.Tensor]) -> None:
    plain = run.theta_ref().model.state_dict()
    assert digits.accuracy(marked) > digits.accuracy(dict(plain)) - 0.01


def test_a_key_of_another_size_is_refused(run: Run) -> None:
    with pytest.raises(SpecError, match="leaves"):
        Marking(run.theta_ref(), WatermarkKey(bytes(32), 3), BETA, PARAMETERS)
