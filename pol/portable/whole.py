"""Functions that every device implements by operators of its own, as chains of the same operators everywhere."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from ctypes import c_float
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from pol.errors import SpecError
from pol.portable.elementwise import HALVES


def attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0,
    is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False,
) -> Tensor:  # fmt: skip
    """``torch.nn.functional.scaled_dot_product_attention``, with 0 where a query may see no key.

    The query is scaled before the product with the keys; a mask of floats is added to the scores.
    """
    if enable_gqa:
        key = key.repeat_interleave(query.shape[-3] // key.shape[-3], -3)
        value = value.repeat_interleave(query.shape[-3] // value.shape[-3], -3)
    factor = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    scores = torch.matmul(query * factor, key.transpose(-2, -1))
    if is_causal:
        attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=query.device).tril()
    if attn_mask is not None and attn_mask.dtype is torch.bool:
        scores = scores.masked_fill(~attn_mask, -math.inf)
    elif attn_mask is not None:
        scores = scores + attn_mask
    weights: Tensor = torch.ops.aten._safe_softmax(scores, -1)
    if dropout_p:
        weights = dropout(weights, dropout_p)
    return torch.matmul(weights, value)


def rms_norm(
    input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None,  # noqa: A002
    eps: float | None = None,
) -> Tensor:  # fmt: skip
    """``torch.nn.functional.rms_norm``: composed of operators as torch does on a CPU, where CUDA has one of its own.

    input / sqrt(mean(input^2) + eps) * weight over the last dimensions, in float32 and rounded once.
    """
    if list(input.shape[input.dim() - len(normalized_shape) :]) != list(normalized_shape):
        raise SpecError(f"rms_norm: {tuple(input.shape)} does not end with the dimensions {tuple(normalized_shape)}")
    values = input.float() if input.dtype in HALVES else input
    least = torch.finfo(values.dtype).eps if eps is None else eps
    dims = [input.dim() - 1 - place for place in range(len(normalized_shape))]
    squares = values.pow(2).mean(dims, keepdim=True)
    scale = torch.ops.aten.add_.Scalar(squares, c_float(least).value).rsqrt()
    result = values.mul(scale) if weight is None else values.mul(scale).mul(weight)
    return result.contiguous().to(input.dtype)


def dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:  # noqa: A002
    """``torch.nn.functional.dropout``: ``input`` times a mask of 0 and 1 / (1 - p)."""
    if not training or p == 0:
        return input
    kept = torch.zeros_like(input) if p == 1 else torch.empty_like(input).bernoulli_(1 - p).div_(1 - p)
    return input.mul_(kept) if inplace else input * kept


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:  # noqa: A002
    """``torch.nn.functional.linear``: always one product of two matrices, where torch's choice depends on strides."""
    rows = input.reshape(-1, input.shape[-1])
    result = torch.mm(rows, weight.t()) if bias is None else torch.addmm(bias, rows, weight.t())
    return result.reshape(*input.shape[:-1], len(weight))


WHOLE: dict[Any, Callable[..., Tensor]] = {
    functional.scaled_dot_product_attention: attention,
    functional.linear: linear,
    functional.rms_norm: rms_norm,
    torch.rms_norm: rms_norm,
    functional.dropout: dropout,
    torch.dropout: dropout,
}
