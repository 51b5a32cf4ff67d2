"""Golden files: the proof format holds for ever, and its specification says what the code does.

Every vector is computed by the packages (tests/golden/packages.py) and by a second implementation that shares no line
with them (tests/golden/reference*.py), and both must give what is on file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from chain.accounts import dev_account
from challenge.claims import OPENED_GROUPS
from challenge.segments import Policy
from challenge.signing import signer_of
from challenge.verdict import ExitCode
from challenge.verify import verify
from pol.encoding import MAX_JSON_BYTES, MAX_JSON_DEPTH, MAX_JSON_VALUES, canonical_json, parse_canonical_json, to_hex
from pol.errors import ProofError
from pol.machine import MachineClass, this_machine
from pol.merkle import MAX_DEPTH
from pol.program import program_digest
from pol.proof import MAX_TRANSCRIPT_BYTES, Proof, StoredState, states_of
from pol.sources import open_data
from pol.spec import MAX_STEPS, TrainingSpec
from pol.state import from_safetensors
from pol.store import MAX_BLOB_BYTES
from pol.tensors import BLOCK_BYTES, tensors_digest
from pol.transcript import MAX_SEGMENTS, segment_tree
from tests.golden import packages, reference, reference_chain, reference_watermark
from tests.golden.reference import unhex
from watermark.claim import MAX_REFERENCE_BYTES
from watermark.detect import VOID_LOG2
from watermark.evidence import ACCEPT_LOG2
from watermark.key import MAX_LEAVES
from watermark.weights.embed import MAX_EMBED_CHANGE

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests/golden"
FOLDER = GOLDEN / "proof-v1"
FILE = json.loads((GOLDEN / "vectors.json").read_text())
STOPPED = GOLDEN / "proof-v1-stopped"
TOKENS = GOLDEN / "tokens-v1.bin"
STOPPED_FILE = json.loads((GOLDEN / "proof-v1-stopped.json").read_text())
SPEC_TEXT = (ROOT / "docs/spec/proof-format.md").read_text(encoding="utf-8")
PACKAGES = packages.FUNCTIONS
REFERENCE: dict[str, Callable[[Any], Any]] = (
    reference.FUNCTIONS | reference_chain.FUNCTIONS | reference_watermark.FUNCTIONS
)


@pytest.mark.parametrize("vector", FILE["vectors"], ids=lambda vector: vector["name"])
def test_both_implementations_give_the_vector(vector: dict) -> None:
    assert REFERENCE[vector["function"]](vector["input"]) == vector["output"], "the second implementation"
    assert PACKAGES[vector["function"]](vector["input"]) == vector["output"], "the packages"


def test_every_function_has_a_vector_and_two_implementations() -> None:
    assert set(PACKAGES) == set(REFERENCE) == {vector["function"] for vector in FILE["vectors"]}


def test_the_second_implementation_uses_nothing_of_ours() -> None:
    for path in GOLDEN.glob("reference*.py"):
        imported = re.findall(r"^\s*(?:from|import) (\w+)", path.read_text(), re.MULTILINE)
        assert not {"pol", "chain", "challenge", "watermark", "torch"} & set(imported), path.name


@pytest.mark.parametrize("text", FILE["not_canonical"])
def test_what_is_not_canonical_is_refused(text: str) -> None:
    with pytest.raises(ProofError):
        parse_canonical_json(text.encode(), where="vector")


# The golden proof


def test_the_golden_proof_parses_and_promises_what_it_promised() -> None:
    proof, store = Proof.read(FOLDER), states_of(FOLDER)
    blobs = {cid: from_safetensors(store.get(cid), where=cid) for cid in FILE["proof-v1"]["blobs"]}
    assert FILE["proof-v1"] == {
        "spec_digest": to_hex(proof.spec.digest),
        "seed": to_hex(proof.seed),
        "machine_class": to_hex(MachineClass.from_json(proof.spec.machine, where="machine").digest),
        "transcript_digest": to_hex(proof.transcript_digest),
        "manifest_digest": to_hex(proof.manifest_digest),
        "anchor_roots": [to_hex(segment_tree(proof.segments[a.first : a.first + a.count]).root) for a in proof.anchors],
        "blobs": {cid: to_hex(tensors_digest(tensors)) for cid, tensors in blobs.items()},
        "reproduction": PACKAGES["reproduction"]([segment.to_json() for segment in proof.segments]),
    }
    ends = {segment.end_step: segment.end_digest for segment in proof.segments}
    assert [tensors_digest(blobs[state.cid]) for state in proof.states] == [ends[state.step] for state in proof.states]
    assert proof.submission is not None
    assert tensors_digest(blobs[proof.submission.model_cid]) == proof.submission.model_digest


def test_the_second_implementation_reads_the_same_golden_proof() -> None:
    assert reference.proof_digests(FOLDER) == FILE["proof-v1"]
    data = (FOLDER / "manifest.json").read_bytes()
    manifest, rows = json.loads(data), (FOLDER / "transcript.jsonl").read_bytes().splitlines(keepends=True)
    assert reference.json_bytes(manifest) == data
    assert [reference.json_bytes(json.loads(row)) + b"\n" for row in rows] == rows
    assert [json.loads(row)["batch_root"] for row in rows] == reference.replayed_batch_roots(manifest)
    assert [anchor["root"] for anchor in manifest["anchors"]] == FILE["proof-v1"]["anchor_roots"]
    ends = {json.loads(row)["end_step"]: json.loads(row)["end_digest"] for row in rows}
    for state in manifest["states"]:
        assert FILE["proof-v1"]["blobs"][state["cid"]] == ends[state["step"]]
        tensors = reference.safetensors((FOLDER / f"states/{state['cid']}.safetensors").read_bytes())
        assert json.loads(tensors["scalars"][2])["step"] == state["step"]
        generators = reference.generator_tensors(unhex(manifest["seed"]["value"]), state["step"])
        assert {name: tensors[name] for name in generators} == generators


def _why_not_replayed(spec: TrainingSpec) -> str | None:
    promised = MachineClass.from_json(spec.machine, where="machine")
    differences = this_machine(threads=promised.threads).differences(promised)
    if program_digest(spec.program) != spec.program_digest:
        return "the built-in program has another source digest than the one the golden proof was recorded with"
    return f"this machine is of another class (here / golden): {'; '.join(differences)}" if differences else None


def test_the_golden_proof_replays_where_it_can() -> None:
    reason = _why_not_replayed(Proof.read(FOLDER).spec)
    if reason:
        pytest.skip(reason)
    verdict = verify(FOLDER, Policy(segments=None))
    assert verdict.exit_code is ExitCode.VERIFIED, verdict.to_json()
    assert verdict.reproduction == FILE["proof-v1"]["reproduction"]


def test_the_readme_makes_the_golden_proof(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = _blocks((GOLDEN / "README.md").read_text(encoding="utf-8"), "python")[0]
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "tests/golden/README.md", "exec"), {})
    made, golden = tmp_path / "tests/golden/proof-v1", Proof.read(FOLDER)
    again = Proof.read(made)
    assert again.seed == golden.seed and again.spec.config == golden.spec.config
    assert [segment.batch_root for segment in again.segments] == [segment.batch_root for segment in golden.segments]
    reason = _why_not_replayed(golden.spec)
    if reason:
        pytest.skip(reason)
    assert _files(made) == _files(FOLDER)


# The golden proof of a task's run, stopped early, signed and opened


def test_the_stopped_proof_parses_and_promises_what_it_promised() -> None:
    proof, store = Proof.read(STOPPED), states_of(STOPPED)
    blobs = {cid: from_safetensors(store.get(cid), where=cid) for cid in STOPPED_FILE["blobs"]}
    promised = {name: value for name, value in STOPPED_FILE.items() if name != "reproduction"}  # that takes a replay
    assert promised == {
        "spec_digest": to_hex(proof.spec.digest),
        "seed": to_hex(proof.seed),
        "machine_class": to_hex(MachineClass.from_json(proof.spec.machine, where="machine").digest),
        "transcript_digest": to_hex(proof.transcript_digest),
        "manifest_digest": to_hex(proof.manifest_digest),
        "anchor_roots": [to_hex(segment_tree(proof.segments[a.first : a.first + a.count]).root) for a in proof.anchors],
        "blobs": {cid: to_hex(tensors_digest(tensors)) for cid, tensors in blobs.items()},
    }
    ends = {segment.end_step: segment.end_digest for segment in proof.segments}
    kept: list[StoredState] = [*proof.states, *proof.openings]
    assert [state.step for state in kept] == [8, 10, 2, 4]
    assert [tensors_digest(blobs[state.cid]) for state in kept] == [ends[state.step] for state in kept]
    assert {name.split("/")[0] for name in blobs[kept[0].cid]} == {
        "model",
        "optimizer",
        "ema",
        "rng",
        "scalars",
        "scaler",
    }
    assert proof.submission is not None and proof.stopped is not None
    assert (proof.stopped.segments, proof.spec.segments) == (5, 10)
    assert tensors_digest(blobs[proof.submission.model_cid]) == proof.submission.model_digest
    assert open_data(proof.spec.dataset, TOKENS).root == proof.spec.dataset_root
    assert signer_of(proof) == dev_account(0).address


def test_the_second_implementation_reads_the_same_stopped_proof() -> None:
    assert reference.task_proof_digests(STOPPED) == STOPPED_FILE
    manifest, rows = json.loads((STOPPED / "manifest.json").read_bytes()), []
    for line in (STOPPED / "transcript.jsonl").read_bytes().splitlines():
        rows.append(json.loads(line))
        assert reference.json_bytes(rows[-1]) == line
    leaves = reference.token_samples(TOKENS.read_bytes(), 16)
    assert reference.hexed(reference.root(leaves)) == manifest["spec"]["dataset_root"]
    assert [row["batch_root"] for row in rows] == reference.stopped_batch_roots(manifest, leaves)
    assert [anchor["root"] for anchor in manifest["anchors"]] == STOPPED_FILE["anchor_roots"]
    opened = json.loads((STOPPED / "openings.json").read_bytes())["states"]
    ends = {row["end_step"]: row["end_digest"] for row in rows}
    for state in [*manifest["states"], *opened]:
        assert STOPPED_FILE["blobs"][state["cid"]] == ends[state["step"]]
        tensors = reference.safetensors((STOPPED / f"states/{state['cid']}.safetensors").read_bytes())
        generators = reference.generator_tensors(unhex(STOPPED_FILE["seed"]), state["step"])
        assert {name: tensors[name] for name in generators} == generators
    unsigned = {name: value for name, value in manifest.items() if name != "signature"}
    key = dev_account(0).key.hex()
    assert (
        reference_chain.signed_manifest({"manifest": unsigned, "private_key": key})["signature"]
        == (manifest["signature"])
    )


def test_the_stopped_proof_replays_where_it_can() -> None:
    reason = _why_not_replayed(Proof.read(STOPPED).spec)
    if reason:
        pytest.skip(reason)
    verdict = verify(STOPPED, Policy(segments=None, dataset=TOKENS))
    assert verdict.exit_code is ExitCode.VERIFIED, verdict.to_json()
    assert verdict.reproduction == STOPPED_FILE["reproduction"]


def test_the_readme_makes_the_stopped_proof(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = next(b for b in _blocks((GOLDEN / "README.md").read_text(encoding="utf-8"), "python") if "Receipts" in b)
    reason = _why_not_replayed(Proof.read(STOPPED).spec)
    if reason:
        pytest.skip(reason)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tests/golden").mkdir(parents=True)
    (tmp_path / "tests/golden/tokens-v1.bin").write_bytes(TOKENS.read_bytes())
    exec(compile(code, "tests/golden/README.md", "exec"), {})
    assert _files(tmp_path / "tests/golden/proof-v1-stopped") == _files(STOPPED)


# The specification


def _blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def _files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _literals(pattern: str) -> set[str]:
    folders = ("pol", "watermark", "challenge", "chain", "chain/contracts/src")
    sources = [p for f in folders[:3] for p in (ROOT / f).rglob("*.py")]
    sources += [*(ROOT / folders[3]).glob("*.py"), *(ROOT / folders[4]).rglob("*.sol")]
    return {found for path in sources for found in re.findall(pattern, path.read_text(encoding="utf-8"))}


@pytest.mark.parametrize(
    "pattern", [r"aiarena/[a-z0-9-]+/v\d+", r"aiarena\.[a-z0-9-]+/\d+"], ids=["domains", "formats"]
)
def test_the_tables_list_every_name_in_the_code_and_no_other(pattern: str) -> None:
    table = re.findall(rf"^\| `({pattern})`", SPEC_TEXT, re.MULTILINE)
    assert len(table) == len(set(table))
    assert set(table) == _literals(pattern)


def test_the_example_is_the_golden_proof() -> None:
    manifest, line = _blocks(SPEC_TEXT, "json")[:2]
    files = _files(FOLDER)
    assert canonical_json(json.loads(manifest)) == files["manifest.json"]
    assert line.encode() in files["transcript.jsonl"].splitlines(keepends=True)
    (tree,) = [block for block in _blocks(SPEC_TEXT, "text") if "manifest.json" in block]
    sizes = {name.split("/")[-1]: len(data) for name, data in files.items()}
    assert dict(re.findall(r"(\S+\.(?:json|jsonl|safetensors)) +(\d+) bytes", tree)) == {
        k: str(v) for k, v in sizes.items()
    }


def test_the_digests_in_the_example_are_those_on_file() -> None:
    for name in ("spec_digest", "transcript_digest", "manifest_digest"):
        assert FILE["proof-v1"][name] in SPEC_TEXT, name


def test_sections_are_where_the_docstrings_say() -> None:
    assert re.findall(r"^## (\d+) \S", SPEC_TEXT, re.MULTILINE) == [str(number) for number in range(1, 14)]


def test_the_numbers_are_those_of_the_code() -> None:
    def section(number: int) -> str:
        return SPEC_TEXT.split(f"\n## {number} ")[1].split("\n## ")[0]

    assert [int(code) for code in re.findall(r"^\| (\d+) \|", section(9), re.MULTILINE)] == list(map(int, ExitCode))
    for limit in (
        f"{MAX_JSON_BYTES >> 20} MiB, nesting {MAX_JSON_DEPTH}, {MAX_JSON_VALUES:,} commas and opening brackets",
        f"{MAX_TRANSCRIPT_BYTES >> 20} MiB",
        f"{MAX_SEGMENTS:,}", f"{MAX_SEGMENTS + 1:,}", f"2^{MAX_STEPS.bit_length() - 1}", f"{MAX_BLOB_BYTES >> 30} GiB",
        f"{MAX_REFERENCE_BYTES >> 30} GiB", f"{MAX_LEAVES:,}; {MAX_DEPTH}",
    ):  # fmt: skip
        assert f"| {limit} |" in section(11), limit
    assert f"blocks of {BLOCK_BYTES:,}" in section(5)
    for number in (f"≤ {MAX_EMBED_CHANGE} ", f"min({OPENED_GROUPS},", f"≤ 2^{ACCEPT_LOG2}`", f"θ_0 at 2^{VOID_LOG2},"):
        assert number in section(10), number
