"""The models that are stolen: a built-in program, its data, how the owner trains it, and how good it is."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any, Final

import torch
from torch import nn

from experiments.attacks.attack import CLASSIFIERS, Kind, Setting, adam
from experiments.attacks.networks import query
from experiments.baselines.scheme import Part, Penalty
from experiments.stolen_model.data import Split, split
from pol.encoding import Json, digest, u64
from pol.program import config_from
from pol.programs.base_model import pins
from pol.programs.classifier import MLP, ClassifierConfig, ImageClassifier
from pol.programs.config import parse
from pol.programs.convnet import ConvNet, ConvNetClassifier, ConvNetConfig
from pol.programs.image_to_image import ImageToImage, ImageToImageConfig, Translator
from pol.programs.language import GPT, LanguageConfig, LanguageModel
from pol.programs.lora import CausalLoRA, LoRAConfig, adapted

SEED_DOMAIN: Final = "aiarena/experiment-seed/v1"

PROGRAMS: Final[dict[str, Any]] = {
    "classifier": ImageClassifier(),
    "convnet": ConvNetClassifier(),
    "language": LanguageModel(),
    "image_to_image": ImageToImage(),
    "lora": CausalLoRA(),
}
NETWORKS: Final[dict[str, Callable[[Mapping[str, Json]], nn.Module]]] = {
    "classifier": lambda config: MLP(ClassifierConfig.parse(config)),
    "convnet": lambda config: ConvNet(parse(ConvNetConfig, config)),
    "language": lambda config: GPT(parse(LanguageConfig, config)),
    "image_to_image": lambda config: Translator(parse(ImageToImageConfig, config)),
    "lora": lambda config: adapted(parse(LoRAConfig, config), int(torch.randint(2**62, ()))),
}


@dataclass(frozen=True)
class Workload:
    """One table of config.toml, ``[workloads.<name>]``: the keys are the fields.

    ``student`` are the changes to the config that make another architecture, ``fit_steps`` how long the embedded
    baselines are fine-tuned in, ``marks`` which models are released, ``channels`` the settings of ours
    (:mod:`experiments.stolen_model.channels`), ``nulls`` those of channels that are not embedded here and whose null
    hypothesis alone is tested, ``attacks`` those that are run (nothing: all that fit), ``accusers`` the attacks on the
    null hypothesis that are, ``imitation`` whether a student is compared with its teacher (``Bench.imitation``).
    ``effort`` scales the epochs of attacks; there are ``innocents`` other models; without ``curves`` attacks are run at
    one strength only. Raise ``version`` when code changes what a result means: every cell is then run again.
    """

    name: str
    kind: Kind
    program: str
    data: dict[str, Any]
    config: dict[str, Any]
    student: dict[str, Any]
    batch: int
    fit_steps: int
    marks: tuple[str, ...]
    channels: dict[str, dict[str, Any]]
    nulls: dict[str, dict[str, Any]] = field(default_factory=dict)
    shape: tuple[int, int, int] | None = None
    attacks: tuple[str, ...] = ()
    accusers: tuple[str, ...] = ()
    imitation: bool = False
    effort: float = 1.0
    innocents: int = 8
    curves: bool = True
    version: int = 1

    @classmethod
    def parse(cls, name: str, table: dict[str, Any]) -> Workload:
        """The workload of a table of config.toml."""
        lists = {key: tuple(value) for key, value in table.items() if isinstance(value, list)}
        return cls(name=name, **table | lists)

    def table(self) -> dict[str, Any]:
        """What the models depend on."""
        unseen = {"marks": None, "attacks": None, "accusers": None, "innocents": None, "curves": None}
        return {name: value for name, value in asdict(self).items() if name not in ("nulls", "imitation")} | unseen

    def shortened(self, steps: int, accusers: Sequence[str], effort: float, innocents: int) -> Workload:
        """The same, trained for ``steps`` only, and with these accusers, effort and innocents."""
        changes: dict[str, Any] = {"config": self.config | {"steps": steps}, "fit_steps": steps}
        return replace(self, accusers=tuple(accusers), effort=effort, innocents=innocents, **changes)

    @property
    def rate(self) -> float:
        """The learning rate that the owner trains with."""
        return float(self.config["learning_rate"])

    def split(self, seed: int) -> Split:
        """The three parts of the data; every seed has its own."""
        return split(self.data, seed)

    def network(self, **changes: Any) -> nn.Module:
        """A fresh network, drawn from torch's global generator, with ``changes`` to the config."""
        return NETWORKS[self.program](self._config(**changes))

    def train(self, part: Part, seed: int) -> nn.Module:
        """The model that the program makes of ``part``, in evaluation mode."""
        program, key = PROGRAMS[self.program], digest(SEED_DOMAIN, u64(seed))
        generator = torch.Generator().manual_seed(seed)
        with torch.random.fork_rng(devices=[]):
            state = program.build(self._config(), key)
            for step in range(self.config["steps"]):
                torch.manual_seed(seed * 1_000_003 + step)
                rows = torch.randint(len(part), (self.batch,), generator=generator)
                program.train_step(state, self._batch(part.inputs[rows], part.targets[rows]))
        model: nn.Module = state.model
        return model.eval()

    def fit(self, part: Part, seed: int, model: nn.Module, penalty: Penalty) -> nn.Module:
        """A copy of ``model``, trained on ``part`` for ``fit_steps`` at a falling rate, with ``penalty`` added."""
        setting, fitted = self.setting(part, part.inputs), copy.deepcopy(model).train()
        optimizer = setting.optimizer(fitted.parameters(), setting.rate)
        fall = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=self.fit_steps)
        generator = torch.Generator().manual_seed(seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for _ in range(self.fit_steps):
                rows = torch.randint(len(part), (self.batch,), generator=generator)
                optimizer.zero_grad()
                loss = setting.loss(fitted(part.inputs[rows]), part.targets[rows]) + penalty(fitted)
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                fall.step()
        return fitted.eval()

    def setting(self, part: Part, queries: torch.Tensor, **means: Any) -> Setting:
        """The setting of an attacker who has ``part`` and can query the victim with ``queries``."""
        return Setting(
            kind=self.kind,
            inputs=part.inputs,
            targets=part.targets,
            queries=queries,
            build=self.network,
            student=partial(self.network, **self.student),
            rate=self.rate,
            optimizer=sgd if self.program == "convnet" else adam,
            batch=self.batch,
            shape=self.shape,
            **means,
        )

    def quality(self, model: nn.Module, part: Part) -> float:
        """Accuracy in percent, perplexity, or the signal-to-noise ratio (dB): see :data:`QUALITIES`."""
        if self.kind in CLASSIFIERS:
            return 100 * float((query(model, part.inputs).argmax(dim=1) == part.targets).double().mean())
        if self.kind == "image_to_image":
            error = float((query(model, part.inputs) - part.targets).double().square().mean())
            return -10 * math.log10(max(error, 1e-12)) if math.isfinite(error) else 0.0
        pairs = zip(torch.split(part.inputs, 8), torch.split(part.targets, 8), strict=True)
        loss = math.fsum(_surprise(model, *pair) for pair in pairs)
        return math.exp(min(loss / part.targets.numel(), 20.0)) if math.isfinite(loss) else math.exp(20.0)

    def _config(self, **changes: Any) -> dict[str, Json]:
        config = config_from(self.config | changes)
        return config | pins(str(config["base"])) if "base" in config else config

    def _batch(self, inputs: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, ...]:
        if self.kind in ("transformer", "lora"):
            return (torch.cat([inputs, targets[:, -1:]], dim=1),)
        return inputs, targets


QUALITIES: Final[dict[str, tuple[str, str]]] = {
    "mlp": ("accuracy", "%"),
    "convnet": ("accuracy", "%"),
    "transformer": ("perplexity", ""),
    "lora": ("perplexity", ""),
    "image_to_image": ("PSNR", "dB"),
}
"""What ``Workload.quality`` measures for a kind of model, and its unit."""


def _surprise(model: nn.Module, inputs: torch.Tensor, targets: torch.Tensor) -> float:
    """The sum of the cross-entropies of ``targets`` [n, length], a few windows at a time: logits are large."""
    logits = query(model, inputs).flatten(0, -2).double()
    return float(nn.functional.cross_entropy(logits, targets.flatten(), reduction="sum"))


def sgd(parameters: Any, rate: float) -> torch.optim.Optimizer:
    """SGD with momentum, as the convolutional networks are trained."""
    return torch.optim.SGD(parameters, lr=rate, momentum=0.9, foreach=False)
