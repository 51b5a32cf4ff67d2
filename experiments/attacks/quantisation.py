"""Weights rounded to a few bits. What is released are the rounded values, as floats."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from experiments.attacks.attack import EVERY, Attack, Setting
from experiments.attacks.finetuning import SOK
from experiments.attacks.merging import merged
from experiments.attacks.networks import loaded, matrices, state_of
from experiments.attacks.training import fit, own

NORMAL_FLOAT = (
    -1.0, -0.6961928, -0.52507305, -0.39491748, -0.28444138, -0.18477343, -0.09105004, 0.0,
    0.0795803, 0.1609302, 0.2461123, 0.33791524, 0.44070983, 0.562617, 0.72295684, 1.0,
)  # fmt: skip
"""The 16 values of NF4 (Dettmers et al. 2023, appendix E)."""


def rounded(tensor: torch.Tensor, *, bits: int, group: int = 0) -> torch.Tensor:
    """``tensor`` on a symmetric grid of ``bits`` bits, one step a ``group`` of a row's weights (0: one for all)."""
    levels: int = 2 ** (bits - 1) - 1

    def round_(block: torch.Tensor) -> torch.Tensor:
        step = block.abs().amax(-1, keepdim=True) / levels
        steps: torch.Tensor = (block / torch.where(step > 0, step, 1.0)).round()
        return steps * step

    return _by_group(tensor, group, round_)


def normal_float(tensor: torch.Tensor, *, group: int) -> torch.Tensor:
    """``tensor`` on the NF4 grid, scaled to the largest weight of each ``group`` of a row."""
    levels = torch.tensor(NORMAL_FLOAT)
    middles = (levels[1:] + levels[:-1]) / 2

    def round_(block: torch.Tensor) -> torch.Tensor:
        largest = block.abs().amax(-1, keepdim=True)
        return levels[torch.bucketize(block / torch.where(largest > 0, largest, 1.0), middles)] * largest

    return _by_group(tensor, group, round_)


def quantise(victim: nn.Module, setting: Setting, rng: torch.Generator, *, bits: int, group: int) -> nn.Module:
    """Every weight tensor :func:`rounded`; adapters are merged first."""
    return _each_matrix(victim, partial(rounded, bits=bits, group=group))


def quantise_normal(victim: nn.Module, setting: Setting, rng: torch.Generator, *, group: int) -> nn.Module:
    """Every weight tensor in NF4; adapters are merged first."""
    return _each_matrix(victim, partial(normal_float, group=group))


def half(victim: nn.Module, setting: Setting, rng: torch.Generator) -> nn.Module:
    """Every weight tensor rounded to bfloat16; adapters are merged first."""
    return _each_matrix(victim, lambda tensor: tensor.bfloat16().float())


def quantise_and_tune(
    victim: nn.Module, setting: Setting, rng: torch.Generator, *, bits: int, epochs: int, rate: float
) -> nn.Module:
    """One step size a tensor, then fine-tuned and rounded again (Hubara et al. 2017, as in the SoK)."""
    network = quantise(victim, setting, rng, bits=bits, group=0)
    fit(network, own(network, setting), len(setting.inputs), setting, rng, epochs=epochs, rate=rate)
    return quantise(network, setting, rng, bits=bits, group=0)


def _each_matrix(victim: nn.Module, change: Callable[[torch.Tensor], torch.Tensor]) -> nn.Module:
    network = merged(victim)
    state = state_of(network)
    return loaded(network, state | {name: change(state[name]) for name in matrices(network)})


def _by_group(tensor: torch.Tensor, group: int, change: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """``change`` applied to blocks [n, group] of the tensor's rows, the last block of a row padded with zeros."""
    if not group:
        return change(tensor.flatten()[None]).reshape(tensor.shape)
    rows = tensor.flatten(1)
    padded = nn.functional.pad(rows, (0, -rows.shape[1] % group))
    blocks = change(padded.reshape(-1, group)).reshape(len(rows), -1)
    return blocks[:, : rows.shape[1]].reshape(tensor.shape)


_attack = partial(Attack, family="quantisation", kinds=EVERY)

ATTACKS = (
    _attack(
        number=6, name="int5-tune", source=f"Hubara et al., JMLR 2017; {SOK}", published={"bits": 5, "epochs": 1},
        run={"bits": 5, "epochs": 1, "rate": 1.0}, action=quantise_and_tune, kinds=EVERY[:-1],
    ),
    _attack(number=30, name="bf16", source="Kalamkar et al., 2019", published={}, run={}, action=half),
    *(
        _attack(
            number=30, name=f"int{bits}", source="Frantar et al., GPTQ, ICLR 2023",
            published={"bits": bits, "group": 128}, run={"bits": bits, "group": 128}, action=quantise,
        )
        for bits in (8, 4, 3)
    ),
    _attack(
        number=30, name="gguf-q4", source="llama.cpp, Q4_0", published={"bits": 4, "group": 32},
        run={"bits": 4, "group": 32}, action=quantise,
    ),
    _attack(
        number=30, name="nf4", source="Dettmers et al., QLoRA, NeurIPS 2023", published={"group": 64},
        run={"group": 64}, action=quantise_normal,
    ),
)  # fmt: skip
