"""Fixtures shared by all tests: the real data, one honest run, and the one story the end-to-end tests look at."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings

from challenge.demo.story import Story, play
from pol.data import Dataset, digits
from pol.machine import make_deterministic
from tests.runs import record, small_spec

# No test is about time: what is slow on a busy machine is not wrong.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Every test computes as a recorded run does."""
    make_deterministic(1)


@pytest.fixture(scope="session")
def train_set() -> Dataset:
    """The real training digits."""
    return digits("train")


@pytest.fixture(scope="session")
def honest_run(train_set: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An honestly recorded proof without a chain. Read only: copy it before changing anything."""
    make_deterministic(1)
    folder = tmp_path_factory.mktemp("honest") / "proof"
    record(small_spec(train_set), train_set, folder)
    return folder


@pytest.fixture(scope="session")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    """The demo's story, played once. Its folders are read only."""
    lines: list[str] = []
    return play(tmp_path_factory.mktemp("story") / "runs", lines.append)
