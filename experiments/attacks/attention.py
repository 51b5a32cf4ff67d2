"""Symmetries of transformers beyond their hidden units: heads, invertible maps within a head, gains, the stream itself.

For the GPT of ``pol.programs.language`` and Llama-type models of the transformers library. A head's rows are
``[size, inputs]``, with the bias as one more input where there is one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import nn

from experiments.attacks.attack import Attack, Setting
from experiments.attacks.merging import merged
from experiments.attacks.networks import State, copied, loaded, state_of
from pol.programs import language

QUAROT = "Ashkboos et al., QuaRot, NeurIPS 2024"


@dataclass(frozen=True, slots=True)
class Attention:
    """One layer: ``query`` [heads, size, inputs], ``key`` and ``value`` [groups, ...], ``out`` [heads, width, size].

    Each group of ``heads / groups`` query heads shares a key and a value head. ``rotary`` is true if queries and keys
    are rotated by their position, coordinate i with i + size / 2.
    """

    prefix: str
    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    out: torch.Tensor
    rotary: bool


def heads_permuted(network: nn.Module, rng: torch.Generator) -> nn.Module:
    """The heads of every layer in another order; grouped queries stay with their key and value."""

    def permute(layer: Attention) -> Attention:
        groups, each = len(layer.key), len(layer.query) // len(layer.key)
        order = torch.randperm(groups, generator=rng)
        within = torch.stack([torch.randperm(each, generator=rng) for _ in range(groups)])
        heads = (order[:, None] * each + within).flatten()
        return replace(
            layer, query=layer.query[heads], key=layer.key[order], value=layer.value[order], out=layer.out[heads]
        )

    return _rewritten(network, permute)


def heads_mapped(network: nn.Module, rng: torch.Generator, *, spread: float) -> nn.Module:
    """Queries and keys, values and outputs by inverse maps of a head's own space, of singular values ``exp(+-spread)``.

    Behind rotary positions queries and keys allow a rotation and a scale of each coordinate pair only.
    """

    def transform(layer: Attention) -> Attention:
        groups, size = layer.key.shape[:2]
        each = len(layer.query) // groups
        match = torch.stack([_invertible(size, spread, layer.rotary, rng) for _ in range(groups)])
        content = torch.stack([_invertible(size, spread, False, rng) for _ in range(groups)])
        return replace(
            layer,
            query=_product(match.repeat_interleave(each, 0), layer.query),
            key=_product(torch.linalg.inv(match).mT, layer.key),
            value=_product(content, layer.value),
            out=_product(layer.out, torch.linalg.inv(content).repeat_interleave(each, 0)),
        )

    return _rewritten(network, transform)


def gains_refolded(network: nn.Module, rng: torch.Generator, *, spread: float) -> nn.Module:
    """Each norm's gain (and bias) scaled a channel at a time, and what reads it scaled back."""
    state = state_of(network)
    for norm, readers in _norms(state):
        scale = torch.exp(spread * torch.randn(len(state[f"{norm}.weight"]), generator=rng))
        for part in ("weight", "bias"):
            if f"{norm}.{part}" in state:
                state[f"{norm}.{part}"] = state[f"{norm}.{part}"] * scale
        for reader in readers:
            state[reader] = state[reader] / scale
    return loaded(network, state)


def stream_permuted(network: nn.Module, rng: torch.Generator) -> nn.Module:
    """The channels of the residual stream in another order."""
    state = state_of(network)
    axes = _stream_axes(state)
    width = next(state[name].shape[axis] for name, axis in axes.items())
    order = torch.randperm(width, generator=rng)
    for name, axis in axes.items():
        state[name] = state[name].index_select(axis, order)
    return loaded(network, state)


def stream_rotated(network: nn.Module, rng: torch.Generator) -> nn.Module:
    """The residual stream in another orthonormal basis (QuaRot): gains folded, the output layer untied first.

    Only where norms take no mean, so for Llama-type models alone.
    """
    network = copied(network)
    state = state_of(network)
    width = state["model.embed_tokens.weight"].shape[1]
    rotation = _rotation(width, rng)
    state["lm_head.weight"] = state["model.embed_tokens.weight"].clone()
    network.lm_head.weight = nn.Parameter(state["lm_head.weight"])  # type: ignore[union-attr]
    network.config.tie_word_embeddings = False  # type: ignore[union-attr]
    for norm, readers in (*_norms(state), ("model.norm", ("lm_head.weight",))):
        for reader in readers:
            state[reader] = state[reader] * state[f"{norm}.weight"]
        state[f"{norm}.weight"] = torch.ones_like(state[f"{norm}.weight"])
    for name, axis in {**_stream_axes(state), "lm_head.weight": 1}.items():
        if state[name].dim() == 2:
            old = state[name].double()
            state[name] = (old @ rotation if axis == 1 else rotation.T @ old).float()
    return loaded(network, state)


def obscured(network: nn.Module, rng: torch.Generator) -> nn.Module:
    """All that leaves a transformer's function as it is: heads permuted and mapped, gains refolded, stream turned."""
    network = heads_mapped(heads_permuted(network, rng), rng, spread=0.5)
    network = stream_permuted(gains_refolded(network, rng, spread=0.5), rng)
    return stream_rotated(network, rng) if hasattr(network, "lm_head") else network


def _invertible(size: int, spread: float, rotary: bool, rng: torch.Generator) -> torch.Tensor:
    """A random [size, size] matrix, float64; with ``rotary`` one that commutes with the rotations of positions."""
    if not rotary:
        left, right = (_rotation(size, rng) for _ in range(2))
        scales = torch.exp(spread * (2 * torch.rand(size, generator=rng, dtype=torch.float64) - 1))
        return left @ torch.diag(scales) @ right
    half = size // 2
    angle = 2 * torch.pi * torch.rand(half, generator=rng, dtype=torch.float64)
    scale = torch.exp(spread * (2 * torch.rand(half, generator=rng, dtype=torch.float64) - 1))
    cosine, sine = torch.diag(scale * angle.cos()), torch.diag(scale * angle.sin())
    return torch.cat([torch.cat([cosine, -sine], 1), torch.cat([sine, cosine], 1)])


def _rotation(size: int, rng: torch.Generator) -> torch.Tensor:
    drawn = torch.randn(size, size, generator=rng, dtype=torch.float64)
    rotation: torch.Tensor = torch.linalg.qr(drawn).Q
    return rotation


def _product(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    return (left.double() @ right.double()).float()


def _rewritten(network: nn.Module, change: Callable[[Attention], Attention]) -> nn.Module:
    state = state_of(network)
    for layer in list(_read(network, state)):
        _write(state, change(layer))
    return loaded(network, state)


def _read(network: nn.Module, state: State) -> Iterator[Attention]:
    for name in list(state):
        if found := re.fullmatch(r"(blocks\.\d+)\.attention\.weight", name):
            yield _read_fused(network, state, found.group(1))
        if found := re.fullmatch(r"(.*\.self_attn)\.q_proj\.weight", name):
            yield _read_llama(network, state, found.group(1))


def _read_fused(network: nn.Module, state: State, prefix: str) -> Attention:
    heads = cast(language.Block, network.get_submodule(prefix)).heads
    both = torch.cat([state[f"{prefix}.attention.weight"], state[f"{prefix}.attention.bias"][:, None]], dim=1)
    width = both.shape[1] - 1
    query, key, value = both.reshape(3, heads, -1, width + 1)
    out = state[f"{prefix}.attention_out.weight"].reshape(width, heads, -1).permute(1, 0, 2)
    return Attention(prefix, query, key, value, out, rotary=False)


def _read_llama(network: nn.Module, state: State, prefix: str) -> Attention:
    config: Any = network.config
    rows = [state[f"{prefix}.{part}_proj.weight"] for part in "qkv"]
    counts = (config.num_attention_heads, config.num_key_value_heads, config.num_key_value_heads)
    query, key, value = (part.reshape(count, -1, part.shape[1]) for part, count in zip(rows, counts, strict=True))
    out = state[f"{prefix}.o_proj.weight"]
    return Attention(prefix, query, key, value, out.reshape(len(out), counts[0], -1).permute(1, 0, 2), rotary=True)


def _write(state: State, layer: Attention) -> None:
    parts = [part.flatten(0, 1) for part in (layer.query, layer.key, layer.value)]
    if layer.rotary:
        state.update({f"{layer.prefix}.{x}_proj.weight": part for x, part in zip("qkv", parts, strict=True)})
        state[f"{layer.prefix}.o_proj.weight"] = layer.out.permute(1, 0, 2).flatten(1)
        return
    both = torch.cat(parts)
    state[f"{layer.prefix}.attention.weight"], state[f"{layer.prefix}.attention.bias"] = both[:, :-1], both[:, -1]
    state[f"{layer.prefix}.attention_out.weight"] = layer.out.permute(1, 0, 2).flatten(1)


def _norms(state: State) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Each norm within the blocks, and the weights whose columns read it (the output layer's is left alone: tied)."""
    for name in list(state):
        if found := re.fullmatch(r"(blocks\.\d+)\.(attention|mlp)_norm\.weight", name):
            yield f"{found[1]}.{found[2]}_norm", (f"{found[1]}.{found[2]}.weight",)
        if found := re.fullmatch(r"(.*)\.input_layernorm\.weight", name):
            yield f"{found[1]}.input_layernorm", tuple(f"{found[1]}.self_attn.{x}_proj.weight" for x in "qkv")
        if found := re.fullmatch(r"(.*)\.post_attention_layernorm\.weight", name):
            yield (
                f"{found[1]}.post_attention_layernorm",
                tuple(f"{found[1]}.mlp.{x}_proj.weight" for x in ("gate", "up")),
            )


def _stream_axes(state: State) -> dict[str, int]:
    """The tensors that touch the residual stream, and the axis that does."""
    writes = r".*(_out\.weight|_out\.bias|norm\.weight|norm\.bias|o_proj\.weight|down_proj\.weight)"
    reads = (
        r"(tokens|positions)\.weight|.*(\.attention|\.mlp|[qkv]_proj|gate_proj|up_proj|embed_tokens|lm_head)\.weight"
    )
    axes = {name: 0 for name in state if re.fullmatch(writes, name)}
    return axes | {name: 1 for name in state if re.fullmatch(reads, name)}


def permute_heads(victim: nn.Module, setting: Setting, rng: torch.Generator) -> nn.Module:
    """:func:`heads_permuted` (of a model with its adapters merged)."""
    return heads_permuted(merged(victim), rng)


def map_heads(victim: nn.Module, setting: Setting, rng: torch.Generator, *, spread: float) -> nn.Module:
    """:func:`heads_mapped`, likewise."""
    return heads_mapped(merged(victim), rng, spread=spread)


def refold_gains(victim: nn.Module, setting: Setting, rng: torch.Generator, *, spread: float) -> nn.Module:
    """:func:`gains_refolded`, likewise."""
    return gains_refolded(merged(victim), rng, spread=spread)


def turn_stream(victim: nn.Module, setting: Setting, rng: torch.Generator) -> nn.Module:
    """:func:`stream_permuted`, and :func:`stream_rotated` where that is a symmetry."""
    network = stream_permuted(merged(victim), rng)
    return stream_rotated(network, rng) if hasattr(network, "lm_head") else network


ATTACKS = (
    Attack(
        number=33, name="head-permutation", family="symmetry", source="Zeng et al., HuRef, NeurIPS 2024",
        published={}, run={}, action=permute_heads, kinds=("transformer", "lora"),
    ),
    Attack(
        number=33, name="head-maps", family="symmetry", source="Zeng et al., HuRef, NeurIPS 2024",
        published={}, run={"spread": 0.5}, action=map_heads, kinds=("transformer", "lora"),
    ),
    Attack(
        number=33, name="gain-refold", family="symmetry", source=QUAROT,
        published={}, run={"spread": 0.5}, action=refold_gains, kinds=("transformer", "lora"),
    ),
    Attack(
        number=33, name="residual-rotation", family="symmetry", source=QUAROT,
        published={}, run={}, action=turn_stream, kinds=("transformer", "lora"),
    ),
)  # fmt: skip
