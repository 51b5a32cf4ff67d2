"""Programs: what a task runs. Replay always runs the Program, never the trainer's script."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import linecache
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import torch

from pol.data import Batch, Dataset
from pol.encoding import Json, float_text
from pol.errors import CannotRun, SpecError
from pol.state import TrainingState

PROGRAM_DOMAIN = b"aiarena/program-source/v1"
BUILT_IN = frozenset(
    {
        "pol.programs.classifier:ImageClassifier",
        "pol.programs.convnet:ConvNetClassifier",
        "pol.programs.image_to_image:ImageToImage",
        "pol.programs.language:LanguageModel",
        "pol.programs.lora:CausalLoRA",
    }
)

Config = Mapping[str, Json]


class Program(Protocol):
    """Model, optimiser and step of a task. An implementation keeps no state between calls."""

    def build(self, config: Config, seed: bytes) -> TrainingState:
        """The initial state, a pure function of ``config`` and the 32-byte ``seed``; SpecError on a bad config."""
        ...

    def train_step(self, state: TrainingState, batch: Batch) -> torch.Tensor:
        """One whole optimiser step (forward, backward, clip, step, schedule, zero_grad); returns the loss.

        It must not advance ``state.step``: whoever runs the loop does.
        """
        ...

    def evaluate(self, model: Mapping[str, torch.Tensor], config: Config, dataset: Dataset) -> float:
        """The score of a model's tensors on ``dataset``, in [0, 1], higher is better."""
        ...


def program_digest(name: str) -> bytes:
    """The digest of the source file that defines ``module:attr`` (32 bytes). The module is found, not imported."""
    return _digest(program_source(name))


def program_source(name: str) -> bytes:
    """The source file that defines ``module:attr``, found but not imported; :class:`CannotRun` if it is not here."""
    return _source(name).read_bytes()


def load_program(name: str, expected_digest: bytes, *, trusted: frozenset[bytes] = frozenset()) -> Program:
    """The program ``module:attr``, if its source has ``expected_digest`` and running it is allowed.

    Programs are code: built-in ones run, any other runs only if its digest is in ``trusted``. The digest decides what
    is run: where it is that of a built-in program, that one is, whatever module the name says (else a name that leads
    nowhere would keep everybody from replaying a run of it). Trust and digest are checked before anything of the
    program executes. A program that is not built in is one top-level module (a package's code would run first), and
    what executes are the very bytes that were hashed: the file is read once, and neither a later change of it nor a
    compiled copy beside it has a say. Raises :class:`CannotRun`, or :class:`SpecError` for a name that cannot be a
    program.
    """
    module_name, attribute = _split(name)
    built_in = _built_in_modules().get(expected_digest)
    if built_in:
        if f"{built_in}:{attribute}" not in BUILT_IN:
            raise SpecError(f"program {name}: the source with this digest, {built_in}, has no program {attribute}")
        return getattr(importlib.import_module(built_in), attribute)()  # type: ignore[no-any-return]
    if expected_digest not in trusted and name not in BUILT_IN:
        raise CannotRun(
            f"program {name} is not built in and not trusted; read its source, "
            f"then pass --trust-program 0x{expected_digest.hex()}"
        )
    source = program_source(name)
    found = _digest(source)
    if found != expected_digest:
        raise CannotRun(
            f"program {name} here has source digest 0x{found.hex()}, the spec names 0x{expected_digest.hex()}; "
            "install the version the task was published with"
        )
    try:
        program = getattr(_execute(module_name, source), attribute, None)
        if program is not None:
            return program()  # type: ignore[no-any-return]
    except Exception as error:
        raise CannotRun(f"program {name} does not load here: {type(error).__name__}: {error}") from error
    raise SpecError(f"program {name}: module {module_name} has no {attribute}")


def is_built_in(source_digest: bytes) -> bool:
    """Whether a program with this source digest ships with the package."""
    return source_digest in _built_in_modules()


@cache
def _built_in_modules() -> dict[bytes, str]:
    """The modules of the built-in programs, by the digests of their sources."""
    return {program_digest(name): _split(name)[0] for name in sorted(BUILT_IN)}


def config_from(values: Mapping[str, Any]) -> dict[str, Json]:
    """A program's configuration as it is hashed: floats become ``float.hex()`` strings."""
    return {name: float_text(value) if isinstance(value, float) else value for name, value in values.items()}


def _split(name: str) -> tuple[str, str]:
    module, colon, attribute = name.partition(":")
    if not colon or not all(part.isidentifier() for part in (*module.split("."), attribute)):
        raise SpecError(f"program {name!r} is not of the form module:attr")
    if module == "__main__":
        raise SpecError(f"program {name!r}: a script cannot be found again; put the program into a module of its own")
    if "." in module and name not in BUILT_IN:
        raise SpecError(f"program {name!r}: a program that is not built in must be one top-level module")
    return module, attribute


def _source(name: str) -> Path:
    module, _ = _split(name)
    try:
        found = importlib.util.find_spec(module)
    except (ImportError, ValueError):  # ValueError: a module without a spec, made in memory
        found = None
    if found is None or found.origin is None or not found.has_location:
        raise CannotRun(f"program module {module} is not here; install what the task names")
    if not found.origin.endswith(".py") or found.submodule_search_locations is not None:
        raise CannotRun(f"program module {module} is here as {found.origin}; a program is one Python source file")
    return Path(found.origin)


def _digest(source: bytes) -> bytes:
    return hashlib.sha256(PROGRAM_DOMAIN + source).digest()


def _execute(module_name: str, source: bytes) -> ModuleType:
    """A fresh module in which ``source`` has run, under a name that no import finds by accident."""
    module = ModuleType(f"{module_name}@{_digest(source).hex()}")
    module.__file__ = f"<{module.__name__}>"
    code = compile(source, module.__file__, "exec", dont_inherit=True)
    lines = source.decode("utf-8", "replace").splitlines(keepends=True)
    linecache.cache[module.__file__] = (len(source), None, lines, module.__file__)  # tracebacks show what ran
    sys.modules[module.__name__] = module  # dataclasses and pickle look their module up by name
    exec(code, module.__dict__)
    return module
