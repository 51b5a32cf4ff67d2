"""Fixtures shared by all tests: the real data, one honest run, and the one story the end-to-end tests look at."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest
from hypothesis import settings
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

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


class OneStory(LoadFileScheduling):  # type: ignore[misc]
    """A file's tests go to one worker, and those of all files that look at the story do: it takes minutes to play."""

    def _split_scope(self, nodeid: str) -> str:
        file: str = super()._split_scope(nodeid)
        return "story" if looks_at_the_story(self.config.rootpath / file) else file


@cache
def looks_at_the_story(file: Path) -> bool:
    return re.search(r"def \w+\([^)]*\bstory\b", file.read_text()) is not None


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> OneStory:
    """How ``--numprocesses`` shares out the tests, whatever ``--dist`` says."""
    return OneStory(config, log)


@pytest.fixture(scope="session")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    """The demo's story, played once. Its folders are read only."""
    lines: list[str] = []
    return play(tmp_path_factory.mktemp("story") / "runs", lines.append)
