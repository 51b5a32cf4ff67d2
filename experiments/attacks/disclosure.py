"""What was opened can be erased: a thief who has seen a claim turns the opened bits, and hopes that this was all."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from experiments.attacks.attack import Attack, Setting
from experiments.attacks.networks import State, loaded, state_of
from pol.errors import SpecError
from watermark import Claim, LeafOpening
from watermark.weights.embed import carrier_sigma, embed_group
from watermark.weights.layouts import layout_of


def flipped(state: State, claim: Claim, *, margin: float) -> State:
    """``state``, in theta_ref's own coordinates, with all opened bits turned at the least change.

    ``margin`` is how far beyond zero, as a share of the owner's. Raises :class:`SpecError` if the model does not fit
    the claim.
    """
    mark = claim.parameters.weights
    if mark is None:
        raise SpecError("the claim opens no bits in the weights")
    layout, result = layout_of(mark.layout), dict(state)
    layout.check(state, mark.carriers, where="the stolen model")
    opened: dict[int, list[LeafOpening]] = {}
    for leaf in claim.leaves:
        opened.setdefault(leaf.index // mark.leaves, []).append(leaf)
    for number, carrier in enumerate(mark.carriers):
        left, right = layout.factors(state, carrier.tensor)
        turned = np.array(left)
        unit = margin * carrier.margin * carrier_sigma(left)
        for group, leaves in opened.items():
            place, rows = mark.place(group)
            if place == number:
                # Marking the negative of a matrix turns the signs of its bits.
                turned[rows] = -embed_group(-left[rows], leaves, claim.beta, claim.key_root, margin=unit, right=right)
        result[carrier.tensor] = torch.from_numpy(turned).view(state[carrier.tensor].shape)
    return result


def flip_opened(victim: nn.Module, setting: Setting, rng: torch.Generator, *, margin: float) -> nn.Module:
    """:func:`flipped` by the leaves that the owner's claim has opened."""
    assert setting.claim is not None  # Attack.needs
    return loaded(victim, flipped(state_of(victim), setting.claim, margin=margin))


ATTACKS = (
    Attack(
        number=34, name="flip-opened", family="disclosure", source="ours", published={}, run={"margin": 0.02},
        action=flip_opened, kinds=("mlp", "convnet", "transformer"), needs=("claim",),
    ),
)  # fmt: skip
