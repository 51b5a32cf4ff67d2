"""``with pol.exact():`` - every operator in here gives the same bits on every device, or is refused by name.

The mode sits under autograd: the user's model, loss and optimizer are what they were, and forward, backward and update
arrive here as operators of :mod:`pol.portable.table`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.optim import optimizer, swa_utils
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _get_current_dispatch_mode_stack

from pol.errors import SpecError
from pol.portable import optimizers, selftest, trial
from pol.portable.compiled import KERNELS
from pol.portable.elementwise import PLAIN
from pol.portable.table import INSTEAD, TABLE, Entry, Kind, name_of
from pol.portable.whole import WHOLE

Run: TypeAlias = Callable[..., Any]
_FREE = ("out", "dtype", "layout", "device", "pin_memory", "memory_format")  # those of a result
_MULTI_TENSOR = "_get_foreach_kernels_supported_devices"
LIBRARIES = (str(Path(torch.__file__).parent), str(Path(__file__).parent))


class RefusedOperator(SpecError):
    """An operator, or a use of one, that has no portable form here: the program must do without."""


@contextmanager
def exact(*, fused: bool = True) -> Iterator[None]:
    """Compute with the same bits on every device, processor, number of threads and memory layout.

    On a CPU the kernels of :mod:`pol.portable.compiled` are used if they can be had here, which is faster and gives the
    same bits; not if ``fused`` is False. The first use on a machine takes some seconds of its C compiler.
    Raises :class:`SpecError` for an operator outside the table, naming it, where it was called and what to use; and
    :class:`pol.errors.CannotRun` if this machine's arithmetic fails the self-test. Inside another ``exact()`` it
    changes nothing. What is computed outside torch (by numpy, or a learning rate's cosine by Python) is not touched.
    """
    if active():
        yield
        return
    selftest.check()
    kernels = trial.passed() if fused else None
    # torch's functions do not show the mode what they call: attention inside them is composed of operators
    with _one_choice(), KERNELS.using(kernels), sdpa_kernel(SDPBackend.MATH), _WholeFunctions(), ExactMode():  # type: ignore[no-untyped-call]
        yield


@contextmanager
def _one_choice() -> Iterator[None]:
    """What torch chooses by the device, or by what is installed, it chooses in here as on a bare CPU."""
    cudnn, einsum = torch.backends.cudnn, torch.backends.opt_einsum
    before = cudnn.enabled, einsum.enabled
    cudnn.enabled = False  # so that CUDA calls the operators that a CPU does
    einsum.enabled = False  # from left to right, whether opt_einsum is there or not
    choosers = [(module, getattr(module, _MULTI_TENSOR)) for module in (optimizer, swa_utils)]
    for module, _ in choosers:
        setattr(module, _MULTI_TENSOR, list)  # for no device: some optimizers round otherwise in multi-tensor form
    try:
        yield
    finally:
        cudnn.enabled, einsum.enabled = before
        for module, chooser in choosers:
            setattr(module, _MULTI_TENSOR, chooser)


def active() -> bool:
    """Whether this thread is inside :func:`exact`."""
    return any(isinstance(mode, ExactMode) for mode in _get_current_dispatch_mode_stack())


class ExactMode(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """The dispatch mode of :func:`exact`: runs every operator as the table says."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Called by torch for every operator below autograd."""
        options = kwargs or {}
        try:
            for value in args:
                _check_plain(value)
            apart, run = way(func)
            if not apart:
                return run(*args, **options)
            with self:
                return run(*args, **options)
        except RefusedOperator:
            raise
        except SpecError as error:
            raise RefusedOperator(f"{func.name()}{_place()}: {error}") from error


@cache
def way(func: Any) -> tuple[bool, Run]:
    """What runs in place of ``func``, and whether it is to run inside the mode; :class:`SpecError` if nothing does."""
    entry = entry_of(func)
    name = name_of(func)
    if entry is None:
        raise SpecError(_refusal(name))
    if name.startswith("_foreach_"):
        return True, optimizers.foreach(name.split(".")[0].removeprefix("_foreach_"))
    if entry.kind is Kind.APART:
        return True, entry.run or func.decompose
    if entry.run is None:
        return False, func
    if name in TABLE:
        return False, entry.run
    return False, _into_result(entry.run) if name.endswith("out") else _in_place(entry.run)


@cache
def entry_of(func: Any) -> Entry | None:
    """The table's entry for ``func``, or for what it is the in-place, multi-tensor or composed form of."""
    name = name_of(func)
    if name in TABLE:
        return TABLE[name]
    base, _, overload = name.partition(".")
    if base.endswith("_") or overload.endswith("out"):
        plain = base.removesuffix("_")
        for other in (other for other in TABLE if other.partition(".")[0] == plain):
            if _takes_the_same(func, plain, other.partition(".")[2]):
                return TABLE[other]
    if base.startswith("_foreach_"):
        return Entry(Kind.APART, "the operator of the same name on each tensor in turn")
    if torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd"):
        return Entry(Kind.APART, "torch composes it of other operators")
    return None


def _takes_the_same(func: Any, base: str, overload: str) -> bool:
    """Whether ``func``, but for its result, has the arguments of the operator ``base`` with this ``overload``."""
    packet = getattr(torch.ops.aten, base, None)
    if packet is None:  # torch has it in place only
        return name_of(func).partition(".")[2] == overload
    mine, others = (
        [(argument.name, str(argument.type)) for argument in schema.arguments if argument.name not in _FREE]
        for schema in (func._schema, getattr(packet, overload or "default")._schema)
    )
    return mine == others


class _WholeFunctions(TorchFunctionMode):
    """Replaces the functions of :mod:`pol.portable.whole` before they become operators."""

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Called by torch for every function of its interface."""
        return WHOLE.get(func, func)(*args, **(kwargs or {}))


def _into_result(run: Run) -> Run:
    """``run``, with its result written into the tensor ``out``, which is returned."""

    def written(*args: Any, out: Tensor, **kwargs: Any) -> Tensor:
        return out.copy_(run(*args, **kwargs))

    return written


def _in_place(run: Run) -> Run:
    """``run``, with its result written into its first argument, which is returned."""

    def written(target: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        result = run(target, *args, **kwargs)
        if result.shape != target.shape or not torch.can_cast(result.dtype, target.dtype):
            raise SpecError(
                f"a result of {result.dtype}, {tuple(result.shape)} does not fit its tensor: assign instead"
            )
        return target.copy_(result)

    return written


def _check_plain(value: Any) -> None:
    if isinstance(value, Tensor):
        if value.dtype not in PLAIN or value.layout is not torch.strided:
            raise SpecError(f"a tensor of {value.dtype}, {value.layout}: use dense tensors of floats or integers")
    elif isinstance(value, list | tuple):
        for item in value:
            _check_plain(item)


def _refusal(name: str) -> str:
    instead = next((use for prefix, use in INSTEAD.items() if name.startswith(prefix)), None)
    return "it is not an operator that pol.exact knows; use " + (
        instead or "the operators of pol/portable/table.py, or train with native numerics"
    )


def _place() -> str:
    """Where the program is: its innermost module and line, or the operator that backward goes through."""
    node = torch._C._current_autograd_node()
    if node is not None:
        return f" (in the backward pass, of {node.name()})"
    frame: FrameType | None = sys._getframe(1)
    line, module = None, None
    while frame is not None:
        if line is None and not frame.f_code.co_filename.startswith((*LIBRARIES, "<")):
            line = f"{frame.f_code.co_filename}:{frame.f_lineno}"
        if module is None and isinstance(frame.f_locals.get("self"), nn.Module):
            module = type(frame.f_locals["self"]).__name__
        frame = frame.f_back
    return f" (in {module}, {line})" if module else f" (at {line})"
