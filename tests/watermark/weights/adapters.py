"""A small Llama that can write, adapters that teach it another text, and what a thief does to both."""

from __future__ import annotations

import os
import string
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch.nn import functional

from pol.data import Samples
from pol.order import DataOrder
from pol.program import config_from
from pol.programs.base_model import VARIABLE, pins
from pol.programs.lora import CausalLoRA
from pol.sources import TokenFile
from pol.state import model_tensors
from tests.pol.programs import LICENCE

State = dict[str, torch.Tensor]
Pair = tuple[torch.Tensor, torch.Tensor]
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
HEADS, HEAD = 4, 16
ALPHA = 16
PREFIX = "base_model.model."


@dataclass(frozen=True)
class World:
    """A pre-trained base in a folder of its own, and a text it has not seen."""

    base: State
    samples: Samples
    name: str = "small-llama"

    def config(self, rank: int = 8) -> dict:
        lora = dict(
            rank=rank, alpha=ALPHA, dropout=0.0, targets=TARGETS, steps=1000, learning_rate=3e-3, weight_decay=0.0,
            clip=1.0, ranks=1,
        )  # fmt: skip
        return config_from(lora) | pins(self.name)

    def adapters(self, seed: int, steps: int, *, start: State | None = None, rank: int = 8) -> State:
        """Adapters after ``steps`` of the built-in program, from its own initial state or from ``start``."""
        run = seed.to_bytes(32, "big")
        state = CausalLoRA().build(self.config(rank), run)
        state.model.load_state_dict(start or {}, strict=False)
        order = DataOrder(run, len(self.samples), 16)
        for step in range(steps):
            state.key_generators(run)
            CausalLoRA().train_step(state, self.samples.batch(order.batch(step)))
            state.step += 1
        return model_tensors(state.capture(run))

    def loss(self, adapters: State, rank: int = 8) -> float:
        """The mean cross-entropy on the text, in nats a token."""
        score = CausalLoRA().evaluate(adapters, self.config(rank), self.samples)
        return -float(torch.tensor(score, dtype=torch.float64).log())


def make_world(folder: Path, *, steps: int, width: int = 64, layers: int = 4) -> World:
    """Pre-train a Llama of ``width`` on the licence, and turn its letters by 13 for a text to adapt to."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(1)
    shape = LlamaConfig(
        vocab_size=128, hidden_size=width, intermediate_size=2 * width, num_hidden_layers=layers,
        num_attention_heads=width // HEAD, num_key_value_heads=width // HEAD // 2, max_position_embeddings=64,
        initializer_range=width**-0.5,
    )  # fmt: skip
    model = LlamaForCausalLM(shape)
    optimizer, samples = torch.optim.AdamW(model.parameters(), lr=3e-3), TokenFile(LICENCE, dtype="uint8", length=32)
    order = DataOrder(bytes(32), len(samples), 16)
    for step in range(steps):
        (windows,) = samples.batch(order.batch(step))
        logits = model(input_ids=windows[:, :-1]).logits
        functional.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten()).backward()
        optimizer.step()
        optimizer.zero_grad()
    os.environ[VARIABLE] = str(folder)
    model.save_pretrained(folder / World.name)
    letters = string.ascii_lowercase
    other = folder / "other.txt"
    other.write_text(LICENCE.read_text().translate(str.maketrans(letters, letters[13:] + letters[:13])))
    base = load_file(folder / World.name / "model.safetensors")
    return World(base, TokenFile(other, dtype="uint8", length=32))


def factors(adapters: State) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """(B, A) by the name of the base's weight."""
    names = [name for name in adapters if ".lora_B." in name]
    return {
        name.removeprefix(PREFIX).replace("lora_B.default.", ""): (adapters[name], adapters[name.replace("_B", "_A")])
        for name in names
    }


def rebuilt(
    adapters: State, change: Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
) -> State:
    """Adapters with each module's (B, A) put through ``change``."""
    result = {}
    for name, pair in factors(adapters).items():
        left, right = change(*pair)
        module = PREFIX + name.removesuffix("weight")
        result |= {f"{module}lora_B.default.weight": left, f"{module}lora_A.default.weight": right}
    return result


def deltas(adapters: State, scale: float = 1.0) -> State:
    """``scale B A`` by the name of the base's weight."""
    return {name: scale * left @ right for name, (left, right) in factors(adapters).items()}


def plus(base: State, *changes: State) -> State:
    """The base with changes added to it, a copy."""
    result = {name: tensor.clone() for name, tensor in base.items()}
    for change in changes:
        for name, tensor in change.items():
            result[name] = result[name] + tensor
    return result


def quantised(state: State, bits: int, group: int = 128) -> State:
    """Matrices rounded to ``bits`` bits, symmetrically, a scale for each ``group`` weights of a row."""
    result = dict(state)
    for name, tensor in state.items():
        if tensor.dim() == 2:
            parts = tensor.split(group, dim=1)
            steps = [part.abs().amax(dim=1, keepdim=True) / (2 ** (bits - 1) - 1) for part in parts]
            result[name] = torch.cat([(part / s).round() * s for part, s in zip(parts, steps, strict=True)], dim=1)
    return result


def pruned(state: State, share: float) -> State:
    """The smallest ``share`` of each tensor set to zero."""
    return {
        name: torch.where(tensor.abs() > tensor.abs().flatten().kthvalue(max(1, int(share * tensor.numel()))).values,
                          tensor, 0.0) if tensor.dim() == 2 else tensor
        for name, tensor in state.items()
    }  # fmt: skip


def truncated(rank: int) -> Callable[[torch.Tensor, torch.Tensor], Pair]:
    """(B, A) of the ``rank`` largest singular values of B A."""

    def change(left: torch.Tensor, right: torch.Tensor) -> Pair:
        u, s, v = torch.linalg.svd(left @ right, full_matrices=False)
        return u[:, :rank] * s[:rank], v[:rank]

    return change


def dare(changes: State, drop: float, seed: int) -> State:
    """DARE (arXiv 2311.03099): a share of the change dropped at random, the rest scaled up."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: tensor * (torch.rand(tensor.shape, generator=generator) >= drop) / (1 - drop)
        for name, tensor in changes.items()
    }


def ties(changes: list[State], keep: float = 0.2) -> State:
    """TIES (arXiv 2306.01708): the largest ``keep`` of each change, their sum's sign, the mean of those with it."""
    merged = {}
    for name in changes[0]:
        stack = torch.stack([pruned({name: change[name]}, 1 - keep)[name] for change in changes])
        agree = (stack.sign() == stack.sum(dim=0).sign()) & (stack != 0)
        merged[name] = (stack * agree).sum(dim=0) / agree.sum(dim=0).clamp(min=1)
    return merged


def disguised(state: State, seed: int) -> State:
    """The same function of a merged Llama: heads and hidden units permuted and scaled, gains folded, stream rotated."""
    generator = torch.Generator().manual_seed(seed)
    result = {name: tensor.double() for name, tensor in state.items()}
    width = state["model.embed_tokens.weight"].shape[1]
    rotation = torch.linalg.qr(torch.randn(width, width, generator=generator).double()).Q
    result["lm_head.weight"] = (result["lm_head.weight"] * result["model.norm.weight"]) @ rotation
    result["model.embed_tokens.weight"] = result["model.embed_tokens.weight"] @ rotation
    result["model.norm.weight"] = torch.ones(width).double()
    for layer in range(sum(name.endswith("gate_proj.weight") for name in state)):
        _disguise_layer(result, f"model.layers.{layer}.", rotation, generator)
    return {name: tensor.float() for name, tensor in result.items()}


def _disguise_layer(state: State, at: str, rotation: torch.Tensor, generator: torch.Generator) -> None:
    query, key, value, out = (f"{at}self_attn.{part}_proj.weight" for part in "qkvo")
    gate, up, down = (f"{at}mlp.{part}_proj.weight" for part in ("gate", "up", "down"))
    for gain, readers in (("input_layernorm", (query, key, value)), ("post_attention_layernorm", (gate, up))):
        for name in readers:
            state[name] = (state[name] * state[f"{at}{gain}.weight"]) @ rotation
        state[f"{at}{gain}.weight"] = torch.ones(len(rotation)).double()
    state[out], state[down] = rotation.T @ state[out], rotation.T @ state[down]
    groups = torch.randperm(len(state[key]) // HEAD, generator=generator)
    share = len(state[query]) // len(state[key])
    heads = (groups[:, None] * share + torch.arange(share)).flatten()
    units = {size: (chosen[:, None] * HEAD + torch.arange(HEAD)).flatten() for size, chosen in
             ((len(state[query]), heads), (len(state[key]), groups))}  # fmt: skip
    for name in (query, key, value):
        state[name] = state[name][units[len(state[name])]]
    state[out] = state[out][:, units[len(state[query])]]
    order = torch.randperm(len(state[up]), generator=generator)
    scale = torch.exp(torch.randn(len(order), generator=generator)).double()
    scale = scale * torch.randn(len(order), generator=generator).sign()
    state[gate], state[up] = state[gate][order], state[up][order] * scale[:, None]
    state[down] = state[down][:, order] / scale
