"""The weights channel."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import ClassVar

from torch import nn

from experiments.attacks.networks import loaded, weights_of
from experiments.baselines.scheme import Owner, Reader
from experiments.stolen_model.channels.shared import Coins, beta_of, reading_of, secret
from pol.programs.lora import frozen
from watermark import (
    Claim,
    LeafOpening,
    MarkParameters,
    WatermarkKey,
    detect,
    embed,
    opening_groups,
    suggested_parameters,
)
from watermark.detect import count_matches, read
from watermark.weights.arrays import State
from watermark.weights.layouts import LAYOUTS
from watermark.weights.parameters import WeightMark


@dataclass(frozen=True, slots=True)
class Weights:
    """Rank-1 carriers in the weights, embedded at the least norm; a challenge opens a share of the groups."""

    opened: float
    strength: float = 1.0
    black_box: ClassVar[bool] = False

    def applies(self, owner: Owner) -> bool:
        """Where there is a layout for the kind of model."""
        return owner.kind in LAYOUTS

    def at(self, strength: float) -> Weights:
        """``strength`` times the margin."""
        return replace(self, strength=strength)

    def mark(self, owner: Owner, model: nn.Module) -> nn.Module:
        """``model`` with the owner's bits in it."""
        parameters, state = MarkParameters(self.parameters(owner)), weights_of(model)
        return loaded(model, embed(state, _key(owner.seed, parameters), beta_of(owner.seed), parameters)).eval()

    def reader(self, owner: Owner, released: nn.Module) -> Reader:
        """Aligns to theta_ref and counts the opened bits, as a challenge does."""
        claim = self.claim(owner, end=self.opened)
        return lambda suspect: reading_of(detect(weights_of(suspect), [claim])[0])

    def disclosed(self, owner: Owner) -> Claim:
        """A claim with a further quarter of the groups: the thief has seen them, and no test here uses them."""
        return self.claim(owner, self.opened, self.opened + 0.25)

    def claim(self, owner: Owner, start: float = 0.0, end: float = 1.0) -> Claim:
        """The owner's claim with the groups opened that a beacon names, from a share of them to another."""
        parameters = MarkParameters(self.parameters(owner))
        key = _key(owner.seed, parameters)
        named = opening_groups(secret(owner.seed, b"opening"), key.root, parameters.groups, parameters.groups)
        groups = named[round(start * len(named)) : max(1, round(end * len(named)))]
        claim = Claim.make(key, beta_of(owner.seed), parameters, groups, owner.model.state_dict())
        return replace(claim, base=_base(owner))

    def null(self, owner: Owner, innocent: nn.Module, keys: range) -> Coins:
        """See :class:`Channel`."""
        claim, counts = self.claim(owner), []
        matrices = read(innocent.state_dict(), claim)
        for number in keys:
            key = _key(number, claim.parameters)
            leaves = tuple(LeafOpening(leaf.index, leaf.seed, leaf.salt, ()) for leaf in key.leaves)  # paths: not read
            counts.append(count_matches(matrices, replace(claim, key_root=key.root, leaves=leaves)))
        return Coins(counts, claim.parameters.leaf_count, Fraction(1, 2))

    def parameters(self, owner: Owner) -> WeightMark:
        """See :class:`Channel`."""
        mark = suggested_parameters(owner.model.state_dict(), layout=owner.kind, base=_base(owner)).weights
        assert mark is not None
        return replace(mark, carriers=tuple(replace(c, margin=c.margin * self.strength) for c in mark.carriers))


def _base(owner: Owner) -> State | None:
    """The pinned base model's tensors, where the model is an adapter."""
    if owner.kind != "lora":
        return None
    names, state = frozen(owner.model), owner.model.state_dict()
    return {name: tensor for name, tensor in state.items() if name in names}


def _key(seed: int, parameters: MarkParameters) -> WatermarkKey:
    return WatermarkKey(secret(seed, b"weights"), parameters.leaf_count)
