"""Case 35: files that are small to write and ruinous to read: huge shapes, deep or endless text, links, pipes.

Source: every parser that allocates what a header says: a checkpoint of shape 2^40, an archive that unpacks to
petabytes, a path that leaves its folder. A verifier that can be stopped, filled up or made to read elsewhere by whoever
hands in a proof verifies nothing.

Here sizes are compared with limits before anything is read, numbers in headers with the bytes that are there before
anything is allocated, blobs are hashed in pieces, and nothing but regular files of known names is opened. All bombs
below are read by one process of its own, which the kernel does not let grow; none of them takes it to 512 MiB, torch
and all other libraries included. The honest twin is read by the same process afterwards.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from challenge.bundle import fetch_proof
from challenge.segments import Policy
from challenge.verdict import ExitCode
from pol import Proof
from pol.cid import cid_of, cid_of_file
from pol.confine import Limits
from pol.encoding import canonical_json, digest, parse_canonical_json, to_hex
from pol.errors import CannotRun, ProofError, SpecError
from pol.proof import MANIFEST, OPENINGS, STATES, TRANSCRIPT, states_of
from pol.spec import SPEC_DOMAIN
from pol.store import LocalStore
from pol.tensors import tensors_digest
from pol.transcript import transcript_digest
from tests.attacks.forging import copied, edit_boundary
from tests.attacks.judging import judged, rejected

MIB = 2**20
Plant = Callable[[Path], None]


def blob_file(folder: Path) -> Path:
    return folder / STATES / f"{Proof.read(folder).states[0].cid}.safetensors"


def put_blob(folder: Path, data: bytes) -> None:
    """Put ``data`` in the place of a state, under its own CID, and name it in the manifest."""
    proof = Proof.read(folder)
    blob_file(folder).unlink()
    cid = states_of(folder).put(data)
    replace(proof, states=(replace(proof.states[0], cid=cid), *proof.states[1:])).write(folder)


def with_header(header: object, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def tensor(shape: list[int], end: int, dtype: str = "F32", start: int = 0) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def header(value: object, data: bytes = b"") -> Plant:
    return lambda folder: put_blob(folder, with_header(value, data))


def sparse(name: str, size: int) -> Plant:
    """A file that claims ``size`` bytes and holds none."""

    def plant(folder: Path) -> None:
        (folder / name).touch()
        os.truncate(folder / name, size)

    return plant


def sparse_state(folder: Path, size: int) -> None:
    os.truncate(blob_file(folder), size)


def large_state(folder: Path) -> None:
    """A whole safetensors file of 544 MiB of zeros, under its own CID: right in everything but what it should be."""
    proof, path = Proof.read(folder), blob_file(folder)
    size = 544 * MIB
    path.write_bytes(with_header({"w": tensor([size // 4], size)}))
    os.truncate(path, path.stat().st_size + size)
    cid = cid_of_file(path)
    path.rename(folder / STATES / f"{cid}.safetensors")
    replace(proof, states=(replace(proof.states[0], cid=cid), *proof.states[1:])).write(folder)


def text(name: str, data: bytes) -> Plant:
    return lambda folder: (folder / name).write_bytes(data) and None


def longest_transcript(folder: Path) -> None:
    line = (folder / TRANSCRIPT).read_bytes().splitlines(keepends=True)[0]
    (folder / TRANSCRIPT).write_bytes(line * 2**16)


def instead(name: str, make: Callable[[Path], object]) -> Plant:
    def plant(folder: Path) -> None:
        path = blob_file(folder) if name == STATES else folder / name
        path.unlink(missing_ok=True)
        make(path)

    return plant


def listen(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        here = Path.cwd()
        os.chdir(path.parent)  # the name of a socket is short
        listener.bind(path.name)
        os.chdir(here)


def linked_folder(folder: Path) -> None:
    (folder / STATES).rename(folder.parent / "elsewhere")
    (folder / STATES).symlink_to(folder.parent / "elsewhere")


def named_outside(folder: Path) -> None:
    """A state whose name would lead out of the folder."""
    data = (folder / MANIFEST).read_bytes()
    cid = Proof.read(folder).states[0].cid.encode()
    outside = b"../../../../../../../../../../../../../../../../../etc/passwd"[: len(cid)]
    (folder / MANIFEST).write_bytes(data.replace(cid, outside))


def with_spec(**changes: object) -> Plant:
    """Other numbers in the spec, and a transcript digest that fits them."""

    def plant(folder: Path) -> None:
        manifest = parse_canonical_json((folder / MANIFEST).read_bytes(), where="test")
        spec = {**manifest["spec"], **changes}
        spec_digest = digest(SPEC_DOMAIN, canonical_json(spec))
        fitting = to_hex(transcript_digest(spec_digest, Proof.read(folder).anchors))
        (folder / MANIFEST).write_bytes(canonical_json({**manifest, "spec": spec, "transcript_digest": fitting}))

    return plant


FULL = 16 * MIB
"""The most that a file of JSON may have."""
BOMBS: dict[str, Plant] = {
    "a tensor of 2^40 elements": header({"w": tensor([2**40], 2**42)}),
    "a tensor of 2^40 elements and no bytes": header({"w": tensor([2**40], 0)}),
    "a shape that overflows": header({"w": tensor([2**62, 2**62], 0)}),
    "a shape that overflows to what is there": header({"w": tensor([2**63, 2], 0)}),
    "no elements in an absurd shape": header({"w": tensor([0, 2**62, 2**62], 0)}),
    "a shape of minus one": header({"w": tensor([-1, -1], 4)}, bytes(4)),
    "a million dimensions": header({"w": tensor([1] * 10**6, 4)}, bytes(4)),
    "a header of 2^63 bytes": lambda folder: put_blob(folder, (2**63 - 1).to_bytes(8, "little") + b"{}"),
    "a header longer than the file": lambda folder: put_blob(folder, (2**20).to_bytes(8, "little") + b"{}"),
    "a header of 15 MiB": header(b'{"' + b"w" * (15 * MIB) + b'":0}'),
    "a header of many tensors": header({f"{i}": tensor([0], 0) for i in range(10**5)}),
    "a header of as many tensors as may be": header({f"{i:05}": tensor([0], 0) for i in range(2**15)}),
    "a header that is deep": header(b'{"w":' + b"[" * 10**6),
    "a header of brackets": header(b'{"w":[' + b"[]," * (4 * MIB) + b"[]]}"),
    "tensors over each other": header({"a": tensor([8], 32), "b": tensor([8], 32)}, bytes(32)),
    "tensors with a gap": header({"a": tensor([1], 4), "b": tensor([1], 4 * MIB, start=4 * MIB - 4)}, bytes(4 * MIB)),
    "a sparse state of 7 TiB": lambda folder: sparse_state(folder, 7 * 2**40),
    "a sparse state of 544 MiB": lambda folder: sparse_state(folder, 544 * MIB),
    "a whole state of 544 MiB": large_state,
    "a sparse manifest": sparse(MANIFEST, 2**40),
    "a sparse transcript": sparse(TRANSCRIPT, 2**40),
    "sparse openings": sparse(OPENINGS, 2**40),
    "nothing but zeros": sparse(MANIFEST, FULL),
    "a manifest of brackets": text(MANIFEST, b"[" * FULL),
    "a manifest of pairs of brackets": text(MANIFEST, b"[" + b"[]," * (FULL // 3 - 2) + b"[]]"),
    "a manifest of commas": text(MANIFEST, b"[" + b"1," * (FULL // 2 - 2) + b"1]"),
    "a manifest of one string": text(MANIFEST, b'"' + b"\\u00e9" * (FULL // 6 - 1) + b'"'),
    "a manifest of quotes": text(MANIFEST, b'"' + b'\\"' * (FULL // 2 - 1)),
    "a manifest of one number": text(MANIFEST, b"9" * FULL),
    "a manifest of keys": text(MANIFEST, b"{" + b",".join(b'"%06d":0' % i for i in range(5 * 10**5)) + b"}"),
    "a transcript of line ends": text(TRANSCRIPT, b"\n" * (24 * MIB)),
    "a transcript of one line": text(TRANSCRIPT, b'{"a":"' + b"x" * (20 * MIB) + b'"}\n'),
    "the longest transcript": longest_transcript,
    "openings of brackets": text(OPENINGS, b"[" * FULL),
    "a pipe for a manifest": instead(MANIFEST, os.mkfifo),
    "a pipe for a state": instead(STATES, os.mkfifo),
    "a pipe for openings": instead(OPENINGS, os.mkfifo),
    "a link to endless zeros": instead(STATES, lambda path: path.symlink_to("/dev/zero")),
    "a link to this machine's files": instead(MANIFEST, lambda path: path.symlink_to("/etc/passwd")),
    "a link to itself": instead(TRANSCRIPT, lambda path: path.symlink_to(path)),
    "a link to nothing": instead(OPENINGS, lambda path: path.symlink_to("/nothing/here")),
    "a socket": instead(TRANSCRIPT, listen),
    "a folder for a file": instead(MANIFEST, Path.mkdir),
    "a folder that is a link": linked_folder,
    "a name that leads out": named_outside,
    "2^32 steps": with_spec(steps=2**32, segment_length=2**16),
    "2^40 steps": with_spec(steps=2**40),
    "segments of 2^40 steps": with_spec(segment_length=2**40),
    "no steps": with_spec(steps=0),
    "a batch of more than there is": with_spec(batch_size=2**62),
    "a name of a million letters": with_spec(program="p" * 10**6 + ":P"),
}

CHILD = """
import json, resource, sys
from pathlib import Path
import torch
from challenge.verify import verify
from challenge.segments import Policy

def status(name):
    row = next(row for row in open("/proc/self/status") if row.startswith(name))
    return int(row.split()[1]) // 1024

most = (status("VmData") + 512) * 2**20
resource.setrlimit(resource.RLIMIT_DATA, (most, most))
for name in sys.argv[1:]:
    try:
        verdict = verify(Path(name), Policy(segments=[0]))
        row = [int(verdict.exit_code), len(verdict.segments), verdict.findings[0].message if verdict.findings else ""]
    except BaseException as error:
        row = [type(error).__name__, 0, str(error)]
    print(json.dumps([*row, status("VmHWM")]), flush=True)
"""
"""Reads proofs one after the other, and says of each the verdict and the most memory the process has held so far."""


@pytest.fixture(scope="module")
def results(honest_run: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list]:
    """What the child says of every bomb, and of the honest proof at the end."""
    root = tmp_path_factory.mktemp("bombs")
    folders = []
    for number, plant in enumerate(BOMBS.values()):
        folders.append(copied(honest_run, root / f"{number}" / "proof"))
        plant(folders[-1])
    command = [sys.executable, "-c", CHILD, *map(str, folders), str(honest_run)]
    run = subprocess.run(
        command, capture_output=True, text=True, timeout=600, cwd=Path(__file__).parents[2], check=False
    )
    rows = [json.loads(line) for line in run.stdout.splitlines()]
    assert run.returncode == 0 and len(rows) == len(BOMBS) + 1, f"{list(BOMBS)[len(rows)]}: {run.stderr[-2000:]}"
    return dict(zip([*BOMBS, "the honest twin"], rows, strict=True))


@pytest.mark.parametrize("bomb", BOMBS)
def test_it_does_not_go_off(results: dict[str, list], bomb: str) -> None:
    """Rejected as malformed before anything is replayed, with a reason that is not too long to read."""
    code, replayed, message, _ = results[bomb]
    assert (code, replayed) == (ExitCode.MALFORMED, 0), message
    assert 0 < len(message) < 600


def test_no_bomb_takes_512_mib(results: dict[str, list]) -> None:
    """Held at most, by a process in which all libraries are loaded."""
    held = {name: row[3] for name, row in results.items() if name != "the honest twin"}
    assert max(held.values()) < 512, max(held, key=held.__getitem__)


def test_the_same_process_passes_the_honest_twin(results: dict[str, list]) -> None:
    assert results["the honest twin"][:3] == [ExitCode.VERIFIED, 1, ""]


@pytest.mark.parametrize(
    "cid",
    ["../../etc/passwd", "/etc/passwd", "bafkrei/../../x", "bafkrei" + "a" * 52 + "/..", ".", "", "a" * 10**6, "\0"],
    ids=lambda cid: repr(cid[:20]),
)
def test_a_bundle_names_no_file_of_ours(tmp_path: Path, cid: str) -> None:
    """File names are worked out from CIDs, so nothing is written outside the folder."""
    store, right = LocalStore(tmp_path / "store"), cid_of(b"x")
    index = {"format": "aiarena.bundle/1", "manifest": right, "transcript": right, "states": [right]}
    for field in ("manifest", "transcript", "states"):
        hostile = index | {field: [cid] if field == "states" else cid}
        with pytest.raises(ProofError):
            fetch_proof(store.put(canonical_json(hostile)), store, tmp_path / "fetched")
    assert {path.name for path in tmp_path.rglob("*")} <= {"store", *(p.name for p in (tmp_path / "store").iterdir())}


def test_a_model_that_does_not_fit_is_no_verdict(honest_run: Path, tmp_path: Path) -> None:
    """The largest that the built-in program allows, within limits that the verifier sets: not run, and not believed."""
    folder = copied(honest_run, tmp_path / "proof")
    proof = Proof.read(folder)
    wide = replace(proof.spec, config=proof.spec.config | {"width": 8192, "hidden": 8})
    replace(proof, spec=wide).write(folder)
    with pytest.raises(CannotRun, match="memory"):
        judged(folder, Policy(segments=[0], limits=Limits(memory=256 * MIB)))
    broken = replace(proof.spec, config=proof.spec.config | {"width": 10**12})
    replace(proof, spec=broken).write(folder)
    rejected(judged(folder), ExitCode.MALFORMED, "too large")


@pytest.mark.parametrize("change", [{"dataset_size": 2**63 - 1}, {"dataset_size": 2**62, "batch_size": 2**62}], ids=str)
def test_a_data_set_of_2_to_the_62_samples_is_not_counted(honest_run: Path, tmp_path: Path, change: dict) -> None:
    """Nothing is sized after it before the data set, which is the verifier's, was seen to be smaller."""
    folder = copied(honest_run, tmp_path / "proof")
    proof = Proof.read(folder)
    replace(proof, spec=replace(proof.spec, **change)).write(folder)
    rejected(judged(folder), ExitCode.MALFORMED, "dataset_size")


def test_a_digest_of_nothing_is_none(honest_run: Path, tmp_path: Path) -> None:
    """No tensors at all: a whole file with an empty header."""
    folder = copied(honest_run, tmp_path / "proof")
    put_blob(folder, with_header({}))
    rejected(judged(folder), ExitCode.MALFORMED, "a state without tensors has no digest")
    with pytest.raises((ProofError, SpecError)):
        tensors_digest({})


def test_a_bomb_that_was_promised_is_one(honest_run: Path, tmp_path: Path) -> None:
    """Its digest is what the transcript says, so only what it is can speak against it."""
    folder = copied(honest_run, tmp_path / "proof")
    bomb = {"w": torch.zeros(0, 2**30)}
    edit_boundary(folder, 1, tensors_digest(bomb))
    put_blob(folder, with_header({"w": tensor([0, 2**30], 0)}))
    verdict = judged(folder, Policy(segments=[2]))
    rejected(verdict, ExitCode.REPLAY_MISMATCH, "other tensors than the program's")
