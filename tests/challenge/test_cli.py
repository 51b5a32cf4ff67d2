"""The ``challenge`` command as a user meets it: a process, its output and its exit code."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from challenge.demo.story import Story


def challenge(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    script = "from challenge.cli import main; main()"
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def test_an_honest_proof_verifies_and_says_what_was_not_checked(story: Story) -> None:
    done = challenge("verify", story.runs / "alice")
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert "VERIFIED" in done.stderr
    assert "anchors not checked" in done.stderr
    assert "8 of 24 segments replayed" in done.stderr


def test_the_thiefs_proof_is_a_replay_mismatch(story: Story) -> None:
    claim = story.claims["alice"]
    done = challenge("verify", story.runs / "mallory", "--claim", claim, "--segments", "4", "--json")
    assert done.returncode == 11, done.stderr
    verdict = json.loads(done.stdout)
    assert verdict["outcome"] == "REJECTED" and verdict["exit_code"] == 11
    assert verdict["anchors_checked"] is False and any("anchors not checked" in note for note in verdict["limits"])
    assert "4 of 24 segments" in verdict["strength"]
    (mark,) = verdict["watermarks"]
    assert mark["found"] and not mark["own"] and mark["log2_p"] <= -64


def test_the_trainers_own_claim_opens_the_embed_segment(story: Story) -> None:
    done = challenge("verify", story.runs / "alice", "--segments", "1", "--claim", story.claims["alice"])
    assert done.returncode == 0, done.stderr
    assert "256 leaves opened" in done.stderr and "the trainer's own: found, 256/256 bits" in done.stderr


def test_json_is_one_object_and_nothing_else(story: Story) -> None:
    done = challenge("verify", story.runs / "bob", "--segments", "2,5", "--json")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1
    verdict = json.loads(done.stdout)
    assert verdict["segments"] == [2, 5] and verdict["exit_code"] == 0


@pytest.mark.parametrize("name", ["manifest.json", "transcript.jsonl", "states"])
def test_one_flipped_bit_is_malformed_and_no_traceback(story: Story, tmp_path: Path, name: str) -> None:
    folder = Path(shutil.copytree(story.runs / "alice", tmp_path / "alice"))
    path = next((folder / name).iterdir()) if name == "states" else folder / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    done = challenge("verify", folder)
    assert done.returncode == 10
    assert "Traceback" not in done.stderr and "REJECTED" in done.stderr


@pytest.mark.parametrize("as_json", [False, True])
def test_a_missing_folder_cannot_be_checked(tmp_path: Path, as_json: bool) -> None:
    done = challenge("verify", tmp_path / "nothing", *(["--json"] if as_json else []))
    assert done.returncode == 1
    assert "no such folder" in done.stderr and "give the path of a proof" in done.stderr.replace("\n", " ")
    assert "Traceback" not in done.stderr
    assert (json.loads(done.stdout)["exit_code"] == 1) if as_json else (done.stdout == "")


@pytest.mark.parametrize(
    "arguments",
    [["verify"], ["verify", ".", "--segments", "none"], ["verify", ".", "--segments", "0"], ["judge"],
     ["verify", ".", "--trust-program", "yes"]],
)  # fmt: skip
def test_a_wrong_command_line_is_usage(arguments: list[str]) -> None:
    assert challenge(*arguments).returncode == 2


def test_a_segment_that_is_not_there_cannot_be_checked(story: Story) -> None:
    done = challenge("verify", story.runs / "alice", "--segments", "99,")
    assert done.returncode == 1 and "choose others" in done.stderr.replace("\n", " ")


def test_a_broken_claim_is_not_the_proofs_fault(story: Story, tmp_path: Path) -> None:
    claim = Path(shutil.copytree(story.claims["alice"], tmp_path / "claim"))
    (claim / "state_table.json").write_bytes(b"[]")
    done = challenge("verify", story.runs / "mallory", "--claim", claim)
    assert done.returncode == 1 and "state_table.json" in done.stderr and "Traceback" not in done.stderr


def test_help_names_the_exit_codes() -> None:
    done = challenge("--help")
    assert done.returncode == 0 and "11 replay mismatch" in " ".join(done.stdout.split())
