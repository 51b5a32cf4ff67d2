"""What is added up may come in any order: no operator's result, and no gradient, changes by a bit."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from pol import exact
from pol.portable import convolution
from pol.portable.grid import product_bits, quantised, unit

N = 24  # what is added up
TOKENS = torch.arange(N) % 5
TARGETS = torch.arange(N) % 4
Case = Callable[[Tensor, Tensor], list[Tensor]]


def wide(*shape: int, seed: int) -> Tensor:
    """Gaussian numbers of very different sizes: their float32 sums depend on the order."""
    generator = torch.Generator().manual_seed(seed)
    powers = torch.randint(-12, 13, shape, generator=generator)
    return torch.randn(shape, generator=generator) * 2.0 ** powers.float()


def with_gradients(case: Callable[..., Tensor], *values: Tensor) -> list[Tensor]:
    leaves = [value.clone().requires_grad_() for value in values]
    result = case(*leaves)
    result.backward(wide(*result.shape, seed=5))
    gradients = [leaf.grad for leaf in leaves if leaf.grad is not None]
    return [result.detach(), *gradients]


def weight_of_layer_norm(x: Tensor, order: Tensor) -> list[Tensor]:
    weight, bias = torch.ones(6, requires_grad=True), torch.zeros(6, requires_grad=True)
    F.layer_norm(x[order], (6,), weight, bias).backward(wide(N, 6, seed=1)[order])
    assert weight.grad is not None and bias.grad is not None
    return [weight.grad, bias.grad]


def batch_norm(x: Tensor, order: Tensor) -> list[Tensor]:
    mean, variance = torch.zeros(6), torch.ones(6)
    weight = torch.ones(6, requires_grad=True)
    leaf = x.clone().requires_grad_()
    result = F.batch_norm(leaf[order], mean, variance, weight, training=True)
    result.backward(wide(N, 6, seed=1)[order])
    assert weight.grad is not None and leaf.grad is not None
    return [mean, variance, result.detach()[order.argsort()], weight.grad, leaf.grad]


def embedding(x: Tensor, order: Tensor) -> list[Tensor]:
    table = torch.zeros(5, 6, requires_grad=True)
    F.embedding(TOKENS[order], table).backward(x[order])
    assert table.grad is not None
    return [table.grad]


def loss(x: Tensor, order: Tensor) -> list[Tensor]:
    return [F.cross_entropy(x[order, :4], TARGETS[order]), F.mse_loss(x[order], x.flip(1)[order])]


def features(x: Tensor, order: Tensor) -> list[Tensor]:
    rows = x.t()
    normal = F.layer_norm(rows[:, order], (N,))[:, order.argsort()]
    return [rows[:, order].softmax(1)[:, order.argsort()], rows[:, order].log_softmax(1)[:, order.argsort()], normal]


def attention(x: Tensor, order: Tensor) -> list[Tensor]:
    query, keys, values = x[:3] * 2.0**-10, x * 2.0**-10, x.flip(1)
    return [F.scaled_dot_product_attention(query[None], keys[order][None], values[order][None])]


def scattered(x: Tensor, order: Tensor) -> list[Tensor]:
    start = torch.zeros(5, 6)
    index = TOKENS[order].unsqueeze(1).expand(N, 6)
    return [start.index_add(0, TOKENS[order], x[order]), start.scatter_add(0, index, x[order])]


CASES: dict[str, Case] = {
    "sums": lambda x, order: [x[order].sum(0), x[order].mean(0), x[order].sum(), x[order].norm()],
    "variance": lambda x, order: [x[order].var(0), x[order].std(0)],
    "product": lambda x, order: [x.t()[:, order] @ x[order], torch.dot(x[order, 0], x[order, 1])],
    "layer norm's weight": weight_of_layer_norm,
    "batch norm": batch_norm,
    "embedding": embedding,
    "losses": loss,
    "features": features,
    "attention": attention,
    "scattered": scattered,
}


@pytest.mark.parametrize("name", CASES)
@settings(max_examples=8)
@given(seed=st.integers(0, 2**32))
def test_no_order_changes_a_bit(name: str, seed: int) -> None:
    x = wide(N, 6, seed=seed)
    order = torch.randperm(N, generator=torch.Generator().manual_seed(seed))
    with exact():
        straight, permuted = CASES[name](x, torch.arange(N)), CASES[name](x, order)
    assert all(torch.equal(a, b) for a, b in zip(straight, permuted, strict=True))


def test_native_sums_of_such_numbers_depend_on_the_order() -> None:
    x = wide(N, 6, seed=0)
    orders = [torch.randperm(N, generator=torch.Generator().manual_seed(seed)) for seed in range(5)]
    assert len({tuple(x[order].sum(0).tolist()) for order in orders}) > 1


def convolved(channels: Tensor, samples: Tensor) -> list[Tensor]:
    """Result, input gradient and weight gradient of a convolution whose channels and samples come in these orders."""
    inputs = torch.rand(6, 8, 9, 9, generator=torch.Generator().manual_seed(1)) + 0.9
    kernels = torch.rand(8, 8, 3, 3, generator=torch.Generator().manual_seed(2)) + 0.9
    grads = torch.rand(6, 8, 9, 9, generator=torch.Generator().manual_seed(3)) + 0.9
    forward = convolution._gathered(inputs[:, channels], kernels[:, channels], [1, 1], [1, 1], [1, 1], 1)
    to_input = convolution._spread(grads[:, channels], kernels[channels], [9, 9], [1, 1], [1, 1], [1, 1], 1)
    to_weight = convolution._weight_gradient(inputs[samples], grads[samples], kernels.shape, [1, 1], [1, 1], [1, 1], 1)
    return [forward, to_input, to_weight]


def test_no_order_of_channels_or_samples_changes_a_bit_of_a_convolution(monkeypatch: pytest.MonkeyPatch) -> None:
    orders = [
        (torch.randperm(8, generator=generator), torch.randperm(6, generator=generator))
        for generator in (torch.Generator().manual_seed(seed) for seed in range(8))
    ]
    straight = convolved(torch.arange(8), torch.arange(6))
    for channels, samples in orders:
        assert all(torch.equal(a, b) for a, b in zip(straight, convolved(channels, samples), strict=True))
    monkeypatch.setattr(convolution, "product_bits", lambda k: product_bits(k) + 1)
    straight = convolved(torch.arange(8), torch.arange(6))
    broken = [[not torch.equal(a, b) for a, b in zip(straight, convolved(*order), strict=True)] for order in orders]
    assert all(any(row[part] for row in broken) for part in range(3))


def test_a_convolution_is_that_of_its_integers() -> None:
    inputs, kernels = wide(2, 3, 4, 4, seed=1), wide(2, 3, 3, 3, seed=2)
    beta = product_bits(27)
    images, weights = quantised(inputs, [1, 2, 3], beta), quantised(kernels, [1, 2, 3], beta)
    integers = (images / unit(inputs, [1, 2, 3], beta)).long(), (weights / unit(kernels, [1, 2, 3], beta)).long()
    found = convolution._gathered(inputs, kernels, [1, 1], [0, 0], [1, 1], 1)
    for n in range(2):
        for c in range(2):
            scale = float(unit(inputs, [1, 2, 3], beta)[n]) * float(unit(kernels, [1, 2, 3], beta)[c])
            for i in range(2):
                for j in range(2):
                    window = integers[0][n, :, i : i + 3, j : j + 3].flatten().tolist()
                    total = sum(a * b for a, b in zip(window, integers[1][c].flatten().tolist(), strict=True))
                    assert float(found[n, c, i, j]) == total * scale


def test_layouts_and_strides_change_no_bit() -> None:
    images, kernels = wide(3, 4, 7, 7, seed=1), wide(5, 4, 3, 3, seed=2)
    rows, weight = wide(2, 5, 6, seed=3), wide(4, 6, seed=4)
    with exact():
        straight = with_gradients(lambda x, w: F.conv2d(x, w, stride=2, padding=1), images, kernels)
        last = [value.contiguous(memory_format=torch.channels_last) for value in (images, kernels)]
        assert_equal(straight, with_gradients(lambda x, w: F.conv2d(x, w, stride=2, padding=1), *last))
        straight = with_gradients(F.linear, rows, weight)
        strided = rows.transpose(0, 1).contiguous().transpose(0, 1), weight.t().contiguous().t()
        assert_equal(straight, with_gradients(F.linear, *strided))
        assert_equal(
            with_gradients(torch.matmul, rows, weight.t()), with_gradients(torch.matmul, strided[0], weight.t())
        )


def assert_equal(first: list[Tensor], second: list[Tensor]) -> None:
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
