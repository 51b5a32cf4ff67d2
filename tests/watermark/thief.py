"""What a thief does to a stolen MLP, from the library of attacks. Every function returns a new state."""

from __future__ import annotations

import torch

from experiments.attacks import pruning, quantisation, symmetry
from tests.watermark.digits import State


def copy(state: State) -> State:
    return {name: tensor.clone() for name, tensor in state.items()}


def shuffled(state: State, seed: int, *, spread: float = 1.0) -> State:
    """Every hidden layer permuted and scaled by log-normal factors: the same function."""
    return symmetry.shuffled(copy(state), _random(seed), spread=spread)


def soiled(state: State, unlit: torch.Tensor, seed: int) -> State:
    """Large weights on inputs that are always zero: the same function, but no unit looks like itself any more."""
    return symmetry.soiled(copy(state), unlit, _random(seed), strength=20.0)


def pruned(state: State, share: float) -> State:
    """The smallest ``share`` of each weight tensor set to zero."""
    return pruning.pruned(copy(state), _weights(state), share=share)


def quantised(state: State, bits: int) -> State:
    """Each weight tensor rounded to ``bits`` bits, symmetrically."""
    return copy(state) | {name: quantisation.rounded(state[name], bits=bits) for name in _weights(state)}


def widened(state: State, kind: str, seed: int) -> State:
    """As many new units again in every hidden layer, which change no output."""
    return symmetry.widened(copy(state), _random(seed), dummies=kind, share=1.0)


def _random(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _weights(state: State) -> list[str]:
    return [name for name in state if name.endswith("weight")]
