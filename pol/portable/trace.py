"""The operators of a step as a list that can be committed to, so that two parties find the first one that differs.

An operation is named like its entry in :mod:`pol.portable.table`; its attributes are the arguments that are no tensors,
without those that say where and how a tensor lies in memory. Tensors are bound by their root over blocks of 16 KiB
(:func:`pol.tensors.tensor_root`, under the empty name). An operator that draws has the key that it draws
(:mod:`pol.portable.random`) as its last input. Before a product or a convolution stand the operations it is made of
(:mod:`pol.portable.parts`), down to integers of which anyone can recompute an element.

The list depends on the program, its release of torch and the batch alone, not on the machine. (Of a batch that lies in
memory otherwise, torch may choose other moves; the tensors they move to are the same.) :mod:`pol.portable.dispute`
finds where two lists part.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from pol.encoding import Json, canonical_json, digest, float_text, u64
from pol.merkle import leaf_digest, merkle_root
from pol.portable import draws
from pol.portable.mode import entry_of, exact, way
from pol.portable.parts import parts_of
from pol.portable.random import draw_key
from pol.portable.table import name_of
from pol.tensors import tensor_header, tensor_root

if TYPE_CHECKING:
    from pol.data import Batch
    from pol.program import Program
    from pol.state import TrainingState

OPERATION_DOMAIN = "aiarena/operation/v1"
ATTRIBUTES_DOMAIN = "aiarena/operation-attributes/v1"
UNWRITTEN_DOMAIN = "aiarena/unwritten-tensor/v1"
KEY_DOMAIN = "aiarena/random-key/v1"
MAX_NUMBER = 2**63 - 1
KEYED = frozenset(run for name, run in draws.OPERATORS.items() if name != "linspace")
OVERWRITING = frozenset({"bernoulli_", "copy_", "fill_", "normal_", "random_", "uniform_", "zero_"})
PLACEMENT = frozenset({"device", "layout", "memory_format", "non_blocking", "pin_memory"})


@dataclass(frozen=True, slots=True)
class Operation:
    """One operator of a step: its name, and 32-byte digests of attributes, of tensors read and of tensors returned."""

    operator: str
    attributes: bytes
    inputs: tuple[bytes, ...]
    outputs: tuple[bytes, ...]

    def leaf(self, index: int) -> bytes:
        """The leaf that stands for it at ``index`` of a step (32 bytes)."""
        name = self.operator.encode("utf-8")
        counts = u64(len(name)) + u64(len(self.inputs)) + u64(len(self.outputs))
        payload = b"".join([counts, name, self.attributes, *self.inputs, *self.outputs])
        return leaf_digest(OPERATION_DOMAIN, index, payload)


class OperatorTrace(TorchDispatchMode):
    """Notes every operator that runs inside it; to be entered inside :func:`pol.exact`."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations: list[Operation] = []

    @property
    def root(self) -> bytes:
        """The Merkle root over the operations in order (32 bytes)."""
        return merkle_root([operation.leaf(index) for index, operation in enumerate(self.operations)])

    def __torch_dispatch__(
        self, func: OpOverload, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Called by torch for every operator; one that is taken apart is noted as its parts."""
        options = kwargs or {}
        apart, run = way(func)
        if apart:
            with self:
                return run(*args, **options)
        name = name_of(func)
        with _disable_current_modes():
            attributes = _attributes(args, options)
            inputs = _read(name, args, options) + _key(func, options)
            self.operations.extend(_operation(*part) for part in parts_of(name, args))
        result = func(*args, **options)
        with _disable_current_modes():
            outputs = tuple(_unwritten(t) if "empty" in name else _root(t) for t in _tensors(result))
        self.operations.append(Operation(name, attributes, inputs, outputs))
        return result


def traced_step(program: Program, state: TrainingState, batch: Batch, seed: bytes) -> OperatorTrace:
    """Take the step of ``program`` after ``state`` with exact numerics, and return its operators.

    ``state`` is changed as by any step, but for ``state.step``. Raises what the program and :func:`pol.exact` raise.
    """
    state.key_generators(seed)
    trace = OperatorTrace()
    with exact(), trace:
        program.train_step(state, batch)
    return trace


def first_difference(mine: Sequence[Operation], theirs: Sequence[Operation]) -> int | None:
    """The index of the first operation that two traces do not share; None if they are equal.

    If its operator, attributes and inputs agree, its outputs are what one of the two computed wrongly.
    """
    shared = min(len(mine), len(theirs))
    found = next((index for index in range(shared) if mine[index] != theirs[index]), shared)
    return found if found < max(len(mine), len(theirs)) else None


def _operation(
    name: str, attributes: Mapping[str, Json], inputs: Sequence[Tensor], outputs: Sequence[Tensor]
) -> Operation:
    described = digest(ATTRIBUTES_DOMAIN, canonical_json(dict(attributes)))
    return Operation(name, described, tuple(map(_root, inputs)), tuple(map(_root, outputs)))


def _attributes(args: Sequence[Any], options: Mapping[str, Any]) -> bytes:
    named = {name: _plain(value) for name, value in options.items() if name not in PLACEMENT}
    return digest(ATTRIBUTES_DOMAIN, canonical_json({"args": [_plain(value) for value in args], "options": named}))


def _plain(value: Any) -> Json:
    """An argument as canonical JSON: tensors are null (their digests are the inputs), floats are texts."""
    if value is None or isinstance(value, Tensor | torch.Generator | torch.device):
        return None
    if isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        return value if abs(value) <= MAX_NUMBER else str(value)
    if isinstance(value, float):
        return {"float": float_text(value) if abs(value) < float("inf") else str(value)}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value)


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _tensors(item)


def _read(name: str, args: Sequence[Any], options: Mapping[str, Any]) -> tuple[bytes, ...]:
    """The digests of the tensors that an operator reads; of one that it only writes, dtype and shape."""
    read = list(map(_root, _tensors([args, {key: value for key, value in options.items() if key != "out"}])))
    if name.partition(".")[0] in OVERWRITING:
        read[0] = _unwritten(args[0])
    return tuple(read)


def _key(func: OpOverload, options: Mapping[str, Any]) -> tuple[bytes, ...]:
    """The digest of the key that a random operator is about to draw, from a copy of its generator."""
    entry = entry_of(func)
    if entry is None or entry.run not in KEYED:
        return ()
    copy = torch.Generator()
    copy.set_state((options.get("generator") or torch.default_generator).get_state())
    return (digest(KEY_DOMAIN, u64(draw_key(copy))),)


def _root(tensor: Tensor) -> bytes:
    return tensor_root("", tensor)


def _unwritten(tensor: Tensor) -> bytes:
    """What stands for memory that nobody has written yet: its dtype and shape."""
    return digest(UNWRITTEN_DOMAIN, tensor_header("", tensor))
