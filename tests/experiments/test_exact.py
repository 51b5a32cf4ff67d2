"""The experiment that compares digests: layouts that differ, a text that may not, and rows that are out of date."""

from __future__ import annotations

import json
import lzma
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from experiments.exact import run, shakespeare, workload
from experiments.exact.workload import Workload, elsewhere
from pol import exact
from pol.errors import ProofError
from tests.pol.programs import IMAGE

SMALL: dict[str, Any] = {
    "seconds": 100,
    "workloads": {
        "small": {
            "program": "pol.programs.convnet:ConvNetClassifier",
            "samples": {"source": "digits", "count": 64},
            "batch_size": 8,
            "steps": 4,
            "config": IMAGE | {"network": "cnn"},
        },
    },
    "settings": {
        "one thread": {},
        "channels last": {"layout": "channels last"},
        "rows and weights in another layout": {"layout": "elsewhere"},
        "resumed half-way": {"resumed": True},
        "not here": {"threads": 2, "only": ["another"]},
    },
}  # fmt: skip


@given(st.lists(st.integers(0, 4), max_size=4))
def test_elsewhere_keeps_numbers_and_changes_strides(shape: list[int]) -> None:
    tensor = torch.arange(1, 1 + torch.Size(shape).numel()).reshape(shape)
    moved = elsewhere(tensor)
    assert torch.equal(moved, tensor) and moved.dtype is tensor.dtype
    assert moved.data_ptr() != tensor.data_ptr() or tensor.numel() == 0
    if tensor.numel() > 1:
        assert moved.stride() != tensor.stride() and not moved.is_contiguous()


def test_the_text_is_the_one_it_says() -> None:
    text = shakespeare.text()
    assert len(text) == shakespeare.BYTES and text.startswith("First Citizen:")


TEXT = lzma.decompress(shakespeare.FILE.read_bytes())


@pytest.mark.parametrize(
    "content",
    [
        lzma.compress(TEXT.replace(b"Romeo", b"Romea", 1), preset=0),
        lzma.compress(TEXT + b"x", preset=0),
        lzma.compress(TEXT[:-1], preset=0),
        shakespeare.FILE.read_bytes()[:-100],
        b"First Citizen:",
        None,
    ],
    ids=["changed", "longer", "shorter", "cut", "unpacked", "missing"],
)
def test_another_text_is_refused(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "text.xz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ProofError, match="check it out anew"):
        shakespeare.text(path)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[tuple[str, bool]]]:
    """A cut-down configuration in an empty folder; the settings trained, in order, in this process."""
    jobs: list[tuple[str, bool]] = []

    def here(name: str, setting: dict[str, Any], *, exactly: bool) -> dict[str, Any]:
        label = next(label for label, other in SMALL["settings"].items() if other == setting)
        jobs.append((label, exactly))
        return run.trained(name, setting, exactly=exactly, device="cpu")

    for module in (run, workload):
        monkeypatch.setattr(module, "CONFIG", SMALL)
    monkeypatch.setattr(run, "RESULTS", tmp_path / "results.json")
    monkeypatch.setattr(run, "GPU_RESULTS", tmp_path / "gpu.json")
    monkeypatch.setattr(run, "in_a_process", here)
    before = torch.get_float32_matmul_precision()
    yield jobs
    torch.set_float32_matmul_precision(before)


def test_it_goes_on_where_it_stopped_and_repeats_what_is_out_of_date(started: list[tuple[str, bool]]) -> None:
    run.on_cpu(["small"])
    settings = list(SMALL["settings"])[:-1]
    assert started == [(label, exactly) for label in settings for exactly in (True, False)]
    rows = json.loads(run.RESULTS.read_text())["small"]
    assert {kind: list(found) for kind, found in rows.items()} == {"exact": settings, "native": settings}
    assert len({row["last"] for row in rows["exact"].values()}) == 1
    assert rows["exact"]["one thread"]["first"] != rows["exact"]["one thread"]["last"]

    started.clear()
    run.on_cpu(["small"])
    assert started == []
    rows["exact"]["channels last"]["what"] = run.described("small", {"threads": 3})
    del rows["native"]["resumed half-way"]
    run.RESULTS.write_text(json.dumps({"small": rows}))
    run.on_cpu(["small"])
    assert started == [("channels last", True), ("resumed half-way", False)]


def test_a_device_is_compared_with_the_cpu_and_a_difference_is_a_failure(started: list[tuple[str, bool]]) -> None:
    reference = run.trained("small", {}, exactly=True, device="cpu")
    rows = {"small": {"exact": {run.REFERENCE: reference}}}
    run.RESULTS.write_text(json.dumps(rows))
    assert run.on_gpu(["small"], "cpu") == 0
    found = json.loads(run.GPU_RESULTS.read_text())
    assert {kind: row["as on the CPU"] for kind, row in found["workloads"]["small"].items()} == {
        "highest": True, "high": True,
    }  # fmt: skip
    for planted in ({"last": "00"}, {"first": "00"}):
        rows["small"]["exact"][run.REFERENCE] = reference | planted
        run.RESULTS.write_text(json.dumps(rows))
        assert run.on_gpu(["small"], "cpu") == 2
    run.RESULTS.write_text("{}")
    assert run.on_gpu(["small"], "cpu") == 2, "nothing to compare with is no agreement"


def test_the_kept_digest_of_a_first_step_is_still_what_it_gives() -> None:
    kept = json.loads(run.RESULTS.read_text())["gpt"]["exact"]
    work = Workload("gpt", "cpu", run.SEED)
    with exact():
        state = work.build()
        work.step(state)
    assert {row["first"] for row in kept.values()} == {work.digest(state)}
