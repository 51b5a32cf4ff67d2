"""The thief marks the stolen model too, with the owner's own algorithm and a key of its own."""

from __future__ import annotations

import torch
from torch import nn

from experiments.attacks.attack import Attack, Setting


def overwritten(victim: nn.Module, setting: Setting, rng: torch.Generator, *, strength: float) -> nn.Module:
    """A mark of ``strength`` times the owner's margin (Wang and Kerschbaum 2019; PoLO 2025)."""
    assert setting.mark is not None  # Attack.needs
    secret = bytes(torch.randint(256, (32,), generator=rng).tolist())
    return setting.mark(victim, secret, strength)


ATTACKS = tuple(
    Attack(
        number=22, name=f"overwrite-{strength:g}x", family="overwriting",
        source="Wang and Kerschbaum, 2019; PoLO, 2025",
        published={"strength": 1.0}, run={"strength": strength}, action=overwritten, needs=("mark",),
    )
    for strength in (1.0, 4.0)
)  # fmt: skip
