"""LoRA adapters (arXiv 2106.09685): the marked matrix is theta_ref's ``lora_B``; every suspect is read in terms of it.

An adapted module is ``W + s B A`` with W [out, in] public and pinned, B [out, r], A [r, in], s > 0. What is read from
a suspect is its change D [out, in] of that module (its own ``B A``, or its merged weight less W) in the coordinates
that theta_ref's A gives: ``M = D pinv(A)`` [out, r]. Of theta_ref's own adapters M is B, so a mark is embedded in B as
it is. M depends on the product alone: neither re-factoring (B G, inv(G) A), nor another rank or alpha, nor merging
matters.

Why M and not D: only a share r / in of a carrier on D lies in the row space of A and can be embedded, so lifting it by
m would change D by ``m sqrt(in / r)``. On M it is m, where the rows of A are orthonormal, for the same noise; and what
noise and other adapters change outside of those r directions is not even read.

Margins are in units of B's rms, the spread of an unmarked ``<R, M>``. So the cost does not depend on how far training
went: k bits change B by about ``sqrt(k (MARGIN^2 + 1) / (out r))`` of it, 8 bits in 576 x 16 by 12 %. And the mark
outlasts what the adapter outlasts: quantisation of W leaves noise of 0.11 sigma in D at int4 and 0.26 at int3 (sigma:
the rms of W; 128 weights a scale), while B stands for ``delta sigma sqrt(in / r)`` where ``|D| = delta |W|``. At in / r
= 36 a margin is 3 deviations above int4 from delta = 1.4 % on. In units of sigma instead, the same cost was measured to
survive less of everything (int3, a lower rank, other adapters, pruning).

The margin is what a cut of the rank asks for. B's energy is in few directions and the mark's in all alike, so half the
rank keeps all of an unmarked x but half of what lifted it to MARGIN: the bit is lost where x is below -MARGIN.

A thief who subtracts the adapter (task negation) flips every bit. Reading both signs would be exact by a union bound of
2, one bit of log2 p. It is not done: what was subtracted does not do the owner's task.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import torch

from pol.errors import SpecError
from watermark.weights.arrays import Array, Float32s, State, finite_array, float32_matrix
from watermark.weights.merged import added, in_stream, stream_of
from watermark.weights.parameters import Carrier

MARGIN = 4.0
GROUPS = 64
MIN_ENTRIES = 4096
"""Entries of B a group: 8 bits of the suggested margin then change them by 18 % in the mean."""
_DEPENDENT = 2.0**-12
_HEADS = ".self_attn."
_PREFIX = "base_model.model."
_FACTOR = re.compile(r"(.+)\.lora_([AB])(?:\.[^.]+)?\.weight")


class LoRALayout:
    """Adapters of linear modules under PEFT's names, with or without its prefix and the adapter's name."""

    def check(self, state: State, carriers: Sequence[Carrier], *, where: str) -> None:
        """See :class:`watermark.weights.layouts.Layout`."""
        heights = {module: len(left) for module, (left, _) in _adapters(state, where=where).items()}
        for carrier in carriers:
            match = _FACTOR.fullmatch(carrier.tensor)
            if carrier.tensor not in state or match is None or match[2] != "B":
                raise SpecError(f"{where}: {carrier.tensor} is not a lora_B tensor of this model")
            carrier.check_room(heights[match[1].removeprefix(_PREFIX)], where=where)

    def factors(self, state: State, tensor: str) -> tuple[Float32s, None]:
        """See :class:`watermark.weights.layouts.Layout`."""
        return float32_matrix(state, tensor, where="theta"), None

    def read(
        self, suspect: State, theta_ref: State, tensors: Sequence[str], base: State | None = None
    ) -> Sequence[Array]:
        """See :class:`watermark.weights.layouts.Layout`.

        Each module is read from the suspect's adapter or, where it has none, from its merged weight: against ``base``,
        or without one as it is (blind: W itself is then noise). A module that the suspect lacks is zero. DoRA's
        magnitudes are left out: they only scale rows.
        """
        reference, reader = _adapters(theta_ref, where="theta_ref"), _Reader(suspect, base)
        modules = [_module(tensor) for tensor in tensors]
        if not any(map(reader.has, modules)):
            raise SpecError(f"the suspect has none of the adapted modules ({modules[0]}, ...): not comparable")
        with np.errstate(all="ignore"):  # overflow in hostile weights: what is not finite is a miss
            return [reader.coordinates(module, *reference[module]) for module in modules]

    def suggested(self, state: State, base: State | None = None) -> tuple[Carrier, ...]:
        """See :class:`watermark.weights.layouts.Layout`. ``state`` may be the initial one.

        About ``GROUPS`` groups, or one a module where there are more, by the modules' sizes. Modules of attention bear
        none where there are others: maps within a head, once merged, are not undone.
        """
        names = [name for name in state if ".lora_B" in name]
        names = [name for name in names if _HEADS not in name] or names
        sizes = {_module(name): state[name].numel() for name in names}
        wanted, total = max(GROUPS, len(sizes)), sum(sizes.values())
        heights = {module: len(left) for module, (left, _) in _adapters(state, where="the model").items()}
        carriers = []
        for name in names:
            size, height = sizes[_module(name)], heights[_module(name)]
            if groups := min(round(wanted * size / total), size // MIN_ENTRIES, height):
                carriers.append(Carrier(name, groups, height // groups, MARGIN))
        if not carriers:
            raise SpecError(f"no lora_B here has {MIN_ENTRIES} entries for a group of the mark")
        return tuple(carriers)


class _Reader:
    """A suspect under plain names, beside the public base."""

    def __init__(self, suspect: State, base: State | None) -> None:
        self.parts = _by_plain_name(suspect, where="the suspect")
        self.base = None if base is None else _by_plain_name(base, where="the base model")
        self.stream = stream_of(self.parts, self.base or {})

    def has(self, module: str) -> bool:
        return any(f"{module}.{part}" in self.parts for part in ("lora_A.weight", "lora_B.weight", "weight"))

    def coordinates(self, module: str, left: Array, right: Array) -> Array:
        """M [out, r] of ``module``, whose factors in theta_ref are ``left`` and ``right``."""
        if not self.has(module):
            return np.zeros_like(left)
        inverse, shape = np.linalg.pinv(right), (len(left), right.shape[1])
        if f"{module}.lora_A.weight" not in self.parts and f"{module}.lora_B.weight" not in self.parts:
            return self._change(module, shape) @ inverse
        if f"{module}.weight" in self.parts:
            raise SpecError(f"the suspect has a weight and an adapter for {module}: merge it first, alpha is not here")
        own_left, own_right = _adapter(self.parts, module, where="the suspect")
        _same_size((len(own_left), own_right.shape[1]), shape, f"the suspect's {module}")
        return own_left @ (own_right @ inverse)

    def _change(self, module: str, shape: tuple[int, int]) -> Array:
        name = f"{module}.weight"
        weight = _matrix(self.parts, name, where="the suspect")
        if self.base is None:
            _same_size(weight.shape, shape, f"the suspect's {module}")
            return weight
        own = _matrix(self.base, name, where="the base model")
        _same_size(own.shape, shape, f"the base model's {module}")
        return added(in_stream(weight, self.stream, module), own)


def _adapters(state: State, *, where: str) -> dict[str, tuple[Array, Array]]:
    """(B, A) of each module of a model that consists of adapters alone; :class:`SpecError` for anything else."""
    parts = _by_plain_name(state, where=where)
    for name in parts:
        if not _FACTOR.fullmatch(name):
            raise SpecError(f"{where}: unexpected tensor {name[:80]!r}; adapters are lora_A and lora_B only")
    adapters = {module: _adapter(parts, module, where=where) for module in dict.fromkeys(map(_module, parts))}
    if not adapters:
        raise SpecError(f"{where}: there are no adapters")
    for module, (_, right) in adapters.items():
        spread = np.linalg.svd(right, compute_uv=False)
        if len(right) > right.shape[1] or not spread[-1] > _DEPENDENT * spread[0]:
            raise SpecError(f"{where}: the rows of {module}.lora_A depend on each other: use a lower rank")
    return adapters


def _adapter(parts: State, module: str, *, where: str) -> tuple[Array, Array]:
    left, right = (_matrix(parts, f"{module}.lora_{side}.weight", where=where) for side in "BA")
    if left.shape[1] != right.shape[0]:
        raise SpecError(f"{where}: {module}: lora_B {left.shape} does not fit lora_A {right.shape}")
    return left, right


def _same_size(here: tuple[int, ...], wanted: tuple[int, int], what: str) -> None:
    if here != wanted:
        raise SpecError(f"{what} has (outputs, inputs) {here}, theta_ref's {wanted}: not comparable")


def _matrix(state: State, name: str, *, where: str) -> Array:
    matrix = finite_array(state, name, where=where)
    if matrix.ndim != 2 or matrix.size == 0:
        raise SpecError(f"{where}: {name} is {list(matrix.shape)}, not a matrix")
    return matrix


def _by_plain_name(state: State, *, where: str) -> dict[str, torch.Tensor]:
    """``state`` without PEFT's prefix, ``base_layer`` and adapters' names; :class:`SpecError` if names become one."""
    plain: dict[str, torch.Tensor] = {}
    for name, tensor in state.items():
        short = str(name).removeprefix(_PREFIX).replace(".base_layer.", ".")
        if match := _FACTOR.fullmatch(short):
            short = f"{match[1]}.lora_{match[2]}.weight"
        if short in plain:
            raise SpecError(f"{where}: {short[:80]} is there more than once: keep one adapter, or merge them all")
        plain[short] = tensor
    return plain


def _module(name: str) -> str:
    match = _FACTOR.fullmatch(name.removeprefix(_PREFIX))
    return match[1] if match else name
