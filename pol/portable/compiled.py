"""The kernels of ``grid.c`` and ``elements.c``: built once a machine by its C compiler, and tried before they are used.

They compute what this package computes through torch, with the same bits and in fewer passes over memory. Inside
:func:`pol.exact` they are used wherever they can be had, and nothing depends on them. They cannot be had without a C
compiler (``$CC``, or ``cc``) or where nothing may be written (``$XDG_CACHE_HOME/aiarena``, or ``~/.cache/aiarena``)
before they were built once, and on a machine where they fail their trial (:mod:`pol.portable.trial`).
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from pol.portable import elementary
from pol.portable.dot import BLOCK

Functions: TypeAlias = dict[str, Any]

SECONDS = 120  # a compiler may take
FLAGS = ("-std=gnu11", "-O3", "-fPIC", "-shared", "-fopenmp", "-fno-math-errno", "-fno-trapping-math")
PROCESSORS = {"AVX512": ("-march=x86-64-v4", "-mprefer-vector-width=512"), "AVX2": ("-march=x86-64-v3",)}
CONTRACTION = {"grid": "fast", "elements": "off"}
OF_ONE = ("exp", "log", "tanh", "erf", "sigmoid", "silu", "gelu", "gelu_tanh")
OF_TWO = tuple(f"{name}_backward" for name in ("tanh", "sigmoid", "silu", "gelu", "gelu_tanh"))
# p: an address or none, n: a long, d: a double; every function ends with the number of threads
SIGNATURES = {
    "grid": {
        "multiply": "nnnnpnnnpnnndppp", "pack_high": "nnpnndp", "correlate": "nnnnppnnpnnpnpp",
        "dot_products": "nnnnpnpnnpp",
    },
    "elements": {
        **{f"{name}_{number}": "npp" for name in OF_ONE for number in ("float", "double")},
        **{f"{name}_{number}": "nppp" for name in OF_TWO for number in ("float", "double")},
        "row_totals": "nnpdp", "column_totals": "nnppppdp",
        "softmax": "nnpdp", "softmax_backward": "nnppdp", "log_softmax": "nnpdp", "log_softmax_backward": "nnppdp",
        "layer_norm": "nnpppddppp", "layer_norm_backward": "nnpppppdp",
        "channel_totals": "nnnnpdp", "channel_spreads": "nnnnppdp",
        "channel_norm": "nnnpppppp", "channel_gradient_totals": "nnnnpppppdp",
        "channel_norm_backward": "nnnpppppppp", "channel_shifts": "nnnnpdp", "onto_grid": "nnnnpnnppnnpnpnn",
    },
}  # fmt: skip
SIZES = {"grid": ("tile_height", "tile_width", "lanes", "block_size"), "elements": ()}
TYPES = {"p": ctypes.c_void_p, "n": ctypes.c_long, "d": ctypes.c_double}


class Kernels(threading.local):
    """The functions that this thread uses, if any."""

    functions: Functions | None = None

    @contextmanager
    def using(self, functions: Functions | None) -> Iterator[None]:
        """Use ``functions``, or none, for a while."""
        before, self.functions = self.functions, functions
        try:
            yield
        finally:
            self.functions = before

    def fit(self, *tensors: Tensor | None, dtype: torch.dtype = torch.float32) -> bool:
        """Whether there are kernels, and these tensors are what they take: numbers in this machine's memory."""
        return self.functions is not None and all(t is None or _fits(t, dtype) for t in tensors)

    def __call__(self, name: str, *arguments: Tensor | int | float | None) -> None:
        """Run a kernel with as many threads as torch uses; a tensor is passed as the address of its first element."""
        assert self.functions is not None
        plain = [value.data_ptr() if isinstance(value, Tensor) else value for value in arguments]
        self.functions[name](*plain, torch.get_num_threads())


KERNELS = Kernels()


def _fits(x: Tensor, dtype: torch.dtype) -> bool:
    plain = type(x) in (Tensor, nn.Parameter) and x.device.type == "cpu" and x.dtype is dtype
    return plain and x.numel() > 0 and not x.is_neg()


@cache
def built() -> Functions | None:
    """The kernels of this package; None where they cannot be had."""
    paths = {name: library(name, contraction) for name, contraction in CONTRACTION.items()}
    return loaded({name: path for name, path in paths.items() if path is not None})


def loaded(paths: Mapping[str, Path]) -> Functions | None:
    """The functions of these libraries by name, and the sizes of their tiles; None if one is missing."""
    found: Functions = {}
    try:
        for name, signatures in SIGNATURES.items():
            library = ctypes.CDLL(str(paths[name]))
            found |= {kernel: _function(library, kernel, letters) for kernel, letters in signatures.items()}
            found |= {size: ctypes.c_long.in_dll(library, size).value for size in SIZES[name]}
    except (KeyError, OSError, AttributeError, ValueError):  # AttributeError, ValueError: it lacks a function, a size
        return None
    return found


def library(name: str, contraction: str) -> Path | None:
    """The shared library of ``name``.c with these rules of contraction, from the cache or the compiler."""
    flags = [*FLAGS, f"-ffp-contract={contraction}", *PROCESSORS.get(torch.backends.cpu.get_cpu_capability(), ())]
    try:
        source = _constants() + (Path(__file__).parent / f"{name}.c").read_text()
        key = hashlib.sha256("\0".join([platform.machine(), *flags, source]).encode()).hexdigest()[:32]
        folder = _folder()
        whole = (path for path in folder.glob(f"{name}-{key}-*.so") if path.stem.endswith(_digest(path)))
        return next(whole, None) or _compile(source, flags, folder, f"{name}-{key}")
    except (OSError, RuntimeError, subprocess.SubprocessError):  # RuntimeError: there is no home
        return None


def _folder() -> Path:
    """A folder that nobody else may write to: what is in it is run."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "aiarena"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.stat()
    if found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise PermissionError(f"{folder} can be written by others")
    return folder


def _compile(source: str, flags: list[str], folder: Path, name: str) -> Path:
    """A new library in ``folder``, whose name ends with its digest: a torn one would kill the process that loads it."""
    compiler = shutil.which(os.environ.get("CC") or "cc")
    if compiler is None:
        raise FileNotFoundError("no C compiler")
    with tempfile.TemporaryDirectory(dir=folder) as aside:
        out = Path(aside) / "library.so"
        command = [compiler, *flags, "-x", "c", "-", "-o", str(out), "-lm"]
        subprocess.run(command, input=source.encode(), check=True, capture_output=True, timeout=SECONDS)
        return out.replace(folder / f"{name}-{_digest(out)}.so")


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:32]


def _constants() -> str:
    """The numbers of this package as C, to the last bit."""
    lines = [f"#define BLOCK {BLOCK}"]
    for name, value in elementary.CONSTANTS.items():
        if isinstance(value, float):
            lines.append(f"#define {name} {value.hex()}")
        else:
            lines.append(f"static const double {name}[] = {{{', '.join(map(float.hex, value))}}};")
    return "\n".join([*lines, ""])


def _function(library: ctypes.CDLL, name: str, letters: str) -> Any:
    function = getattr(library, name)
    function.argtypes = [TYPES[letter] for letter in letters + "n"]
    function.restype = None
    return function
