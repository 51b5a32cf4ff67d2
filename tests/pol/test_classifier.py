"""The built-in program: a pure function of config and seed, strict about its configuration, and able to learn."""

from __future__ import annotations

import pytest
import torch

from pol.data import Dataset, digits
from pol.errors import SpecError
from pol.order import DataOrder
from pol.program import config_from
from pol.programs.classifier import ImageClassifier
from pol.tensors import tensors_digest
from tests.runs import SEED, small_spec


def test_the_initial_state_follows_from_config_and_seed(train_set: Dataset) -> None:
    config = small_spec(train_set).config
    build = ImageClassifier().build
    torch.manual_seed(1)
    first = tensors_digest(build(config, SEED).capture(SEED))
    torch.manual_seed(2)
    assert tensors_digest(build(config, SEED).capture(SEED)) == first
    assert tensors_digest(build(config, bytes(32)).capture(bytes(32))) != first
    assert tensors_digest(build(config | {"width": 33}, SEED).capture(SEED)) != first


def test_it_learns_the_digits(train_set: Dataset) -> None:
    spec, program = small_spec(train_set, steps=150, learning_rate=5e-3), ImageClassifier()
    state, order = program.build(spec.config, SEED), DataOrder(SEED, len(train_set), 32)
    for step in range(150):
        state.key_generators(SEED)
        program.train_step(state, train_set.batch(order.batch(step)))
        state.step += 1
    assert program.evaluate(state.model.state_dict(), spec.config, digits("submission-validation")) > 0.9


def test_the_learning_rate_ends_at_zero(train_set: Dataset) -> None:
    spec = small_spec(train_set, steps=10)
    state = ImageClassifier().build(spec.config, SEED)
    state.advance_schedule(10)
    assert state.optimizer.param_groups[0]["lr"] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    "change",
    [
        {"width": 0}, {"width": 10**6}, {"hidden": 0}, {"hidden": 99}, {"classes": 1}, {"steps": 0}, {"inputs": -1},
        {"dropout": 1.0}, {"dropout": -0.1}, {"learning_rate": 0.0}, {"learning_rate": 2.0}, {"weight_decay": -1.0},
        {"width": "32"}, {"width": True}, {"batch_norm": 1}, {"extra": 1},
    ],
)  # fmt: skip
def test_impossible_configurations_are_refused(train_set: Dataset, change: dict) -> None:
    with pytest.raises(SpecError, match="classifier config"):
        ImageClassifier().build(small_spec(train_set).config | config_from(change), SEED)


def test_floats_are_only_read_in_their_hashed_form(train_set: Dataset) -> None:
    config = small_spec(train_set).config
    for text in ("0.001", "nan", "inf", "0x1p+99999", ""):
        with pytest.raises(SpecError):
            ImageClassifier().build(config | {"learning_rate": text}, SEED)


def test_models_that_do_not_fit_are_refused(train_set: Dataset) -> None:
    config = small_spec(train_set).config
    with pytest.raises(SpecError, match="does not fit"):
        ImageClassifier().evaluate({"w": torch.zeros(1)}, config, train_set)
