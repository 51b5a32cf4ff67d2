"""What the published spoofs share: a stolen model, lines that lead to it, and batches optimised to fit them.

The spoofed program is a small convolutional network under plain SGD, as in the papers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy

from pol import TrainingSpec
from pol.data import Dataset
from pol.machine import this_machine
from pol.order import DataOrder
from pol.program import config_from, program_digest
from pol.programs.images import as_images
from pol.state import Tensors, TrainingState
from tests.attacks.forging import Batches, built, made_up_state, write_forgery
from tests.attacks.published import p_value
from tests.runs import SEED

PROGRAM = "pol.programs.convnet:ConvNetClassifier"


def convnet_spec(dataset: Dataset, *, segments: int, segment_length: int = 1, rate: float = 0.5) -> TrainingSpec:
    """A run of 1,702 parameters at a rate that hardly falls, without momentum, dropout or augmentation."""
    steps = segments * segment_length
    config = dict(
        network="cnn", channels=1, height=8, width=8, filters=4, classes=10, steps=1000, learning_rate=rate,
        momentum=0.0, weight_decay=0.0, dropout=0.0, crop=0, flip=False, ranks=1,
    )  # fmt: skip
    return TrainingSpec(
        program=PROGRAM,
        program_digest=program_digest(PROGRAM),
        config=config_from(config),
        dataset="digits/train",
        dataset_root=dataset.root,
        dataset_size=len(dataset),
        batch_size=32,
        steps=steps,
        segment_length=segment_length,
        machine=this_machine(threads=1).to_json(),
        trainer=bytes(20),
    )


def model_of(state: TrainingState) -> Tensors:
    """A copy of a state's model."""
    return {name: value.detach().clone() for name, value in state.model.state_dict().items()}


def line(spec: TrainingSpec, start: Tensors, target: Tensors) -> list[Tensors]:
    """The models at the boundaries of ``spec`` on the straight line from ``start`` to ``target``, both included."""
    models = []
    for index in range(spec.segments + 1):
        share = index / spec.segments
        floats = {name: torch.lerp(start[name], target[name], share) for name in start if start[name].dim()}
        counts = {name: torch.tensor(spec.segment_length * index) for name in start if not start[name].dim()}
        models.append({name: (floats | counts)[name] for name in start})
    return models


def forge(
    out: Path, spec: TrainingSpec, samples: Dataset, models: Sequence[Tensors], batches: Batches | None = None
) -> Path:
    """A proof whose boundary states hold ``models``, and everything else that can be worked out.

    It starts from the true initial state; ``models[0]`` is what the forger would rather start from.
    """
    states = [made_up_state(spec, spec.bounds(i)[1], load(model)) for i, model in enumerate(models[1:])]
    return write_forgery(out, spec, samples, [built(spec).capture(SEED), *states], batches=batches)


def load(model: Tensors) -> Callable[[TrainingState], None]:
    """What puts ``model`` into a made-up state."""

    def fill(state: TrainingState) -> None:
        state.model.load_state_dict(model)

    return fill


def rank_remapped(target: Tensors, generator: torch.Generator) -> Tensors:
    """Fresh initial weights, sorted into the rank order of ``target``'s.

    After ``initial_break.py`` of github.com/ZhangRui98/Adversarial-examples-for-Proof-of-Learning, commit 7971a3a
    (and ``init_w_0`` of Fang et al.): each layer is drawn until it passes the test of the published verifier.
    """
    remapped = dict(target)
    for name, value in target.items():
        while value.dim() > 1:
            drawn = value[0].numel() ** -0.5 * (2 * torch.rand(value.numel(), generator=generator) - 1)
            if p_value(drawn.reshape(value.shape)) >= 0.01:
                remapped[name] = torch.empty_like(drawn).index_copy(0, value.reshape(-1).argsort(), drawn.sort().values)
                remapped[name] = remapped[name].reshape(value.shape)
                break
    return remapped


def gradient(state: TrainingState, inputs: torch.Tensor, labels: torch.Tensor, *, graph: bool = False) -> torch.Tensor:
    """The gradient of the training loss as one vector."""
    loss = cross_entropy(state.model(as_images(inputs.clamp(0, 1), 1, 8, 8)), labels)
    parts = torch.autograd.grad(loss, list(state.model.parameters()), create_graph=graph)
    return torch.cat([part.reshape(-1) for part in parts])


def noise_for(
    state: TrainingState, inputs: torch.Tensor, labels: torch.Tensor, wanted: torch.Tensor, *, iterations: int = 10
) -> torch.Tensor:
    """Noise R by L-BFGS that makes the gradient on ``inputs`` + R come close to ``wanted``, and is small.

    The loss of Zhang et al. (S&P 2022, section V): ||gradient - wanted||² + weight · ||R||².
    """
    noise = torch.zeros_like(inputs, requires_grad=True)
    optimizer = torch.optim.LBFGS([noise], max_iter=iterations, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        gap = gradient(state, inputs + noise, labels, graph=True) - wanted
        loss = gap.square().sum() + 1e-3 * noise.square().sum()
        loss.backward()
        return loss.detach()

    optimizer.step(closure)
    return noise.detach()


def indices_of(spec: TrainingSpec, step: int) -> tuple[int, ...]:
    """The batch of a step in the committed order."""
    return DataOrder(SEED, spec.dataset_size, spec.batch_size).batch(step)


def with_noise(samples: Dataset, rows: Sequence[int], noise: torch.Tensor) -> Dataset:
    """The data set with ``noise`` added to some inputs, which stay within [0, 1]."""
    inputs = samples.inputs.clone()
    inputs[torch.tensor(rows)] = (inputs[torch.tensor(rows)] + noise).clamp(0, 1)
    return Dataset(inputs, samples.labels)


def at(spec: TrainingSpec, step: int, model: Tensors) -> TrainingState:
    """The program's state before ``step``, in training mode, with the weights of ``model``."""
    state = built(spec)
    state.model.load_state_dict(model)
    state.model.train()
    state.advance_schedule(step)
    return state
