"""The class of a machine, and the switches that decide bits."""

from __future__ import annotations

import os

import pytest
import torch

from pol.errors import CannotRun
from pol.machine import MachineClass, check_device, driver_version, hidden_switches, make_deterministic, this_machine


def test_a_class_reads_back() -> None:
    here = this_machine(threads=2)
    assert MachineClass.from_json(here.to_json(), where="test") == here
    assert here.device == "cpu" and here.differences(this_machine(threads=2)) == []
    assert here.differences(this_machine(threads=1)) == ["threads: 2 / 1"]


@pytest.mark.parametrize("device", ["tpu", "cuda:", "cuda:-1", "cuda:x", "cpu:0", "", "cuda:0 "])
def test_a_device_that_is_none_is_named(device: str) -> None:
    with pytest.raises(CannotRun, match="use cpu, cuda or cuda:1"):
        check_device(device)


@pytest.mark.parametrize("number", [torch.cuda.device_count(), 200, 256, 999])
def test_a_gpu_that_is_not_here_is_this_machines_affair(number: int) -> None:
    with pytest.raises(CannotRun, match="is not here"):
        this_machine(device=f"cuda:{number}")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_has_a_class_of_its_own() -> None:
    here = this_machine(device="cuda")
    assert here.device == "cuda" and here.processor == torch.cuda.get_device_name()
    assert "CUDA" in here.blas and "cuDNN" in here.blas
    assert MachineClass.from_json(here.to_json(), where="test") == here
    assert here.differences(this_machine()) != []


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC 2023\n", "535.104.05"),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  550.54.14  Release Build  (root)\n", "550.54.14"),
        ("something else", "unknown"),
    ],
)
def test_the_driver_says_its_version(text: str, version: str) -> None:
    assert driver_version(text) == version


def test_every_switch_is_set_whatever_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.deterministic = False
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = True
    torch.set_float32_matmul_precision("medium")
    make_deterministic(1)
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert torch.backends.cudnn.deterministic and not torch.backends.cudnn.benchmark
    assert not torch.backends.cudnn.allow_tf32 and not torch.backends.cuda.matmul.allow_tf32
    assert not torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction
    assert torch.are_deterministic_algorithms_enabled() and torch.get_num_threads() == 1


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_autocast_is_noticed_on_every_device(device: str) -> None:
    assert hidden_switches() == []
    torch.set_autocast_enabled(device, True)
    try:
        assert hidden_switches() == ["autocast"]
    finally:
        torch.set_autocast_enabled(device, False)
