"""Merging: a stolen model or adapter averaged, added, subtracted or cut down, until little of it is left.

The change that a model makes to its base is a "task vector" (Ilharco et al. 2023). Adapters are merged into their base
first, so what these attacks give is a whole model, in which the adapter can no longer be seen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from experiments.attacks.attack import EVERY, Attack, Setting
from experiments.attacks.networks import State, copied, loaded, state_of


def merged(network: nn.Module) -> nn.Module:
    """A copy with the adapters merged into the base; a copy as it is, if it has none."""
    own: Any = copied(network)
    return own.merge_and_unload() if _is_adapted(network) else own  # type: ignore[no-any-return]


def unadapted(network: nn.Module) -> nn.Module:
    """A copy of the base alone, without the adapters."""
    own: Any = copied(network)
    return own.unload()  # type: ignore[no-any-return]


def linear(victim: nn.Module, setting: Setting, rng: torch.Generator, *, share: float) -> nn.Module:
    """``share`` of the stolen weights and the rest of the partner's (Wortsman et al. 2022, "model soups")."""
    mine, other = merged(victim), state_of(merged(_partners(setting)[0]))
    return loaded(mine, _each(state_of(mine), lambda name, value: share * value + (1 - share) * other[name]))


def ties(victim: nn.Module, setting: Setting, rng: torch.Generator, *, density: float) -> nn.Module:
    """TIES: trim each change to its largest ``density``, elect a sign, average what agrees (Yadav et al. 2023, § 3)."""

    def merge(changes: torch.Tensor) -> torch.Tensor:
        kept = torch.stack([_trimmed(change, density) for change in changes])
        agreeing = kept * (kept.sign() == kept.sum(0).sign())
        return agreeing.sum(0) / (agreeing != 0).sum(0).clamp(min=1)

    return _combined(victim, setting, merge)


def dare(victim: nn.Module, setting: Setting, rng: torch.Generator, *, drop: float) -> nn.Module:
    """DARE: drop each change at odds ``drop``, rescale the rest by 1 / (1 - drop), average (Yu et al. 2024, § 3)."""

    def merge(changes: torch.Tensor) -> torch.Tensor:
        kept = torch.rand(changes.shape, generator=rng) >= drop
        return (changes * kept / (1 - drop)).mean(0)

    return _combined(victim, setting, merge)


def added(victim: nn.Module, setting: Setting, rng: torch.Generator, *, count: int = 1) -> nn.Module:
    """Task arithmetic: the base and all changes in full, of ``count`` partners (Ilharco et al. 2023, section 4)."""
    return _combined(victim, setting, lambda changes: changes.sum(0), count)


def negated(victim: nn.Module, setting: Setting, rng: torch.Generator, *, scale: float) -> nn.Module:
    """The base less ``scale`` times the adapter's change (Ilharco et al. 2023, section 3)."""
    base, whole = unadapted(victim), state_of(merged(victim))
    return loaded(base, _each(state_of(base), lambda name, value: value - scale * (whole[name] - value)))


def scaled(victim: nn.Module, setting: Setting, rng: torch.Generator, *, scale: float) -> nn.Module:
    """The base and ``scale`` times the adapter's change."""
    return negated(victim, setting, rng, scale=-scale)


def truncated(victim: nn.Module, setting: Setting, rng: torch.Generator, *, share: float) -> nn.Module:
    """Each adapter's product cut to ``share`` of its rank by singular values, and factored anew."""

    def cut(low: torch.Tensor, high: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        rank = max(1, round(share * len(low)))
        left, values, right = torch.linalg.svd(high.double() @ low.double(), full_matrices=False)
        root = values[:rank].sqrt()
        return (root[:, None] * right[:rank]).float(), (left[:, :rank] * root).float()

    return _refactored(victim, cut)


def refactorised(victim: nn.Module, setting: Setting, rng: torch.Generator, *, spread: float) -> nn.Module:
    """Each adapter in another gauge: B G and G^-1 A for a random G of singular values exp(+-spread)."""

    def gauge(low: torch.Tensor, high: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        left, right = (torch.linalg.qr(torch.randn(len(low), len(low), generator=rng).double()).Q for _ in "lr")
        scales = torch.exp(spread * (2 * torch.rand(len(low), generator=rng).double() - 1))
        return (right.T / scales @ left.T @ low.double()).float(), (high.double() @ left * scales @ right).float()

    return _refactored(victim, gauge)


def merge_only(victim: nn.Module, setting: Setting, rng: torch.Generator) -> nn.Module:
    """The adapter merged into its base."""
    return merged(victim)


def averaged(victim: nn.Module, setting: Setting, rng: torch.Generator) -> nn.Module:
    """Collusion: the mean of all copies that the thieves hold, each with a mark of its own."""
    mine = merged(victim)
    states = [state_of(mine), *(state_of(merged(copy)) for copy in setting.copies or ())]
    return loaded(mine, _each(states[0], lambda name, _: torch.stack([state[name] for state in states]).mean(0)))


def _is_adapted(network: nn.Module) -> bool:
    return hasattr(network, "merge_and_unload")


def _partners(setting: Setting) -> tuple[nn.Module, ...]:
    assert setting.partners is not None  # Attack.needs
    return setting.partners


def _each(state: State, change: Callable[[str, torch.Tensor], torch.Tensor]) -> State:
    """``change`` applied to what is not an integer."""
    return {name: change(name, value) if value.is_floating_point() else value for name, value in state.items()}


def _combined(
    victim: nn.Module, setting: Setting, merge: Callable[[torch.Tensor], torch.Tensor], count: int = 1
) -> nn.Module:
    """The base and ``merge`` of the stolen change and those of ``count`` partners, a tensor [1 + count, ...] a time."""
    base = unadapted(victim)
    models = [state_of(merged(model)) for model in (victim, *_partners(setting)[:count])]
    return loaded(base, _each(state_of(base), lambda name, value: value + merge(_changes(models, name, value))))


def _changes(models: Sequence[State], name: str, base: torch.Tensor) -> torch.Tensor:
    return torch.stack([model[name] - base for model in models])


def _trimmed(change: torch.Tensor, density: float) -> torch.Tensor:
    drop = int((1 - density) * change.numel())
    if drop == 0:
        return change
    return change * (change.abs() > change.abs().flatten().kthvalue(drop).values)


def _refactored(
    victim: nn.Module, change: Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
) -> nn.Module:
    """Each adapter's factors A [rank, inputs] and B [outputs, rank] replaced."""
    state = state_of(victim)
    for name in [name for name in state if ".lora_A." in name]:
        other = name.replace(".lora_A.", ".lora_B.")
        state[name], state[other] = change(state[name], state[other])
    return loaded(victim, state)


ATTACKS = (
    Attack(
        number=29, name="merge-linear", family="merging", source="Wortsman et al., ICML 2022", published={"share": 0.5},
        run={"share": 0.5}, action=linear, kinds=("lora",), needs=("partners",),
    ),
    Attack(
        number=29, name="merge-ties", family="merging", source="Yadav et al., NeurIPS 2023",
        published={"density": 0.2}, run={"density": 0.2}, action=ties, kinds=("lora",), needs=("partners",),
    ),
    Attack(
        number=29, name="merge-dare", family="merging", source="Yu et al., ICML 2024",
        published={"drop": 0.9}, run={"drop": 0.9}, action=dare, kinds=("lora",), needs=("partners",),
    ),
    *(
        Attack(
            number=29, name=name, family="merging", source="Ilharco et al., ICLR 2023", published={}, run=run,
            action=added, kinds=("lora",), needs=("partners",),
        )
        for name, run in (("task-addition", {}), ("task-addition-2", {"count": 2}))
    ),
    Attack(
        number=29, name="task-negation", family="merging", source="Ilharco et al., ICLR 2023",
        published={"scale": 1.0}, run={"scale": 1.0}, action=negated, kinds=("lora",),
    ),
    Attack(
        number=29, name="task-scaling", family="merging", source="Ilharco et al., ICLR 2023",
        published={"scale": 0.5}, run={"scale": 0.5}, action=scaled, kinds=("lora",),
    ),
    *(
        Attack(
            number=31, name=f"svd-rank-{name}", family="merging", source="ours", published={},
            run={"share": share}, action=truncated, kinds=("lora",),
        )
        for name, share in (("half", 0.5), ("quarter", 0.25))
    ),
    Attack(
        number=32, name="lora-merge", family="merging", source="Hu et al., LoRA, ICLR 2022", published={}, run={},
        action=merge_only, kinds=("lora",),
    ),
    Attack(
        number=32, name="lora-refactorise", family="merging", source="ours", published={}, run={"spread": 1.0},
        action=refactorised, kinds=("lora",),
    ),
    Attack(
        number=35, name="collusion", family="merging", source="Boneh and Shaw, 1998", published={}, run={},
        action=averaged, kinds=EVERY, needs=("copies",),
    ),
)  # fmt: skip
