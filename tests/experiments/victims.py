"""Small networks of every kind, with statistics and gains that training would give them, and a thief's setting."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from experiments.attacks import Setting
from pol.programs.classifier import MLP, ClassifierConfig
from pol.programs.convnet import ConvNet, ConvNetConfig
from pol.programs.image_to_image import ImageToImageConfig, Translator
from pol.programs.language import GPT, LanguageConfig

ROWS = 24
CLASSES = 4
TOKENS = 40


def mlp(batch_norm: bool = False, width: int = 12) -> nn.Module:
    return MLP(
        ClassifierConfig(
            inputs=64, width=width, hidden=3, classes=CLASSES, steps=1, learning_rate=1e-3, weight_decay=0.0,
            dropout=0.0, batch_norm=batch_norm,
        )
    )  # fmt: skip


def convnet(network: str) -> nn.Module:
    return ConvNet(
        ConvNetConfig(
            network=network, channels=1, height=8, width=8, filters=4, classes=CLASSES, steps=1, learning_rate=1e-2,
            momentum=0.9, weight_decay=0.0, dropout=0.0, crop=0, flip=False, ranks=1,
        )
    )  # fmt: skip


def gpt() -> nn.Module:
    return GPT(
        LanguageConfig(
            vocabulary=TOKENS, context=8, layers=2, heads=4, width=16, dropout=0.0, steps=1, warmup=0,
            learning_rate=1e-3, weight_decay=0.0, clip=0.0, micro_batches=1, ema=0.0, precision="fp32", ranks=1,
        )
    )  # fmt: skip


def translator() -> nn.Module:
    config = ImageToImageConfig(
        inputs=1, outputs=1, height=8, width=8, filters=6, blocks=2, loss="l1", steps=1, learning_rate=1e-3,
        weight_decay=0.0,
    )  # fmt: skip
    return Translator(config)


def llama(tied: bool = True) -> nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=TOKENS, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=16, tie_word_embeddings=tied,
    )  # fmt: skip
    return LlamaForCausalLM(config)


def lora() -> nn.Module:
    from peft import LoraConfig, get_peft_model

    adapters = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj", "down_proj"], task_type="CAUSAL_LM")
    network: Any = get_peft_model(llama(), adapters)
    return network  # type: ignore[no-any-return]


def lived_in(build: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    """A network whose norms have gains, biases and statistics of their own, in evaluation mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build()
        with torch.no_grad():
            for name, tensor in (*network.named_parameters(), *network.named_buffers()):
                if name.endswith("running_var"):
                    tensor.uniform_(0.2, 2.0)
                elif tensor.dim() == 1 and tensor.is_floating_point() and "inv_freq" not in name:
                    tensor.add_(0.3 * torch.randn(tensor.shape))
                elif "lora_B" in name:
                    tensor.normal_(0.0, 0.1)
    return network.eval()


KINDS: dict[str, Callable[[], nn.Module]] = {
    "mlp": mlp,
    "mlp with batch norm": lambda: mlp(batch_norm=True),
    "cnn": lambda: convnet("cnn"),
    "resnet20": lambda: convnet("resnet20"),
    "gpt": gpt,
    "llama": llama,
    "translator": translator,
    "lora": lora,
}
KIND_OF = {
    "mlp": "mlp", "mlp with batch norm": "mlp", "cnn": "convnet", "resnet20": "convnet", "gpt": "transformer",
    "llama": "transformer", "translator": "image_to_image", "lora": "lora",
}  # fmt: skip
STUDENTS: dict[str, Callable[[], nn.Module]] = {"mlp": lambda: mlp(width=9), "convnet": lambda: convnet("cnn")}


def inputs_of(name: str, seed: int = 1) -> torch.Tensor:
    """Inputs [ROWS, ...] for the network of that name."""
    generator = torch.Generator().manual_seed(seed)
    if KIND_OF[name] in {"transformer", "lora"}:
        return torch.randint(TOKENS, (ROWS, 8), generator=generator)
    images = torch.rand(ROWS, 64, generator=generator)
    images[:, :6] = 0
    return images if KIND_OF[name] == "mlp" else images.reshape(-1, 1, 8, 8)


def setting_of(name: str, **extra: Any) -> Setting:
    """A thief with few rows who trains for one epoch."""
    inputs, kind = inputs_of(name), KIND_OF[name]
    generator = torch.Generator().manual_seed(2)
    labels = torch.randint(CLASSES, (ROWS,), generator=generator)
    targets = {"image_to_image": 1 - inputs, "transformer": inputs.roll(-1, 1), "lora": inputs.roll(-1, 1)}
    usual: dict[str, Any] = dict(
        kind=kind, inputs=inputs, targets=targets.get(kind, labels), queries=inputs_of(name, 3), build=KINDS[name],
        student=STUDENTS.get(kind, KINDS[name]), rate=1e-3, batch=8, effort=0.0, shape=(1, 8, 8),
    )  # fmt: skip
    return Setting(**usual | extra)
