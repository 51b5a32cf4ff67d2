"""The operators of torch that :func:`pol.exact` knows, each with the reason why its results are portable.

*Moves* and *single* operations run as they are. *Replaced* operators run a function of this package on plain tensors.
Operators *taken apart* run other operators of this table. An in-place operator is its functional form, written into the
same tensor; one that torch itself composes of others is composed of them here. Everything else is refused.

Names are those of the overloads in ``torch.ops.aten``; ``.default`` is left out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeAlias

from pol.portable import convolution as conv
from pol.portable import draws, functions, losses, optimizers, pooling, products, sums
from pol.portable import elementwise as each
from pol.portable import normalisation as norm

Handler: TypeAlias = Callable[..., Any]


class Kind(Enum):
    """How an operator is treated."""

    MOVE = "runs as it is: bits are copied, cut, joined or counted, and none is computed"
    SINGLE = "runs as it is: an element is compared, chosen, an integer, or rounded to one"
    REPLACED = "runs a function of this package"
    APART = "runs other operators of the table"


@dataclass(frozen=True, slots=True)
class Entry:
    """One operator: ``why`` it is portable, and what ``run``s in its place (None: itself)."""

    kind: Kind
    why: str
    run: Handler | None = None


MOVES = """
    _local_scalar_dense _reshape_alias _unsafe_view alias as_strided cat clone constant_pad_nd copy detach
    diagonal embedding empty.memory_format empty_like empty_permuted empty_strided expand eye eye.m fill.Scalar
    fill.Tensor fill_.Scalar fill_.Tensor flip full full_like gather index.Tensor index_fill.int_Scalar
    index_fill.int_Tensor index_select lift lift_fresh masked_fill.Scalar masked_fill.Tensor new_empty
    new_empty_strided new_full new_ones new_zeros nonzero ones ones_like permute repeat repeat_interleave.Tensor
    resize_ roll scalar_tensor scatter.value select.int select_backward select_scatter set_.source_Storage
    set_.source_Storage_storage_offset set_.source_Tensor slice.Tensor
    slice_backward slice_scatter sort.stable split.Tensor split_with_sizes squeeze squeeze.dim squeeze.dims stack t
    transpose.int tril tril_indices triu triu_indices unbind.int unfold unsqueeze view view.dtype where.self zero_
    zeros zeros_like c10d::allgather_ c10d::barrier c10d::broadcast_ profiler::_record_function_enter_new
    profiler::_record_function_exit._RecordFunction
"""

SINGLES = """
    _amp_update_scale_ abs all all.dim any any.dim bitwise_and.Scalar bitwise_and.Tensor
    bitwise_left_shift.Tensor_Scalar bitwise_not bitwise_or.Scalar bitwise_or.Tensor
    bitwise_right_shift.Tensor_Scalar bitwise_xor.Scalar bitwise_xor.Tensor ceil eq.Scalar eq.Tensor equal floor
    ge.Scalar ge.Tensor gt.Scalar gt.Tensor isinf isnan le.Scalar le.Tensor logical_and logical_not logical_or
    logical_xor lt.Scalar lt.Tensor ne.Scalar ne.Tensor neg round sgn sign signbit threshold_backward trunc
"""

PRODUCT = "every partial sum of products is an integer below 2**53 times one power of two, so all orders agree"
SUM = "every partial sum is an integer below 2**53 times one power of two, so all orders agree"
CHAIN = "a chain of operations that IEEE 754 fixes, each an operator of its own, so that nothing is contracted"
STATISTIC = "exact sums, and between them a chain of operations that IEEE 754 fixes"
FUNCTION = "polynomials in float64, of operations that IEEE 754 fixes, rounded once; no library function is called"
CHOICE = "comparisons and choices only; zeros get one sign, equal values the lowest index"
INTEGER = "integers only: exact, or modulo a power of two"
TORCH = "the updates of torch's own single-tensor optimizers, by operators of this table"

REPLACED: dict[str, tuple[str, dict[str, Handler]]] = {
    "products": (PRODUCT, {
        "mm": products.mm, "bmm": products.mm, "mv": products.mv, "dot": products.dot,
        "addmm": products.addmm, "baddbmm": products.addmm,
        "convolution": conv.convolution, "convolution_backward": conv.convolution_backward,
    }),
    "sums": (SUM, {
        "sum": sums.sum, "sum.dim_IntList": sums.sum, "mean": sums.mean, "mean.dim": sums.mean,
        "var.correction": sums.var, "std.correction": sums.std, "var_mean.correction": sums.var_mean,
        "linalg_vector_norm": sums.linalg_vector_norm,
        "embedding_dense_backward": sums.embedding_dense_backward, "index_add": sums.index_add,
        "scatter_add": sums.scatter_add, "scatter.src": sums.scatter, "index_put": sums.index_put,
        "_index_put_impl": sums.index_put,
        "max_pool2d_with_indices_backward": pooling.max_pool2d_backward,
        "avg_pool2d": pooling.avg_pool2d, "avg_pool2d_backward": pooling.avg_pool2d_backward,
        "_adaptive_avg_pool2d": pooling.adaptive_avg_pool2d,
        "_adaptive_avg_pool2d_backward": pooling.adaptive_avg_pool2d_backward,
        "upsample_nearest2d": pooling.upsample_nearest2d,
        "upsample_nearest2d_backward": pooling.upsample_nearest2d_backward,
    }),
    "statistics": (STATISTIC, {
        "_softmax": norm.softmax, "_safe_softmax": norm.safe_softmax, "_softmax_backward_data": norm.softmax_backward,
        "_log_softmax": norm.log_softmax, "_log_softmax_backward_data": norm.log_softmax_backward,
        "native_layer_norm": norm.layer_norm, "native_layer_norm_backward": norm.layer_norm_backward,
        "native_batch_norm": norm.batch_norm, "_native_batch_norm_legit": norm.batch_norm,
        "native_batch_norm_backward": norm.batch_norm_backward,
        "native_group_norm": norm.group_norm, "native_group_norm_backward": norm.group_norm_backward,
        "nll_loss_forward": losses.nll_loss, "nll_loss_backward": losses.nll_loss_backward,
        "nll_loss2d_forward": losses.nll_loss, "nll_loss2d_backward": losses.nll_loss_backward,
        "mse_loss": losses.mse_loss, "mse_loss_backward": losses.mse_loss_backward,
    }),
    "functions": (FUNCTION, {
        "exp": functions.exp, "log": functions.log, "tanh": functions.tanh, "erf": functions.erf,
        "erfinv": functions.erfinv, "sin": functions.sin, "cos": functions.cos, "sigmoid": functions.sigmoid,
        "silu": functions.silu, "gelu": functions.gelu, "softplus": functions.softplus,
        "tanh_backward": functions.tanh_backward, "sigmoid_backward": functions.sigmoid_backward,
        "silu_backward": functions.silu_backward, "gelu_backward": functions.gelu_backward,
        "softplus_backward": functions.softplus_backward,
        "pow.Tensor_Scalar": each.power, "pow.Scalar": functions.scalar_pow,
    }),
    "elements": (CHAIN, {
        "add.Tensor": each.add, "add.Scalar": each.add, "sub.Tensor": each.sub, "sub.Scalar": each.sub,
        "rsub.Tensor": each.rsub, "rsub.Scalar": each.rsub, "mul.Tensor": each.mul, "mul.Scalar": each.mul,
        "div.Tensor": each.div, "div.Scalar": each.div, "div.Tensor_mode": each.div_mode,
        "div.Scalar_mode": each.div_mode, "reciprocal": each.reciprocal, "sqrt": each.sqrt, "rsqrt": each.rsqrt,
        "square": each.square, "addcmul": each.addcmul, "addcdiv": each.addcdiv, "lerp.Scalar": each.lerp,
        "lerp.Tensor": each.lerp, "_to_copy": each.to_copy, "copy_": each.copy_,
        "arange": each.arange, "arange.start": each.arange, "arange.start_step": each.arange,
    }),
    "choices": (CHOICE, {
        "relu": each.relu, "clamp": each.clamp, "clamp.Tensor": each.clamp, "clamp_min": each.clamp,
        "clamp_min.Tensor": each.clamp, "clamp_max": each.clamp_max, "clamp_max.Tensor": each.clamp_max,
        "maximum": each.maximum, "minimum": each.minimum, "amax": sums.amax, "amin": sums.amin, "max": sums.amax,
        "min": sums.amin, "max.dim": sums.max_along, "min.dim": sums.min_along, "argmax": sums.argmax,
        "argmin": sums.argmin, "sort": each.sort, "max_pool2d_with_indices": pooling.max_pool2d,
    }),
    "integers": (INTEGER, {
        name: each.integers_only(name)
        for name in ("cumsum", "floor_divide", "remainder.Scalar", "remainder.Tensor", "prod", "prod.dim_int")
    }),
}  # fmt: skip

APART: dict[str, Handler] = {
    "_amp_foreach_non_finite_check_and_unscale_": optimizers.unscale,
    "_fused_adam_": optimizers.fused_adam(decoupled=False),
    "_fused_adamw_": optimizers.fused_adam(decoupled=True),
    "_fused_sgd_": optimizers.fused_sgd,
}

INSTEAD = {
    "_scaled_dot_product": "torch.nn.functional.scaled_dot_product_attention, which is replaced as a whole",
    "_fused_rms_norm": "torch.nn.functional.rms_norm, which is replaced as a whole",
    "topk": "torch.sort, which is stable here",
    "cumsum": "a product with a triangular matrix of ones",
    "native_dropout": "torch.nn.functional.dropout",
    "addr": "torch.outer and +",
    "scatter_reduce": "scatter_add, or torch.where",
    "upsample": "torch.nn.functional.interpolate with mode='nearest' and a whole factor",
    "c10d::": "pol.parallel, which adds up what processes computed in the order of their ranks",
}


def _entries() -> dict[str, Entry]:
    table = {name: Entry(Kind.MOVE, Kind.MOVE.value) for name in MOVES.split()}
    table |= {name: Entry(Kind.SINGLE, Kind.SINGLE.value) for name in SINGLES.split()}
    for why, family in REPLACED.values():
        table |= {name: Entry(Kind.REPLACED, why, run) for name, run in family.items()}
    table |= {name: Entry(Kind.APART, TORCH, run) for name, run in APART.items()}
    return table | {name: Entry(Kind.REPLACED, draws.WHY, run) for name, run in draws.OPERATORS.items()}


def name_of(overload: Any) -> str:
    """An overload's name in the table."""
    name: str = overload.name()
    return name.removeprefix("aten::")


TABLE = _entries()
