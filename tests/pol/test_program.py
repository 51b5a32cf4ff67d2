"""A user's own program runs only with explicit trust, and what runs are the very bytes that were hashed."""

from __future__ import annotations

import importlib
import os
import py_compile
import sys
import traceback
from importlib.util import cache_from_source
from pathlib import Path

import pytest
import torch

import pol.program
from pol.data import Dataset
from pol.errors import CannotRun, SpecError
from pol.program import load_program, program_digest
from tests.runs import SEED, small_spec

OWN = """
from __future__ import annotations

from dataclasses import dataclass

from pol.programs.classifier import ImageClassifier


@dataclass(frozen=True)
class Choice:
    rate: float = 0.5


class Program(ImageClassifier):
    choice = Choice()

    def evaluate(self, model, config, samples):
        return 1 / 0
"""
EVIL = "import os\nos.environ['EVIL_CODE_RAN'] = '1'\nfrom pol.programs.classifier import ImageClassifier as Program\n"
NAME = "own_program:Program"


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "own_program.py"
    path.write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delenv("EVIL_CODE_RAN", raising=False)
    monkeypatch.delitem(sys.modules, "own_program", raising=False)
    return path


def load(name: str = NAME):
    digest = program_digest(name)
    return load_program(name, digest, trusted=frozenset({digest}))


def test_a_program_is_a_module_of_its_own_that_nothing_imports_by_accident(own: Path, train_set: Dataset) -> None:
    first, second = load(), load()
    assert type(first) is not type(second) and "own_program" not in sys.modules
    assert type(first).choice.rate == 0.5  # a dataclass looks its module up by name
    state = first.build(small_spec(train_set).config, SEED)
    assert torch.isfinite(first.train_step(state, train_set.batch(range(4))))


def test_a_file_that_changes_after_it_was_hashed_does_not_run(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digest, hash_of = program_digest(NAME), pol.program._digest

    def swap(source: bytes) -> bytes:
        own.write_text(EVIL)
        return hash_of(source)

    monkeypatch.setattr(pol.program, "_digest", swap)
    program = load_program(NAME, digest, trusted=frozenset({digest}))
    assert own.read_text() == EVIL and type(program).choice.rate == 0.5
    assert "EVIL_CODE_RAN" not in os.environ


def test_a_compiled_copy_beside_the_source_does_not_run(own: Path) -> None:
    evil = own.parent / "evil.py"
    evil.write_text(EVIL)
    cached = cache_from_source(str(own))
    py_compile.compile(str(evil), cfile=cached, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
    assert type(load()).choice.rate == 0.5
    assert "EVIL_CODE_RAN" not in os.environ
    importlib.import_module("own_program")
    assert os.environ.pop("EVIL_CODE_RAN") == "1", "the compiled copy was no danger to begin with"
    del sys.modules["own_program"]


def test_tracebacks_show_the_source_that_ran(own: Path) -> None:
    program = load()
    own.write_text(EVIL)
    with pytest.raises(ZeroDivisionError) as caught:
        program.evaluate({}, {}, None)
    assert "return 1 / 0" in "".join(traceback.format_tb(caught.value.__traceback__))


@pytest.mark.parametrize(
    "source",
    ["def broken(:\n", "import a_module_that_is_not_here\n", "raise KeyError('x')\n", "Program = 3\n", "\0", "\xff"],
)
def test_a_program_that_does_not_load_is_told_plainly(own: Path, source: str) -> None:
    own.write_bytes(source.encode("latin-1"))
    with pytest.raises(CannotRun, match="own_program:Program does not load here"):
        load()


def test_a_program_without_the_named_class_is_refused(own: Path) -> None:
    with pytest.raises(SpecError, match="no Other"):
        load("own_program:Other")


@pytest.mark.parametrize("name", ["no_such_module_here:Program", "zlib:Program", "math:Program"])
def test_what_has_no_source_file_is_not_here(name: str) -> None:
    with pytest.raises(CannotRun, match="program module"):
        program_digest(name)


def test_the_running_script_is_not_a_program() -> None:
    with pytest.raises(SpecError, match="module of its own"):
        program_digest("__main__:Program")


def test_a_package_is_not_a_program(own: Path) -> None:
    package = own.parent / "own_package"
    package.mkdir()
    (package / "__init__.py").write_text(OWN)
    with pytest.raises(CannotRun, match="one Python source file"):
        load("own_package:Program")


@pytest.mark.parametrize("name", ["own_program", "own_program:", ":Program", "own program:Program", "a:b:c", "a-b:C"])
def test_a_name_that_cannot_be_a_program_is_refused(name: str) -> None:
    with pytest.raises(SpecError, match="module:attr"):
        program_digest(name)
