"""Case 2: inverse gradient. The thief goes backwards from the stolen weights, then "trains" forwards to them.

Source: Jia et al., S&P 2021, section VII. A step is W' = W - rate * gradient(W); given W', its W is the fixed point of
W = W' + rate * gradient(W). Step by step this gives a start from which honest training ends at the stolen model, and
every step of it is true. It fails here because the first state is not the thief's to choose: it is built from the seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from challenge.verdict import ExitCode
from pol import TrainingSpec
from pol.data import Dataset
from pol.state import Tensors, model_tensors
from tests.attacks.forging import built, trained_states, write_forgery
from tests.attacks.judging import judged, rejected
from tests.attacks.published import Log, distances, initialisation_passes
from tests.attacks.spoofs import convnet_spec, gradient, indices_of, model_of

ITERATIONS = 30


def inverted(spec: TrainingSpec, samples: Dataset, target: Tensors) -> Tensors:
    """The model from which the run of ``spec`` ends near ``target``."""
    state = built(spec)
    state.model.load_state_dict(target)
    state.model.train()
    parameters = list(state.model.parameters())
    for step in reversed(range(spec.steps)):
        inputs, labels = samples.batch(indices_of(spec, step))
        rate = rate_at(spec, step)
        after = torch.nn.utils.parameters_to_vector(parameters).detach()
        tried: list[tuple[float, torch.Tensor]] = []
        for _ in range(ITERATIONS):
            before = torch.nn.utils.parameters_to_vector(parameters).detach()
            found = after + rate * gradient(state, inputs, labels)
            tried.append((float((found - before).norm()), before))
            torch.nn.utils.vector_to_parameters(found, parameters)
        # where a ReLU switches there is no fixed point, so the best of all is taken
        torch.nn.utils.vector_to_parameters(min(tried, key=lambda pair: pair[0])[1], parameters)
    return {name: target[name] if "running" in name else value for name, value in model_of(state).items()}


def rate_at(spec: TrainingSpec, step: int) -> float:
    state = built(spec)
    state.advance_schedule(step)
    return float(state.optimizer.param_groups[0]["lr"])


@pytest.fixture(scope="module")
def spec(train_set: Dataset) -> TrainingSpec:
    return convnet_spec(train_set, segments=4, segment_length=2, rate=0.01)


@pytest.fixture(scope="module")
def states(spec: TrainingSpec, stolen: Tensors, train_set: Dataset) -> Sequence[Tensors]:
    return trained_states(spec, train_set, start=inverted(spec, train_set, stolen))


def test_the_attack_lands_on_the_stolen_model(spec: TrainingSpec, states: Sequence[Tensors], stolen: Tensors) -> None:
    models = [model_tensors(state) for state in states]
    way = distances(spec, models[0], models[-1])["2"]
    assert distances(spec, models[-1], stolen)["2"] < way / 8


def test_the_published_replay_accepts_it(spec: TrainingSpec, states: Sequence[Tensors], train_set: Dataset) -> None:
    """Nothing in it is false but the start, which only a test of distributions looks at: case 6 passes that."""
    models = [model_tensors(state) for state in states]
    log = Log(spec=spec, checkpoints=models, batch=lambda step: train_set.batch(indices_of(spec, step)))
    assert log.passes() and max(log.error(index)["2"] for index in range(spec.segments)) == 0
    assert not initialisation_passes(models[0])


def test_a_start_that_is_not_the_seeds_is_refused(
    spec: TrainingSpec, states: Sequence[Tensors], train_set: Dataset, tmp_path: Path
) -> None:
    verdict = judged(write_forgery(tmp_path / "proof", spec, train_set, states))
    assert rejected(verdict, ExitCode.REPLAY_MISMATCH, "does not start from the program's initial state") == {0}
    assert dict(verdict.checks)["replay"] == "3 of 4 replayed segments match bit for bit", "all the rest is true"


def test_the_seeds_start_does_not_lead_there(
    spec: TrainingSpec, states: Sequence[Tensors], train_set: Dataset, tmp_path: Path
) -> None:
    from_seed = trained_states(spec, train_set)[0]
    verdict = judged(write_forgery(tmp_path / "proof", spec, train_set, [from_seed, *states[1:]]))
    assert rejected(verdict, ExitCode.REPLAY_MISMATCH, "segment 0 (steps 0 to 2) does not replay") == {0}


def test_the_honest_twin_passes(spec: TrainingSpec, train_set: Dataset, tmp_path: Path) -> None:
    """The same tools, from the seed's own start."""
    verdict = judged(write_forgery(tmp_path / "proof", spec, train_set, trained_states(spec, train_set)))
    assert verdict.exit_code is ExitCode.VERIFIED
