"""The ``challenge`` command as a user meets it: a process, its output and its exit code."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from challenge.bundle import publish_proof
from challenge.cli import app
from challenge.demo.story import Story
from pol.store import LocalStore

CID = "bafkreiabiqo5afiwknkaykkpcxsnmntwwpfovxltavoves4sotuntylvbe"
GOLDEN = Path(__file__).parents[1] / "golden" / "proof-v1"


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
    assert "256 leaves opened" in done.stderr
    assert re.search(r"the trainer's own, in the model after segment \d+: found, 256/256 bits", done.stderr)


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
    [
        "verify", "verify . --segments none", "verify . --segments 0", "judge", "verify . --trust-program yes",
        "verify . --device gpu", "verify . --executor pool:0", "verify . --max-memory 0", "inspect", f"verify {CID}",
        "plan", "plan . --segments 3", "plan --segments 0", "plan --segments 9 --lie -1",
        "plan --segments 9 --stake 1/0", "plan --segments 9 --cost 1e9", "plan --segments 9 --audit 101%",
        "plan --segments 9 --forged 10", "plan --segments 9 --challengers 0",
    ],
)  # fmt: skip
def test_a_wrong_command_line_is_usage(arguments: str) -> None:
    assert CliRunner().invoke(app, arguments.split()).exit_code == 2


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


def test_a_proof_is_fetched_by_its_cid(honest_run: Path, tmp_path: Path) -> None:
    cid = publish_proof(honest_run, LocalStore(tmp_path / "store"))
    done = challenge("verify", cid, "--store", tmp_path / "store", "--segments", "0,", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["proof"] == cid
    shown = challenge("inspect", cid, "--store", tmp_path / "store", "--json")
    assert shown.returncode == 0 and json.loads(shown.stdout)["segments"] == 4


@pytest.mark.parametrize("command", ["verify", "inspect"])
def test_what_a_store_serves_is_the_proofs_fault_or_this_machines(tmp_path: Path, command: str) -> None:
    store = LocalStore(tmp_path / "store")
    hostile = store.put(b'{"format":"../../etc"}')
    done = challenge(command, hostile, "--store", store.folder, "--json")
    assert done.returncode == 10 and json.loads(done.stdout)["exit_code"] == 10 and "Traceback" not in done.stderr
    missing = challenge(command, CID, "--store", store.folder)
    assert missing.returncode == 1 and "no such blob" in missing.stderr.replace("\n", " ")


def test_a_pool_finds_the_same(honest_run: Path) -> None:
    done = challenge(
        "verify", honest_run, "--segments", "1,3", "--executor", "pool:2", "--max-seconds", "300", "--json"
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["segments"] == [1, 3]


def test_a_plan_says_whether_honesty_pays(tmp_path: Path) -> None:
    done = challenge("plan", "--segments", "1000", "--sample", "30", "--fraction", "5%", "--stake", "20")
    assert done.returncode == 0 and done.stdout == ""
    text = " ".join(done.stderr.split())
    assert "caught with p = 0.7903" in text and "57 (0.95), 86 (0.99), 126 (0.999)" in text
    assert "honesty pays" in text and "never by the prover" in text


def test_a_lie_worth_more_than_the_stake_does_not_pay_honesty() -> None:
    options = ["--segments", "1000", "--sample", "30", "--reward", "1.2", "--stake", "331", "--lie", "10", "--json"]
    found = json.loads(challenge("plan", *options).stdout)
    assert not found["honesty_pays"] and found["worst"]["forged"] == 1
    assert found["minimal_stake"] == pytest.approx(332.2, abs=0.05)


def test_a_plan_takes_the_segments_of_a_proof() -> None:
    found = json.loads(challenge("plan", GOLDEN, "--sample", "1", "--json").stdout)
    assert found["segments"] == 3 and found["cheat"]["forged"] == 1
    assert found["replayed_segments"] == {"opened": False, "mean": pytest.approx(7 / 3), "most": 3}


def test_help_shows_every_command() -> None:
    shown = " ".join(challenge("--help").stdout.split())
    assert all(command in shown for command in ("verify", "inspect", "plan", "juror-key", "seal"))
