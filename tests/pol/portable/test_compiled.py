"""Compiled kernels give the bits of torch's operators, are refused if they do not, and are missed by nothing."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pol import exact
from pol.portable import compiled, functions, grid, products, trial
from pol.portable.compiled import KERNELS
from pol.portable.convolution import convolution, convolution_backward
from pol.portable.trial import numbers, same
from pol.tensors import tensors_digest
from tests.pol.programs import case
from tests.runs import SEED

ROOT = Path(__file__).parents[3]
SMALL = st.integers(1, 4)
FLOATS = st.floats(width=32)

needs_compiler = pytest.mark.skipif(compiled.built() is None, reason="no C compiler here")


@pytest.fixture
def kernels() -> compiled.Functions:
    found = compiled.built()
    assert found is not None
    return found


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    compiled.built.cache_clear()
    yield tmp_path / "aiarena"
    compiled.built.cache_clear()


def agree(kernels: compiled.Functions, function: partial) -> bool:
    return trial._agree(kernels, function)


@needs_compiler
def test_this_machines_compiler_passes(kernels: compiled.Functions) -> None:
    assert trial.failed(kernels) == []


@needs_compiler
def test_a_compiler_that_contracts_is_noticed() -> None:
    elements = compiled.library("elements", "fast")
    assert elements is not None
    paths = {"grid": compiled.library("grid", "fast"), "elements": elements}
    failed = trial.failed(compiled.loaded(paths))
    assert {"exp, torch.float64", "log, torch.float64", "gelu_backward, torch.float64"} <= set(failed)
    assert not [name for name in failed if name.startswith(("product", "sum", "convolution"))]


@needs_compiler
def test_sums_and_products_are_exact_with_contraction_and_without() -> None:
    paths = {"grid": compiled.library("grid", "off"), "elements": compiled.library("elements", "off")}
    assert trial.failed(compiled.loaded(paths)) == []


@needs_compiler
def test_kernels_that_fail_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    trial.passed.cache_clear()
    monkeypatch.setattr(trial, "failed", lambda kernels: ["exp"])
    with exact():
        assert KERNELS.functions is None
    trial.passed.cache_clear()
    monkeypatch.undo()
    with exact():
        assert KERNELS.functions is not None
    with exact(fused=False):
        assert KERNELS.functions is None


@needs_compiler
@given(st.lists(FLOATS, min_size=1, max_size=40))
@settings(deadline=None)
def test_functions_of_any_number(values: list[float]) -> None:
    x = torch.tensor(values)
    for function in trial.AROUND.values():
        arguments = (x.flip(0), x) if function.__name__.endswith("backward") else (x,)
        assert agree(compiled.built(), partial(function, *arguments)), function.__name__


@needs_compiler
@given(st.integers(1, 300), st.integers(1, 1100), st.integers(1, 900), st.booleans(), st.booleans())
@settings(deadline=None, max_examples=15)
def test_products_of_any_shape(rows: int, length: int, columns: int, a_turned: bool, b_turned: bool) -> None:
    a = numbers(length, rows, key=rows).t() if a_turned else numbers(rows, length, key=rows)
    b = numbers(columns, length, key=3).t() if b_turned else numbers(length, columns, key=3)
    assert agree(compiled.built(), partial(products.mm, a, b))


@needs_compiler
@given(st.lists(FLOATS, min_size=12, max_size=12), st.lists(FLOATS, min_size=20, max_size=20))
@settings(deadline=None)
def test_products_and_sums_of_any_numbers(left: list[float], right: list[float]) -> None:
    a, b = torch.tensor(left).view(3, 4), torch.tensor(right).view(4, 5)
    assert agree(compiled.built(), partial(products.mm, a, b))
    for dims in ([0], [1], [0, 1]):
        assert agree(compiled.built(), partial(grid.total, b, dims))


@st.composite
def convolutions(draw: st.DrawFn) -> tuple:
    dims, groups = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    kernel, stride, dilation = ([draw(st.integers(1, 3)) for _ in range(dims)] for _ in range(3))
    padding = [draw(st.integers(0, 4)) for _ in range(dims)]
    size = [d * (k - 1) + 1 + draw(st.integers(0, 5)) for d, k in zip(dilation, kernel, strict=True)]
    channels, out = groups * draw(SMALL), groups * draw(SMALL)
    return draw(SMALL), channels, out, size, kernel, stride, padding, dilation, groups, draw(st.booleans())


@needs_compiler
@given(convolutions(), st.sampled_from([None, float("nan"), float("inf")]))
@settings(deadline=None, max_examples=60)
def test_convolutions_of_any_geometry(made: tuple, odd: float | None) -> None:
    samples, channels, out, size, kernel, stride, padding, dilation, groups, transposed = made
    x = numbers(samples, channels, *size)
    shape = (channels, out // groups) if transposed else (out, channels // groups)
    weight = numbers(*shape, *kernel, key=3)
    if odd is not None:
        x.view(-1)[-1] = odd
    if transposed:
        padding = [min(p, d * (k - 1)) for p, d, k in zip(padding, dilation, kernel, strict=True)]
    geometry = (stride, padding, dilation, transposed, [0] * len(kernel), groups)
    y = convolution(x, weight, None, *geometry)
    grad = numbers(*y.shape, key=5)
    assert agree(compiled.built(), partial(convolution, x, weight, None, *geometry))
    wanted = [True, True, False]
    assert agree(compiled.built(), partial(convolution_backward, grad, x, weight, None, *geometry, wanted))


@needs_compiler
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_other_types_and_strides(kernels: compiled.Functions, dtype: torch.dtype) -> None:
    x = numbers(6, 8, 10).to(dtype).permute(2, 0, 1)[::2, 1:]
    for function in (functions.exp, functions.gelu, functions.tanh):
        assert agree(kernels, partial(function, x))


@needs_compiler
@pytest.mark.parametrize("threads", [2, 3])
def test_any_number_of_threads(kernels: compiled.Functions, threads: int) -> None:
    a, b, x = numbers(150, 90), numbers(90, 1000, key=2), numbers(5, 3, 9, 9)
    weight, many = numbers(7, 3, 3, 3, key=4), numbers(70000)
    geometry = ((1, 1), (1, 1), (1, 1), False, (0, 0), 1)
    cases = [partial(products.mm, a, b), partial(functions.gelu, many), partial(grid.total, a, [1])]
    cases.append(partial(convolution, x, weight, None, *geometry))
    before = torch.get_num_threads()
    for function in cases:
        with KERNELS.using(kernels):
            alone = function()
            torch.set_num_threads(threads)
            together = function()
            torch.set_num_threads(before)
        assert same(alone, together)


def steps(name: str, count: int, *, fused: bool) -> bytes:
    with exact(fused=fused):
        one = case(name)
        return tensors_digest(one.train(one.build(), count).capture(SEED))


@needs_compiler
@pytest.mark.parametrize("name", ["convnet/cnn", "language/fp32"])
def test_training_is_the_same_fused_and_not(name: str) -> None:
    assert steps(name, 2, fused=True) == steps(name, 2, fused=False)


@needs_compiler
@pytest.mark.slow
def test_large_steps_are_the_same_fused_and_not() -> None:
    from experiments.exact.speed import WORK, digest_after

    for name in WORK:
        assert digest_after(name, 1, fused=True) == digest_after(name, 1, fused=False)


def test_without_a_compiler_nothing_is_used(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    assert compiled.built() is None
    assert list(empty_cache.iterdir()) == []


def test_a_compiler_that_fails_leaves_nothing(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "false")
    assert compiled.built() is None
    assert list(empty_cache.iterdir()) == []


@needs_compiler
def test_a_folder_that_others_may_write_to_is_not_trusted(empty_cache: Path) -> None:
    empty_cache.mkdir()
    empty_cache.chmod(0o777)
    assert compiled.built() is None
    empty_cache.chmod(0o700)
    compiled.built.cache_clear()
    assert compiled.built() is not None


@needs_compiler
def test_a_torn_library_is_not_loaded_but_built_anew(empty_cache: Path) -> None:
    path = compiled.library("grid", "fast")
    assert path is not None and path.parent == empty_cache and compiled.library("grid", "fast") == path
    data, changed = path.read_bytes(), path.stat().st_mtime_ns
    path.write_bytes(data[:1000])
    assert compiled.library("grid", "fast") == path and path.read_bytes() == data
    assert path.stat().st_mtime_ns != changed


def test_where_no_process_may_start_and_nothing_be_written_it_trains_the_same(tmp_path: Path) -> None:
    script = (
        "import os, sys; from pathlib import Path; from pol.confine import Limits, confine\n"
        "import torch; from tests.pol.portable.test_compiled import steps\n"
        "from pol.portable import compiled\n"
        "compiled.built.cache_clear(); os.environ['XDG_CACHE_HOME'] = sys.argv[2]; torch.set_num_threads(1)\n"
        "confine(Limits(), Path(sys.argv[1]), device='cpu')\n"
        "print(steps('language/fp32', 1, fused=True).hex(), compiled.built() is None)"
    )
    cache, own = tmp_path / "cache", tmp_path / "own"
    cache.mkdir()
    own.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", script, str(own), str(cache)], cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.split() == [steps("language/fp32", 1, fused=False).hex(), "True"]
