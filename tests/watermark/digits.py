"""Small ReLU MLPs on scikit-learn's digits, for the tests of this folder."""

from __future__ import annotations

import functools
import math
from itertools import pairwise

import torch
from sklearn.datasets import load_digits
from torch.nn import functional

State = dict[str, torch.Tensor]
CARRIER = "layers.1.weight"


@functools.cache
def data() -> tuple[torch.Tensor, torch.Tensor]:
    """1,797 images [n, 64] in [0, 1] and their labels [n], shuffled once."""
    images, labels = load_digits(return_X_y=True)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    return torch.tensor(images / 16, dtype=torch.float32)[order], torch.tensor(labels)[order]


TRAIN = slice(0, 1200)
TEST = slice(1200, None)
PASS = 1200 // 64
"""Steps of one pass over the training data."""


def initial(seed: int, widths: tuple[int, ...] = (64, 512, 512, 10)) -> State:
    """torch.nn.Linear's default initialisation, from ``seed``."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for layer, (inputs, outputs) in enumerate(pairwise(widths)):
        reach = 1 / math.sqrt(inputs)
        state[f"layers.{layer}.weight"] = (torch.rand(outputs, inputs, generator=generator) * 2 - 1) * reach
        state[f"layers.{layer}.bias"] = (torch.rand(outputs, generator=generator) * 2 - 1) * reach
    return state


def forward(state: State, images: torch.Tensor, drop: torch.Generator | None = None) -> torch.Tensor:
    """The logits [n, 10]; with a generator, dropout of 0.1 after each hidden layer."""
    depth = len(state) // 2
    values = images
    for layer in range(depth):
        values = functional.linear(values, state[f"layers.{layer}.weight"], state[f"layers.{layer}.bias"])
        if layer < depth - 1:
            values = functional.relu(values)
            if drop is not None:
                values = values * (torch.rand(values.shape, generator=drop) > 0.1) / 0.9
    return values


def train(state: State, *, steps: int, rate: float = 1e-3, seed: int) -> State:
    """``steps`` of Adam with batches of 64, from ``state``; the result is a new state."""
    images, labels = (part[TRAIN] for part in data())
    current = {name: tensor.clone().requires_grad_() for name, tensor in state.items()}
    optimizer = torch.optim.Adam(current.values(), lr=rate)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        batch = torch.randint(len(labels), (64,), generator=generator)
        optimizer.zero_grad()
        functional.cross_entropy(forward(current, images[batch], generator), labels[batch]).backward()
        optimizer.step()
    return {name: tensor.detach() for name, tensor in current.items()}


def train_many(seeds: range, widths: tuple[int, ...], *, steps: int, rate: float) -> list[State]:
    """One independent model a seed, trained side by side (Adam, batches of 64, no dropout)."""
    images, labels = (part[TRAIN] for part in data())
    starts = [initial(seed, widths) for seed in seeds]
    stack = {name: torch.stack([start[name] for start in starts]).requires_grad_() for name in starts[0]}
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    optimizer = torch.optim.Adam(stack.values(), lr=rate)
    for _ in range(steps):
        batch = torch.stack([torch.randint(len(labels), (64,), generator=generator) for generator in generators])
        values = images[batch]
        for layer in range(depth := len(widths) - 1):
            weight, bias = stack[f"layers.{layer}.weight"], stack[f"layers.{layer}.bias"]
            values = torch.baddbmm(bias[:, None, :], values, weight.transpose(1, 2))
            values = functional.relu(values) if layer < depth - 1 else values
        optimizer.zero_grad()
        (functional.cross_entropy(values.flatten(0, 1), labels[batch].flatten()) * len(seeds)).backward()
        optimizer.step()
    return [{name: tensor[i].detach().clone() for name, tensor in stack.items()} for i in range(len(seeds))]


def accuracy(state: State) -> float:
    """The share of test images classified right."""
    images, labels = (part[TEST] for part in data())
    return float((forward(state, images).argmax(1) == labels).float().mean())
