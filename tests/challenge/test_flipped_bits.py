"""A proof with one bit flipped in any file is rejected: never a pass, never an exception."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from challenge.demo.story import Story
from challenge.segments import Policy
from challenge.verdict import ExitCode
from challenge.verify import verify

FLIPS = {"manifest.json": 120, "transcript.jsonl": 60}
FLIPS_A_STATE = 5
REJECTIONS = {ExitCode.MALFORMED, ExitCode.REPLAY_MISMATCH}


@pytest.fixture(scope="module")
def copy(story: Story, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(story.runs / "alice", tmp_path_factory.mktemp("flips") / "alice"))


def test_every_file_is_covered(copy: Path) -> None:
    names = {path.name for path in copy.iterdir()}
    assert names == {"manifest.json", "transcript.jsonl", "states"}


@pytest.mark.parametrize("name", sorted(FLIPS))
def test_text_files(copy: Path, name: str) -> None:
    flip_many(copy, copy / name, FLIPS[name])


def test_every_state(copy: Path) -> None:
    paths = sorted((copy / "states").iterdir())
    assert len(paths) == 6
    for path in paths:
        flip_many(copy, path, FLIPS_A_STATE)


def test_a_proof_that_nobody_signed(honest_run: Path, tmp_path: Path) -> None:
    """Without a signature the digests alone must hold every byte: a changed spec is another transcript."""
    folder = Path(shutil.copytree(honest_run, tmp_path / "proof"))
    for name in ("manifest.json", "transcript.jsonl"):
        flip_many(folder, folder / name, 40)


def flip_many(folder: Path, path: Path, count: int) -> None:
    """Flip the first bit, the last bit, and ``count`` random ones, each alone, and verify each time."""
    original, dice = path.read_bytes(), random.Random(path.name)
    bits = [0, 8 * len(original) - 1, *(dice.randrange(8 * len(original)) for _ in range(count))]
    try:
        for bit in bits:
            data = bytearray(original)
            data[bit // 8] ^= 1 << bit % 8
            path.write_bytes(data)
            verdict = verify(folder, Policy(segments=1))
            assert verdict.exit_code in REJECTIONS, f"bit {bit} of {path.name}: {verdict.exit_code.name}"
    finally:
        path.write_bytes(original)


def test_the_unflipped_twin_passes(copy: Path) -> None:
    assert verify(copy, Policy(segments=1)).exit_code is ExitCode.VERIFIED
