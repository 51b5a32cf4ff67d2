"""What a thief does to a stolen transformer without changing its function: a model taken apart, changed, put together.

Nothing here is shared with the library: the names and the algebra are written down a second time, and the tests compare
the logits of the networks themselves before and after.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from pol.programs.language import GPT, LanguageConfig

State = dict[str, torch.Tensor]
Block = dict[str, torch.Tensor]
GPT_HEADS, LLAMA_HEAD, VOCABULARY, CONTEXT = 4, 16, 128, 32


@dataclass
class Body:
    """A transformer in float64. ``head`` [size of a head]; the GPT ties its output to ``tokens`` and has no ``output``.

    A block has norm1, q, k, v, o, norm2, up, down, the Llama's also gate, the GPT's also a bias for each but gate.
    """

    tokens: torch.Tensor
    blocks: list[Block]
    norm: Block
    head: int
    positions: torch.Tensor | None = None
    output: torch.Tensor | None = None


Attack = Callable[[Body, torch.Generator], None]


GPT_NAMES = {"attention_norm": "norm1", "attention_out": "o", "mlp_norm": "norm2", "mlp": "up", "mlp_out": "down"}


def of_gpt(state: State) -> Body:
    state = {name: tensor.double() for name, tensor in state.items()}
    blocks = []
    for number in range(sum(name.endswith("mlp.weight") for name in state)):
        block = {}
        for name, short in GPT_NAMES.items():
            block[short] = state[f"blocks.{number}.{name}.weight"]
            block[short + "_bias"] = state[f"blocks.{number}.{name}.bias"]
        for suffix, tensor in (("", "weight"), ("_bias", "bias")):
            parts = state[f"blocks.{number}.attention.{tensor}"].chunk(3)
            block |= {short + suffix: part for short, part in zip("qkv", parts, strict=True)}
        blocks.append(block)
    tokens, positions = state["tokens.weight"], state["positions.weight"]
    norm = {"norm": state["norm.weight"], "norm_bias": state["norm.bias"]}
    return Body(tokens, blocks, norm, tokens.shape[1] // GPT_HEADS, positions)


def to_gpt(body: Body) -> State:
    assert body.positions is not None
    state = {"tokens.weight": body.tokens, "positions.weight": body.positions}
    for number, block in enumerate(body.blocks):
        for suffix, tensor in (("", "weight"), ("_bias", "bias")):
            prefix = f"blocks.{number}."
            state |= {f"{prefix}{name}.{tensor}": block[short + suffix] for name, short in GPT_NAMES.items()}
            state[f"{prefix}attention.{tensor}"] = torch.cat([block[short + suffix] for short in "qkv"])
    return state | {"norm.weight": body.norm["norm"], "norm.bias": body.norm["norm_bias"]}


LLAMA_NAMES = {
    "input_layernorm": "norm1", "self_attn.q_proj": "q", "self_attn.k_proj": "k", "self_attn.v_proj": "v",
    "self_attn.o_proj": "o", "post_attention_layernorm": "norm2", "mlp.gate_proj": "gate", "mlp.up_proj": "up",
    "mlp.down_proj": "down",
}  # fmt: skip


def of_llama(state: State) -> Body:
    state = {name: tensor.double() for name, tensor in state.items()}
    depth = sum(name.endswith("up_proj.weight") for name in state)
    blocks = [
        {short: state[f"model.layers.{number}.{name}.weight"] for name, short in LLAMA_NAMES.items()}
        for number in range(depth)
    ]
    norm = {"norm": state["model.norm.weight"]}
    return Body(state["model.embed_tokens.weight"], blocks, norm, LLAMA_HEAD, output=state["lm_head.weight"])


def to_llama(body: Body) -> State:
    assert body.output is not None
    state = {"model.embed_tokens.weight": body.tokens, "lm_head.weight": body.output}
    for number, block in enumerate(body.blocks):
        for name, short in LLAMA_NAMES.items():
            state[f"model.layers.{number}.{name}.weight"] = block[short]
    return state | {"model.norm.weight": body.norm["norm"]}


def language(width: int, layers: int) -> LanguageConfig:
    return LanguageConfig(
        vocabulary=VOCABULARY, context=CONTEXT, layers=layers, heads=GPT_HEADS, width=width, dropout=0.0, steps=1,
        warmup=0, learning_rate=1e-3, weight_decay=0.0, clip=0.0, micro_batches=1, ema=0.0, precision="fp32", ranks=1,
    )  # fmt: skip


def gpt(state: State) -> GPT:
    """The network of these tensors, in their precision, with as many hidden units as they have."""
    width, depth = state["tokens.weight"].shape[1], sum(name.endswith("mlp.weight") for name in state)
    network = GPT(language(width, depth))
    for number, block in enumerate(network.blocks):
        hidden = len(state[f"blocks.{number}.mlp.weight"])
        block.mlp, block.mlp_out = nn.Linear(width, hidden), nn.Linear(hidden, width)
    network.to(state["tokens.weight"].dtype).load_state_dict(state)
    return network.eval()


def new_llama(width: int, hidden: int, layers: int, heads: int, kv_heads: int) -> nn.Module:
    """A LlamaForCausalLM as it is born, its output not tied."""
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY, hidden_size=width, intermediate_size=hidden, num_hidden_layers=layers,
            num_attention_heads=heads, num_key_value_heads=kv_heads, head_dim=LLAMA_HEAD,
            max_position_embeddings=CONTEXT, tie_word_embeddings=False, attn_implementation="eager",
        )
    )  # fmt: skip


def llama(state: State) -> nn.Module:
    """The LlamaForCausalLM of these tensors, in their precision."""
    first = "model.layers.0."
    heads, kv_heads = (len(state[f"{first}self_attn.{name}_proj.weight"]) // LLAMA_HEAD for name in "qk")
    network = new_llama(
        width=len(state["model.norm.weight"]), hidden=len(state[first + "mlp.up_proj.weight"]),
        layers=sum(name.endswith("up_proj.weight") for name in state), heads=heads, kv_heads=kv_heads,
    )  # fmt: skip
    network.to(state["model.norm.weight"].dtype).load_state_dict(state)
    return network.eval()


def normal(like: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return torch.randn(like.shape, generator=generator, dtype=torch.float64)


def signed_scales(count: int, generator: torch.Generator) -> torch.Tensor:
    signs = torch.randint(0, 2, (count,), generator=generator) * 2 - 1
    return signs * torch.exp(torch.randn(count, generator=generator, dtype=torch.float64))


def units_moved(body: Body, generator: torch.Generator) -> None:
    """Hidden units permuted; what a gate lets through scaled, of either sign."""
    for block in body.blocks:
        order = torch.randperm(block["down"].shape[1], generator=generator)
        for name in ("gate", "up", "up_bias"):
            if name in block:
                block[name] = block[name][order]
        block["down"] = block["down"][:, order]
        if "gate" in block:
            scale = signed_scales(len(order), generator)
            block["up"], block["down"] = block["up"] * scale[:, None], block["down"] / scale


def heads_moved(body: Body, generator: torch.Generator) -> None:
    """Heads permuted and their coordinates mapped, as far as the positions allow between queries and keys."""
    for block in body.blocks:
        size, groups = body.head, len(block["k"]) // body.head
        order = torch.randperm(groups, generator=generator)
        mix = torch.linalg.qr(torch.randn(groups, size, size, generator=generator, dtype=torch.float64)).Q
        mix = mix * signed_scales(groups * size, generator).view(groups, 1, size)
        if body.positions is not None:
            turn = mix.flip(0)
        else:  # rotary positions: a scale for each pair of coordinates
            scales = signed_scales(size // 2, generator).repeat(2)
            turn = torch.diag(scales).expand(groups, size, size)
        for name, by in (("v", mix), ("q", turn), ("k", torch.linalg.inv(turn).mT)):
            for tensor in (name, name + "_bias"):
                if tensor in block:
                    heads = block[tensor].reshape(groups, -1, size, *block[tensor].shape[1:])
                    mapped = torch.einsum("gij,grj...->gri...", by, heads)[order]
                    block[tensor] = mapped.reshape(block[tensor].shape)
        out = block["o"].reshape(len(block["o"]), groups, -1, size)
        mapped = torch.einsum("wgrj,gji->wgri", out, torch.linalg.inv(mix))[:, order]
        block["o"] = mapped.reshape(block["o"].shape)


def gains_moved(body: Body, generator: torch.Generator) -> None:
    """The norms' gains changed, and the opposite done to what reads them."""
    for block in body.blocks:
        for norm, readers in (("norm1", "q k v"), ("norm2", "gate up")):
            scale = signed_scales(len(block[norm]), generator)
            for name in (norm, norm + "_bias"):
                if name in block:
                    block[name] = block[name] * scale
            for name in readers.split():
                if name in block:
                    block[name] = block[name] / scale


def channels(body: Body, turn: torch.Tensor) -> None:
    """The residual stream x becomes ``turn`` x."""
    body.tokens = body.tokens @ turn.T
    body.positions = None if body.positions is None else body.positions @ turn.T
    body.output = None if body.output is None else body.output @ turn.T
    for block in body.blocks:
        for name in ("q", "k", "v", "gate", "up"):
            if name in block:
                block[name] = block[name] @ turn.T
        for name in ("o", "o_bias", "down", "down_bias"):
            if name in block:
                block[name] = turn @ block[name]


def channels_permuted(body: Body, generator: torch.Generator) -> None:
    turn = torch.eye(body.tokens.shape[1], dtype=torch.float64)
    turn = turn[torch.randperm(len(turn), generator=generator)]
    channels(body, turn)
    for block in (*body.blocks, body.norm):
        for name in ("norm", "norm_bias", "norm1", "norm1_bias", "norm2", "norm2_bias"):
            if name in block:
                block[name] = turn @ block[name]


def channels_rotated(body: Body, generator: torch.Generator) -> None:
    """Of a model with RMSNorm: gains folded into what reads them, then any rotation at all (QuaRot)."""
    assert body.output is not None
    for block in body.blocks:
        for norm, readers in (("norm1", "qkv"), ("norm2", ("gate", "up"))):
            for name in readers:
                block[name] = block[name] * block[norm]
            block[norm] = torch.ones_like(block[norm])
    body.output = body.output * body.norm["norm"]
    body.norm["norm"] = torch.ones_like(body.norm["norm"])
    square = torch.empty(len(body.norm["norm"]), len(body.norm["norm"]), dtype=torch.float64)
    channels(body, torch.linalg.qr(normal(square, generator)).Q)


def means_moved(body: Body, generator: torch.Generator) -> None:
    """Of a model with LayerNorm: constants over the channels, which the norms take out again."""
    assert body.positions is not None
    body.positions = body.positions + normal(body.positions[:, :1], generator)
    for block in body.blocks:
        for name in ("o", "o_bias", "down", "down_bias"):
            block[name] = block[name] + 0.1 * normal(block[name][0], generator)
        for name, norm in (("q", "norm1"), ("k", "norm1"), ("v", "norm1"), ("up", "norm2")):
            shift = 0.1 * normal(block[name][:, 0], generator)
            block[name] = block[name] + shift[:, None] / block[norm]
            block[name + "_bias"] = block[name + "_bias"] - shift * (block[norm + "_bias"] / block[norm]).sum()


def widened(kind: str) -> Attack:
    """As many hidden units again in every block, which change nothing.

    ``silent`` units write nothing, ``dead`` ones never fire, ``clique`` ones cancel each other, and ``split`` replaces
    each unit by two that together are it: of the same gate, or weight, and any share of the output.
    """

    def attack(body: Body, generator: torch.Generator) -> None:
        for block in body.blocks:
            new = {name: normal(block[name], generator) * block[name].std() for name in ("up", "down")}
            inner = [name for name in ("gate", "up_bias") if name in block]
            new |= {name: normal(block[name], generator) * block[name].std() for name in inner}
            half = new["down"].shape[1] // 2
            if kind == "silent":
                new["down"].zero_()
            elif kind == "clique":
                for name in ("up", *inner):
                    new[name][half:] = new[name][:half]
                new["down"][:, half:] = -new["down"][:, :half]
            elif kind == "dead":
                new["up"], new["down"] = 5 * new["up"], 5 * new["down"]
                new |= {"gate": 0 * new["gate"]} if "gate" in block else {"up_bias": 0 * new["up_bias"] - 1e4}
            else:
                share = signed_scales(2 * half, generator)
                new |= {name: block[name].clone() for name in ("up", *inner)}
                new["down"], block["down"] = block["down"] * (1 - share), block["down"] * share
            for name, tensor in new.items():
                block[name] = torch.cat([block[name], tensor], dim=1 if name == "down" else 0)

    return attack


def split_behind_gates(body: Body, generator: torch.Generator) -> None:
    """Each gated unit twice, with parts of what it passes on that look like nothing: up = (up + z) + (-z)."""
    for block in body.blocks:
        noise = 3 * block["up"].std() * normal(block["up"], generator)
        block["gate"] = torch.cat([block["gate"], block["gate"]])
        block["up"] = torch.cat([block["up"] + noise, -noise])
        block["down"] = torch.cat([block["down"], block["down"]], dim=1)


def heads_ungrouped(body: Body, generator: torch.Generator) -> None:
    """Every query gets keys and values of its own."""
    for block in body.blocks:
        repeats = len(block["q"]) // len(block["k"])
        for name in "kv":
            heads = block[name].reshape(-1, 1, body.head, block[name].shape[1])
            block[name] = heads.repeat(1, repeats, 1, 1).reshape(len(block["q"]), -1)


def idle_blocks(body: Body, generator: torch.Generator) -> None:
    """A block that writes nothing before every block, and attention and perceptron in blocks of their own."""
    blocks = []
    for block in body.blocks:
        silent = {name: torch.zeros_like(block[name]) for name in block if name in {"o", "o_bias"}}
        quiet = {name: torch.zeros_like(block[name]) for name in block if name in {"down", "down_bias"}}
        blocks += [block | silent | quiet, block | quiet, block | silent]
    body.blocks = blocks


def everything(*attacks: Attack) -> Attack:
    def attack(body: Body, generator: torch.Generator) -> None:
        for one in attacks:
            one(body, generator)

    return attack


def quantised(state: State, bits: int, group: int) -> State:
    """Every matrix rounded to ``bits`` bits, with a scale for each ``group`` elements of a row (0: all)."""
    result = dict(state)
    for name, tensor in state.items():
        if tensor.dim() == 2:
            parts = tensor.reshape(-1, group if group and tensor.shape[1] % group == 0 else tensor.shape[1])
            step = (parts.abs().amax(dim=1, keepdim=True) / (2 ** (bits - 1) - 1)).clamp_min(1e-12)
            result[name] = ((parts / step).round() * step).reshape(tensor.shape)
    return result
