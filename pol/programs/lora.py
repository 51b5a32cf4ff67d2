"""Built-in program: fine-tuning a causal language model with LoRA adapters, through PEFT.

The base model is pinned by digest and frozen. It is no part of a state's tensors: a state binds it by one digest, and
a submitted model is the adapters alone.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from pol.data import Batch, Samples
from pol.encoding import Json
from pol.errors import CannotRun, SpecError
from pol.parallel import backward
from pol.programs.base_model import causal_lm
from pol.programs.config import count, digest32, name, names, number, parse, whole
from pol.programs.scoring import fitted, inverse_perplexity
from pol.seed import draw
from pol.state import TrainingState


@dataclass(frozen=True, slots=True, kw_only=True)
class LoRAConfig:
    """Adapters of ``rank`` in the modules of ``base`` whose names end in one of ``targets``, scaled by alpha / rank.

    ``base`` names a folder, ``base_digest`` and ``architecture_digest`` say what must be in it
    (:mod:`pol.programs.base_model`). The learning rate falls to zero over ``steps``; ``clip`` bounds the gradient's
    norm (0: no bound). A batch is computed as ``ranks`` equal shards (:mod:`pol.parallel`).
    """

    base: str = name()
    base_digest: bytes = digest32()
    architecture_digest: bytes = digest32()
    rank: int = whole(1, 4096)
    alpha: int = whole(1, 2**16)
    dropout: float = number(0, 0.95)
    targets: tuple[str, ...] = names()
    steps: int = count()
    learning_rate: float = number(2**-40, 1)
    weight_decay: float = number(0, 1)
    clip: float = number(0, 2**20)
    ranks: int = whole(1, 1024)


class CausalLoRA:
    """Next-token training of the adapters with AdamW.

    Samples are (tokens,): int64 windows, of which every token but the first is predicted. The score is one over the
    perplexity.
    """

    def build(self, config: Mapping[str, Json], seed: bytes) -> TrainingState:
        """The initial state, keyed by the run's seed; :class:`CannotRun` without the pinned base model."""
        parsed = parse(LoRAConfig, config)
        model = adapted(parsed, draw(seed, "init"))
        optimizer = torch.optim.AdamW(
            trained(model), lr=parsed.learning_rate, weight_decay=parsed.weight_decay, foreach=False
        )
        scheduler = torch.optim.lr_scheduler.LinearLR(
            optimizer, start_factor=1.0, end_factor=0.0, total_iters=parsed.steps
        )
        return TrainingState(model=model, optimizer=optimizer, scheduler=scheduler, pinned=frozen(model))

    def train_step(self, state: TrainingState, batch: Batch) -> torch.Tensor:
        """Forward, backward, clip, AdamW, schedule, zero_grad."""
        model = state.model
        config: LoRAConfig = model.run_config  # type: ignore[assignment]

        def run(shard: Batch) -> torch.Tensor:
            (windows,) = shard
            loss = next_token_loss(model, windows)
            loss.backward()  # type: ignore[no-untyped-call]
            return loss.detach()

        model.train()
        loss = backward(model, batch, config.ranks, run)
        if config.clip:
            nn.utils.clip_grad_norm_(trained(model), config.clip, foreach=False)
        state.optimizer.step()
        if state.scheduler:
            state.scheduler.step()
        state.optimizer.zero_grad()
        return loss

    def evaluate(self, model: Mapping[str, torch.Tensor], config: Mapping[str, Json], samples: Samples) -> float:
        """One over the perplexity of base and adapters, in [0, 1].

        :class:`SpecError` if the tensors are not the config's adapters, the base's own tensors among them included.
        """
        network = adapted(parse(LoRAConfig, config), 0)
        base = {label: value for label, value in network.state_dict().items() if label in frozen(network)}
        own = sorted(set(base) & set(model))
        if own:
            raise SpecError(f"the model has tensors of its own for the pinned base: {own[:3]}")
        network = fitted(network, base | dict(model))
        return inverse_perplexity(lambda windows: next_token_loss(network, windows), samples)


def adapted(config: LoRAConfig, key: int) -> nn.Module:
    """The pinned base with fresh adapters, drawn after ``torch.manual_seed(key)``."""
    base = causal_lm(config.base, config.base_digest, config.architecture_digest)
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise CannotRun("LoRA needs the extra 'hf': pip install 'aiarena[hf]'") from error
    adapters = LoraConfig(
        r=config.rank, lora_alpha=config.alpha, lora_dropout=config.dropout,
        target_modules=list(config.targets), task_type="CAUSAL_LM",
    )  # fmt: skip
    torch.manual_seed(key)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # one library about the other
            model: Any = get_peft_model(base, adapters)
    except ValueError as error:
        raise SpecError(f"config: adapters cannot be put into {', '.join(config.targets)}: {error}") from error
    model.run_config = config
    return model  # type: ignore[no-any-return]


def trained(model: nn.Module) -> list[nn.Parameter]:
    """The parameters of the adapters."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def frozen(model: nn.Module) -> frozenset[str]:
    """The names of the base's parameters, as they are in the model's state dict."""
    named = model.named_parameters(remove_duplicate=False)
    return frozenset(label for label, parameter in named if not parameter.requires_grad)


def next_token_loss(model: nn.Module, windows: torch.Tensor) -> torch.Tensor:
    """The mean cross-entropy of every token after the first, given those before it."""
    logits = model(input_ids=windows[:, :-1], use_cache=False).logits.float()
    return functional.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten())
