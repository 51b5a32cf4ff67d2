"""The models whose operators :func:`pol.exact` must cover, small, and a few steps of training for each."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from pol.tensors import tensors_digest

TOKENS = torch.arange(48).reshape(3, 16) % 31
IMAGES = torch.linspace(0, 1, 2 * 64).reshape(2, 1, 8, 8)

Optimizer = Callable[[list[nn.Parameter]], torch.optim.Optimizer]


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


MODELS: dict[str, Callable[[], nn.Module]] = {"gpt2": gpt2, "llama": llama, "lora": lora, "unet": UNet}


def adamw(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, 1e-2)


def trained(
    make: Callable[[], nn.Module], optimizer: Optimizer = adamw, steps: int = 2
) -> tuple[nn.Module, list[float]]:
    """The model after ``steps``, and its losses."""
    torch.manual_seed(0)
    model = make().train()
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    update, losses = optimizer(parameters), []
    for _ in range(steps):
        if isinstance(model, UNet):
            loss = (model(IMAGES) - IMAGES).abs().mean()
        else:
            loss = model(input_ids=TOKENS, labels=TOKENS).loss
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        update.step()
        update.zero_grad()
        losses.append(float(loss.detach()))
    return model, losses


def digest(model: nn.Module) -> str:
    return tensors_digest({name: value.detach() for name, value in model.state_dict().items()}).hex()
