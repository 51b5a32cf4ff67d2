"""Scores: what was promised is what is scored, and a model that is not scores nothing."""

from __future__ import annotations

import pytest
import torch

from challenge.scoring import score_model
from pol.data import Dataset, digits
from pol.errors import CannotRun
from pol.program import program_digest
from pol.programs.classifier import ImageClassifier
from pol.state import Tensors, to_safetensors
from pol.tensors import tensors_digest
from tests.runs import PROGRAM, SEED, small_spec


@pytest.fixture
def model(train_set: Dataset) -> Tensors:
    state = ImageClassifier().build(small_spec(train_set).config, SEED)
    return {name: value.clone() for name, value in state.model.state_dict().items()}


def score(blob: bytes, promised: bytes, dataset: Dataset, digest: bytes | None = None) -> int:
    return score_model(
        blob, promised, program=PROGRAM, program_digest=digest or program_digest(PROGRAM),
        config=small_spec(dataset).config, dataset=digits("submission-validation"),
    )  # fmt: skip


def test_the_score_is_the_accuracy_in_basis_points(model: Tensors, train_set: Dataset) -> None:
    evaluation = digits("submission-validation")
    accuracy = ImageClassifier().evaluate(model, small_spec(train_set).config, evaluation)
    assert score(to_safetensors(model), tensors_digest(model), train_set) == round(10_000 * accuracy) > 0


def test_another_model_than_the_promised_one_scores_nothing(model: Tensors, train_set: Dataset) -> None:
    assert score(to_safetensors(model), bytes(32), train_set) == 0


@pytest.mark.parametrize("blob", [b"", b"\x80\x04N.", b"x" * 100])
def test_what_is_no_model_scores_nothing(blob: bytes, train_set: Dataset) -> None:
    assert score(blob, bytes(32), train_set) == 0


def test_a_model_of_another_shape_or_with_nan_scores_nothing(model: Tensors, train_set: Dataset) -> None:
    narrow = model | {"layers.0.weight": torch.zeros(3, 64)}
    poisoned = {name: value * float("nan") if value.is_floating_point() else value for name, value in model.items()}
    for bad in (narrow, poisoned):
        assert score(to_safetensors(bad), tensors_digest(bad), train_set) == 0


def test_a_program_that_may_not_run_here_is_not_the_trainers_fault(model: Tensors, train_set: Dataset) -> None:
    with pytest.raises(CannotRun):
        score(to_safetensors(model), tensors_digest(model), train_set, digest=bytes(32))
