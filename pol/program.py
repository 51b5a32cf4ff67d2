"""Programs: what a task runs. Replay always runs the Program, never the trainer's script."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch

from pol.data import Batch, Dataset
from pol.encoding import Json, float_text
from pol.errors import CannotRun, SpecError
from pol.state import TrainingState

PROGRAM_DOMAIN = b"aiarena/program-source/v1"
BUILT_IN = frozenset({"pol.programs.classifier:ImageClassifier"})

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
    return hashlib.sha256(PROGRAM_DOMAIN + _source(name).read_bytes()).digest()


def load_program(name: str, expected_digest: bytes, *, trusted: frozenset[bytes] = frozenset()) -> Program:
    """The program ``module:attr``, if its source has ``expected_digest`` and running it is allowed.

    Programs are code: built-in ones run, any other runs only if its digest is in ``trusted``. Trust and digest are
    checked before the module is imported, so that nothing of another program executes; for the same reason a program
    that is not built in is one top-level module, with no package whose code would run first. Raises
    :class:`CannotRun`, or :class:`SpecError` for a name that cannot be a program.
    """
    module_name, attribute = _split(name)
    if name not in BUILT_IN and expected_digest not in trusted:
        raise CannotRun(
            f"program {name} is not built in and not trusted; read its source, "
            f"then pass --trust-program 0x{expected_digest.hex()}"
        )
    found = program_digest(name)
    if found != expected_digest:
        raise CannotRun(
            f"program {name} here has source digest 0x{found.hex()}, the spec names 0x{expected_digest.hex()}; "
            "install the version the task was published with"
        )
    program = getattr(importlib.import_module(module_name), attribute, None)
    if program is None:
        raise SpecError(f"program {name}: module {module_name} has no {attribute}")
    return program()  # type: ignore[no-any-return]


def config_from(values: Mapping[str, Any]) -> dict[str, Json]:
    """A program's configuration as it is hashed: floats become ``float.hex()`` strings."""
    return {name: float_text(value) if isinstance(value, float) else value for name, value in values.items()}


def _split(name: str) -> tuple[str, str]:
    module, colon, attribute = name.partition(":")
    if not colon or not all(part.isidentifier() for part in (*module.split("."), attribute)):
        raise SpecError(f"program {name!r} is not of the form module:attr")
    if "." in module and name not in BUILT_IN:
        raise SpecError(f"program {name!r}: a program that is not built in must be one top-level module")
    return module, attribute


def _source(name: str) -> Path:
    module, _ = _split(name)
    found = importlib.util.find_spec(module)
    if found is None or found.origin is None or not found.has_location:
        raise CannotRun(f"program module {module} is not here; install what the task names")
    return Path(found.origin)
