"""A proof shown: complete, quick, without torch, and honest about what was not looked at."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from challenge.demo.story import Story
from challenge.inspect import SHOWN_ROWS, inspect_proof, lines
from pol import Proof
from pol.errors import CannotRun, ProofError
from pol.proof import states_of, write_openings
from pol.transcript import Stop
from tests.challenge.test_cli import challenge

GOLDEN = Path(__file__).parents[1] / "golden" / "proof-v1"


def text_of(folder: Path) -> str:
    return "\n".join(f"{label} {text}" for label, text in lines(inspect_proof(folder, 8)))


def test_everything_the_manifest_says_is_shown() -> None:
    manifest, found = json.loads((GOLDEN / "manifest.json").read_bytes()), inspect_proof(GOLDEN, 8)
    for name in ("spec", "seed", "anchors"):
        assert found[name] == manifest[name]
    assert found["digests"]["transcript"] == manifest["transcript_digest"]
    assert [(row["step"], row["cid"], row["bytes"], row["tensors"]) for row in found["states"]] == [
        (row["step"], row["cid"], states_of(GOLDEN).path(row["cid"]).stat().st_size, 28) for row in manifest["states"]
    ]
    shown = text_of(GOLDEN)
    for value in (
        *manifest["spec"]["config"], *manifest["spec"]["machine"], manifest["seed"]["value"],
        *(anchor["root"] for anchor in manifest["anchors"]), *(state["cid"] for state in manifest["states"]),
        manifest["submission"]["model_digest"], manifest["spec"]["dataset_root"], *found["digests"].values(),
    ):  # fmt: skip
        assert value in shown


def test_the_cost_counts_what_lies_between_stored_states(honest_run: Path) -> None:
    """Four segments, with the state after the second stored: all of both halves, or one segment less."""
    cost = inspect_proof(honest_run, 1)["cost"]
    assert cost == {"sampled": 1, "mean_segments": 3.25, "most_segments": 4}


def test_opened_states_are_shown_and_make_it_cheaper(honest_run: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(honest_run, tmp_path / "proof"))
    proof = Proof.read(folder)
    opened = replace(proof.states[0], step=proof.segments[2].end_step)
    write_openings(folder, [opened])
    found = inspect_proof(folder, 1)
    assert [row["step"] for row in found["openings"]] == [30]
    assert found["cost"]["mean_segments"] == 2.5
    assert "opened state after step 30" in text_of(folder)


def test_an_early_stop_is_shown(honest_run: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(honest_run, tmp_path / "proof"))
    proof = Proof.read(folder)
    longer = replace(proof.spec, steps=60, segment_length=10)
    replace(proof, spec=longer, stopped=Stop(segments=4, block=0, tx=bytes(32))).write(folder)
    found = inspect_proof(folder, 8)
    assert (found["segments"], found["segments_promised"], found["steps"]) == (4, 6, 40)
    assert "early stop after 4 of 6 promised segments" in text_of(folder)


def test_the_signature_is_checked(story: Story, tmp_path: Path) -> None:
    proof = Proof.read(story.runs / "alice")
    trainer = "0x" + proof.spec.trainer.hex()
    assert inspect_proof(story.runs / "alice", 8)["signature"]["signer"].lower() == trainer
    assert f"valid, by {trainer}" in text_of(story.runs / "alice").lower()
    for signature in (None, bytes(65)):
        folder = Path(shutil.copytree(story.runs / "alice", tmp_path / str(signature is None)))
        replace(proof, signature=signature).write(folder)
        assert inspect_proof(folder, 8)["signature"]["signer"] is None
        done = challenge("inspect", folder)
        assert done.returncode == 10 and "NOT VALID" in done.stderr


def test_what_was_not_looked_at_is_said() -> None:
    shown = text_of(GOLDEN)
    assert "nothing was run" in shown and "unsigned" in shown and "could have been ground" in shown


@pytest.mark.parametrize("command", ["inspect", "plan"])
def test_torch_is_not_imported(command: str) -> None:
    script = (
        "import sys; from challenge.cli import main\n"
        "try: main()\nexcept SystemExit as end: assert not end.code, end.code\n"
        "print(sorted({name.split('.')[0] for name in sys.modules} & {'torch', 'web3', 'ray', 'safetensors'}))"
    )
    done = subprocess.run([sys.executable, "-c", script, command, GOLDEN], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[]", done.stderr


def test_json_is_one_object_and_nothing_else() -> None:
    done = challenge("inspect", GOLDEN, "--json")
    assert done.returncode == 0 and done.stderr == "" and done.stdout.count("\n") == 1
    assert json.loads(done.stdout) == inspect_proof(GOLDEN, 8) | {"proof": str(GOLDEN)}


@pytest.mark.parametrize("as_json", [False, True])
def test_malformed_is_exit_code_10_with_the_place(tmp_path: Path, as_json: bool) -> None:
    folder = Path(shutil.copytree(GOLDEN, tmp_path / "proof"))
    data = (folder / "manifest.json").read_bytes()
    (folder / "manifest.json").write_bytes(data.replace(b'"batch_size":32', b'"batch_size":-1'))
    done = challenge("inspect", folder, *(["--json"] if as_json else []))
    assert done.returncode == 10 and "manifest.json: spec.batch_size" in done.stderr and "Traceback" not in done.stderr
    assert (json.loads(done.stdout)["exit_code"] == 10) if as_json else (done.stdout == "")


def test_a_state_that_is_no_tensor_file_is_malformed(honest_run: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(honest_run, tmp_path / "proof"))
    path = next((folder / "states").iterdir())
    path.write_bytes(b"\x80\x04" + bytes(100))
    with pytest.raises(ProofError, match=path.stem):
        inspect_proof(folder, 8)


def test_a_missing_folder_cannot_be_shown(tmp_path: Path) -> None:
    with pytest.raises(CannotRun, match="no such folder"):
        inspect_proof(tmp_path / "nothing", 8)
    assert challenge("inspect", tmp_path / "nothing").returncode == 1


def test_hostile_text_never_reaches_the_terminal(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(GOLDEN, tmp_path / "proof"))
    proof = Proof.read(folder)
    spec = replace(proof.spec, dataset="\x1b[2J\x9b31m\rVERIFIED", config={"[red]": "\x07" * 9000})
    replace(proof, spec=spec).write(folder)
    done = challenge("inspect", folder)
    assert done.returncode == 0
    assert not any((ord(c) < 32 and c != "\n") or c == "\x9b" for c in done.stderr)
    assert "[red]" in done.stderr and "characters more" in done.stderr


def test_many_anchors_are_cut_for_people_only(tmp_path: Path) -> None:
    found = inspect_proof(GOLDEN, 8)
    found["anchors"] *= 30
    shown = [text for label, text in lines(found) if label == "anchor"]
    assert len(shown) == SHOWN_ROWS + 1 and "40 more" in shown[-1]
