"""The weights channel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import ClassVar

from torch import nn

from challenge.claims import OPENED_GROUPS
from experiments.attacks.attack import EVERY, Kind
from experiments.attacks.networks import loaded, weights_of
from experiments.baselines.scheme import Owner, Reader
from experiments.stolen_model.channels.shared import Coins, beta_of, reading_of, secret
from pol.programs.lora import frozen
from watermark import Claim, MarkParameters, WatermarkKey, detect, embed, opening_groups, suggested_parameters
from watermark.bits import mark_bit
from watermark.detect import read
from watermark.key import Leaf
from watermark.weights.arrays import Array, State
from watermark.weights.carriers import carrier_product
from watermark.weights.layouts import LAYOUTS
from watermark.weights.parameters import WeightMark
from watermark.weights.reading import count_matches


@dataclass(frozen=True, slots=True)
class Weights:
    """Rank-1 carriers in the weights, embedded at the least norm.

    A test opens as many groups as a challenge may, but two thirds of them at most, so that some are left to be seen by
    the thief.
    """

    strength: float = 1.0
    black_box: ClassVar[bool] = False
    kinds: ClassVar[tuple[Kind, ...]] = tuple(kind for kind in EVERY if kind in LAYOUTS)

    def applies(self, owner: Owner) -> bool:
        """Where there is a layout for the kind of model."""
        return owner.kind in self.kinds

    def at(self, strength: float) -> Weights:
        """``strength`` times the margin."""
        return replace(self, strength=strength)

    def mark(self, owner: Owner, model: nn.Module) -> nn.Module:
        """``model`` with the owner's bits in it."""
        parameters, state = MarkParameters(self.parameters(owner)), _state(model)
        return loaded(model, embed(state, _key(owner.seed, parameters), beta_of(owner.seed), parameters)).eval()

    def reader(self, owner: Owner, released: nn.Module) -> Reader:
        """Aligns to theta_ref and counts the opened bits, as a challenge does."""
        claim = self.claim(owner, slice(_opened(self.parameters(owner))))
        return lambda suspect: reading_of(detect(_state(suspect), [claim])[0])

    def disclosed(self, owner: Owner) -> Claim:
        """A claim with half as many further groups: the thief has seen them, and no test here uses them."""
        opened = _opened(self.parameters(owner))
        return self.claim(owner, slice(opened, opened + max(1, opened // 2)))

    def claim(self, owner: Owner, some: slice = slice(None)) -> Claim:
        """The owner's claim with all groups opened, or ``some`` of them in the order in which a beacon names them."""
        parameters = MarkParameters(self.parameters(owner))
        key = _key(owner.seed, parameters)
        named = opening_groups(secret(owner.seed, b"opening"), key.root, parameters.groups, parameters.groups)
        claim = Claim.make(key, beta_of(owner.seed), parameters, named[some], _state(owner.model))
        return replace(claim, base=_base(owner.model, owner.kind))

    def null(self, owner: Owner, innocent: nn.Module, keys: range) -> Coins:
        """See :class:`Channel`."""
        claim, counts = self.claim(owner), []
        matrices = [reading.found for reading in read(_state(innocent), claim)]
        for number in keys:
            key = _key(number, claim.parameters)
            counts.append(sum(_agrees(matrices, leaf, key, claim) for leaf in key.leaves))
        return Coins(counts, claim.parameters.leaf_count, Fraction(1, 2))

    def others(self, owner: Owner, stolen: nn.Module, keys: range) -> Coins:
        """The matches of other owners' keys on ``owner``'s stolen model, of the bits that a test reads there."""
        claim, counts = self.claim(owner), []
        mark = claim.parameters.weights
        assert mark is not None
        readings = read(_state(stolen), claim)
        for number in keys:
            key = _key(number, claim.parameters)
            counts.append(count_matches(readings, key.leaves, claim.beta, key.root, mark))
        trials = {count.trials for count in counts}  # which rows are left does not depend on a key
        assert len(trials) == 1
        return Coins([count.matches for count in counts], trials.pop(), Fraction(1, 2))

    def parameters(self, owner: Owner) -> WeightMark:
        """See :class:`Channel`."""
        mark = suggested(owner.model, owner.kind)
        return replace(mark, carriers=tuple(replace(c, margin=c.margin * self.strength) for c in mark.carriers))


def suggested(model: nn.Module, kind: str) -> WeightMark:
    """The mark that is suggested for the weights of ``model``."""
    mark = suggested_parameters(_state(model), layout=kind, base=_base(model, kind)).weights
    assert mark is not None
    return mark


def _opened(mark: WeightMark) -> int:
    return min(OPENED_GROUPS, max(1, 2 * mark.groups // 3))


def _agrees(matrices: Sequence[Array], leaf: Leaf, key: WatermarkKey, claim: Claim) -> bool:
    """Whether a bit is in an innocent's matrices, even where a test would set them aside for being an innocent's."""
    mark = claim.parameters.weights
    assert mark is not None
    number, rows = mark.place(leaf.index // mark.leaves)
    product = carrier_product(matrices[number][rows], leaf.seed)
    return mark_bit(claim.beta, key.root, leaf.index, leaf.seed) * product > 0


def _state(network: nn.Module) -> State:
    """What is released of ``network``, and read: its adapters alone where it has any, else everything."""
    state = weights_of(network)
    return {name: tensor for name, tensor in state.items() if ".lora_" in name} or state


def _base(model: nn.Module, kind: str) -> State | None:
    """The pinned base model's tensors, where the model is an adapter."""
    if kind != "lora":
        return None
    names, state = frozen(model), model.state_dict()
    return {name: tensor for name, tensor in state.items() if name in names}


def _key(seed: int, parameters: MarkParameters) -> WatermarkKey:
    return WatermarkKey(secret(seed, b"weights"), parameters.leaf_count)
