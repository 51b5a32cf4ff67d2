"""Other weights, the same function: hidden units permuted, scaled and flipped, and units added that change nothing.

Yan et al. 2023 ("Rethinking white-box watermarks", USENIX Security) call added units neural structural obfuscation.
Whoever compares weights by their index finds nothing afterwards. Symmetries of attention are in ``attention``.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from experiments.attacks import attention
from experiments.attacks.attack import Attack, Setting
from experiments.attacks.merging import merged
from experiments.attacks.networks import State, loaded, state_of
from experiments.attacks.structure import Units, Writer, hidden_units

BATCH_NORM_EPSILON = 1e-5
DUMMIES = ("silent", "dead", "clique", "split")


def shuffled(state: State, rng: torch.Generator, *, spread: float) -> State:
    """Every hidden unit moved and scaled by a log-normal factor of deviation ``spread``; behind batch norm flipped too.

    The same function, up to rounding (Pan, Yan et al. 2022, "invariant neuron transforms").
    """
    result = dict(state)
    drawn: list[tuple[torch.Tensor, torch.Tensor]] = []
    for units in hidden_units(state):
        order, scale = _drawn(units, spread, rng)
        if units.inside is not None:
            order, scale = _around(order, scale, *drawn[units.inside])
        drawn.append((order, scale))
        for writer in units.writers:
            _move_writer(result, writer, order, scale[order], spread, rng)
        for name in units.readers:
            shape = (1, -1, *[1] * (result[name].dim() - 2))
            result[name] = result[name][:, order] / scale[order].reshape(shape)
    return result


def widened(state: State, rng: torch.Generator, *, dummies: str, share: float) -> State:
    """``share`` times as many units again in every hidden layer, which change no output.

    ``silent`` units are read by nobody, ``dead`` ones never fire, ``clique`` ones come in pairs that cancel each other,
    and ``split`` replaces units by two whose outgoing weights, far larger than their own, add up to them. Units added
    to a residual stream are silent whatever was asked for.
    """
    result = dict(state)
    origins: list[torch.Tensor] = []
    for units in hidden_units(state):
        origin = torch.cat([torch.arange(units.size), torch.full((round(share * units.size),), -1)])
        if units.inside is not None:
            origin = _widened_around(units.size, len(origin), origins[units.inside])
        origins.append(origin)
        _widen(result, units, origin, "silent" if units.stream else dummies, rng)
    return result


def soiled(state: State, unlit: torch.Tensor, rng: torch.Generator, *, strength: float) -> State:
    """An MLP with large weights on the pixels ``unlit``, which are always zero: no unit looks like itself any more."""
    result = dict(state)
    weight = state["layers.0.weight"].clone()
    garbage = torch.randn(len(weight), len(unlit), generator=rng)
    weight[:, unlit] = strength * garbage * weight.std() * weight.shape[1] ** 0.5
    result["layers.0.weight"] = weight
    return result


def _drawn(units: Units, spread: float, rng: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """An order of the units, and a positive scale for each (by its old number)."""
    scale = torch.exp(spread * torch.randn(units.size, generator=rng))
    if not any(writer.scales for writer in units.writers):
        scale = torch.ones(units.size)
    return torch.randperm(units.size, generator=rng), scale


def _around(
    order: torch.Tensor, scale: torch.Tensor, inner: torch.Tensor, inner_scale: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The wider stream's order and scale, with those of the narrower one in its middle."""
    front = (len(order) - len(inner)) // 2
    middle = (order >= front) & (order < front + len(inner))
    outer, scale = order[~middle], scale.clone()
    scale[front : front + len(inner)] = inner_scale
    return torch.cat([outer[:front], inner + front, outer[front:]]), scale


def _move_writer(
    state: State, writer: Writer, order: torch.Tensor, scale: torch.Tensor, spread: float, rng: torch.Generator
) -> None:
    """Permute a writer's units and scale them; batch norm divides another factor, of either sign, out again."""
    factor = scale if writer.scales else torch.ones(len(order))
    if writer.norm:
        signs = torch.randint(2, (len(order),), generator=rng) * 2 - 1
        factor = signs * torch.exp(spread * torch.randn(len(order), generator=rng))
        _rescale_norm(state, writer.norm, order, scale, factor)
    for name in writer.tensors:
        shape = (-1, *[1] * (state[name].dim() - 1))
        state[name] = state[name][order] * factor.reshape(shape)


def _rescale_norm(state: State, norm: str, order: torch.Tensor, scale: torch.Tensor, factor: torch.Tensor) -> None:
    mean, variance = state[f"{norm}.running_mean"][order], state[f"{norm}.running_var"][order]
    before = (variance + BATCH_NORM_EPSILON).sqrt()
    after = (factor.square() * variance + BATCH_NORM_EPSILON).sqrt()
    state[f"{norm}.weight"] = state[f"{norm}.weight"][order] * scale * after / (factor * before)
    state[f"{norm}.bias"] = state[f"{norm}.bias"][order] * scale
    state[f"{norm}.running_mean"] = mean * factor
    state[f"{norm}.running_var"] = variance * factor.square()


def _widened_around(size: int, wanted: int, inner: torch.Tensor) -> torch.Tensor:
    """Where the units of a widened stream come from (-1: they are new), the widened narrower one in its middle."""
    narrow = int(inner.max()) + 1
    old_front = (size - narrow) // 2
    wanted = max(wanted, size - narrow + len(inner))
    front = (wanted - len(inner)) // 2
    middle = torch.where(inner >= 0, inner + old_front, -1)
    before = torch.cat([torch.arange(old_front), torch.full((front - old_front,), -1)])
    behind = torch.arange(old_front + narrow, size)
    rest = wanted - front - len(inner) - len(behind)
    return torch.cat([before, middle, behind, torch.full((rest,), -1)])


def _widen(state: State, units: Units, origin: torch.Tensor, dummies: str, rng: torch.Generator) -> None:
    new = int((origin < 0).sum())
    twins = torch.randperm(units.size, generator=rng)[:new]
    for writer in units.writers:
        for name in _written(writer, state):
            fresh = _fresh(state[name], new, name, units, writer, dummies, rng)
            if dummies == "split":
                fresh = state[name][twins]
            if dummies == "clique":
                fresh[new // 2 : 2 * (new // 2)] = fresh[: new // 2]
            state[name] = _placed(state[name], fresh, origin, axis=0)
    for name in units.readers:
        reader = state[name].clone()
        fresh = reader[:, torch.randint(units.size, (new,), generator=rng)]
        if dummies == "silent":
            fresh = torch.zeros_like(fresh)
        elif dummies == "clique":
            half = new // 2
            fresh[:, half:] = torch.cat([-fresh[:, :half], torch.zeros_like(fresh[:, 2 * half :])], dim=1)
        elif dummies == "split":
            part = torch.exp(2 * torch.randn(new, generator=rng)).reshape(1, -1, *[1] * (reader.dim() - 2))
            fresh = reader[:, twins] * (1 - part)
            reader[:, twins] = reader[:, twins] * part
        state[name] = _placed(reader, fresh, origin, axis=1)


def _written(writer: Writer, state: State) -> Iterable[str]:
    parts = ("weight", "bias", "running_mean", "running_var") if writer.norm else ()
    return (*writer.tensors, *(f"{writer.norm}.{part}" for part in parts if f"{writer.norm}.{part}" in state))


def _fresh(
    tensor: torch.Tensor, new: int, name: str, units: Units, writer: Writer, dummies: str, rng: torch.Generator
) -> torch.Tensor:
    """Values for ``new`` units that look like those of ``tensor``; of dead units, such that they are never above 0."""
    if tensor.dim() > 1:
        random = torch.randn(new, *tensor.shape[1:], generator=rng) * tensor.std()
        return torch.zeros_like(random) if dummies == "dead" else random
    values = tensor[torch.randint(len(tensor), (new,), generator=rng)]
    if dummies != "dead" or name.endswith("running_var"):
        return values
    shift = name.endswith(".bias") and units.rectified and (writer.norm is None or name.startswith(writer.norm))
    return -values.abs() if shift else torch.zeros_like(values)


def _placed(tensor: torch.Tensor, fresh: torch.Tensor, origin: torch.Tensor, axis: int) -> torch.Tensor:
    """``tensor`` with the slices ``fresh`` where ``origin`` says -1."""
    source = origin.clone()
    source[origin < 0] = torch.arange(int((origin < 0).sum())) + tensor.shape[axis]
    return torch.cat([tensor, fresh], dim=axis).index_select(axis, source)


def shuffle(victim: nn.Module, setting: Setting, rng: torch.Generator, *, spread: float) -> nn.Module:
    """:func:`shuffled`, and the heads of attention as well. Adapters are merged first."""
    network = merged(victim) if setting.kind == "lora" else victim
    network = loaded(network, shuffled(state_of(network), rng, spread=spread))
    return attention.obscured(network, rng) if setting.kind in {"transformer", "lora"} else network


def widen(victim: nn.Module, setting: Setting, rng: torch.Generator, *, dummies: str, share: float) -> nn.Module:
    """:func:`widened`, then :func:`shuffle`, so that nobody sees which units are new."""
    network = merged(victim) if setting.kind == "lora" else victim
    network = loaded(network, widened(state_of(network), rng, dummies=dummies, share=share))
    return loaded(network, shuffled(state_of(network), rng, spread=1.0))


def soil(victim: nn.Module, setting: Setting, rng: torch.Generator, *, strength: float) -> nn.Module:
    """:func:`soiled` where the thief's data is always zero, then :func:`shuffled`."""
    unlit = (setting.inputs.flatten(1) == 0).all(0).nonzero().flatten()
    dirty = soiled(state_of(victim), unlit, rng, strength=strength)
    return loaded(victim, shuffled(dirty, rng, spread=1.0))


ATTACKS = (
    Attack(
        number=20, name="permutation-scaling-signs", family="symmetry", source="Pan, Yan et al., KDD 2022",
        published={"spread": 1.0}, run={"spread": 1.0}, action=shuffle,
    ),
    Attack(
        number=20, name="soiled-inputs", family="symmetry", source="ours", published={}, run={"strength": 20.0},
        action=soil, kinds=("mlp",),
    ),
    *(
        Attack(
            number=21, name=f"dummies-{dummies}-{round(100 * share)}", family="symmetry",
            source="Yan et al., USENIX Security 2023", published={"share": 1.0},
            run={"dummies": dummies, "share": share}, action=widen,
        )
        for dummies in DUMMIES
        for share in (0.05, 0.2, 1.0)
    ),
    *attention.ATTACKS,
)  # fmt: skip
