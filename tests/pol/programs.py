"""A narrow configuration of every built-in program that is not the first, with real samples, and a loop to run it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch

from pol.data import Dataset, Samples, digits
from pol.encoding import Json
from pol.errors import ProofError
from pol.machine import this_machine
from pol.order import DataOrder
from pol.program import Program, config_from, load_program, program_digest
from pol.programs.base_model import VARIABLE, pins
from pol.sources import TokenFile
from pol.spec import TrainingSpec
from pol.state import TrainingState
from pol.tensors import tensors_digest
from tests.runs import SEED

LICENCE = Path(__file__).parents[2] / "LICENSE"
IMAGE = dict(
    channels=1, height=8, width=8, filters=4, classes=10, steps=40, learning_rate=0.1, momentum=0.9,
    weight_decay=1e-4, dropout=0.1, crop=1, flip=True, ranks=1,
)  # fmt: skip
TEXT = dict(
    vocabulary=128, context=16, layers=2, heads=2, width=16, dropout=0.1, steps=40, warmup=3, learning_rate=1e-2,
    weight_decay=0.1, clip=1.0, micro_batches=2, ema=0.9, precision="fp32", ranks=1,
)  # fmt: skip
PICTURE = dict(
    inputs=1, outputs=1, height=8, width=8, filters=4, blocks=1, loss="l2", steps=40, learning_rate=1e-2,
    weight_decay=0.0,
)  # fmt: skip
LORA = dict(
    rank=4, alpha=8, dropout=0.1, targets=["q_proj", "v_proj"], steps=40, learning_rate=1e-2, weight_decay=0.01,
    clip=1.0, ranks=1,
)  # fmt: skip
BATCH = 12  # divides among 2 and 3 ranks, and those parts in 2 micro-batches


@dataclass(frozen=True)
class Case:
    """A program, its configuration and what it is trained on."""

    name: str
    config: dict[str, Json]
    samples: Samples

    @property
    def program(self) -> Program:
        return load_program(self.name, program_digest(self.name))

    def but(self, **changes: object) -> Case:
        return Case(self.name, self.config | config_from(changes), self.samples)

    def build(self) -> TrainingState:
        return self.program.build(self.config, SEED)

    def train(self, state: TrainingState, steps: int) -> TrainingState:
        """Take steps until ``steps`` have been taken in all."""
        order = DataOrder(SEED, len(self.samples), BATCH)
        while state.step < steps:
            state.key_generators(SEED)
            self.program.train_step(state, self.samples.batch(order.batch(state.step)))
            state.step += 1
        return state

    def spec(self, steps: int, segment_length: int) -> TrainingSpec:
        return TrainingSpec(
            program=self.name,
            program_digest=program_digest(self.name),
            config=self.config,
            dataset="tokens/uint8/16/licence" if self.samples.fields == ("tokens",) else "digits/train",
            dataset_root=self.samples.root,
            dataset_size=len(self.samples),
            batch_size=BATCH,
            steps=steps,
            segment_length=segment_length,
            machine=this_machine(threads=1).to_json(),
            trainer=bytes(20),
        )

    def digest(self, steps: int) -> bytes:
        return tensors_digest(self.train(self.build(), steps).capture(SEED))


def case(name: str) -> Case:
    """One of ``NAMES``. The LoRA cases need :func:`tiny_base` to have been called."""
    kind, _, variant = name.partition("/")
    if kind == "convnet":
        return Case(
            "pol.programs.convnet:ConvNetClassifier", config_from(IMAGE | {"network": variant}), digits("train")
        )
    if kind == "language":
        config = config_from(TEXT | {"precision": variant})
        return Case("pol.programs.language:LanguageModel", config, windows())
    if kind == "image-to-image":
        config = config_from(PICTURE | {"loss": variant})
        return Case("pol.programs.image_to_image:ImageToImage", config, noisy_digits())
    return Case("pol.programs.lora:CausalLoRA", config_from(LORA | pins(variant)), windows())


NAMES = [
    "convnet/cnn", "convnet/resnet20", "language/fp32", "language/bf16", "language/fp16", "image-to-image/l1",
    "image-to-image/l2", "lora/tiny-llama",
]  # fmt: skip


def windows() -> Samples:
    """The licence, as windows of 17 ASCII codes."""
    return TokenFile(LICENCE, dtype="uint8", length=16)


def noisy_digits() -> Samples:
    """Digits under noise as inputs, the clean digits, as bytes, as labels."""
    clean = digits("train").inputs.reshape(-1, 1, 8, 8)
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    return Dataset(clean + 0.3 * noise, (clean * 255).to(torch.uint8))


def tiny_base(folder: Path, name: str = "tiny-llama") -> None:
    """A Llama of 20,000 parameters in ``folder``/``name``, and the environment variable that leads there."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(1)
    shape = LlamaConfig(
        vocab_size=128, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=32, tie_word_embeddings=True,
    )  # fmt: skip
    LlamaForCausalLM(shape).save_pretrained(folder / name)
    os.environ[VARIABLE] = str(folder)


def unchanged(program: Program, state: TrainingState, end: int, payload: Json) -> Program:
    """A branch's program that is the trunk's, if it may be: see :data:`pol.replay_program.Wrapper`."""
    if payload != {"allowed": [state.step, end]}:
        raise ProofError("not allowed")
    return program
