"""Every replaced operator against torch in float64, forward and backward, over fresh shapes and ranges."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from pol import exact

Case = Callable[..., Tensor]
LABELS = torch.tensor([0, 3, 2, 3, 1])
IMAGE_LABELS = torch.arange(40).reshape(2, 4, 5) % 3


def inputs(*shapes: tuple[int, ...], seed: int = 0, scale: float = 1.0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [scale * torch.randn(shape, generator=generator) for shape in shapes]


def gradients(case: Case, values: list[Tensor]) -> list[Tensor]:
    """The result, and the gradients of a fixed functional of it."""
    leaves = [value.detach().clone().requires_grad_() for value in values]
    result = case(*leaves)
    probe = torch.linspace(-1, 1, result.numel(), dtype=torch.float64).reshape(result.shape).to(result.dtype)
    result.backward(probe)
    return [result.detach(), *(leaf.grad for leaf in leaves if leaf.grad is not None)]


def batch_norm(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    return F.batch_norm(x, torch.zeros_like(w.detach()), torch.ones_like(w.detach()), w, b, training=True)


def rarely_normal(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    return F.batch_norm(x, torch.full_like(w.detach(), 0.3), torch.full_like(w.detach(), 2.0), w, b)


CASES: dict[str, tuple[Case, list[tuple[int, ...]]]] = {
    "matmul": (torch.matmul, [(3, 5), (5, 2)]),
    "batched": (torch.matmul, [(2, 3, 4, 5), (2, 3, 5, 2)]),
    "vector": (torch.matmul, [(3, 5), (5,)]),
    "dot": (torch.dot, [(7,), (7,)]),
    "linear": (F.linear, [(2, 3, 5), (4, 5), (4,)]),
    "baddbmm": (lambda c, a, b: torch.baddbmm(c, a, b, beta=0.5, alpha=2), [(2, 3, 4), (2, 3, 5), (2, 5, 4)]),
    "long product": (torch.matmul, [(2, 20000), (20000, 3)]),
    "conv1d": (lambda x, w: F.conv1d(x, w, padding=2, dilation=2), [(2, 3, 9), (4, 3, 3)]),
    "conv2d": (lambda x, w, b: F.conv2d(x, w, b, padding=1), [(3, 4, 6, 5), (2, 4, 3, 3), (2,)]),
    "strided conv2d": (lambda x, w: F.conv2d(x, w, stride=2, padding=1), [(3, 4, 7, 6), (2, 4, 3, 3)]),
    "uneven conv2d": (lambda x, w: F.conv2d(x, w, stride=(3, 2), padding=(0, 2)), [(1, 2, 9, 8), (2, 2, 2, 5)]),
    "grouped conv2d": (lambda x, w: F.conv2d(x, w, groups=2, dilation=2), [(2, 4, 8, 8), (6, 2, 3, 3)]),
    "conv3d": (lambda x, w: F.conv3d(x, w, padding=1), [(1, 2, 4, 3, 5), (2, 2, 3, 3, 3)]),
    "transposed": (
        lambda x, w, b: F.conv_transpose2d(x, w, b, stride=2, padding=1, output_padding=1, groups=2),
        [(2, 4, 3, 4), (4, 3, 3, 3), (6,)],
    ),
    "transposed, padded by steps": (
        lambda x, w: F.conv_transpose2d(x, w, stride=(1, 2), dilation=(3, 4), output_padding=(2, 3), padding=(1, 2)),
        [(2, 4, 3, 4), (4, 3, 3, 2)],
    ),
    "wide strides": (lambda x, w: F.conv2d(x, w, stride=4), [(2, 1, 9, 9), (1, 1, 1, 1)]),
    "sum": (lambda x: x.sum((0, 2)), [(3, 4, 5)]),
    "long sum": (lambda x: x.sum(), [(3, 20001)]),
    "mean": (lambda x: x.mean(1, keepdim=True), [(3, 4, 5)]),
    "mean of all": (lambda x: x.mean(), [(3, 4)]),
    "variance": (lambda x: x.var(1) + x.var((0, 1), correction=0).sum(), [(3, 6)]),
    "deviation": (lambda x: x.std(1) + torch.var_mean(x, 1)[1] + x.std(), [(3, 6)]),
    "norm": (lambda x: x.norm() + torch.linalg.vector_norm(x, 1) + torch.linalg.vector_norm(x, math.inf), [(3, 4)]),
    "softmax": (lambda x: x.softmax(1), [(3, 4, 5)]),
    "log softmax": (lambda x: x.log_softmax(0), [(3, 4)]),
    "layer norm": (lambda x, w, b: F.layer_norm(x, (4, 5), w, b), [(3, 4, 5), (4, 5), (4, 5)]),
    "plain layer norm": (lambda x: F.layer_norm(x, (5,)), [(3, 4, 5)]),
    "batch norm": (batch_norm, [(3, 4, 5, 2), (4,), (4,)]),
    "batch norm of rows": (batch_norm, [(6, 4), (4,), (4,)]),
    "batch norm, evaluating": (rarely_normal, [(3, 4, 5), (4,), (4,)]),
    "group norm": (lambda x, w, b: F.group_norm(x, 2, w, b), [(3, 4, 5, 2), (4,), (4,)]),
    "rms norm": (lambda x, w: F.rms_norm(x, (5,), w, 1e-6), [(3, 4, 5), (5,)]),
    "instance norm": (lambda x, w, b: F.instance_norm(x, weight=w, bias=b), [(3, 4, 5, 2), (4,), (4,)]),
    "cross entropy": (lambda x: F.cross_entropy(x, LABELS), [(5, 4)]),
    "weighted cross entropy": (
        lambda x: F.cross_entropy(x, LABELS, torch.tensor([0.5, 1.0, 2.0, 0.1], dtype=x.dtype), ignore_index=2),
        [(5, 4)],
    ),
    "summed cross entropy": (lambda x: F.cross_entropy(x, LABELS, reduction="sum", label_smoothing=0.1), [(5, 4)]),
    "cross entropy of images": (lambda x: F.cross_entropy(x, IMAGE_LABELS, reduction="none"), [(2, 3, 4, 5)]),
    "mse": (F.mse_loss, [(3, 4), (3, 4)]),
    "summed mse": (lambda x, y: F.mse_loss(x, y, reduction="sum"), [(3, 4), (3, 4)]),
    "l1": (F.l1_loss, [(3, 4), (3, 4)]),
    "embedding": (lambda w: F.embedding(torch.tensor([[1, 2], [1, 1]]), w, padding_idx=2), [(4, 3)]),
    "indexed": (lambda x: x[torch.tensor([0, 2, 0]), :, torch.tensor([1, 1, 1])], [(3, 4, 2)]),
    "gathered": (lambda x: x.gather(1, torch.tensor([[0, 0, 1], [2, 2, 2]])), [(2, 3)]),
    "index_add": (lambda x, y: x.index_add(1, torch.tensor([0, 0, 2]), y, alpha=0.5), [(2, 3), (2, 3)]),
    "scattered": (
        lambda x, y: x.scatter(1, torch.tensor([[2, 0], [1, 2]]), y) + x.index_put((torch.tensor([1, 0]),), y.mean()),
        [(2, 3), (2, 2)],
    ),
    "max pool": (lambda x: F.max_pool2d(x, 3, 2, 1), [(2, 3, 7, 7)]),
    "average pool": (lambda x: F.avg_pool2d(x, 2), [(2, 3, 7, 6)]),
    "adaptive pool": (lambda x: F.adaptive_avg_pool2d(x, (2, 3)), [(2, 3, 4, 6)]),
    "enlarged": (lambda x: F.interpolate(x, scale_factor=2, mode="nearest"), [(2, 3, 4, 5)]),
    "attention": (
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True),
        [(2, 2, 4, 3), (2, 2, 4, 3), (2, 2, 4, 3)],
    ),
    "grouped attention": (
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, enable_gqa=True, scale=0.3),
        [(2, 4, 4, 3), (2, 2, 4, 3), (2, 2, 4, 3)],
    ),
    "gelu": (F.gelu, [(3, 4)]),
    "tanh gelu": (lambda x: F.gelu(x, approximate="tanh"), [(3, 4)]),
    "silu": (F.silu, [(3, 4)]),
    "functions": (lambda x: x.tanh() + x.sigmoid() + x.exp() + x.sin() * x.cos() + x.erf(), [(3, 4)]),
    "powers": (lambda x: x**2 + x**3 + (x.abs() + 1) ** -0.5 + (x * x + 1) ** 1.7 + 1 / (2 + x.abs()), [(3, 4)]),
    "roots": (lambda x: (x * x + 1).sqrt() + (x * x + 1).rsqrt() + (x * x).log(), [(3, 4)]),
    "choices": (lambda x, y: x.relu() + x.clamp(-0.5, 0.5) + torch.maximum(x, y) - torch.minimum(x, y), [(3, 4)] * 2),
    "extremes": (lambda x: x.amax(1) + x.max(1).values - x.min(1).values, [(3, 4)]),
    "fused steps": (
        lambda x, y, z: torch.addcmul(x, y, z, value=0.3) + torch.addcdiv(x, y, z.abs() + 1) + torch.lerp(x, y, 0.9),
        [(3, 4)] * 3,
    ),
    "least": (lambda x: x.amin(1) + x.min() + x.min(0).values.sum() + x.max() + x.sort(1).values.sum(1), [(3, 4)]),
    "limits": (
        lambda x, y: x.clamp(-0.5, 0.5) + x.clamp_min(-0.2) + x.clamp_max(0.3) + x.clamp(y - 1, y + 1) + x.clamp_min(y),
        [(3, 4), (3, 4)],
    ),
    "softplus": (lambda x: F.softplus(x) + F.softplus(x, 3.0, 6.0), [(3, 4)]),
    "weighted means": (torch.lerp, [(3, 4)] * 3),
    "numbers": (lambda x: (x - 3) + (2 - x) + (x * 2).square() + 3 / (x.abs() + 1), [(3, 4)]),
    "alpha": (
        lambda x, y: torch.add(x, y, alpha=0.3) - torch.sub(x, y, alpha=0.7) + torch.rsub(x, y, alpha=3),
        [(3, 4)] * 2,
    ),
}


LINEAR = ["matmul", "linear", "conv2d", "transposed", "sum", "mean", "embedding", "index_add", "average pool"]
SUBNORMAL = 2.0**-149


@pytest.mark.parametrize("scale", [2.0**-70, 2.0**-140, 2.0**60])
@pytest.mark.parametrize("name", LINEAR)
def test_tiny_and_huge_numbers_are_computed_with(name: str, scale: float) -> None:
    case, shapes = CASES[name]
    values = inputs(*shapes, seed=1, scale=scale)
    expected = gradients(case, [value.double() for value in values])
    with exact():
        found = gradients(case, values)
    for truth, value in zip(expected, found, strict=True):
        tolerance = 2e-5 * float(truth.abs().max()) + 8 * SUBNORMAL
        torch.testing.assert_close(value.double(), truth, rtol=2e-5, atol=tolerance)


@pytest.mark.parametrize("fault", [math.nan, math.inf])
@pytest.mark.parametrize("name", ["matmul", "mean", "softmax", "plain layer norm", "rms norm", "conv2d", "group norm"])
def test_what_is_not_finite_reaches_its_own_row_and_no_other(name: str, fault: float) -> None:
    case, shapes = CASES[name]
    values = inputs(*shapes, seed=1)
    with exact():
        clean = case(*values)
        values[0][1, 0] = fault
        found = case(*values)
    others = [row for row in range(len(found)) if row != 1]
    assert torch.equal(found[others], clean[others])
    assert not found[1].isfinite().all()


@pytest.mark.parametrize("name", CASES)
@settings(max_examples=3)
@given(seed=st.integers(0, 2**32), scale=st.sampled_from([1.0, 0.01, 5.0]))
def test_an_operator_and_its_gradient_are_those_of_float64(name: str, seed: int, scale: float) -> None:
    # where a softmax is saturated, its gradient is the rounding of what cancels: more so in native float32
    # (its own bound, at all sizes: test_bounds.py)
    assume(not (name == "attention" and scale == 5.0))
    case, shapes = CASES[name]
    values = inputs(*shapes, seed=seed, scale=scale)
    expected = gradients(case, [value.double() for value in values])
    with exact():
        found = gradients(case, values)
    for truth, value in zip(expected, found, strict=True):
        assert value.dtype is torch.float32
        torch.testing.assert_close(value.double(), truth, rtol=2e-5, atol=2e-5 * float(truth.abs().max() + 1e-30))
