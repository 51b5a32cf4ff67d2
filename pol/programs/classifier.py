"""Built-in program: a multi-layer perceptron that classifies small images, trained with Adam and a linear decay."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from pol.data import Batch, Dataset
from pol.encoding import Json, float_text
from pol.errors import SpecError
from pol.seed import draw
from pol.state import TrainingState

MAX_WIDTH = 8192
MAX_LAYERS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifierConfig:
    """``inputs`` pixels, ``hidden`` layers of ``width`` units, ``classes`` labels; ``steps`` until the rate is zero."""

    inputs: int
    width: int
    hidden: int
    classes: int
    steps: int
    learning_rate: float
    weight_decay: float
    dropout: float
    batch_norm: bool

    @classmethod
    def parse(cls, config: Mapping[str, Json]) -> ClassifierConfig:
        """Read a spec's config strictly; raises :class:`SpecError` naming the field."""
        kinds = {field.name: field.type for field in fields(cls)}
        if set(config) != set(kinds):
            raise SpecError(f"classifier config: fields {sorted(set(config) ^ set(kinds))} are missing or unknown")
        values: dict[str, Any] = {name: _parse(name, str(kind), config[name]) for name, kind in kinds.items()}
        parsed = cls(**values)
        sizes_fit = 0 < parsed.width <= MAX_WIDTH and 0 < parsed.hidden <= MAX_LAYERS and parsed.steps > 0
        if not sizes_fit or not 0 < parsed.inputs <= 2**20 or not 1 < parsed.classes <= 2**16:
            raise SpecError("classifier config: a size is zero, negative or too large")
        if not 0 <= parsed.dropout < 1 or not 0 < parsed.learning_rate <= 1 or not 0 <= parsed.weight_decay <= 1:
            raise SpecError("classifier config: dropout, learning_rate or weight_decay is out of range")
        return parsed


class MLP(nn.Module):
    """``layers.0`` … ``layers.hidden``: linear layers with ReLU (and batch norm, dropout) between them."""

    def __init__(self, config: ClassifierConfig) -> None:
        super().__init__()
        widths = [config.inputs] + [config.width] * config.hidden + [config.classes]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        norms = [nn.BatchNorm1d(config.width) for _ in range(config.hidden)] if config.batch_norm else []
        self.norms = nn.ModuleList(norms)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Logits of shape (batch, classes) for inputs of shape (batch, inputs)."""
        value = inputs
        for index, layer in enumerate(self.layers[:-1]):
            value = layer(value)
            if self.norms:
                value = self.norms[index](value)
            value = self.dropout(torch.relu(value))
        return self.layers[-1](value)  # type: ignore[no-any-return]


class ImageClassifier:
    """Cross-entropy training of :class:`MLP`; the score is the share of samples classified right."""

    def build(self, config: Mapping[str, Json], seed: bytes) -> TrainingState:
        """The initial state, keyed by the run's seed."""
        parsed = ClassifierConfig.parse(config)
        torch.manual_seed(draw(seed, "init"))
        model = MLP(parsed)
        optimizer = torch.optim.Adam(
            model.parameters(), lr=parsed.learning_rate, weight_decay=parsed.weight_decay, foreach=False
        )
        scheduler = torch.optim.lr_scheduler.LinearLR(
            optimizer, start_factor=1.0, end_factor=0.0, total_iters=parsed.steps
        )
        return TrainingState(model=model, optimizer=optimizer, scheduler=scheduler)

    def train_step(self, state: TrainingState, batch: Batch) -> torch.Tensor:
        """Forward, backward, Adam, schedule, zero_grad."""
        inputs, labels = batch
        state.model.train()
        loss = nn.functional.cross_entropy(state.model(inputs), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        state.optimizer.step()
        if state.scheduler:
            state.scheduler.step()
        state.optimizer.zero_grad()
        return loss.detach()

    def evaluate(self, model: Mapping[str, torch.Tensor], config: Mapping[str, Json], dataset: Dataset) -> float:
        """Accuracy in [0, 1]; :class:`SpecError` if the tensors do not fit the config's model."""
        network = MLP(ClassifierConfig.parse(config))
        try:
            network.load_state_dict(dict(model))
        except RuntimeError as error:
            raise SpecError(f"the model does not fit the task's program: {error}") from error
        network.eval()
        with torch.no_grad():
            predicted = network(dataset.inputs).argmax(dim=1)
        return float((predicted == dataset.labels).double().mean())


def _parse(name: str, kind: str, value: Json) -> bool | int | float:
    if kind == "bool" and isinstance(value, bool):
        return value
    if kind == "int" and isinstance(value, int) and not isinstance(value, bool):
        return value
    if kind == "float" and isinstance(value, str):
        try:
            number = float.fromhex(value)
            if float_text(number) == value:  # one value, one spelling
                return number
        except (ValueError, OverflowError, SpecError):
            pass
    raise SpecError(f"classifier config: {name} must be a {kind} (floats as float.hex()), found {value!r}")
