"""What a thief does to a stolen MLP. Every function returns a new state."""

from __future__ import annotations

import torch

from tests.watermark.digits import State


def copy(state: State) -> State:
    return {name: tensor.clone() for name, tensor in state.items()}


def hidden_layers(state: State) -> range:
    return range(len(state) // 2 - 1)


def shuffled(state: State, seed: int, *, spread: float = 1.0) -> State:
    """Every hidden layer permuted and scaled by log-normal factors: the same function."""
    generator = torch.Generator().manual_seed(seed)
    result = copy(state)
    for layer in hidden_layers(state):
        size = len(result[f"layers.{layer}.bias"])
        order = torch.randperm(size, generator=generator)
        scale = torch.exp(spread * torch.randn(size, generator=generator))
        result[f"layers.{layer}.weight"] = result[f"layers.{layer}.weight"][order] * scale[:, None]
        result[f"layers.{layer}.bias"] = result[f"layers.{layer}.bias"][order] * scale
        result[f"layers.{layer + 1}.weight"] = result[f"layers.{layer + 1}.weight"][:, order] / scale
    return result


def soiled(state: State, unlit: torch.Tensor, seed: int) -> State:
    """Large weights on inputs that are always zero: the same function, but no unit looks like itself any more."""
    result = copy(state)
    weight = result["layers.0.weight"]
    garbage = torch.randn(len(weight), len(unlit), generator=torch.Generator().manual_seed(seed))
    weight[:, unlit] = 20 * garbage * weight.std() * weight.shape[1] ** 0.5
    return result


def pruned(state: State, share: float) -> State:
    """The smallest ``share`` of each weight tensor set to zero."""
    result = copy(state)
    for name, tensor in result.items():
        if name.endswith("weight"):
            threshold = tensor.abs().flatten().kthvalue(int(share * tensor.numel())).values
            tensor[tensor.abs() <= threshold] = 0
    return result


def quantised(state: State, bits: int) -> State:
    """Each weight tensor rounded to ``bits`` bits, symmetrically."""
    result = copy(state)
    for name, tensor in result.items():
        if name.endswith("weight"):
            step = tensor.abs().max() / (2 ** (bits - 1) - 1)
            tensor.copy_((tensor / step).round() * step)
    return result


def widened(state: State, kind: str, seed: int) -> State:
    """As many new units again in every hidden layer, which change no output.

    ``silent`` units go nowhere, ``dead`` ones never fire, ``clique`` ones come in pairs that cancel each other, and
    ``split`` replaces each unit by two whose outgoing weights, far larger than its own, add up to it.
    """
    generator = torch.Generator().manual_seed(seed)
    result = copy(state)
    for layer in hidden_layers(state):
        weight, bias, after = (
            result[f"layers.{layer}.weight"],
            result[f"layers.{layer}.bias"],
            result[f"layers.{layer + 1}.weight"],
        )
        size = len(bias)
        new_in = torch.randn(size, weight.shape[1], generator=generator) * weight.std()
        new_bias = torch.randn(size, generator=generator) * bias.std()
        new_out = torch.randn(len(after), size, generator=generator) * after.std()
        if kind == "silent":
            new_out = torch.zeros_like(new_out)
        elif kind == "dead":
            new_in, new_bias = torch.zeros_like(new_in), -new_bias.abs()
        elif kind == "clique":
            half = size // 2
            new_in[half:], new_bias[half:], new_out[:, half:] = new_in[:half], new_bias[:half], -new_out[:, :half]
        else:
            share = torch.exp(2 * torch.randn(size, generator=generator))
            new_in, new_bias, new_out, after = weight, bias, after * (1 - share), after * share
        result[f"layers.{layer}.weight"] = torch.cat([weight, new_in])
        result[f"layers.{layer}.bias"] = torch.cat([bias, new_bias])
        result[f"layers.{layer + 1}.weight"] = torch.cat([after, new_out], dim=1)
    return result
