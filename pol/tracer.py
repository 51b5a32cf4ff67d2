"""One training step, operator by operator: what each read and made, and which module asked for it.

:class:`OperatorTracer` sits below autograd and above the kernels, looks at tensors and never changes one, so a traced
step has the bits of an untraced one. It writes JSON lines, in the order in which the operators ran:

``op`` (ATEN name), ``phase`` (``build``, ``forward``, ``backward``, ``optimizer`` or ``step``, the last for what runs
outside all of these), ``module`` (qualified name, null outside every module), ``parameter``, ``at`` (file:line of the
program), ``args`` (digest of the arguments that are no tensors), ``in`` and ``out`` (digests of the tensors read and
made; null for a view, which makes none), and if so ``random`` (it draws), ``generator`` (from one the caller passed),
``fault`` (it made ``nan`` or ``inf``), ``inherited`` (so did what it read) and ``raised``. A line ``source`` names a
call that gives something else every time.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import math
import os
import random
import sys
import sysconfig
import time
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, TextIO

import torch
from torch import nn
from torch.autograd import _get_sequence_nr  # type: ignore[attr-defined]
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.data.dataloader import _BaseDataLoaderIter

from pol.state import TrainingState
from pol.tensors import little_endian_bytes

TORCH = str(Path(torch.__file__).parent)
LIBRARY = sysconfig.get_paths()["stdlib"]
# Their result is memory as it was found: other bits every time, and no harm until somebody reads them.
UNINITIALISED = frozenset({"empty", "empty_like", "empty_strided", "empty_permuted", "new_empty", "new_empty_strided"})
CLOCKS: dict[Any, str] = {
    getattr(time, name): f"time.{name}"
    for name in ("time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "process_time")
} | {datetime.datetime.now: "datetime.now", datetime.datetime.utcnow: "datetime.utcnow"}
ENTROPY: dict[Any, str] = {os.urandom: "os.urandom", os.getpid: "os.getpid"}
THROUGH_TORCH = frozenset({"torch.Generator.seed", "DataLoader"})
# Sparse, quantised and wrapped tensors have none: they are traced by name, not by content.
_NO_PLAIN_BYTES = (RuntimeError, NotImplementedError, TypeError)
LOADER = (_BaseDataLoaderIter.__init__.__code__, _BaseDataLoaderIter.__next__.__code__)


class OperatorTracer(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Traces what runs inside ``with OperatorTracer(...)`` to ``out``; ``state`` is None while a program builds it.

    ``source`` is the program's file as its code objects name it; lines are given in that file alone.
    """

    def __init__(self, out: TextIO, state: TrainingState | None, source: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._out, self._state, self._source = out, state, source
        self._modules: dict[int, str] = {}
        self._parameters: dict[int, str] = {}
        if state:
            self._modules = {id(module): name for name, module in state.model.named_modules()}
            self._parameters = {id(parameter): name for name, parameter in state.model.named_parameters()}
        self._stack: list[str] = []
        # Autograd numbers its nodes as the forward pass makes them: where a module begins and ends in these numbers
        # says whose node it is that runs backward.
        self._numbers: list[int] = [0]
        self._owners: list[str | None] = [None]
        self._in_optimizer = False
        self._reported: set[tuple[str, str]] = set()
        self._exits = ExitStack()

    def __enter__(self) -> OperatorTracer:
        for handle in (
            register_module_forward_pre_hook(self._enter_module),
            register_module_forward_hook(self._leave_module, always_call=True),
            register_optimizer_step_pre_hook(self._enter_optimizer),
            register_optimizer_step_post_hook(self._leave_optimizer),
        ):
            self._exits.callback(handle.remove)
        super().__enter__()  # type: ignore[no-untyped-call]
        sys.setprofile(self._heard)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        sys.setprofile(None)
        super().__exit__(kind, error, trace)  # type: ignore[no-untyped-call]
        self._exits.close()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run ``func`` as it would have run, and write one line about it."""
        kwargs = kwargs or {}
        if func.namespace == "profiler":
            return func(*args, **kwargs)
        leaves, read = tree_leaves((args, kwargs)), _tensors_in((args, kwargs))
        view = func.is_view and func._opname != "lift_fresh"
        row = self._where(read) | {"op": str(func), "args": _text_digest(leaves)}
        if any(isinstance(leaf, torch.Generator) and leaf is not torch.default_generator for leaf in leaves):
            row["generator"] = True
        if torch.Tag.nondeterministic_seeded in func.tags:
            row["random"] = True
        row["in"] = None if view else _tensors_digest(read)
        silent = view or func._opname in UNINITIALISED
        before = None if silent else _fault(read)
        try:
            made = func(*args, **kwargs)
        except Exception as error:
            self._write(row | {"out": None, "raised": f"{type(error).__name__}: {str(error)[:300]}"})
            raise
        # what an operator writes in place counts as made by it
        results = [*_tensors_in(made), *_written(func, args, kwargs)]
        fault = None if silent or _asked_for_infinity(leaves) else _fault(results)
        if fault:
            row |= {"fault": fault, "inherited": fault == before}
        self._write(row | {"out": None if view else _tensors_digest(results)})
        return made

    def _where(self, read: Sequence[torch.Tensor]) -> dict[str, Any]:
        node = torch._C._current_autograd_node()
        module = self._stack[-1] if self._stack else None
        parameter = None
        if self._in_optimizer:
            phase = "optimizer"
            parameter = next((self._parameters[id(tensor)] for tensor in read if id(tensor) in self._parameters), None)
        elif node is not None:
            phase = "backward"
            parameter = self._parameters.get(id(getattr(node, "variable", None)))
            if module is None and parameter is None:
                module = self._owners[bisect_right(self._numbers, node._sequence_nr()) - 1]
        else:
            phase = "forward" if self._stack else "step" if self._state else "build"
        if parameter is not None and module is None:
            module = parameter.rpartition(".")[0]
        return {"phase": phase, "module": module, "parameter": parameter, "at": self._line(sys._getframe(2))}

    def _enter_module(self, module: nn.Module, _: Any) -> None:
        self._stack.append(self._modules.get(id(module), type(module).__name__))
        self._mark()

    def _leave_module(self, module: nn.Module, _: Any, __: Any) -> None:
        if self._stack:
            self._stack.pop()
        self._mark()

    def _mark(self) -> None:
        self._numbers.append(_get_sequence_nr())
        self._owners.append(self._stack[-1] if self._stack else None)

    def _enter_optimizer(self, optimizer: torch.optim.Optimizer, _: Any, __: Any) -> None:
        self._in_optimizer = True
        for parameter in (p for group in optimizer.param_groups for p in group["params"]):
            name = self._parameters.get(id(parameter))
            if name is not None:
                held = [parameter.grad, *optimizer.state.get(parameter, {}).values()]
                self._parameters |= {id(tensor): name for tensor in held if isinstance(tensor, torch.Tensor)}

    def _leave_optimizer(self, *_: Any) -> None:
        self._in_optimizer = False

    def _heard(self, frame: FrameType, event: str, argument: Any) -> None:
        """The interpreter's profile hook: a call whose result no seed decides is worth a line."""
        name = _source_called(frame, event, argument)
        if name is None:
            return
        caller = frame.f_back if event == "call" else frame
        while caller and _passed_through(caller.f_code.co_filename, name):
            caller = caller.f_back
        line = line_in(self._source, caller) if caller else None
        if line and (name, line) not in self._reported:
            self._reported.add((name, line))
            self._write({"source": name, "at": line})

    def _line(self, frame: FrameType | None) -> str | None:
        """Where the program is: its innermost frame."""
        while frame and line_in(self._source, frame) is None:
            frame = frame.f_back
        return line_in(self._source, frame) if frame else None

    def _write(self, row: dict[str, Any]) -> None:
        self._out.write(json.dumps(row, separators=(",", ":")) + "\n")


def line_in(source: str, frame: FrameType) -> str | None:
    """``file:line`` of a frame in the program's own file, else None."""
    if frame.f_code.co_filename != source:
        return None
    name = Path(source.strip("<>").split("@")[0]).name.removesuffix(".py")
    return f"{name}.py:{frame.f_lineno}"


def _passed_through(filename: str, name: str) -> bool:
    """Whether the call is charged to whoever called this file: libraries are passed through, but what torch does on
    its own account (profiling, say) is none of the program's doing."""
    if filename.startswith(TORCH):
        return name in THROUGH_TORCH
    return filename.startswith((LIBRARY, "<frozen"))


def _source_called(frame: FrameType, event: str, argument: Any) -> str | None:
    if event == "call":
        return "DataLoader" if frame.f_code in LOADER else None
    if event != "c_call":
        return None
    known = CLOCKS.get(argument) or ENTROPY.get(argument)
    owner = getattr(argument, "__self__", None)
    if known or owner is None:
        return known
    if isinstance(owner, torch.Generator) and argument.__name__ == "seed":
        return "torch.Generator.seed"
    own = isinstance(owner, random.Random) and not isinstance(owner, random.SystemRandom)
    return "random.Random" if own and owner is not random._inst else None


def _written(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[torch.Tensor]:
    for index, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            value = args[index] if index < len(args) else kwargs.get(argument.name)
            yield from _tensors_in(value)


def _tensors_in(tree: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


def _tensors_digest(tensors: Sequence[torch.Tensor]) -> str:
    hasher = hashlib.sha256()
    for tensor in tensors:
        hasher.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
        with suppress(*_NO_PLAIN_BYTES):
            hasher.update(little_endian_bytes(tensor.resolve_conj().resolve_neg()))
    return hasher.hexdigest()[:16]


def _fault(tensors: Sequence[torch.Tensor]) -> str | None:
    """``nan`` if there is one, else ``inf`` if there is one."""
    fault = None
    for tensor in tensors:
        with suppress(*_NO_PLAIN_BYTES):
            if tensor.is_floating_point() and bool(tensor.isnan().any()):
                return "nan"
            if tensor.is_floating_point() and bool(tensor.isinf().any()):
                fault = "inf"
    return fault


def _asked_for_infinity(leaves: Sequence[Any]) -> bool:
    """Masks of attention are filled with minus infinity, and nothing is wrong with that."""
    return any(isinstance(leaf, float) and math.isinf(leaf) for leaf in leaves)


def _text_digest(leaves: Sequence[Any]) -> str:
    plain = (bool, int, float, complex, str, torch.dtype, torch.device, torch.layout, torch.memory_format, type(None))
    values = [repr(leaf) for leaf in leaves if isinstance(leaf, plain)]
    return hashlib.sha256("\0".join(values).encode()).hexdigest()[:16]
