"""One digest of an exact run, whatever computes it; a native run, beside it, has several."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from tests.pol.portable.training import digests, digests_elsewhere


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def expected() -> dict[str, str]:
    return digests(exactly=True)


def test_threads_layouts_and_libraries_change_no_bit(expected: dict[str, str]) -> None:
    torch.set_num_threads(2)
    with torch.backends.mkldnn.flags(enabled=False):
        assert digests(exactly=True, channels_last=True) == expected


def test_another_instruction_set_changes_no_bit_of_an_exact_run(expected: dict[str, str]) -> None:
    elsewhere = digests_elsewhere(ATEN_CPU_CAPABILITY="default")
    assert elsewhere["exact"] == expected
    assert elsewhere["native"] != digests(exactly=False)


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize(
    "environment",
    [
        {"ATEN_CPU_CAPABILITY": "avx2"},
        {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41"},
        {"MKL_CBWR": "COMPATIBLE"},
        {"MKL_ENABLE_INSTRUCTIONS": "SSE4_2"},
    ],
)
def test_no_library_switch_changes_a_bit(threads: int, environment: dict[str, str], expected: dict[str, str]) -> None:
    assert digests_elsewhere(threads=threads, **environment)["exact"] == expected
