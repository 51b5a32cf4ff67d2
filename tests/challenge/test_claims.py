"""Claims on disk: strict, and tied to the state and the spec they speak of."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from challenge.claims import SPEC_FILE, TABLE_FILE, read_claim
from challenge.demo.story import Story
from pol import Proof
from pol.encoding import canonical_json
from pol.errors import CannotRun, ProofError


@pytest.fixture
def folder(story: Story, tmp_path: Path) -> Path:
    return Path(shutil.copytree(story.claims["alice"], tmp_path / "claim"))


def test_a_claim_leads_to_the_anchored_state(story: Story, folder: Path) -> None:
    tied, proof = read_claim(folder), Proof.read(story.runs / "alice")
    assert tied.reference_digest == proof.segments[-1].end_digest
    assert tied.spec == proof.spec


@pytest.mark.parametrize("name", ["claim.json", "theta_ref.safetensors", TABLE_FILE, SPEC_FILE])
def test_a_flipped_bit_is_refused_or_leads_to_another_state(story: Story, folder: Path, name: str) -> None:
    honest = read_claim(folder)
    original = (folder / name).read_bytes()
    for position in (0, len(original) // 3, len(original) // 2, len(original) - 2):
        data = bytearray(original)
        data[position] ^= 1
        (folder / name).write_bytes(data)
        try:
            changed = read_claim(folder)
        except ProofError:
            continue
        assert (changed.reference_digest, changed.spec.digest) != (honest.reference_digest, honest.spec.digest)


def test_another_runs_table_or_spec_is_refused(story: Story, folder: Path) -> None:
    for name in (TABLE_FILE, SPEC_FILE):
        original = (folder / name).read_bytes()
        shutil.copy(story.claims["bob"] / name, folder / name)
        with pytest.raises(ProofError):
            read_claim(folder)
        (folder / name).write_bytes(original)


@pytest.mark.parametrize("rows", [{}, [], [{"header": "0x", "root": "0x"}], [{"header": 1, "root": "0x" + "00" * 32}]])
def test_a_table_that_is_none_is_refused(folder: Path, rows: object) -> None:
    (folder / TABLE_FILE).write_bytes(canonical_json(rows))  # type: ignore[arg-type]
    with pytest.raises(ProofError):
        read_claim(folder)


def test_a_missing_claim_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(CannotRun, match="no such folder"):
        read_claim(tmp_path / "nothing")
