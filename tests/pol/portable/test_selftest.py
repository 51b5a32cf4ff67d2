"""A machine that cannot keep the promise of pol.exact is refused before anything runs."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch

from pol.errors import CannotRun
from pol.portable import selftest


@pytest.fixture(autouse=True)
def _as_in_a_new_process() -> Iterator[None]:
    selftest._check_once.cache_clear()
    yield
    selftest._check_once.cache_clear()


def test_this_machine_passes() -> None:
    selftest.check()


@pytest.mark.parametrize("name", selftest.UNSAFE_VARIABLES)
def test_variables_that_allow_inexact_products(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "0")
    selftest.check()
    monkeypatch.setenv(name, "1")
    with pytest.raises(CannotRun, match=f"{name}.*unset"):
        selftest.check()


def test_denormals_that_are_flushed_are_noticed_at_any_time() -> None:
    selftest.check()
    torch.set_flush_denormal(True)
    try:
        with pytest.raises(CannotRun, match="set_flush_denormal"):
            selftest.check()
    finally:
        torch.set_flush_denormal(False)


def test_a_product_that_rounds_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selftest, "product_bits", lambda length: 30)  # then partial sums no longer fit 53 bits
    with pytest.raises(CannotRun, match="matrix product"):
        selftest.check()


@pytest.mark.parametrize("wrong", [1.0, -1.0, 0.5, 2.0**40])
def test_one_wrong_element_is_noticed(wrong: float) -> None:
    a, b = selftest.integers((1, 20, 30), 2**20, 1), selftest.integers((1, 30, 10), 2**20, 2)
    product = (a @ b).double()
    assert selftest.is_product(product, a, b)
    product[0, 7, 3] += wrong
    assert not selftest.is_product(product, a, b)


def test_functions_that_are_a_librarys_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selftest, "exp64", torch.exp)
    with pytest.raises(CannotRun, match="IEEE 754"):
        selftest.check()


def test_another_c_library_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    cosine = math.cos
    monkeypatch.setattr(math, "cos", lambda x: math.nextafter(cosine(x), 2.0) if x == math.pi / 2 else cosine(x))
    with pytest.raises(CannotRun, match="C library"):
        selftest.check()
