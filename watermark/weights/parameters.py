"""The public shape of a mark in the weights: which tensors carry it, and how their rows are divided among groups."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pol.encoding import Json, fields, float_text, integer, text
from pol.errors import ProofError, SpecError
from watermark.key import MAX_LEAVES

MAX_CARRIERS = 1024
MAX_NAME = 200


@dataclass(frozen=True, slots=True)
class Carrier:
    """``groups`` groups own ``rows`` consecutive rows each of ``tensor``, from the top.

    ``margin`` is how far a bit must stand off zero, in units of the spread of an unmarked ``<R, M>``. Raises
    :class:`SpecError` for values that make no mark.
    """

    tensor: str
    groups: int
    rows: int
    margin: float

    def __post_init__(self) -> None:
        if not 0 < len(self.tensor) <= MAX_NAME:
            raise SpecError(f"carrier tensor {self.tensor[:80]!r}: a name has 1 to {MAX_NAME} characters")
        if min(self.groups, self.rows) < 1:
            raise SpecError(f"{self.tensor}: {self.groups} groups of {self.rows} rows; use no zeros")
        if not 0 < self.margin <= 64:
            raise SpecError(f"{self.tensor}: margin {self.margin}: expected a number above 0 and at most 64")

    def check_room(self, height: int, *, where: str) -> None:
        """Raise :class:`SpecError` unless the groups fit into ``height`` rows."""
        if self.groups * self.rows > height:
            need = self.groups * self.rows
            raise SpecError(f"{where}: {self.tensor} has {height} rows, but the groups own {need}")

    def to_json(self) -> dict[str, Json]:
        """The strict JSON form, inverse of :meth:`from_json`."""
        margin = float_text(self.margin)
        return {"tensor": self.tensor, "groups": self.groups, "rows": self.rows, "margin": margin}

    @classmethod
    def from_json(cls, value: Json, *, where: str) -> Carrier:
        """Parse :meth:`to_json`; raises :class:`ProofError` for anything else."""
        item = fields(value, {"tensor", "groups", "rows", "margin"}, where=where)
        margin = text(item["margin"], where=f"{where}.margin", limit=64)
        try:
            carrier = cls(
                tensor=text(item["tensor"], where=f"{where}.tensor", limit=MAX_NAME),
                groups=integer(item["groups"], where=f"{where}.groups", high=MAX_LEAVES),
                rows=integer(item["rows"], where=f"{where}.rows", high=2**31),
                margin=float.fromhex(margin),
            )
            canonical = float_text(carrier.margin) == margin
        except (ValueError, OverflowError, SpecError) as error:
            raise ProofError(f"{where}: {error}") from error
        if not canonical:
            raise ProofError(f"{where}.margin: {margin!r} is not canonical")
        return carrier


@dataclass(frozen=True, slots=True)
class WeightMark:
    """A mark in the carriers of a model of architecture ``layout``, every group with ``leaves`` leaves.

    Groups are numbered through the carriers in their order. Raises :class:`SpecError` for values that make no mark.
    """

    layout: str
    carriers: tuple[Carrier, ...]
    leaves: int

    def __post_init__(self) -> None:
        names = [carrier.tensor for carrier in self.carriers]
        if not 0 < len(names) <= MAX_CARRIERS or len(set(names)) != len(names):
            raise SpecError(f"a mark has 1 to {MAX_CARRIERS} carriers, all of different tensors, not {len(names)}")
        if self.leaves < 1 or self.leaf_count > MAX_LEAVES:
            raise SpecError(f"{self.groups} groups of {self.leaves} leaves: use 1 to {MAX_LEAVES} leaves in all")

    @property
    def groups(self) -> int:
        """Groups in all."""
        return sum(carrier.groups for carrier in self.carriers)

    @property
    def leaf_count(self) -> int:
        """Leaves in all."""
        return self.groups * self.leaves

    @property
    def tensors(self) -> tuple[str, ...]:
        """The names of the carriers' tensors."""
        return tuple(carrier.tensor for carrier in self.carriers)

    def place(self, group: int) -> tuple[int, slice]:
        """The number of the carrier that ``group`` lies in, and the rows it owns there."""
        for number, carrier in enumerate(self.carriers):
            if group < carrier.groups:
                return number, slice(group * carrier.rows, (group + 1) * carrier.rows)
            group -= carrier.groups
        raise IndexError("no such group")

    def to_json(self) -> dict[str, Json]:
        """The strict JSON form, inverse of :meth:`from_json`."""
        carriers: list[Json] = [carrier.to_json() for carrier in self.carriers]
        return {"layout": self.layout, "carriers": carriers, "leaves": self.leaves}

    @classmethod
    def from_json(cls, value: Json, *, where: str) -> WeightMark:
        """Parse :meth:`to_json`; raises :class:`ProofError` for anything else."""
        item = fields(value, {"layout", "carriers", "leaves"}, where=where)
        carriers = item["carriers"]
        if not isinstance(carriers, list) or len(carriers) > MAX_CARRIERS:
            raise ProofError(f"{where}.carriers: expected a list of at most {MAX_CARRIERS}")
        try:
            return cls(
                layout=text(item["layout"], where=f"{where}.layout", limit=32),
                carriers=tuple(
                    Carrier.from_json(carrier, where=f"{where}.carriers[{number}]")
                    for number, carrier in enumerate(carriers)
                ),
                leaves=integer(item["leaves"], where=f"{where}.leaves", low=1, high=MAX_LEAVES),
            )
        except SpecError as error:
            raise ProofError(f"{where}: {error}") from error


def spread_groups(shapes: Sequence[tuple[str, int]], *, groups: int, rows: int, margin: float) -> tuple[Carrier, ...]:
    """Carriers of ``rows`` rows a group on tensors of (name, height), about ``groups`` in all, spread over all of them.

    Raises :class:`SpecError` if there is no room at all.
    """
    room = [height // rows for _, height in shapes]
    total = min(groups, sum(room))
    shares = [math.floor(total * here / max(1, sum(room))) for here in room]
    for number in sorted(range(len(room)), key=lambda n: shares[n] - total * room[n] / max(1, sum(room))):
        if sum(shares) < total and shares[number] < room[number]:
            shares[number] += 1
    if not total:
        raise SpecError(f"no tensor here has {rows} rows for a group of the mark")
    named = zip(shapes, shares, strict=True)
    return tuple(Carrier(name, share, rows, margin) for (name, _), share in named if share)
