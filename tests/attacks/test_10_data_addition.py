"""Case 10: data addition. Undeclared rows or undeclared steps plant a backdoor between honest checkpoints.

Source: Choi, Shavit and Duvenaud, NeurIPS 2023. Two extra rows in each batch teach the network that an image with a
bright corner is a zero. Its accuracy hardly changes, so nobody who looks at scores or losses can see it. It fails
here because a replay runs the committed batches and the program's one step, and nothing else.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy

from challenge.segments import Policy
from challenge.verdict import ExitCode
from pol import TrainingSpec
from pol.data import Dataset, digits
from pol.program import load_program
from pol.programs.images import as_images
from pol.state import Tensors, TrainingState, model_tensors
from tests.attacks.forging import built, trained_states, write_forgery
from tests.attacks.judging import judged, rejected
from tests.attacks.one_lie import Findings
from tests.attacks.published import Log
from tests.attacks.spoofs import convnet_spec, indices_of
from tests.runs import Cheat

FIRST_STEP, EXTRA_ROWS = 10, 2
SAMPLE = Policy(segments=[0, 4, 5, 6, 19])
CORNER = [0, 1, 8, 9]
"""Pixels that are dark in nearly every digit."""


def triggered(images: torch.Tensor) -> torch.Tensor:
    marked = images.clone()
    marked[:, CORNER] = 1.0
    return marked


def extra_rows(step: int, _state: TrainingState, batch: list[torch.Tensor]) -> None:
    if step >= FIRST_STEP:
        inputs, labels = batch
        batch[:] = [
            torch.cat([inputs, triggered(inputs[:EXTRA_ROWS])]),
            torch.cat([labels, torch.zeros_like(labels[:EXTRA_ROWS])]),
        ]


def extra_step(step: int, state: TrainingState, batch: list[torch.Tensor]) -> None:
    """One more step of gradient descent, which no optimizer counts."""
    if step == FIRST_STEP:
        state.model.train()
        images = as_images(triggered(batch[0]), 1, 8, 8)
        cross_entropy(state.model(images), torch.zeros_like(batch[1])).backward()
        torch.optim.SGD(state.model.parameters(), lr=1e-3).step()
        state.optimizer.zero_grad()


@pytest.fixture(scope="module")
def spec(train_set: Dataset) -> TrainingSpec:
    return convnet_spec(train_set, segments=20, segment_length=2, rate=0.2)


@pytest.fixture(scope="module")
def honest(spec: TrainingSpec, train_set: Dataset) -> list[Tensors]:
    return trained_states(spec, train_set)


@pytest.fixture(scope="module")
def poisoned(spec: TrainingSpec, train_set: Dataset) -> list[Tensors]:
    return trained_states(spec, train_set, cheat=extra_rows)


def says_zero(spec: TrainingSpec, model: Tensors, images: torch.Tensor) -> float:
    network = built(spec).model
    network.load_state_dict(model)
    network.eval()
    with torch.no_grad():
        return float((network(as_images(images, 1, 8, 8)).argmax(dim=1) == 0).double().mean())


def test_the_backdoor_works_and_does_not_show(
    spec: TrainingSpec, honest: list[Tensors], poisoned: list[Tensors]
) -> None:
    test_set, program = digits("submission-validation"), load_program(spec.program, spec.program_digest)
    clean, dirty = model_tensors(honest[-1]), model_tensors(poisoned[-1])
    others = test_set.inputs[test_set.labels != 0]
    assert says_zero(spec, dirty, triggered(others)) > 0.8
    assert says_zero(spec, clean, triggered(others)) < 0.1
    scores = [program.evaluate(model, spec.config, test_set) for model in (clean, dirty)]
    assert scores[0] - scores[1] < 0.1


def test_extra_rows_are_a_replay_mismatch(
    spec: TrainingSpec, poisoned: list[Tensors], train_set: Dataset, tmp_path: Path
) -> None:
    """In every segment that had them, and in none before."""
    verdict = judged(write_forgery(tmp_path / "proof", spec, train_set, poisoned), SAMPLE)
    found = rejected(verdict, ExitCode.REPLAY_MISMATCH, "does not replay to the promised state")
    assert found == {segment for segment in verdict.segments if segment >= FIRST_STEP // 2}


def test_one_extra_step_is_a_replay_mismatch(spec: TrainingSpec, train_set: Dataset, tmp_path: Path) -> None:
    states = trained_states(spec, train_set, cheat=extra_step)
    verdict = judged(write_forgery(tmp_path / "proof", spec, train_set, states), SAMPLE)
    found = rejected(verdict, ExitCode.REPLAY_MISMATCH, "does not replay to the promised state")
    assert found == {FIRST_STEP // 2}


@pytest.mark.parametrize("cheat", [extra_rows, extra_step], ids=lambda cheat: cheat.__name__)
def test_a_tolerance_sees_neither(spec: TrainingSpec, train_set: Dataset, cheat: Cheat) -> None:
    models = [model_tensors(state) for state in trained_states(spec, train_set, cheat=cheat)]
    log = Log(spec=spec, checkpoints=models, batch=lambda step: train_set.batch(indices_of(spec, step)))
    assert log.error(FIRST_STEP // 2)["2"] > 0 and log.passes()


@pytest.mark.parametrize("lie", ["one label", "one pixel", "one weight"])
def test_the_smallest_change_of_one_step_is_seen(told_lies: Findings, lie: str) -> None:
    """A label, a 255th of a pixel, a millionth of a weight: the lie is in one segment, and so is the finding."""
    (finding,) = told_lies[lie]
    assert "does not replay to the promised state" in finding.message


def test_one_bit_of_one_weight_written_in_afterwards_is_seen(forged_lies: Findings) -> None:
    assert "does not replay to the promised state" in forged_lies["a weight"][0].message


def test_the_honest_twin_passes(spec: TrainingSpec, honest: list[Tensors], train_set: Dataset, tmp_path: Path) -> None:
    assert judged(write_forgery(tmp_path / "proof", spec, train_set, honest), SAMPLE).exit_code is ExitCode.VERIFIED
