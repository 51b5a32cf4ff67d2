"""The class of machine on which replay is bitwise, and the one place where determinism is switched on."""

from __future__ import annotations

import os
import platform
import random
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch

from pol.encoding import Json, canonical_json, digest, fields, integer, text
from pol.errors import CannotRun, ProofError
from pol.seed import draw

CLASS_DOMAIN = "aiarena/machine-class/v1"
EXACT_RELEASES = ("2.13.0",)
"""The releases of torch that give the golden digests of :data:`pol.spec.EXACT`: they take models, losses and optimizers
apart into the same operators. One is added when the golden tests pass with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineClass:
    """What decides the bits of a native training step (tier T0 of the replay tiers).

    ``device`` is ``cpu`` or ``cuda``. On CUDA, ``processor`` is the GPU, ``capability`` its compute capability with the
    driver's version, and ``blas`` the versions of CUDA and cuDNN.
    """

    torch: str
    device: str
    processor: str
    capability: str
    blas: str
    threads: int
    deterministic: bool

    @property
    def digest(self) -> bytes:
        """The digest a task lists to accept this class (32 bytes)."""
        return digest(CLASS_DOMAIN, canonical_json(self.to_json()))

    def to_json(self) -> Json:
        """The object stored in a spec."""
        return cast(Json, asdict(self))

    @classmethod
    def from_json(cls, value: Json, *, where: str) -> MachineClass:
        """Strict inverse of :meth:`to_json`; raises :class:`pol.errors.ProofError`."""
        numbers = {"threads", "deterministic"}
        names = {"torch", "device", "processor", "capability", "blas"}
        row = fields(value, names | numbers, where=where)
        strings = {name: text(row[name], where=f"{where}.{name}", limit=200) for name in names}
        threads = integer(row["threads"], where=f"{where}.threads", low=1, high=1024)
        if row["deterministic"] is not True:
            raise ProofError(f"{where}.deterministic: only deterministic classes can be replayed")
        return cls(threads=threads, deterministic=True, **strings)

    def differences(self, other: MachineClass, *, exact: bool = False) -> list[str]:
        """What differs, as ``field: mine / other's`` lines; empty when replay is promised to be bitwise.

        With ``exact`` arithmetic it is promised on any CPU with one of :data:`EXACT_RELEASES`, whatever ``other`` is:
        what a trainer claims of its machine is no excuse. Other devices may agree, and decide nothing until they have
        been seen to for long.
        """
        mine, theirs = asdict(self), asdict(other)
        if exact:
            mine = {"torch": release_of(self.torch), "device": self.device}
            theirs = {"torch": mine["torch"] if mine["torch"] in EXACT_RELEASES else EXACT_RELEASES[0], "device": "cpu"}
        return [f"{name}: {mine[name]} / {theirs[name]}" for name in mine if mine[name] != theirs[name]]


def release_of(version: str) -> str:
    """The public part of a version of torch: ``2.13.0`` of ``2.13.0+cpu``."""
    return version.partition("+")[0]


def this_machine(*, threads: int = 1, device: str = "cpu") -> MachineClass:
    """The class of this process once :func:`make_deterministic` has run with ``threads``.

    ``device`` is what :func:`check_device` accepts; :class:`CannotRun` if it is not here.
    """
    check_device(device)
    kind = device.partition(":")[0]
    processor, capability, blas = _gpu(device) if kind == "cuda" else _cpu()
    return MachineClass(
        torch=torch.__version__,
        device=kind,
        processor=processor,
        capability=capability,
        blas=blas,
        threads=threads,
        deterministic=True,
    )


def check_device(device: str) -> None:
    """Insist on ``cpu``, ``cuda`` or ``cuda:`` with a number, and that it is here; raises :class:`CannotRun`."""
    found = re.fullmatch(r"cpu|cuda(?::(\d{1,3}))?", device)
    if found is None:
        raise CannotRun(f"no device {device!r}: use cpu, cuda or cuda:1")
    count = 0 if device == "cpu" else torch.cuda.device_count()
    if device != "cpu" and int(found[1] or 0) >= count:  # torch.device wraps large numbers round
        raise CannotRun(f"device {device} is not here: torch {torch.__version__} sees {count} CUDA devices; use cpu")


CUBLAS_WORKSPACE = ":4096:8"


def make_deterministic(threads: int) -> None:
    """Fix every switch that changes the bits of a step: threads, algorithms, precision and uninitialised memory."""
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = CUBLAS_WORKSPACE  # cuBLAS is reproducible only with a fixed workspace
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.allow_tf32 = False  # on by default, unlike TF32 in matrix products
    torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
    torch.set_default_dtype(torch.float32)
    torch.set_float32_matmul_precision("highest")
    torch.set_flush_denormal(False)


DECIDING_VARIABLES = (
    "ATEN_CPU_CAPABILITY", "DNNL_DEFAULT_FPMATH_MODE", "DNNL_MAX_CPU_ISA", "MKL_CBWR", "MKL_DEBUG_CPU_TYPE",
    "MKL_ENABLE_INSTRUCTIONS", "ONEDNN_DEFAULT_FPMATH_MODE", "ONEDNN_MAX_CPU_ISA",
)  # fmt: skip


def hidden_switches() -> list[str]:
    """What changes bits here without being part of the class: a run recorded so would not replay elsewhere."""
    found = [f"environment variable {name}" for name in DECIDING_VARIABLES if name in os.environ]
    return [*found, "autocast"] if any(map(torch.is_autocast_enabled, ("cpu", "cuda"))) else found


def seed_everything(seed: bytes, step: int) -> None:
    """Key the python, numpy and torch generators by (seed, step).

    Done before every step, so that no generator state carries anything over a step boundary: what dropout or
    augmentation draws in a step is a function of the run's seed and the step alone.
    """
    random.seed(draw(seed, "rng/python", step))
    np.random.seed(draw(seed, "rng/numpy", step) % 2**32)
    # torch.manual_seed does the same, and then spends most of its time on devices that are not there
    key = draw(seed, "rng/torch", step)
    torch.default_generator.manual_seed(key)
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.manual_seed_all(key)


def _cpu() -> tuple[str, str, str]:
    blas = re.search(r"BLAS_INFO=(\w+)", torch.__config__.show())
    return _processor(), torch.backends.cpu.get_cpu_capability(), blas.group(1) if blas else "unknown"


def _gpu(device: str) -> tuple[str, str, str]:
    found = torch.cuda.get_device_properties(device)
    version = Path("/proc/driver/nvidia/version")  # torch does not tell the driver's version
    driver = driver_version(version.read_text()) if version.is_file() else "unknown"
    cudnn = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    libraries = f"CUDA {torch.version.cuda}, cuDNN {cudnn}, workspace {CUBLAS_WORKSPACE}"
    return found.name, f"{found.major}.{found.minor}, driver {driver}", libraries


def driver_version(text: str) -> str:
    """The version in what NVIDIA's kernel module says of itself, such as ``550.54.14``."""
    found = re.search(r"Kernel Module.*?\s(\d+\.[\d.]+)\s", text)
    return found.group(1) if found else "unknown"


def _processor() -> str:
    # BLAS libraries choose kernels by vendor and model, not by instruction set alone.
    info = Path("/proc/cpuinfo")
    if info.is_file():
        found = dict(re.findall(r"^(vendor_id|cpu family|model)\s*:\s*(.+)$", info.read_text(), re.MULTILINE))
        if len(found) == 3:
            return f"{found['vendor_id']} family {found['cpu family']} model {found['model']}"
    return f"{platform.machine()} {platform.processor()}".strip()
