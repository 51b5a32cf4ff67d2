"""A mark in a product L F: margins, least change, and the same bits everywhere; F = 1 is the plain mark."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import lsq_linear

from pol.errors import SpecError
from watermark import WatermarkKey, embed_group
from watermark.weights.carriers import carrier_factors, signed_carriers, through

BETA = bytes(range(32))
MASTERS = st.binary(min_size=32, max_size=32)


def synthetic(rows: int, columns: int, step: int = 7919) -> np.ndarray:
    """Numbers that every machine agrees on: small fractions of a power of two."""
    numbers = (np.arange(rows * columns) * step % 2003 - 1001) / 16384
    return numbers.astype(np.float32).reshape(rows, columns)


def stands(block: np.ndarray, right: np.ndarray, key: WatermarkKey) -> np.ndarray:
    """How far each bit stands off zero in ``block @ right``, by the carrier's definition: b u (L F) v / sqrt(rc)."""
    product = block.astype(np.float64) @ right.astype(np.float64)
    u, v = signed_carriers(key.leaves, BETA, key.root, *product.shape)
    return np.einsum("lr,rc,lc->l", u, product, v) / math.sqrt(product.size)


@settings(deadline=None)
@given(MASTERS, st.integers(1, 8), st.sampled_from([0.01, 0.1]))
def test_every_margin_holds_in_the_product(master: bytes, leaves: int, margin: float) -> None:
    key, block, right = WatermarkKey(master, leaves), synthetic(6, 24), synthetic(24, 64, 104729)
    marked = embed_group(block, key.leaves, BETA, key.root, margin=margin, right=right)
    lengths = np.linalg.norm([right @ carrier_factors(leaf.seed, 6, 64)[1] for leaf in key.leaves], axis=1) / 8
    assert (stands(marked, right, key) >= margin * lengths - 1e-6).all()


@settings(deadline=None)
@given(MASTERS, st.integers(1, 8))
def test_the_change_is_the_least_one(master: bytes, leaves: int) -> None:
    """min |D| with A D >= need: an independent solver of the dual, min |A'x|^2 / 2 - need'x over x >= 0, agrees."""
    key, block, right = WatermarkKey(master, leaves), synthetic(6, 24), synthetic(24, 64, 104729)
    marked = embed_group(block, key.leaves, BETA, key.root, margin=0.1, right=right)
    u, w = signed_carriers(key.leaves, BETA, key.root, 6, 64, right)
    rows = np.einsum("lr,lk->lrk", u, w).reshape(leaves, -1) / math.sqrt(6 * 64)
    need = 0.1 * np.linalg.norm(w, axis=1) / 8 - stands(block, right, key)
    chol = np.linalg.cholesky(rows @ rows.T)
    dual = lsq_linear(chol.T, np.linalg.solve(chol, need), bounds=(0, np.inf), tol=1e-14)
    change = (marked.astype(np.float64) - block).ravel()
    assert np.linalg.norm(change - rows.T @ dual.x) <= 1e-6 * max(1e-3, float(np.linalg.norm(change)))


def test_the_identity_as_a_right_factor_is_the_plain_mark() -> None:
    key, block = WatermarkKey(bytes(32), 8), synthetic(4, 128)
    plain = embed_group(block, key.leaves, BETA, key.root, margin=0.1)
    product = embed_group(block, key.leaves, BETA, key.root, margin=0.1, right=np.eye(128, dtype=np.float32))
    assert plain.tobytes() == product.tobytes()


@given(MASTERS)
def test_products_are_exact_sums_of_the_rounded_factor(seed: bytes) -> None:
    """Against integers of any size: the sum is rounded once, whatever the order."""
    right = synthetic(5, 300) * np.float32(3.7)
    _, v = carrier_factors(seed, 1, 300)
    step = math.ldexp(1.0, math.frexp(float(np.abs(right).max()))[1] - 40)
    whole = [sum(round(float(x) / step) * int(s) for x, s in zip(row, v, strict=True)) for row in right]
    assert through(right, v[None])[0].tolist() == [float(total) * step for total in whole]


def test_threads_do_not_matter() -> None:
    key, block, right = WatermarkKey(bytes(32), 8), synthetic(8, 256), synthetic(256, 320, 104729)
    results = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        results.append(embed_group(block, key.leaves, BETA, key.root, margin=0.3, right=right).tobytes())
    torch.set_num_threads(1)
    assert results[0] == results[1]


def test_a_right_factor_that_carries_nothing_is_refused() -> None:
    key, block = WatermarkKey(bytes(32), 2), synthetic(4, 16)
    with pytest.raises(SpecError, match="no part"):
        embed_group(block, key.leaves, BETA, key.root, margin=0.1, right=np.zeros((16, 32), dtype=np.float32))
    with pytest.raises(SpecError, match="columns"):
        through(np.broadcast_to(np.float32(1), (1, 2**22 + 1)), np.ones((1, 2**22 + 1)))
