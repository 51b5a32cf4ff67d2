"""What an attack is, and what a thief has to attack with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import torch
from torch import nn
from torch.nn import functional

from pol.errors import SpecError

if TYPE_CHECKING:
    from watermark import Claim

Kind: TypeAlias = Literal["mlp", "convnet", "transformer", "lora", "image_to_image"]
Value: TypeAlias = bool | int | float | str | tuple[int, ...] | tuple[str, ...]
Build: TypeAlias = Callable[[], nn.Module]

CLASSIFIERS: Final[tuple[Kind, ...]] = ("mlp", "convnet")
BUILT: Final[tuple[Kind, ...]] = ("mlp", "convnet", "transformer", "image_to_image")
EVERY: Final[tuple[Kind, ...]] = (*BUILT, "lora")


def adam(parameters: Iterable[nn.Parameter], rate: float) -> torch.optim.Optimizer:
    """Adam at ``rate``."""
    return torch.optim.Adam(parameters, lr=rate, foreach=False)


@dataclass(frozen=True, kw_only=True, eq=False)
class Setting:
    """A thief's data and means. The protocol is that of Lukas et al. 2022 (the "SoK"), section 5.

    ``inputs`` and ``targets`` are the thief's labelled samples, disjoint from the owner's: float images in [0, 1] (of
    ``shape``, flattened or not) with labels [n]; token windows [n, length] with the tokens that follow, of the same
    shape; for image-to-image networks two batches of images. ``queries`` are all inputs the thief can have answered,
    without targets. ``build`` makes a fresh network of the victim's architecture and ``student`` one of another, both
    drawn from torch's global generator. ``optimizer`` and ``rate`` are what the owner trained with. ``effort`` scales
    the epochs of every training (for quick runs).

    Only some attacks need what follows, and they say so in ``Attack.needs``. ``mark(model, secret, strength)`` is the
    owner's own algorithm, with a key of the thief's and ``strength`` times the margin. ``copies`` are marked with other
    keys, from the victim's trunk; ``partners`` are two models of the victim's architecture that the thief trained
    without it (for LoRA: on the same base). ``claim`` is the owner's claim, which opened some leaves to the thief.
    """

    kind: Kind
    inputs: torch.Tensor
    targets: torch.Tensor
    queries: torch.Tensor
    build: Build
    student: Build
    rate: float
    optimizer: Callable[[Iterable[nn.Parameter], float], torch.optim.Optimizer] = adam
    batch: int = 64
    effort: float = 1.0
    shape: tuple[int, int, int] | None = None
    mark: Callable[[nn.Module, bytes, float], nn.Module] | None = None
    copies: tuple[nn.Module, ...] | None = None
    partners: tuple[nn.Module, ...] | None = None
    claim: Claim | None = None

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """The task's loss: mean absolute error of images, else cross-entropy with labels or with probabilities."""
        if self.kind == "image_to_image":
            return functional.l1_loss(outputs, targets)
        if targets.is_floating_point():
            return -(targets * outputs.log_softmax(-1)).sum(-1).mean()
        return functional.cross_entropy(outputs.flatten(0, -2), targets.flatten())

    def answers(self, outputs: torch.Tensor) -> torch.Tensor:
        """What a queried model's ``outputs`` say: labels, next tokens, or the images themselves."""
        return outputs if self.kind == "image_to_image" else outputs.argmax(-1)


Action: TypeAlias = Callable[..., nn.Module]


@dataclass(frozen=True, kw_only=True)
class Attack:
    """Attack ``number`` of the suite, by the paper ``source``.

    ``published`` are its strongest published parameters and ``run`` those that are run: the arguments of ``action``,
    which is called as ``action(victim, setting, rng, **run)``. ``kinds`` are the models on which it makes sense, and
    ``needs`` names the optional parts of a :class:`Setting` without which it cannot run. The weights of an attack that
    is ``black_box`` are the victim's own, behind a filter: there is nothing new in them for a white-box test.
    """

    number: int
    name: str
    family: str
    source: str
    published: Mapping[str, Value]
    run: Mapping[str, Value]
    action: Action = field(repr=False)
    kinds: tuple[Kind, ...] = EVERY
    needs: tuple[str, ...] = ()
    black_box: bool = False

    def applies(self, kind: str) -> bool:
        """Whether the attack makes sense on models of this kind."""
        return kind in self.kinds

    def fits(self, setting: Setting) -> bool:
        """Whether it applies, and the thief has what it needs."""
        return self.applies(setting.kind) and not self._missing(setting)

    def at(self, **changes: Value) -> Attack:
        """The same attack with other parameters, for curves over its strength."""
        unknown = sorted(set(changes) - set(self.run))
        if unknown:
            raise SpecError(f"attack {self.name}: it has no parameters {unknown}, only {sorted(self.run)}")
        return replace(self, run={**self.run, **changes})

    def apply(self, victim: nn.Module, setting: Setting, rng: torch.Generator) -> nn.Module:
        """The stolen model, in evaluation mode; ``victim`` is left as it is.

        Everything random comes from ``rng``; torch's global generator is seeded from it and put back afterwards.
        Raises :class:`SpecError` if the attack does not fit the setting.
        """
        if not self.applies(setting.kind):
            raise SpecError(f"attack {self.name} does not apply to models of the kind {setting.kind}")
        if missing := self._missing(setting):
            raise SpecError(f"attack {self.name} needs {', '.join(missing)} in the setting")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(torch.randint(2**62, (), generator=rng)))
            return self.action(victim, setting, rng, **self.run).eval()

    def _missing(self, setting: Setting) -> list[str]:
        return [name for name in self.needs if getattr(setting, name) is None]
