"""The error bounds that docstrings derive, against float64 on numbers of many sizes."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pol.portable import compiled, normalisation
from pol.portable.compiled import KERNELS
from pol.portable.dot import BLOCK, product_bits
from pol.portable.grid import product
from pol.portable.sums import scattered

E = 2.0**-24
LEAST = 2.0**-126
WITH_AND_WITHOUT = [None, compiled.built()] if compiled.built() else [None]

seeds = st.integers(0, 2**32)
spreads = st.sampled_from([0, 4, 20])
lengths = st.sampled_from([1, 2, 7, 100, 3000, BLOCK])


def draw(*shape: int, seed: int, spread: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    powers = torch.randint(-spread, spread + 1, shape, generator=generator)
    return torch.ldexp(torch.randn(shape, generator=generator), powers)


@pytest.mark.parametrize("kernels", WITH_AND_WITHOUT)
@settings(deadline=None, max_examples=30)
@given(lengths, seeds, st.sampled_from([0.01, 1.0, 30.0]), st.sampled_from([0.0, 100.0]))
def test_softmax(kernels: compiled.Functions | None, n: int, seed: int, scale: float, level: float) -> None:
    x = draw(3, n, seed=seed) * scale + level
    with KERNELS.using(kernels):
        found, logarithm = normalisation.softmax(x, -1).double(), normalisation.log_softmax(x, -1).double()
    below = (x - x.amax(-1, keepdim=True)).double().abs()
    log_n = torch.tensor(float(n), dtype=torch.float64).log()
    truth = x.double().softmax(-1)
    assert bool(((found - truth).abs() <= truth * (below + log_n + 5) * E)[truth > LEAST * n].all())
    errors = (logarithm - x.double().log_softmax(-1)).abs()
    assert bool((errors <= (2 * below + 4 * log_n + 5) * E).all())


@pytest.mark.parametrize("kernels", WITH_AND_WITHOUT)
@settings(deadline=None, max_examples=30)
@given(lengths, seeds, spreads)
def test_gradients_of_softmax(kernels: compiled.Functions | None, n: int, seed: int, spread: int) -> None:
    g, x = draw(3, n, seed=seed, spread=spread), draw(3, n, seed=seed + 1)
    wide, y, logarithm = g.double(), x.softmax(-1), x.log_softmax(-1)
    with KERNELS.using(kernels):
        found = normalisation.softmax_backward(g, y, -1, torch.float32).double()
        other = normalisation.log_softmax_backward(g, logarithm, -1, torch.float32).double()
    products, y = wide * y.double(), y.double()
    along = exactly(products.unsqueeze(-1))
    size = 2 * products.abs().sum(-1, keepdim=True) + along.abs() + 2 * (wide - along).abs()
    assert bool(((found - (wide - along) * y).abs() <= size * y * E + LEAST).all())
    powers, along = logarithm.double().exp(), exactly(wide.unsqueeze(-1))
    truth = wide - powers * along
    size = powers * (wide.abs().amax(-1, keepdim=True) / 4 + 4 * along.abs()) + truth.abs()
    assert bool(((other - truth).abs() <= size * E + LEAST).all())


@pytest.mark.parametrize("kernels", WITH_AND_WITHOUT)
@settings(deadline=None, max_examples=30)
@given(lengths, seeds, spreads, st.sampled_from([0.0, 1.0, 1000.0]))
def test_norms(kernels: compiled.Functions | None, n: int, seed: int, spread: int, level: float) -> None:
    x = draw(3, n, seed=seed, spread=spread) + level
    with KERNELS.using(kernels):
        found, _, _ = normalisation.layer_norm(x, [n], None, None, 1e-5)
        channels, _, _ = normalisation.batch_norm(x[None], None, None, None, None, True, 0.1, 1e-5)
    groups, _, _ = normalisation.group_norm(x, None, None, 3, n, 1, 1, 1e-5)
    wide = x.double()
    mean = wide.mean(-1, keepdim=True)
    root = ((wide - mean).square().mean(-1, keepdim=True) + 1e-5).sqrt()
    truth = (wide - mean) / root
    bound = (mean.abs() / root + 6 * truth.abs() + 1) * E
    for result in (found, channels[0], groups):
        assert bool(((result.double() - truth).abs() <= bound).all())


@pytest.mark.parametrize("kernels", WITH_AND_WITHOUT)
@settings(deadline=None, max_examples=30)
@given(st.sampled_from([2, 7, 100, 3000]), seeds, spreads, st.sampled_from([0.0, 1000.0]))
def test_gradients_of_norms(kernels: compiled.Functions | None, n: int, seed: int, spread: int, level: float) -> None:
    x, g = draw(3, n, seed=seed, spread=spread) + level, draw(3, n, seed=seed + 1, spread=spread)
    weight, mean = draw(n, seed=seed + 2, spread=spread), x.mean(-1, keepdim=True)
    scale = (x.var(-1, correction=0, keepdim=True) + 1e-5).rsqrt()
    columns, three = draw(3, seed=seed + 3, spread=spread), [True] * 3
    moments = mean.view(-1), scale.view(-1)
    with KERNELS.using(kernels):
        layer = normalisation.layer_norm_backward(g, x, [n], mean, scale, weight, weight, three)
        batch = normalisation.batch_norm_backward(g[None], x[None], columns, None, None, *moments, True, 1e-5, three)
    group = normalisation.group_norm_backward(
        g[None], x[None], mean.view(1, 3), scale.view(1, 3), columns, 1, 3, n, 3, three
    )
    y, wide = (x.double() - mean.double()) * scale.double(), g.double()
    for (to_x, to_weight, to_bias), by, along in (
        (layer, weight, 0),
        (batch, columns[:, None], 1),
        (group, columns[:, None], 1),
    ):
        assert to_x is not None and to_weight is not None and to_bias is not None
        into = wide * by.double()
        terms, average = (into * y), into.abs().mean(-1, keepdim=True)
        truth = (into - exactly(into.unsqueeze(-1)) / n - y * exactly(terms.unsqueeze(-1)) / n) * scale.double()
        size = 4 * into.abs() + 6 * average + 11 * y.abs() * terms.abs().mean(-1, keepdim=True)
        assert bool(((to_x.view(3, n).double() - truth).abs() <= size * scale.double() * E + LEAST).all())
        sides = (wide * y, 3.25 * (wide * y).abs().sum(along)), (wide, wide.abs().amax(along) / 4)
        for found, (parts, off) in zip((to_weight, to_bias), sides, strict=True):
            whole = exactly((parts.T if along == 0 else parts).unsqueeze(-1)).view(-1)
            assert bool(((found.double() - whole).abs() <= (off + whole.abs()) * E + LEAST).all())


@settings(deadline=None, max_examples=30)
@given(st.sampled_from([1, 7, 3000]), seeds, spreads, st.sampled_from([0.0, 1000.0]))
def test_gradients_of_a_batch_norm_out_of_training(n: int, seed: int, spread: int, level: float) -> None:
    x, g = draw(1, 3, n, seed=seed, spread=spread) + level, draw(1, 3, n, seed=seed + 1, spread=spread)
    mean, varied = x.mean((0, 2)), draw(3, seed=seed + 2, spread=spread).square() + 0.5
    weight = draw(3, seed=seed + 3, spread=spread)
    to_x, to_weight, _ = normalisation.batch_norm_backward(
        g, x, weight, mean, varied, None, None, False, 1e-5, [True, True, False]
    )
    assert to_x is not None and to_weight is not None
    root = 1 / (varied.double() + 1e-5).sqrt().view(1, 3, 1)
    truth = g.double() * weight.double().view(1, 3, 1) * root
    assert bool(((to_x.double() - truth).abs() <= 3 * truth.abs() * E + LEAST).all())
    terms = (g.double() * (x.double() - mean.double().view(1, 3, 1)) * root)[0]
    whole = exactly(terms.unsqueeze(-1)).view(-1)
    assert bool(((to_weight.double() - whole).abs() <= (4.25 * terms.abs().sum(1) + whole.abs()) * E + LEAST).all())


@settings(deadline=None, max_examples=30)
@given(st.sampled_from([1, 5, 512, BLOCK]), seeds, spreads)
def test_products_and_scattered_sums(k: int, seed: int, spread: int) -> None:
    a, b = draw(3, k, seed=seed, spread=spread), draw(k, 4, seed=seed + 1, spread=spread)
    largest = a.abs().amax(1, keepdim=True).double() * b.abs().amax(0, keepdim=True).double()
    truth = exactly(a.unsqueeze(-1).double() * b.double())
    assert bool(((product(a, b) - truth).abs() <= k * 2.0 ** (2 - product_bits(k)) * largest).all())
    places = torch.arange(k) % 2
    found = scattered(b, places, 2)
    truth = torch.stack([exactly(b[places == place].double()[None])[0] for place in range(2)])
    assert bool(((found - truth).abs() <= k**2 * 2.0**-53 * b.abs().amax(0).double()).all())


def exactly(terms: Tensor) -> Tensor:
    """Sums over the second of three dimensions, rounded once."""
    columns = terms.transpose(1, 2).flatten(0, 1).tolist()
    return torch.tensor([math.fsum(column) for column in columns], dtype=torch.float64).view(len(terms), -1)
