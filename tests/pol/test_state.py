"""The whole state is bound, and only learned numbers are ever taken from a prover."""

from __future__ import annotations

import pytest
import torch

from pol.data import Dataset
from pol.errors import ProofError
from pol.order import DataOrder
from pol.programs.classifier import ImageClassifier
from pol.state import Tensors, TrainingState, from_safetensors, model_tensors, to_safetensors
from pol.tensors import tensors_digest
from tests.runs import SEED, small_spec

STEPS = 5


@pytest.fixture
def trained(train_set: Dataset) -> tuple[TrainingState, Tensors]:
    spec, program = small_spec(train_set), ImageClassifier()
    state, order = program.build(spec.config, SEED), DataOrder(SEED, len(train_set), spec.batch_size)
    for step in range(STEPS):
        state.key_generators(SEED)
        program.train_step(state, train_set.batch(order.batch(step)))
        state.step += 1
    return state, state.capture(SEED)


def fresh(dataset: Dataset) -> TrainingState:
    return ImageClassifier().build(small_spec(dataset).config, SEED)


def test_everything_a_step_needs_is_captured(trained: tuple[TrainingState, Tensors]) -> None:
    names = set(trained[1])
    assert {"model/layers.0.weight", "model/norms.0.running_mean", "model/norms.0.num_batches_tracked"} <= names
    assert {"optimizer/0/exp_avg", "optimizer/0/exp_avg_sq", "optimizer/0/step"} <= names
    assert {"rng/torch", "rng/numpy", "rng/python", "scalars"} <= names


def test_restored_states_continue_bit_for_bit(trained: tuple[TrainingState, Tensors], train_set: Dataset) -> None:
    state, tensors = trained
    copy = fresh(train_set)
    copy.restore(from_safetensors(to_safetensors(tensors), where="test"), layout=tensors, seed=SEED, step=STEPS)
    assert tensors_digest(copy.capture(SEED)) == tensors_digest(tensors)
    batch = train_set.batch(range(32))
    for each in (state, copy):
        each.key_generators(SEED)
        ImageClassifier().train_step(each, batch)
        each.step += 1
    assert tensors_digest(copy.capture(SEED)) == tensors_digest(state.capture(SEED))


def test_restoring_does_not_share_memory(trained: tuple[TrainingState, Tensors], train_set: Dataset) -> None:
    """An optimizer that aliases the loaded tensors would corrupt the start state of the next replay."""
    tensors, before = trained[1], tensors_digest(trained[1])
    copy = fresh(train_set)
    copy.restore(tensors, layout=tensors, seed=SEED, step=STEPS)
    ImageClassifier().train_step(copy, train_set.batch(range(32)))
    assert tensors_digest(tensors) == before


def smuggle_rate(tensors: Tensors) -> None:
    text = bytes(tensors["scalars"].tolist())
    smuggled = text.replace((1e-3 * (1 - STEPS / 40)).hex().encode(), (0.5).hex().encode())
    tensors["scalars"] = torch.frombuffer(bytearray(text.replace(b'"step":5', b'"step":6')), dtype=torch.uint8)
    if smuggled != text:
        tensors["scalars"] = torch.frombuffer(bytearray(smuggled), dtype=torch.uint8)


def poison(tensors: Tensors) -> None:
    tensors["model/layers.0.weight"][0, 0] = float("nan")


def other_generator(tensors: Tensors) -> None:
    tensors["rng/torch"][20] ^= 1


def extra(tensors: Tensors) -> None:
    tensors["optimizer/99/exp_avg"] = torch.zeros(1)


def missing(tensors: Tensors) -> None:
    del tensors["model/norms.0.running_mean"]


def other_shape(tensors: Tensors) -> None:
    tensors["optimizer/0/exp_avg"] = torch.zeros(3, 3)


def odd_names(tensors: Tensors) -> None:
    for name in ("optimizer/x", "optimizer/\u00b2/exp_avg", "optimizer", "model/", "\x1b[2J"):
        tensors[name] = torch.zeros(1)


def missing_slot(tensors: Tensors) -> None:
    del tensors["optimizer/0/exp_avg_sq"]


def double_moment(tensors: Tensors) -> None:
    tensors["optimizer/0/exp_avg"] = tensors["optimizer/0/exp_avg"].double()


def other_dtype(tensors: Tensors) -> None:
    tensors["model/layers.0.bias"] = tensors["model/layers.0.bias"].double()


@pytest.mark.parametrize(
    "tamper",
    [
        smuggle_rate,
        poison,
        other_generator,
        extra,
        missing,
        other_shape,
        other_dtype,
        odd_names,
        missing_slot,
        double_moment,
    ],
    ids=lambda f: f.__name__,
)
def test_what_the_program_decides_is_not_taken_from_the_state(
    trained: tuple[TrainingState, Tensors], train_set: Dataset, tamper
) -> None:
    tensors = {name: value.clone() for name, value in trained[1].items()}
    tamper(tensors)
    with pytest.raises(ProofError):
        fresh(train_set).restore(tensors, layout=trained[1], seed=SEED, step=STEPS)


def test_another_step_or_seed_is_refused(trained: tuple[TrainingState, Tensors], train_set: Dataset) -> None:
    for seed, step in ((SEED, STEPS + 1), (bytes(32), STEPS)):
        with pytest.raises(ProofError):
            fresh(train_set).restore(trained[1], layout=trained[1], seed=seed, step=step)


def test_model_tensors_have_their_own_names(trained: tuple[TrainingState, Tensors]) -> None:
    assert set(model_tensors(trained[1])) == set(trained[0].model.state_dict())


@pytest.mark.parametrize("data", [b"", b"\x80\x04.", b"\xff" * 64, (2**40).to_bytes(8, "little") + b"{}"])
def test_only_safetensors_are_read(data: bytes) -> None:
    with pytest.raises(ProofError, match="safetensors"):
        from_safetensors(data, where="test")
