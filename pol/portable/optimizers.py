"""Fused and multi-tensor optimizer operators, taken apart into the operators of one tensor.

They follow torch's own single-tensor updates (torch/optim/adamw.py and sgd.py), so that a run has the same bits
whichever implementation its optimizer picks on a device. Each operator has the error of its own entry in the table.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from pol.errors import SpecError

Row = Sequence[Tensor]
_NAMES = {"norm": "linalg_vector_norm"}


def foreach(name: str) -> Callable[..., list[Tensor] | None]:
    """The multi-tensor operator ``_foreach_<name>``: the operator ``name`` on each tensor in turn.

    Raises :class:`SpecError` if there is none.
    """
    operator = _operator(_NAMES.get(name, name))
    operands = 3 if name.startswith(("addcmul", "addcdiv")) else None  # the next is the operator's keyword ``value``

    def each(*args: Any, **kwargs: Any) -> list[Tensor] | None:
        options = kwargs if operands is None or len(args) == operands else {**kwargs, "value": args[operands]}
        count = next(len(value) for value in args if isinstance(value, list | tuple))
        results = [
            operator(
                *(_row(index, value) for value in args[:operands]),
                **{key: _row(index, value) for key, value in options.items()},
            )
            for index in range(count)
        ]
        if not name.endswith("_"):
            return results
        increment_version(args[0])  # below autograd nobody else does
        return None

    return each


def fused_adam(decoupled: bool) -> Callable[..., None]:
    """``_fused_adam_``, or ``_fused_adamw_`` with ``decoupled`` weight decay."""

    def step(
        parameters: Row, grads: Row, means: Row, squares: Row, largest: Row, steps: Row, *,
        lr: float | Tensor, beta1: float, beta2: float, weight_decay: float, eps: float, amsgrad: bool, maximize: bool,
        grad_scale: Tensor | None = None, found_inf: Tensor | None = None,
    ) -> None:  # fmt: skip
        if amsgrad or grad_scale is not None or found_inf is not None:
            raise SpecError("fused Adam with amsgrad or a gradient scaler has no portable form here: use fused=False")
        rate = float(lr)
        for parameter, grad, mean, square, count in zip(parameters, grads, means, squares, steps, strict=True):
            if weight_decay and decoupled:
                parameter.mul_(1 - rate * weight_decay)
            gradient = _decayed(grad, parameter, 0 if decoupled else weight_decay, maximize)
            mean.lerp_(gradient, 1 - beta1)
            square.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
            taken = count.item()
            size, root = rate / (1 - beta1**taken), (1 - beta2**taken) ** 0.5
            parameter.addcdiv_(mean, (square.sqrt() / root).add_(eps), value=-size)
        increment_version(parameters)

    return step


def fused_sgd(
    parameters: Row, grads: Row, momenta: Row, *, weight_decay: float, momentum: float, lr: float | Tensor,
    dampening: float, nesterov: bool, maximize: bool, is_first_step: bool, grad_scale: Tensor | None = None,
    found_inf: Tensor | None = None,
) -> None:  # fmt: skip
    """``_fused_sgd_``: ``momenta`` is empty without momentum."""
    if grad_scale is not None or found_inf is not None:
        raise SpecError("fused SGD with a gradient scaler has no portable form here: use fused=False")
    for index, (parameter, grad) in enumerate(zip(parameters, grads, strict=True)):
        gradient = _decayed(grad, parameter, weight_decay, maximize)
        if momentum:
            held = momenta[index]
            if is_first_step:
                held.copy_(gradient)
            else:
                held.mul_(momentum).add_(gradient, alpha=1 - dampening)
            direction = gradient.add(held, alpha=momentum) if nesterov else held
        parameter.add_(direction if momentum else gradient, alpha=-float(lr))
    increment_version(parameters)


def unscale(grads: Row, found_inf: Tensor, inverse_scale: Tensor) -> None:
    """``_amp_foreach_non_finite_check_and_unscale_``: gradients times ``inverse_scale``; 1 if one is not finite."""
    for gradient in grads:
        found_inf.copy_(torch.maximum(found_inf, (~torch.isfinite(gradient)).any().to(found_inf.dtype)))
        gradient.mul_(inverse_scale)


def _operator(name: str) -> Any:
    """An operator of torch; one that has no form in place is assigned."""
    operator = getattr(torch.ops.aten, name, None)
    if operator is None:
        functional = getattr(torch.ops.aten, name.removesuffix("_"), None)
        if functional is None:
            raise SpecError(f"no operator {name} of one tensor does the same: use a loop over tensors")
        return lambda target, *args: target.copy_(functional(target, *args))
    return operator


def _row(index: int, value: Any) -> Any:
    return value[index] if isinstance(value, list | tuple) else value


def _decayed(grad: Tensor, parameter: Tensor, weight_decay: float, maximize: bool) -> Tensor:
    gradient = -grad if maximize else grad
    return gradient.add(parameter, alpha=weight_decay) if weight_decay else gradient
