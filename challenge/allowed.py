"""What a task lets a spec say: its terms on chain, and the lists in its description that the terms bind.

A contract sees the digest of a spec only, so whoever verifies compares. The same comparison keeps a trainer from paying
a bond for a run that every verifier would reject.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from chain.terms import NO_DIGEST, Numerics, Work
from chain.types import BaseModel
from challenge.bounds import bounds_digest, outside
from challenge.task import TaskDescription
from pol.encoding import Json, from_hex
from pol.errors import CannotRun, ProofError, SpecError, Unreachable
from pol.machine import MachineClass
from pol.merkle import MerkleTree, merkle_root
from pol.spec import TrainingSpec

BASE_FIELD = "base_digest"
"""The field of a config that pins a base model, by :func:`pol.tensors.tensors_digest` of its tensors."""

Describe = Callable[[], TaskDescription]


@dataclass(frozen=True, slots=True)
class Objections:
    """What speaks against a spec: ``forbidden`` by the task, or ``unknown`` because its lists are not to be had."""

    forbidden: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)


def base_of(config: Mapping[str, Json]) -> bytes:
    """The digest of the base model that a config pins; zeros if the run starts from its seed.

    Raises :class:`ProofError` if it is no digest.
    """
    found = config.get(BASE_FIELD)
    return NO_DIGEST if found is None else from_hex(found, where=f"config.{BASE_FIELD}")


def objections(spec: TrainingSpec, work: Work, describe: Describe) -> Objections:
    """What a task with the terms ``work`` has against ``spec``.

    ``describe`` fetches the task's description; it is called only where the terms bind a list that is needed. Raises
    :class:`ProofError` for a spec whose machine is none, and :class:`Unreachable`.
    """
    found = Objections(_terms(spec, work))
    here = MachineClass.from_json(spec.machine, where="spec.machine").digest
    listed = work.classes_root not in (NO_DIGEST, merkle_root([here]))
    if not listed and work.config_bounds == NO_DIGEST:
        return found
    try:
        described = describe()
        if listed and here not in _bound(described.machines, work.classes_root, "machine classes"):
            found.forbidden.append("the machine class is not one the task accepts")
        if work.config_bounds != NO_DIGEST:
            found.forbidden.extend(_out_of_bounds(spec, work, described))
    except Unreachable:
        raise
    except (CannotRun, ProofError) as error:  # nobody's fault but the creator's, or this machine's
        found.unknown.append(f"the task's lists cannot be had, so whether it allows this spec is open: {error}")
    return found


def accepted_base(spec: TrainingSpec, work: Work, describe: Describe) -> BaseModel:
    """The base model of ``spec`` with its path in the task's list, as a registration takes it.

    Raises :class:`SpecError` if the task does not accept it; else as ``describe``.
    """
    base = base_of(spec.config)
    if work.bases_root == NO_DIGEST:
        if base != NO_DIGEST:
            raise SpecError(
                "the spec's config pins a base model, and the task accepts none: runs start from their seed"
            )
        return BaseModel()
    bases = _bound(describe().bases, work.bases_root, "base models")
    if base not in bases:
        named = f"the base model 0x{base.hex()}" if base != NO_DIGEST else "a start from the seed"
        raise SpecError(f"{named} is not in the task's list: use one of {', '.join('0x' + one.hex() for one in bases)}")
    path = MerkleTree(bases).prove(bases.index(base))
    return BaseModel(base, path.position, path.count, path.siblings)


def _terms(spec: TrainingSpec, work: Work) -> list[str]:
    pairs = {
        "program": (spec.program_digest, work.program_digest),
        "training data": (spec.dataset_root, work.train_root if any(work.train_root) else spec.dataset_root),
        "number of steps": (spec.steps, work.steps),
        "segment length": (spec.segment_length, work.segment_length),
        "numerics": (spec.exact, work.numerics is Numerics.EXACT),
    }
    return [f"the {name} is not the task's" for name, (mine, theirs) in pairs.items() if mine != theirs]


def _bound(listed: tuple[bytes, ...], root: bytes, what: str) -> tuple[bytes, ...]:
    if not listed or merkle_root(listed) != root:
        raise ProofError(f"the {what} in the task's description are not those that its terms bind")
    return listed


def _out_of_bounds(spec: TrainingSpec, work: Work, described: TaskDescription) -> list[str]:
    if described.bounds is None or bounds_digest(described.bounds) != work.config_bounds:
        raise ProofError("the bounds in the task's description are not those that its terms bind")
    return outside(spec.config, described.bounds)
