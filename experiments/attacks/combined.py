"""Attacks one after the other: the combinations of the SoK, and the hardest of ours."""

from __future__ import annotations

import torch
from torch import nn

from experiments.attacks import (
    extraction,
    finetuning,
    inputs,
    perturbation,
    pruning,
    quantisation,
    symmetry,
)
from experiments.attacks.attack import BUILT, CLASSIFIERS, EVERY, Attack, Kind, Setting

PARTS: dict[str, Attack] = {
    attack.name: attack
    for family in (finetuning, pruning, quantisation, perturbation, symmetry, extraction, inputs)
    for attack in family.ATTACKS
}


def chained(victim: nn.Module, setting: Setting, rng: torch.Generator, *, parts: tuple[str, ...]) -> nn.Module:
    """The named attacks in their order, each on what the one before it left."""
    network = victim
    for name in parts:
        network = PARTS[name].apply(network, setting, rng)
    return network


def _combined(name: str, source: str, parts: tuple[str, ...], kinds: tuple[Kind, ...], published: str) -> Attack:
    return Attack(
        number=19, name=name, family="combined", source=source, published={"parts": published},
        run={"parts": parts}, action=chained, kinds=kinds,
    )  # fmt: skip


SOK = finetuning.SOK
HARDEST = ("ftal", "prune-70-tune", "int4", "dummies-clique-100", "permutation-scaling-signs")

ATTACKS = (
    _combined("sok-0", SOK, ("transfer-learning", "ftal"), BUILT, "transfer learning, then any other"),
    _combined("sok-1", SOK, ("weight-shift-1.5", "host-blur"), CLASSIFIERS, "weight shift 1.5, gaussian 0.5"),
    _combined(
        "sok-2", SOK, ("weight-shift-1.5", "fine-pruning", "ftal"), BUILT, "weight shift, fine-pruning 0.96, any other"
    ),
    _combined("sok-3", SOK, ("weight-shift-1.5", "host-mirror"), CLASSIFIERS, "weight shift, flip"),
    _combined("sok-4", SOK, ("adversarial-training", "rtal"), CLASSIFIERS, "adversarial training, RTAL"),
    _combined(
        "everything", "ours", ("ftal-rate-10", *HARDEST[1:]),
        BUILT, "fine-tuning, pruning 70 %, int4, dummy units, permutation",
    ),
    _combined(
        "everything-gently", "ours", HARDEST,
        EVERY, "fine-tuning, pruning 70 %, int4, dummy units, permutation",
    ),
)  # fmt: skip
