"""The models whose operators :func:`pol.exact` must cover, small, and a few steps of training for each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pol.program import config_from, load_program, program_digest
from pol.tensors import tensors_digest
from tests.pol.programs import IMAGE

TOKENS = torch.arange(64).reshape(4, 16) % 31
IMAGES = torch.linspace(0, 1, 4 * 64).reshape(4, 1, 8, 8)

Optimizer = Callable[[list[nn.Parameter]], torch.optim.Optimizer]
Move = Callable[[Tensor], Tensor]


def gpt2() -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    shape = dict(vocab_size=32, n_positions=16, n_embd=16, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0)
    return GPT2LMHeadModel(GPT2Config(**shape))


def llama() -> nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = dict(
        vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=16,
    )  # fmt: skip
    return LlamaForCausalLM(LlamaConfig(**shape))


def lora() -> nn.Module:
    from peft import LoraConfig, get_peft_model

    adapters = LoraConfig(r=2, lora_alpha=4, lora_dropout=0.1, target_modules=["q_proj", "v_proj"])
    return get_peft_model(llama(), adapters)


class UNet(nn.Module):
    """Down and up once, with every norm, pooling and enlarging that the table has."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.GroupNorm(2, 4), nn.SiLU())
        self.down = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(4, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.up = nn.ConvTranspose2d(8, 4, 2, 2)
        self.last = nn.Sequential(
            nn.Conv2d(8, 4, 3, padding=1), nn.Upsample(scale_factor=2), nn.AvgPool2d(2), nn.Dropout(0.1),
            nn.Conv2d(4, 1, 1), nn.Sigmoid(),
        )  # fmt: skip

    def forward(self, images: Tensor) -> Tensor:
        first = self.first(images)
        return self.last(torch.cat([first, self.up(self.down(first))], 1))

    def loss(self, tokens: Tensor, images: Tensor) -> Tensor:
        return (self(images) - images).abs().mean()


class Words(nn.Module):
    """Tied weights, a padded embedding, attention under a mask and a causal one, and a smoothed loss with gaps."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.norm = nn.Embedding(32, 16, padding_idx=0), nn.RMSNorm(16)
        self.parts, self.head = nn.Linear(16, 48), nn.Linear(16, 32, bias=False)
        self.head.weight, self.dropout = self.words.weight, nn.Dropout(0.1)

    def attended(self, x: Tensor, **options: Any) -> Tensor:
        query, key, value = (part.unflatten(-1, (4, 4)).transpose(1, 2) for part in self.parts(x).chunk(3, -1))
        found = F.scaled_dot_product_attention(query, key, value, dropout_p=self.dropout.p * self.training, **options)
        return found.transpose(1, 2).flatten(-2)

    def loss(self, tokens: Tensor, images: Tensor) -> Tensor:
        x = self.words(tokens)
        x = x + self.attended(self.norm(x), is_causal=True)
        seen = (tokens != 0)[:, None, None, :]
        x = x + self.attended(self.norm(x), attn_mask=seen)
        labels = torch.where(tokens % 7 == 3, -100, tokens)
        return F.cross_entropy(self.head(x).flatten(0, 1), labels.flatten(), label_smoothing=0.1)


class Windows(nn.Module):
    """Every way in which a convolution's windows may lie, and batch norm of rows."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = nn.Sequential(
            nn.Conv2d(1, 6, 3, padding="same"), nn.Conv2d(6, 6, 3, groups=6), nn.GELU(), nn.Conv2d(6, 4, 3, 2, 2, 2),
            nn.ConvTranspose2d(4, 4, 3, 2, 1, output_padding=1, groups=2), nn.Tanh(),
            nn.ConvTranspose2d(4, 3, 2, dilation=2, output_padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
            nn.BatchNorm1d(3), nn.Linear(3, 5),
        )  # fmt: skip

    def loss(self, tokens: Tensor, images: Tensor) -> Tensor:
        return F.cross_entropy(self.seen(images), tokens[: len(images), 0] % 5, reduction="sum")


class ConvNet(nn.Module):
    """A network of the built-in program for images."""

    def __init__(self, network: str) -> None:
        super().__init__()
        name = "pol.programs.convnet:ConvNetClassifier"
        config = config_from(IMAGE | {"network": network})
        self.network = load_program(name, program_digest(name)).build(config, bytes(32)).model

    def loss(self, tokens: Tensor, images: Tensor) -> Tensor:
        return F.cross_entropy(self.network(images), tokens[: len(images), 0] % 10)


class Autocast(nn.Module):
    """``model``, computed in mixed precision."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def loss(self, tokens: Tensor, images: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return loss_of(self.model, tokens, images)


MODELS: dict[str, Callable[[], nn.Module]] = {
    "gpt2": gpt2, "llama": llama, "lora": lora, "unet": UNet, "words": Words, "windows": Windows,
    "cnn": lambda: ConvNet("cnn"), "resnet20": lambda: ConvNet("resnet20"),
    "gpt2, stored in bf16": lambda: gpt2().bfloat16(), "llama, stored in bf16": lambda: llama().bfloat16(),
    "gpt2, mixed": lambda: Autocast(gpt2()), "unet, mixed": lambda: Autocast(UNet()),
}  # fmt: skip


def adamw(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, 1e-2)


def loss_of(model: nn.Module, tokens: Tensor, images: Tensor) -> Tensor:
    """The model's own loss, or that of a language model of transformers."""
    if isinstance(model, UNet | Words | Windows | ConvNet | Autocast):
        return model.loss(tokens, images)
    return model(input_ids=tokens, labels=tokens).loss


def trained(
    make: Callable[[], nn.Module], optimizer: Optimizer = adamw, steps: int = 2, *, training: bool = True,
    parts: int = 1, move: Move = lambda tensor: tensor,
) -> tuple[nn.Module, list[float]]:  # fmt: skip
    """The model after ``steps``, and its losses.

    Each step is accumulated over ``parts`` of the batch; ``move`` lays out weights and samples in memory.
    """
    torch.manual_seed(0)
    model = make().train(training)
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data = move(tensor.data)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    update, losses = optimizer(parameters), []
    for _ in range(steps):
        for part in range(parts):
            loss = loss_of(model, move(TOKENS[part::parts]), move(IMAGES[part::parts])) / parts
            loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        update.step()
        update.zero_grad()
        losses.append(float(loss.detach()))
    return model, losses


def digest(model: nn.Module) -> str:
    return tensors_digest({name: value.detach() for name, value in model.state_dict().items()}).hex()
