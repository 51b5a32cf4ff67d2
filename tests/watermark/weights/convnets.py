"""Small networks of pol.programs.convnet for the tests of this folder, and what a thief does to them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch.nn import functional

from experiments.attacks import symmetry
from pol.programs.convnet import ConvNet, ConvNetConfig
from tests.watermark import digits

State = dict[str, torch.Tensor]
Kind = Literal["silent", "dead", "clique", "split"]
RESNET, CNN = "resnet20", "cnn"


def network(name: str, filters: int) -> ConvNet:
    """A fresh network for 8 x 8 images of one channel and 10 classes."""
    sizes = dict(channels=1, height=8, width=8, filters=filters, classes=10, steps=1, crop=0, flip=False, ranks=1)
    return ConvNet(ConvNetConfig(network=name, learning_rate=0.1, momentum=0.9, weight_decay=0, dropout=0, **sizes))


def initial(name: str, filters: int, seed: int) -> State:
    """Random weights, and random norms with gamma of both signs, as no training would leave them."""
    torch.manual_seed(seed)
    state = {key: tensor.detach().clone() for key, tensor in network(name, filters).state_dict().items()}
    for key, tensor in state.items():
        if key.endswith("running_var"):
            tensor.uniform_(0.5, 2)
        elif key.endswith("running_mean") or (key.endswith("bias") and key != "head.bias"):
            tensor.normal_(0, 0.3)
        elif tensor.dim() == 1 and key.endswith("weight"):
            tensor.uniform_(0.5, 1.5).mul_(torch.randint(0, 2, tensor.shape) * 2 - 1)
    return state


def train(name: str, filters: int, *, steps: int, seed: int, start: State | None = None, rate: float = 0.1) -> State:
    """``steps`` of SGD on the digits, batches of 64, from a fresh network or from ``start``."""
    torch.manual_seed(seed)
    model = network(name, filters)
    if start is not None:
        model.load_state_dict(start)
    images, labels = (part[digits.TRAIN] for part in digits.data())
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9, weight_decay=5e-4)
    model.train()
    for _ in range(steps):
        batch = torch.randint(len(labels), (64,))
        optimizer.zero_grad()
        functional.cross_entropy(model(images[batch].view(-1, 1, 8, 8)), labels[batch]).backward()
        optimizer.step()
    return {key: tensor.detach().clone() for key, tensor in model.state_dict().items()}


@torch.no_grad()
def logits(state: State, images: torch.Tensor) -> torch.Tensor:
    """What the network of ``state`` answers to images [n, 64]."""
    filters = len(state["features.0.weight"])
    model = network(RESNET if _residual(state) else CNN, filters)
    model.load_state_dict(state)
    return model.eval()(images.view(-1, 1, 8, 8))  # type: ignore[no-any-return]


def accuracy(state: State) -> float:
    images, labels = (part[digits.TEST] for part in digits.data())
    return float((logits(state, images).argmax(1) == labels).float().mean())


@dataclass(frozen=True)
class Side:
    """Channels ``first`` to ``first + size`` of a set of channels that must be permuted and scaled together."""

    label: str
    first: int
    size: int

    def of(self, channels: torch.Tensor) -> torch.Tensor:
        return channels[self.first : self.first + self.size]


@dataclass(frozen=True)
class Layer:
    name: str
    norm: str | None
    source: Side | None
    target: Side | None


def layers(filters: int, residual: bool) -> Iterator[Layer]:
    """The layers in order, with the shortcuts of option A written out for these widths (``filters`` is even)."""
    if not residual:
        sides = [Side(f"features {i}", 0, filters << i) for i in range(3)]
        yield Layer("features.0", "features.1", None, sides[0])
        yield Layer("features.3.0", "features.3.1", sides[0], sides[1])
        yield Layer("features.4.0", "features.4.1", sides[1], sides[2])
        yield Layer("head", None, sides[2], None)
        return
    stages = [Side("stream", 3 * filters // 2, filters), Side("stream", filters, 2 * filters)]
    stages.append(Side("stream", 0, 4 * filters))
    yield Layer("features.0", "features.1", None, stages[0])
    before = stages[0]
    for block in range(9):
        after = stages[block // 3]
        name, inner = f"features.{block + 3}.residual", Side(f"block {block}", 0, after.size)
        yield Layer(f"{name}.0", f"{name}.1", before, inner)
        yield Layer(f"{name}.3", f"{name}.4", inner, after)
        before = after
    yield Layer("head", None, before, None)


def shuffled(state: State, seed: int, *, spread: float = 1.0) -> State:
    """All channels permuted and scaled by log-normal factors, half of the convolutions' rows negated with gamma."""
    return symmetry.shuffled(dict(state), torch.Generator().manual_seed(seed), spread=spread)


def widened(state: State, kind: Kind, seed: int, *, spread: float = 2.0) -> State:
    """Twice as many channels everywhere, residual streams too, in a random order; the new ones change no output.

    ``silent`` channels are never read, ``dead`` ones are always zero, ``clique`` ones come in pairs that cancel each
    other, and ``split`` puts two channels for each, whose outgoing weights add up to its own. By default they are far
    larger, so that the network does not survive much rounding; a small ``spread`` makes them about equal.
    """
    generator = torch.Generator().manual_seed(seed)
    filters = len(state["features.0.weight"])
    old, new = (list(layers(size, _residual(state))) for size in (filters, 2 * filters))
    wider = _kinds(new)
    places = {label: _within(kinds, wider[label], generator) for label, kinds in _kinds(old).items()}
    share = {
        label: torch.exp(spread * torch.randn(len(kinds), generator=generator)) for label, kinds in _kinds(old).items()
    }
    result = dict(state)
    for part, wide in zip(old, new, strict=True):
        weight = state[f"{part.name}.weight"]
        if part.source and wide.source:
            ours, theirs = _read(weight, kind, part.source.of(share[part.source.label]), generator)
            weight = _placed(ours, theirs, *_local(places, part.source, wide.source), 1)
        if part.target and wide.target and part.norm:
            local = _local(places, part.target, wide.target)
            weight = _placed(weight, _written(weight, kind, generator), *local, 0)
            for item in ("weight", "bias", "running_mean", "running_var"):
                values = state[f"{part.norm}.{item}"]
                result[f"{part.norm}.{item}"] = _placed(values, _norm_of_new(values, kind, item), *local, 0)
        result[f"{part.name}.weight"] = weight
    return result


def composed(*attacks: Callable[[State], State]) -> Callable[[State], State]:
    def attack(state: State) -> State:
        for each in attacks:
            state = each(state)
        return state

    return attack


def _residual(state: State) -> bool:
    return "features.3.residual.0.weight" in state


def _kinds(parts: list[Layer]) -> dict[str, torch.Tensor]:
    """For each set of channels, how many of its sides a channel is on: only channels alike in that may be exchanged."""
    sides = {side for part in parts for side in (part.source, part.target) if side}
    kinds = {side.label: torch.zeros(max(s.first + s.size for s in sides if s.label == side.label)) for side in sides}
    for side in sides:
        side.of(kinds[side.label]).add_(1)
    return dict(sorted(kinds.items()))


def _within(kinds: torch.Tensor, wider: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """A random place among ``wider`` for each channel, and one for its twin if there is room, both of its own kind."""
    places = torch.zeros(2, len(kinds), dtype=torch.long)
    for kind in kinds.unique():
        room, here = torch.nonzero(wider == kind).flatten(), torch.nonzero(kinds == kind).flatten()
        room = room[torch.randperm(len(room), generator=generator)]
        for row, part in zip(places, room.split(len(here)), strict=False):
            row[here] = part
    return places[0], places[1]


def _local(
    places: dict[str, tuple[torch.Tensor, torch.Tensor]], old: Side, new: Side
) -> tuple[torch.Tensor, torch.Tensor]:
    slots, twins = places[old.label]
    return old.of(slots) - new.first, old.of(twins) - new.first


def _placed(
    ours: torch.Tensor, theirs: torch.Tensor, slots: torch.Tensor, twins: torch.Tensor, axis: int
) -> torch.Tensor:
    wide = torch.cat([torch.zeros_like(ours), torch.zeros_like(ours)], dim=axis)
    return wide.index_copy(axis, slots, ours).index_copy(axis, twins, theirs)


def _read(
    weight: torch.Tensor, kind: Kind, share: torch.Tensor, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """What a layer reads from the old channels and from the new ones."""
    if kind == "silent":
        return weight, torch.zeros_like(weight)
    if kind == "split":
        return _scaled(weight, share, 1), _scaled(weight, 1 - share, 1)
    fresh = weight.std() * torch.randn(weight.shape, generator=generator)
    if kind == "clique":
        fresh[:, 1::2] = -fresh[:, ::2]
    return weight, fresh


def _written(weight: torch.Tensor, kind: Kind, generator: torch.Generator) -> torch.Tensor:
    if kind == "split":
        return weight
    fresh = weight.std() * torch.randn(weight.shape, generator=generator)
    if kind == "clique":
        fresh[1::2] = fresh[::2]
    return fresh


def _norm_of_new(values: torch.Tensor, kind: Kind, item: str) -> torch.Tensor:
    if kind == "split":
        return values
    fresh = values.flip(0)
    if kind == "clique":
        fresh[1::2] = fresh[::2]
    if kind == "dead" and item in ("weight", "bias"):
        return torch.zeros_like(fresh) if item == "weight" else -fresh.abs()
    return fresh


def _scaled(weight: torch.Tensor, factors: torch.Tensor, axis: int) -> torch.Tensor:
    return weight * factors.view([-1 if d == axis else 1 for d in range(weight.dim())])
