"""A claim: what an accuser puts on the table, and the folder it travels in.

``claim.json`` is canonical JSON, ``theta_ref.safetensors`` the reference model; the first names the digest of the
second's tensors. Nothing is pickled, and sizes are checked before anything is read into memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Final

from safetensors.torch import save as save_tensors

from pol.encoding import (
    MAX_JSON_BYTES,
    Json,
    canonical_json,
    digest,
    fields,
    from_hex,
    integer,
    parse_canonical_json,
    to_hex,
    u64,
)
from pol.errors import CannotRun, ProofError, SpecError
from pol.state import from_safetensors
from pol.tensors import tensors_digest
from watermark.key import MAX_LEAVES, LeafOpening, WatermarkKey
from watermark.parameters import MarkParameters
from watermark.weights.arrays import State
from watermark.weights.layouts import layout_of

CLAIM_FORMAT: Final = "aiarena.watermark-claim/1"
CLAIM_DOMAIN: Final = "aiarena/watermark-claim/v1"
OPENING_DOMAIN: Final = "aiarena/watermark-opening/v1"
MAX_REFERENCE_BYTES: Final = 1 << 30
CLAIM_FILE: Final = "claim.json"
REFERENCE_FILE: Final = "theta_ref.safetensors"


def opening_groups(beacon: bytes, key_root: bytes, groups: int, count: int) -> tuple[int, ...]:
    """The ``count`` distinct groups out of ``groups`` that a beacon opens, in the order drawn.

    Draw c = 0, 1, ... is SHA256("aiarena/watermark-opening/v1" || beacon || key_root || u64(c)) mod groups, and
    repeats are skipped. Raises ``ValueError`` unless 0 < count <= groups.
    """
    if not 0 < count <= groups:
        raise ValueError(f"cannot open {count} of {groups} groups")
    drawn: dict[int, None] = {}
    draw = 0
    while len(drawn) < count:
        drawn[int.from_bytes(digest(OPENING_DOMAIN, beacon, key_root, u64(draw)), "big") % groups] = None
        draw += 1
    return tuple(drawn)


@dataclass(frozen=True, eq=False)
class Claim:
    """The claim that models carry the mark of one key.

    ``groups`` are the groups that had to be opened and ``leaves`` those that were; every leaf that is missing counts
    as a miss. ``theta_ref`` is the unmarked model that suspects are aligned to. ``theta_0``, the program's own initial
    state, and ``base``, the tensors of the base model that the spec pins, are for the verifier to set; they are never
    read from an accuser's folder.

    Whoever judges a claim checks what only the chain knows: that ``key_root`` and ``beta`` are the run's, that
    ``parameters.digest`` is the spec's, that ``groups == opening_groups(...)`` for the task's beacon, and that
    ``theta_ref`` is the state anchored before beta.
    """

    key_root: bytes
    beta: bytes
    parameters: MarkParameters
    groups: tuple[int, ...]
    leaves: tuple[LeafOpening, ...]
    theta_ref: State = field(repr=False)
    theta_0: State | None = field(default=None, repr=False)
    base: State | None = field(default=None, repr=False)

    @classmethod
    def make(
        cls, key: WatermarkKey, beta: bytes, parameters: MarkParameters, groups: Sequence[int], theta_ref: State
    ) -> Claim:
        """The claim of the key's owner, with every leaf of ``groups`` opened."""
        leaves = key.open(parameters.indices(groups))
        return cls(key.root, beta, parameters, tuple(groups), leaves, theta_ref)

    @property
    def expected(self) -> list[int]:
        """The leaf indices that had to be opened; their number is the number of trials."""
        return self.parameters.indices(self.groups)

    @property
    def digest(self) -> bytes:
        """The digest of ``claim.json`` (32 bytes), which binds theta_ref too: the evidence digest of an accusation."""
        return digest(CLAIM_DOMAIN, canonical_json(self._to_json()))

    def check(self) -> None:
        """Raise :class:`ProofError` unless the claim is well formed and every opened leaf is in the key.

        The leaves must be among the expected ones, in their order, each once; theta_ref must be a finite model that
        the parameters fit. Equal seeds are no error: :func:`watermark.detect.detect` finds such a claim void.
        """
        if len(set(self.groups)) != len(self.groups) or not self.groups:
            raise ProofError("watermark claim: the groups must be distinct, and at least one")
        place = {index: number for number, index in enumerate(self.expected)}
        order = [place.get(leaf.index, -1) for leaf in self.leaves]
        if -1 in order or any(left >= right for left, right in pairwise(order)):
            raise ProofError("watermark claim: leaves of other groups, twice, or out of order")
        for leaf in self.leaves:
            leaf.check(self.key_root, self.parameters.leaf_count)
        try:
            if mark := self.parameters.weights:
                layout_of(mark.layout).check(self.theta_ref, mark.carriers, where="theta_ref")
        except SpecError as error:
            raise ProofError(f"watermark claim: {error}") from error

    def save(self, folder: Path) -> None:
        """Write the claim's two files into ``folder``, which is made if need be; raises :class:`CannotRun`."""
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self.theta_ref.items()}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / REFERENCE_FILE).write_bytes(save_tensors(tensors))
            (folder / CLAIM_FILE).write_bytes(canonical_json(self._to_json()))
        except OSError as error:
            raise CannotRun(f"{folder}: cannot write the watermark claim ({error})") from error

    @classmethod
    def load(cls, folder: Path) -> Claim:
        """Read and :meth:`check` a claim; raises :class:`CannotRun` for a missing file, else :class:`ProofError`."""
        where = str(folder / CLAIM_FILE)
        value = parse_canonical_json(_read(folder / CLAIM_FILE, MAX_JSON_BYTES), where=where)
        names = {"format", "key_root", "beta", "parameters", "groups", "leaves", "theta_ref"}
        item = fields(value, names, where=where)
        if item["format"] != CLAIM_FORMAT:
            raise ProofError(f"{where}: not a watermark claim of format {CLAIM_FORMAT}")
        parameters = MarkParameters.from_json(item["parameters"], where=f"{where}: parameters")
        reference = folder / REFERENCE_FILE
        theta_ref = from_safetensors(_read(reference, MAX_REFERENCE_BYTES), where=str(reference))
        if tensors_digest(theta_ref) != from_hex(item["theta_ref"], where=f"{where}: theta_ref"):
            raise ProofError(f"{reference}: not the model whose digest {CLAIM_FILE} names")
        claim = cls(
            key_root=from_hex(item["key_root"], where=f"{where}: key_root"),
            beta=from_hex(item["beta"], where=f"{where}: beta"),
            parameters=parameters,
            groups=tuple(integer(g, where=f"{where}: groups") for g in _list(item["groups"], where=f"{where}: groups")),
            leaves=tuple(
                LeafOpening.from_json(leaf, where=f"{where}: leaves[{number}]")
                for number, leaf in enumerate(_list(item["leaves"], where=f"{where}: leaves"))
            ),
            theta_ref=theta_ref,
        )
        claim.check()
        return claim

    def _to_json(self) -> Json:
        return {
            "format": CLAIM_FORMAT,
            "key_root": to_hex(self.key_root),
            "beta": to_hex(self.beta),
            "parameters": self.parameters.to_json(),
            "groups": list(self.groups),
            "leaves": [leaf.to_json() for leaf in self.leaves],
            "theta_ref": to_hex(tensors_digest(self.theta_ref)),
        }


def _read(path: Path, limit: int) -> bytes:
    try:
        if path.stat().st_size > limit:
            raise ProofError(f"{path}: larger than the limit of {limit} bytes")
        return path.read_bytes()
    except OSError as error:
        raise CannotRun(f"{path}: cannot be read ({error.strerror})") from error


def _list(value: Json, *, where: str) -> list[Json]:
    if not isinstance(value, list) or len(value) > MAX_LEAVES:
        raise ProofError(f"{where}: expected a list of at most {MAX_LEAVES} entries")
    return value
