"""Weights and units set to zero, in the hope that the mark was in them."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

import torch
from torch import nn

from experiments.attacks.attack import BUILT, EVERY, Attack, Setting
from experiments.attacks.finetuning import SOK
from experiments.attacks.networks import State, copied, loaded, matrices, outputs_of, state_of
from experiments.attacks.structure import Units, hidden_units
from experiments.attacks.training import fit, own


def pruned(state: State, names: Iterable[str], *, share: float) -> State:
    """The smallest ``share`` of each named tensor set to zero."""
    result = dict(state)
    for name in names:
        tensor = state[name]
        if count := int(share * tensor.numel()):
            threshold = tensor.abs().flatten().kthvalue(count).values
            result[name] = torch.where(tensor.abs() > threshold, tensor, 0.0)
    return result


def without(state: State, units: Units, dropped: torch.Tensor) -> State:
    """``state`` in which nothing reads the ``dropped`` units any more, nor writes them."""
    result = dict(state)
    for name in units.readers:
        result[name] = state[name].index_fill(1, dropped, 0)
    for name in (name for writer in units.writers for name in writer.tensors):
        result[name] = state[name].index_fill(0, dropped, 0)
    return result


def activity(network: nn.Module, units: Units, inputs: torch.Tensor) -> torch.Tensor:
    """The mean activation [size] of hidden ``units``, as their first reader meets it."""
    reader = network.get_submodule(units.readers[0].removesuffix(".weight"))
    seen: list[torch.Tensor] = []

    def look(_: nn.Module, given: tuple[torch.Tensor, ...]) -> None:
        axis = 1 if isinstance(reader, nn.Conv2d) else -1
        seen.append(given[0].movedim(axis, -1).flatten(0, -2).mean(0))

    handle = reader.register_forward_pre_hook(look)
    with torch.no_grad():
        outputs_of(network.eval(), inputs)
    handle.remove()
    return seen[0]


def magnitude(victim: nn.Module, setting: Setting, rng: torch.Generator, *, share: float) -> nn.Module:
    """Magnitude pruning of every weight tensor (Zhu and Gupta 2018); norms and biases stay."""
    return loaded(victim, pruned(state_of(victim), matrices(victim), share=share))


def fine_pruned(
    victim: nn.Module, setting: Setting, rng: torch.Generator, *, share: float, epochs: int, rate: float
) -> nn.Module:
    """Fine-pruning (Liu et al. 2018): the ``share`` of the last hidden units that the thief's data wakes least, cut.

    Then the network is fine-tuned, and what was cut stays cut.
    """
    units = last_units(victim)
    dormant = activity(victim, units, setting.inputs[:1024]).argsort()[: int(share * units.size)]
    network = loaded(victim, without(state_of(victim), units, dormant))
    parameters = dict(network.named_parameters())

    def cut() -> None:
        with torch.no_grad():
            for name in units.readers:
                parameters[name].index_fill_(1, dormant, 0)

    return fit(network, own(network, setting), len(setting.inputs), setting, rng, epochs=epochs, rate=rate, after=cut)


def last_units(network: nn.Module) -> Units:
    """The hidden units nearest to the outputs, but for those of a residual stream that all the network passes on."""
    groups = hidden_units(state_of(network))
    return [units for units in groups if not units.stream][-1]


def sparse_tuned(
    victim: nn.Module, setting: Setting, rng: torch.Generator, *, share: float, epochs: int, rate: float
) -> nn.Module:
    """Magnitude pruning, then fine-tuning of the weights that are left."""
    network = copied(magnitude(victim, setting, rng, share=share))
    masks = {name: parameter != 0 for name, parameter in network.named_parameters() if name in set(matrices(network))}

    def mask() -> None:
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                if name in masks:
                    parameter.mul_(masks[name])

    return fit(network, own(network, setting), len(setting.inputs), setting, rng, epochs=epochs, rate=rate, after=mask)


_attack = partial(Attack, family="pruning")

ATTACKS = (
    *(
        _attack(
            number=4, name=f"prune-{round(100 * share)}", source=f"Zhu and Gupta, ICLR 2018 workshop; {SOK}",
            published={"share": 0.5}, run={"share": share}, action=magnitude, kinds=EVERY,
        )
        for share in (0.5, 0.7, 0.9)
    ),
    *(
        _attack(
            number=4, name=f"prune-{round(100 * share)}-tune", source=f"Zhu and Gupta, ICLR 2018 workshop; {SOK}",
            published={"share": 0.5}, run={"share": share, "epochs": 5, "rate": 1.0}, action=sparse_tuned, kinds=EVERY,
        )
        for share in (0.7, 0.9)
    ),
    _attack(
        number=5, name="fine-pruning", source=f"Liu et al., RAID 2018; {SOK}",
        published={"share": 0.96, "epochs": 10}, run={"share": 0.96, "epochs": 10, "rate": 1.0},
        action=fine_pruned, kinds=BUILT,
    ),
)  # fmt: skip
