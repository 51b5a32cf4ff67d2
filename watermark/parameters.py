"""What a training spec promises of a mark: one part for each channel, before any beacon."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from pol.encoding import Json, canonical_json, digest, fields, integer
from pol.errors import ProofError, SpecError
from watermark.key import MAX_LEAVES
from watermark.outputs.parameters import OutputMark
from watermark.triggers.parameters import TriggerMark
from watermark.weights.parameters import Carrier, WeightMark

Channel: TypeAlias = WeightMark | TriggerMark | OutputMark

PARAMETERS_DOMAIN: Final = "aiarena/watermark-parameters/v1"
MAX_BRANCH_STEPS: Final = 1 << 16
BRANCH: Final = "branch_steps"
_KINDS: Final[dict[str, Any]] = {"weights": WeightMark, "triggers": TriggerMark, "outputs": OutputMark}
_FIRST_FORM: Final = frozenset({"tensor", "groups", "rows", "leaves", "margin"})
_HIDDEN: Final = re.compile(r"layers\.[1-9][0-9]?\.weight")


@dataclass(frozen=True, slots=True)
class MarkParameters:
    """The public shape of a mark, at least one channel of it; part of the training spec, so fixed before the beacon.

    Groups and leaves are numbered through the channels: those of ``weights`` first, then ``triggers``, then
    ``outputs``. ``branch_steps`` is how many steps the branch takes on which the mark is trained in
    (:mod:`watermark.branch`), 0 for a mark that is put in without training. Raises :class:`SpecError` for values that
    make no mark.
    """

    weights: WeightMark | None = None
    triggers: TriggerMark | None = None
    outputs: OutputMark | None = None
    branch_steps: int = 0

    def __post_init__(self) -> None:
        if not self.channels:
            raise SpecError("a mark needs at least one channel: weights, triggers or outputs")
        if self.leaf_count > MAX_LEAVES:
            raise SpecError(f"{self.leaf_count} leaves: a key has at most {MAX_LEAVES}")
        if not 0 <= self.branch_steps <= MAX_BRANCH_STEPS:
            raise SpecError(f"a branch of {self.branch_steps} steps: use at most {MAX_BRANCH_STEPS}")

    @property
    def trained_in(self) -> bool:
        """Whether the mark takes training, so that it replays by its whole key only."""
        return self.branch_steps > 0 or set(self.channels) != {"weights"}

    @property
    def channels(self) -> dict[str, Channel]:
        """The channels that there are, by name, in order."""
        return {name: part for name, part in self._parts().items() if part is not None}

    @property
    def groups(self) -> int:
        """Groups in all."""
        return sum(part.groups for part in self.channels.values())

    @property
    def leaf_count(self) -> int:
        """Leaves of the key in all (M)."""
        return sum(part.leaf_count for part in self.channels.values())

    @property
    def digest(self) -> bytes:
        """The digest of the canonical JSON (32 bytes)."""
        return digest(PARAMETERS_DOMAIN, canonical_json(self.to_json()))

    def indices(self, groups: Iterable[int]) -> list[int]:
        """The leaf indices of ``groups``, in their order; raises :class:`ProofError` for a group there is not."""
        return [index for group in groups for index in self._leaves_of(group)]

    def leaves_of(self, channel: str) -> range:
        """The indices of a channel's leaves."""
        first = 0
        for name, part in self.channels.items():
            if name == channel:
                return range(first, first + part.leaf_count)
            first += part.leaf_count
        return range(0)

    def to_json(self) -> Json:
        """The strict JSON form, inverse of :meth:`from_json`.

        A mark in one tensor of an MLP alone has the form of the first version of the format, so that old specs stay
        valid.
        """
        mark = self.weights
        if mark and not self.trained_in and mark.layout == "mlp" and len(mark.carriers) == 1:
            return mark.carriers[0].to_json() | {"leaves": mark.leaves}
        parts: dict[str, Json] = {name: part.to_json() for name, part in self.channels.items()}
        return parts | ({BRANCH: self.branch_steps} if self.branch_steps else {})

    @classmethod
    def from_json(cls, value: Json, *, where: str) -> MarkParameters:
        """Parse :meth:`to_json`; raises :class:`ProofError` for anything else."""
        try:
            if isinstance(value, dict) and "tensor" in value:
                return _first_form(value, where)
            names = {*_KINDS, BRANCH}
            item = fields(value, names & set(value) if isinstance(value, dict) else names, where=where)
            parts = dict(item)
            steps = integer(parts.pop(BRANCH, 0), where=f"{where}.{BRANCH}", high=MAX_BRANCH_STEPS)
            channels = {name: _KINDS[name].from_json(part, where=f"{where}.{name}") for name, part in parts.items()}
            parameters = cls(**channels, branch_steps=steps)
        except SpecError as error:
            raise ProofError(f"{where}: {error}") from error
        if parameters.to_json() != value:
            raise ProofError(f"{where}: not canonical: one tensor of an MLP has a form of its own, no branch no steps")
        return parameters

    def _parts(self) -> dict[str, Channel | None]:
        return {"weights": self.weights, "triggers": self.triggers, "outputs": self.outputs}

    def _leaves_of(self, group: int) -> range:
        if group >= 0:
            first = 0
            for part in self.channels.values():
                if group < part.groups:
                    return range(first + group * part.leaves, first + (group + 1) * part.leaves)
                group, first = group - part.groups, first + part.leaf_count
        raise ProofError(f"there is no such watermark group: there are {self.groups}")


def mlp_mark(tensor: str, *, groups: int, rows: int, leaves: int, margin: float) -> MarkParameters:
    """A mark in one hidden-to-hidden weight of a ReLU MLP."""
    return MarkParameters(weights=WeightMark("mlp", (Carrier(tensor, groups, rows, margin),), leaves))


def _first_form(value: dict[str, Json], where: str) -> MarkParameters:
    item = dict(fields(value, set(_FIRST_FORM), where=where))
    leaves = integer(item.pop("leaves"), where=f"{where}.leaves", high=MAX_LEAVES)
    carrier = Carrier.from_json(item, where=where)
    if not _HIDDEN.fullmatch(carrier.tensor):
        raise ProofError(f"{where}.tensor: {carrier.tensor[:80]!r}: expected layers.<i>.weight with i >= 1")
    return MarkParameters(weights=WeightMark("mlp", (carrier,), leaves))


DEFAULT_PARAMETERS: Final = mlp_mark("layers.1.weight", groups=64, rows=8, leaves=8, margin=3.0)
"""For a 64-512-512-10 MLP: 512 leaves, one 16 KiB block a group."""
