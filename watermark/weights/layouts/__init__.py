"""Architectures: how the matrices that carry a mark are read from a model, one module each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from pol.errors import SpecError
from watermark.weights.arrays import Array, Float32s, State
from watermark.weights.layouts.convnet import ConvNetLayout
from watermark.weights.layouts.lora import LoRALayout
from watermark.weights.layouts.mlp import MLPLayout
from watermark.weights.layouts.transformer import TransformerLayout
from watermark.weights.parameters import Carrier


class Layout(Protocol):
    """One architecture. Stateless; everything here is a function of the models alone, never of bits."""

    def check(self, state: State, carriers: Sequence[Carrier], *, where: str) -> None:
        """Raise :class:`SpecError` unless ``state`` is such a model, finite, and has room for all carriers' groups."""
        ...

    def factors(self, state: State, tensor: str) -> tuple[Float32s, Float32s | None]:
        """(L, F) of a checked state: the marked matrix is L F, L is ``tensor`` as a matrix, None is the identity."""
        ...

    def read(
        self, suspect: State, theta_ref: State, tensors: Sequence[str], base: State | None = None
    ) -> Sequence[Array]:
        """The suspect's marked matrices [rows, columns] in theta_ref's coordinates, float64, one a tensor.

        ``base`` holds the tensors of a pinned base model, where there is one. Raises :class:`SpecError` if the suspect
        cannot be compared with theta_ref, or is not finite.
        """
        ...

    def suggested(self, state: State, base: State | None = None) -> tuple[Carrier, ...]:
        """Carriers that suit ``state``; :class:`SpecError` if it is no such model or has no room for a mark."""
        ...


LAYOUTS: Mapping[str, Layout] = {
    "mlp": MLPLayout(),
    "convnet": ConvNetLayout(),
    "transformer": TransformerLayout(),
    "lora": LoRALayout(),
}


def layout_of(name: str) -> Layout:
    """The layout of that name; :class:`SpecError` if there is none."""
    if name not in LAYOUTS:
        raise SpecError(f"no layout {name[:32]!r}; there are {', '.join(LAYOUTS)}")
    return LAYOUTS[name]
