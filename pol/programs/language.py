"""Built-in program: a small GPT, trained with AdamW, warm-up and cosine, gradient accumulation and clipping."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.optim.swa_utils import AveragedModel

from pol.data import Batch, Samples
from pol.encoding import Json
from pol.errors import SpecError
from pol.parallel import backward
from pol.programs.config import count, number, one_of, parse, whole
from pol.programs.scoring import fitted, inverse_perplexity
from pol.seed import draw
from pol.state import TrainingState

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
BETAS = (0.9, 0.95)
FLOOR = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class LanguageConfig:
    """A GPT over ``vocabulary`` tokens and windows of ``context``: ``layers`` blocks, ``width`` wide, with ``heads``.

    The learning rate rises over ``warmup`` steps, then falls along a cosine to a tenth at ``steps``. Weight decay is
    for matrices only. ``clip`` bounds the gradient's norm (0: no bound). A batch is computed as ``ranks`` equal shards
    (:mod:`pol.parallel`), a shard as ``micro_batches`` equal parts whose gradients are accumulated. ``ema`` is the
    decay of the averaged weights (0: none). ``precision`` is that of autocast; ``fp16`` comes with a gradient scaler.
    """

    vocabulary: int = whole(2, 2**20)
    context: int = whole(1, 2**16)
    layers: int = whole(1, 256)
    heads: int = whole(1, 256)
    width: int = whole(1, 2**15)
    dropout: float = number(0, 0.95)
    steps: int = count()
    warmup: int = whole(0, 2**32)
    learning_rate: float = number(2**-40, 1)
    weight_decay: float = number(0, 1)
    clip: float = number(0, 2**20)
    micro_batches: int = whole(1, 1024)
    ema: float = number(0, 0.999999)
    precision: str = one_of(*PRECISIONS)
    ranks: int = whole(1, 1024)

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise SpecError(f"config: width {self.width} does not divide among {self.heads} heads")


class Block(nn.Module):
    """Causal self-attention and a perceptron, each behind a layer norm and added to its input."""

    def __init__(self, config: LanguageConfig) -> None:
        super().__init__()
        width = config.width
        self.heads, self.drop = config.heads, config.dropout
        self.attention_norm = nn.LayerNorm(width)
        self.attention = nn.Linear(width, 3 * width)
        self.attention_out = nn.Linear(width, width)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp = nn.Linear(width, 4 * width)
        self.mlp_out = nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        """Features of shape (batch, length, width), from the same."""
        value = value + self.dropout(self.attention_out(self._attend(self.attention_norm(value))))
        hidden = functional.gelu(self.mlp(self.mlp_norm(value)))
        return value + self.dropout(self.mlp_out(hidden))  # type: ignore[no-any-return]

    def _attend(self, value: torch.Tensor) -> torch.Tensor:
        batch, length, width = value.shape
        heads = self.attention(value).view(batch, length, 3, self.heads, width // self.heads)
        query, key, content = heads.permute(2, 0, 3, 1, 4)
        # The third kernel, of CUDA, adds up its gradients in no fixed order.
        with sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.MATH]):
            mixed = functional.scaled_dot_product_attention(
                query, key, content, dropout_p=self.drop if self.training else 0.0, is_causal=True
            )
        return mixed.transpose(1, 2).reshape(batch, length, width)


class GPT(nn.Module):
    """Token and learned position embeddings, blocks, a layer norm, and the token embedding again as output layer."""

    def __init__(self, config: LanguageConfig) -> None:
        super().__init__()
        self.config = config
        self.tokens = nn.Embedding(config.vocabulary, config.width)
        self.positions = nn.Embedding(config.context, config.width)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.Sequential(*(Block(config) for _ in range(config.layers)))
        self.norm = nn.LayerNorm(config.width)
        for name, parameter in self.named_parameters():  # GPT-2's initialisation
            if name.endswith("_out.weight"):
                nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * config.layers))
            elif parameter.dim() == 2:
                nn.init.normal_(parameter, std=0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Logits of shape (batch, length, vocabulary) for tokens of shape (batch, length), length <= context."""
        positions = torch.arange(tokens.shape[1], device=tokens.device)
        value = self.dropout(self.tokens(tokens) + self.positions(positions))
        return functional.linear(self.norm(self.blocks(value)), self.tokens.weight)


class LanguageModel:
    """Next-token training of :class:`GPT`.

    Samples are (tokens,): int64 windows of ``context`` + 1 tokens. The score is the geometric mean of the probability
    that the model gives to the token that follows, which is one over its perplexity.
    """

    def build(self, config: Mapping[str, Json], seed: bytes) -> TrainingState:
        """The initial state, keyed by the run's seed."""
        parsed = parse(LanguageConfig, config)
        torch.manual_seed(draw(seed, "init"))
        model = GPT(parsed)
        optimizer = torch.optim.AdamW(_groups(model, parsed), lr=parsed.learning_rate, betas=BETAS, foreach=False)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, warmup_cosine(parsed.warmup, parsed.steps))
        state = TrainingState(model=model, optimizer=optimizer, scheduler=scheduler)
        if parsed.precision == "fp16":
            # Its device is where it looks for CUDA, not where it computes: this one serves both.
            state.scaler = torch.amp.GradScaler("cpu")
            _start_moments(optimizer)
        if parsed.ema:
            state.ema = AveragedModel(model, avg_fn=averaging(parsed.ema))
        return state

    def train_step(self, state: TrainingState, batch: Batch) -> torch.Tensor:
        """Forward and backward a micro-batch at a time, clip, AdamW, schedule, average, zero_grad."""
        model = cast(GPT, state.model)
        config = model.config
        model.train()
        loss = backward(model, batch, config.ranks, lambda shard: _accumulate(model, state.scaler, shard))
        if state.scaler:
            state.scaler.unscale_(state.optimizer)
        if config.clip:
            nn.utils.clip_grad_norm_(model.parameters(), config.clip, foreach=False)
        if state.scaler:
            state.scaler.step(state.optimizer)
            state.scaler.update()
        else:
            state.optimizer.step()
        if state.scheduler:
            state.scheduler.step()
        if isinstance(state.ema, AveragedModel):
            state.ema.update_parameters(model)
        state.optimizer.zero_grad()
        return loss

    def evaluate(self, model: Mapping[str, torch.Tensor], config: Mapping[str, Json], samples: Samples) -> float:
        """One over the perplexity, in [0, 1]; :class:`SpecError` if the tensors do not fit the config's network."""
        network = fitted(GPT(parse(LanguageConfig, config)), model)
        return inverse_perplexity(lambda windows: _loss(network, windows), samples)


def averaging(decay: float) -> Callable[[torch.Tensor, torch.Tensor, object], torch.Tensor]:
    """How a weight enters the averaged ones (the first is copied)."""
    return lambda averaged, weight, _: averaged * decay + weight * (1 - decay)


def warmup_cosine(warmup: int, steps: int) -> Callable[[int], float]:
    """The share of the learning rate at a step: up to 1 over ``warmup`` steps, then down to a tenth at ``steps``."""

    def share(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        progress = min(1.0, (step - warmup) / max(1, steps - warmup))
        return FLOOR + (1 - FLOOR) * 0.5 * (1 + math.cos(math.pi * progress))

    return share


def _groups(model: GPT, config: LanguageConfig) -> list[dict[str, object]]:
    parameters = list(model.parameters())
    return [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]


def _start_moments(optimizer: torch.optim.Optimizer) -> None:
    """AdamW's zeros, made at once: if the scaler skips the first step, the state must still have all its tensors."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            moments = {slot: torch.zeros_like(parameter) for slot in ("exp_avg", "exp_avg_sq")}
            optimizer.state[parameter] = {"step": torch.zeros(()), **moments}


def _loss(model: GPT, windows: torch.Tensor) -> torch.Tensor:
    logits = model(windows[:, :-1]).float()
    return functional.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten())


def _accumulate(model: GPT, scaler: torch.amp.GradScaler | None, shard: Batch) -> torch.Tensor:
    """Forward and backward of one shard; the gradients (scaled, with a scaler) add up over its micro-batches."""
    config = model.config
    (windows,) = shard
    if len(windows) % config.micro_batches or windows.shape[1] != config.context + 1:
        raise SpecError(
            f"a shard of shape {tuple(windows.shape)} is not windows of {config.context + 1} tokens "
            f"in {config.micro_batches} equal micro-batches"
        )
    precision = PRECISIONS[config.precision]
    total = torch.zeros((), device=windows.device)
    for part in windows.chunk(config.micro_batches):
        with torch.autocast(windows.device.type, precision, enabled=precision is not torch.float32):
            loss = _loss(model, part) / config.micro_batches
        (scaler.scale(loss) if scaler else loss).backward()  # type: ignore[no-untyped-call]
        total = total + loss.detach()
    return total
