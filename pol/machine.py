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
from pol.errors import ProofError
from pol.seed import draw

CLASS_DOMAIN = "aiarena/machine-class/v1"


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineClass:
    """What decides the bits of a native training step (tier T0 of the replay tiers)."""

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

    def differences(self, other: MachineClass) -> list[str]:
        """What differs, as ``field: mine / other's`` lines; empty when replay is promised to be bitwise."""
        mine, theirs = asdict(self), asdict(other)
        return [f"{name}: {mine[name]} / {theirs[name]}" for name in mine if mine[name] != theirs[name]]


def this_machine(*, threads: int = 1) -> MachineClass:
    """The class of this process once :func:`make_deterministic` has run with ``threads``."""
    blas = re.search(r"BLAS_INFO=(\w+)", torch.__config__.show())
    return MachineClass(
        torch=torch.__version__,
        device="cpu",
        processor=_processor(),
        capability=torch.backends.cpu.get_cpu_capability(),
        blas=blas.group(1) if blas else "unknown",
        threads=threads,
        deterministic=True,
    )


def make_deterministic(threads: int) -> None:
    """Fix every switch that changes the bits of a step: threads, algorithms, and uninitialised memory."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is reproducible only with a fixed workspace
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
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
    return [*found, "autocast"] if torch.is_autocast_enabled("cpu") else found


def seed_everything(seed: bytes, step: int) -> None:
    """Key the python, numpy and torch generators by (seed, step).

    Done before every step, so that no generator state carries anything over a step boundary: what dropout or
    augmentation draws in a step is a function of the run's seed and the step alone.
    """
    random.seed(draw(seed, "rng/python", step))
    np.random.seed(draw(seed, "rng/numpy", step) % 2**32)
    torch.manual_seed(draw(seed, "rng/torch", step))


def _processor() -> str:
    # BLAS libraries choose kernels by vendor and model, not by instruction set alone.
    info = Path("/proc/cpuinfo")
    if info.is_file():
        found = dict(re.findall(r"^(vendor_id|cpu family|model)\s*:\s*(.+)$", info.read_text(), re.MULTILINE))
        if len(found) == 3:
            return f"{found['vendor_id']} family {found['cpu family']} model {found['model']}"
    return f"{platform.machine()} {platform.processor()}".strip()
