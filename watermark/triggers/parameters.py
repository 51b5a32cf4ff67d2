"""The public shape of a mark in a model's answers: what its trigger inputs look like, and how many there are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

from pol.encoding import Json, fields, integer
from pol.errors import ProofError, SpecError
from watermark.key import MAX_LEAVES

MAX_PIXELS: Final = 1 << 20
MAX_CLASSES: Final = 1 << 16
MAX_VOCABULARY: Final = 1 << 20
MAX_CONTEXT: Final = 1 << 16
FULL: Final = 100


@dataclass(frozen=True, slots=True)
class Images:
    """Triggers are images of (``channels``, ``height``, ``width``), for a classifier."""

    channels: int
    height: int
    width: int

    def __post_init__(self) -> None:
        if min(self.channels, self.height, self.width) < 1 or self.channels * self.height * self.width > MAX_PIXELS:
            shape = f"{self.channels} x {self.height} x {self.width}"
            raise SpecError(f"trigger images of {shape} pixels: use 1 to {MAX_PIXELS} in all, and no zeros")

    def to_json(self) -> dict[str, Json]:
        """The strict JSON form."""
        return {"kind": "image", "shape": [self.channels, self.height, self.width]}


@dataclass(frozen=True, slots=True)
class Windows:
    """Triggers are windows of ``context`` tokens out of a ``vocabulary``, for a model of the token that follows."""

    vocabulary: int
    context: int

    def __post_init__(self) -> None:
        if not 2 <= self.vocabulary <= MAX_VOCABULARY or not 1 <= self.context <= MAX_CONTEXT:
            shape = f"{self.context} tokens out of {self.vocabulary}"
            raise SpecError(f"trigger windows of {shape}: use 1 to {MAX_CONTEXT}, out of 2 to {MAX_VOCABULARY}")

    def to_json(self) -> dict[str, Json]:
        """The strict JSON form."""
        return {"kind": "text", "shape": [self.context], "vocabulary": self.vocabulary}


Inputs: TypeAlias = Images | Windows


@dataclass(frozen=True, slots=True)
class TriggerMark:
    """``groups`` groups of ``leaves`` triggers each, every one with a label out of ``classes``.

    An image's label is one of the classifier's classes, so there must be as many. A window's label is one of
    ``classes`` tokens that its seed names (:func:`watermark.triggers.inputs.candidates`). ``percent`` is how much the
    labels' loss weighs beside the task's: a network that is small for its task loses what it knew before it learns
    triggers of full weight. Raises :class:`SpecError` for values that make no mark.
    """

    inputs: Inputs
    classes: int
    groups: int
    leaves: int
    percent: int = FULL

    def __post_init__(self) -> None:
        if not 1 <= self.percent <= FULL:
            raise SpecError(f"triggers of {self.percent} percent of their loss: use 1 to {FULL}")
        if min(self.groups, self.leaves) < 1 or self.leaf_count > MAX_LEAVES:
            shape = f"{self.groups} groups of {self.leaves} triggers"
            raise SpecError(f"{shape}: use 1 to {MAX_LEAVES} leaves in all, and no zeros")
        most = self.inputs.vocabulary if isinstance(self.inputs, Windows) else MAX_CLASSES
        if not 2 <= self.classes <= min(most, MAX_CLASSES):
            raise SpecError(f"{self.classes} classes: a trigger's label is one of 2 to {min(most, MAX_CLASSES)}")

    @property
    def leaf_count(self) -> int:
        """Leaves in all."""
        return self.groups * self.leaves

    def to_json(self) -> dict[str, Json]:
        """The strict JSON form, inverse of :meth:`from_json`; full weight is left out, as the first specs do."""
        percent: dict[str, Json] = {} if self.percent == FULL else {"percent": self.percent}
        sizes: dict[str, Json] = {"classes": self.classes, "groups": self.groups, "leaves": self.leaves}
        return self.inputs.to_json() | sizes | percent

    @classmethod
    def from_json(cls, value: Json, *, where: str) -> TriggerMark:
        """Parse :meth:`to_json`; raises :class:`ProofError` for anything else."""
        text = isinstance(value, dict) and value.get("kind") == "text"
        names = {"kind", "shape", "classes", "groups", "leaves"}
        if isinstance(value, dict) and "percent" in value:
            names |= {"percent"}
        item = fields(value, names | {"vocabulary"} if text else names, where=where)
        shape = _shape(item["shape"], 1 if text else 3, where=f"{where}.shape")
        sizes = ("classes", "groups", "leaves")
        counts = {name: integer(item[name], where=f"{where}.{name}", high=MAX_LEAVES) for name in sizes}
        if "percent" in item:
            counts["percent"] = integer(item["percent"], where=f"{where}.percent", high=FULL - 1)
        try:
            if text:
                vocabulary = integer(item["vocabulary"], where=f"{where}.vocabulary", high=MAX_VOCABULARY)
                return cls(Windows(vocabulary, *shape), **counts)
            if item["kind"] == "image":
                return cls(Images(*shape), **counts)
        except SpecError as error:
            raise ProofError(f"{where}: {error}") from error
        raise ProofError(f"{where}.kind: expected image or text, found {str(item['kind'])[:40]!r}")


def _shape(value: Json, length: int, *, where: str) -> list[int]:
    if not isinstance(value, list) or len(value) != length:
        raise ProofError(f"{where}: expected a list of {length} integers")
    return [integer(size, where=where, high=MAX_PIXELS) for size in value]
