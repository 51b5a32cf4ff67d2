"""The public shape of a mark in a network's outputs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from pol.encoding import Json, fields, float_text, from_hex, integer, text, to_hex
from pol.errors import ProofError, SpecError
from watermark.outputs.extractor import PUBLIC_EXTRACTOR

MIN_LEAVES: Final = 128
MAX_LEAVES: Final = 4096
"""Reading inverts a matrix of as many rows and columns."""
MIN_IMAGES: Final = 64
MAX_IMAGES: Final = 4096
MAX_STRENGTH: Final = 0.125


@dataclass(frozen=True, slots=True)
class OutputMark:
    """A payload of one bit a leaf in every output image: ``groups`` groups of ``leaves`` leaves, at least 128 in all.

    ``strength`` is the rms of the mark on busy parts of an image, whose values run from 0 to 1; ``images`` is how many
    outputs are judged together; ``extractor`` is the digest of the network that reads them, which must be the public
    one. Raises :class:`SpecError` for values that make no mark.
    """

    groups: int
    leaves: int
    strength: float
    images: int = MIN_IMAGES
    extractor: bytes = PUBLIC_EXTRACTOR

    def __post_init__(self) -> None:
        if min(self.groups, self.leaves) < 1 or not MIN_LEAVES <= self.leaf_count <= MAX_LEAVES:
            shape = f"{self.groups} groups of {self.leaves} leaves"
            raise SpecError(f"a mark in outputs of {shape}: use {MIN_LEAVES} to {MAX_LEAVES} leaves in all")
        if not 0 < self.strength <= MAX_STRENGTH:
            raise SpecError(f"strength {self.strength}: expected a number above 0 and at most {MAX_STRENGTH}")
        if not MIN_IMAGES <= self.images <= MAX_IMAGES:
            raise SpecError(f"{self.images} images: judge {MIN_IMAGES} to {MAX_IMAGES} outputs together")
        if self.extractor != PUBLIC_EXTRACTOR:
            raise SpecError(
                f"extractor {to_hex(self.extractor)} is not the public one, {to_hex(PUBLIC_EXTRACTOR)}: "
                "a network that a party trained may read any bits out of any image"
            )

    @property
    def leaf_count(self) -> int:
        """Leaves in all: bits of the payload."""
        return self.groups * self.leaves

    def to_json(self) -> dict[str, Json]:
        """The strict JSON form, inverse of :meth:`from_json`."""
        return {
            "groups": self.groups,
            "leaves": self.leaves,
            "strength": float_text(self.strength),
            "images": self.images,
            "extractor": to_hex(self.extractor),
        }

    @classmethod
    def from_json(cls, value: Json, *, where: str) -> OutputMark:
        """Parse :meth:`to_json`; raises :class:`ProofError` for anything else."""
        item = fields(value, {"groups", "leaves", "strength", "images", "extractor"}, where=where)
        strength = text(item["strength"], where=f"{where}.strength", limit=64)
        try:
            mark = cls(
                groups=integer(item["groups"], where=f"{where}.groups", high=MAX_LEAVES),
                leaves=integer(item["leaves"], where=f"{where}.leaves", high=MAX_LEAVES),
                strength=_strength(strength),
                images=integer(item["images"], where=f"{where}.images", high=MAX_IMAGES),
                extractor=from_hex(item["extractor"], where=f"{where}.extractor"),
            )
        except (ValueError, OverflowError, SpecError) as error:
            raise ProofError(f"{where}: {error}") from error
        return mark


def _strength(spelled: str) -> float:
    value = float.fromhex(spelled)
    if not math.isfinite(value) or float_text(value) != spelled:
        raise ValueError(f"strength {spelled!r} is not canonical")
    return value
