"""The operators of a step as a list that can be committed to, so that two parties find the first one that differs.

An operation is named like its entry in :mod:`pol.portable.table`; its attributes are the arguments that are no tensors,
without those that say where and how a tensor lies in memory. Tensors are bound by their root over blocks of 16 KiB
(:func:`pol.tensors.tensor_root`, under the empty name). Before a matrix product stand the operations it is made of:

- ``exact::transpose``: the right operand with its columns as rows, so that a column lies together;
- ``exact::quantise``, for each operand and each block of the contraction: integers (int32) and the exponents of their
  unit, one a row (int16);
- ``exact::product``: the block's product in float64, of which :func:`pol.portable.dot.exact_dot` recomputes an element.

The list depends on the program, its release of torch and the batch alone, not on the machine. (Of a batch that lies in
memory otherwise, torch may choose other moves; the tensors they move to are the same.)
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
from pol.portable.dot import BLOCK, product_bits
from pol.portable.grid import quantised, unit
from pol.portable.mode import exact, way
from pol.portable.table import name_of
from pol.tensors import tensor_header, tensor_root

if TYPE_CHECKING:
    from pol.data import Batch
    from pol.program import Program
    from pol.state import TrainingState

OPERATION_DOMAIN = "aiarena/operation/v1"
ATTRIBUTES_DOMAIN = "aiarena/operation-attributes/v1"
UNWRITTEN_DOMAIN = "aiarena/unwritten-tensor/v1"
MAX_NUMBER = 2**63 - 1
PRODUCTS = {"mm": (0, 1), "bmm": (0, 1), "addmm": (1, 2), "baddbmm": (1, 2)}  # where their operands are
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
            inputs = _read(name, args, options)
            places = PRODUCTS.get(name, ())
            self.operations.extend(_parts_of_a_product(*(args[place] for place in places)) if places else ())
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


def _parts_of_a_product(left: Tensor, right: Tensor) -> Iterator[Operation]:
    columns = right.transpose(-1, -2).contiguous()
    yield _operation("exact::transpose", {}, [right], [columns])
    for start in range(0, left.shape[-1], BLOCK):
        block = slice(start, start + BLOCK)
        beta = product_bits(left[..., block].shape[-1])
        factors = []
        for operand in (left, columns):
            factors.append(_integers(operand[..., block].float(), beta))
            yield _operation("exact::quantise", {"beta": beta, "start": start}, [operand], factors[-1])
        (a, powers), (b, others) = factors
        rows, turned = _values(a, powers), _values(b, others).transpose(-1, -2)
        yield _operation("exact::product", {"start": start}, [a, powers, b, others], [(rows @ turned).add_(0.0)])


def _integers(x: Tensor, beta: int) -> list[Tensor]:
    """The integers of the rows of ``x`` on their grids, and the exponents of their units.

    0 for a row of zeros, and the integers of one that is not finite.
    """
    units = unit(x, [-1], beta)
    multiples = quantised(x, [-1], beta) / units
    integers = torch.where(multiples.isfinite(), multiples, 0.0)
    exponents = torch.where(units == 0, 0, (units.view(torch.int64) >> 52) - 1023)
    return [integers.to(torch.int32), exponents.to(torch.int16)]


def _values(integers: Tensor, exponents: Tensor) -> Tensor:
    scale = ((exponents.to(torch.int64) + 1023) << 52).view(torch.float64)
    return integers.to(torch.float64) * scale


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


def _root(tensor: Tensor) -> bytes:
    return tensor_root("", tensor)


def _unwritten(tensor: Tensor) -> bytes:
    """What stands for memory that nobody has written yet: its dtype and shape."""
    return digest(UNWRITTEN_DOMAIN, tensor_header("", tensor))
