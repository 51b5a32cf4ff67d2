"""Case 25: a pickle where tensors or text are expected, which runs the prover's code when it is loaded.

Source: found in published code (``torch.load`` on the prover's checkpoint; ``.metadata`` of distributed checkpoints):
whoever verifies a proof hands his machine to its author. For data sets the same hole was CVE-2023-47248 in pyarrow,
whose files could name a pickled extension type.

Here nothing is ever unpickled. States are safetensors behind a reader of their header, everything else is canonical
JSON, data sets are safetensors, plain tokens or Arrow columns. The payloads below are real: loaded as the published
verifiers load them, they leave a file behind; read by ours, they leave none.
"""

from __future__ import annotations

import base64
import io
import json
import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save

from challenge.bundle import fetch_proof
from challenge.claims import SPEC_FILE, TABLE_FILE, read_claim, write_claim
from challenge.segments import Policy
from challenge.task import TaskDescription
from challenge.verdict import ExitCode
from pol import Proof
from pol.cid import cid_of
from pol.data import Dataset
from pol.errors import CannotRun, PolError, ProofError, SpecError
from pol.proof import MANIFEST, OPENINGS, STATES, TRANSCRIPT, states_of
from pol.sources import open_data
from pol.spec import WatermarkPromise
from pol.state import Tensors, from_safetensors
from pol.store import LocalStore
from tests.attacks.forging import copied
from tests.attacks.judging import judged, rejected
from tests.runs import small_spec
from watermark import DEFAULT_PARAMETERS, Claim, WatermarkKey

Wrap = Callable[["Payload"], bytes]


class Payload:
    """Unpickled, it opens ``mark`` for writing."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.mark), "w")


def _torch(payload: Payload, *, zipped: bool) -> bytes:
    out = io.BytesIO()
    torch.save({"model": payload}, out, _use_new_zipfile_serialization=zipped)
    return out.getvalue()


def _numpy(payload: Payload, write: Callable[..., None]) -> bytes:
    out = io.BytesIO()
    write(out, np.array([payload], dtype=object))
    return out.getvalue()


FORMS: dict[str, Wrap] = {
    "pickle of protocol 0": lambda payload: pickle.dumps(payload, 0),
    "pickle of protocol 5": lambda payload: pickle.dumps(payload, 5),
    "torch.save": lambda payload: _torch(payload, zipped=True),
    "torch.save as it was": lambda payload: _torch(payload, zipped=False),
    "numpy.save": lambda payload: _numpy(payload, np.save),
    "numpy.savez": lambda payload: _numpy(payload, np.savez),
    "behind a whole safetensors file": lambda payload: save({"w": torch.ones(2)}) + _torch(payload, zipped=True),
}


def load_as_published(data: bytes) -> None:
    """What a verifier does who trusts: whatever kind of file it is, load it."""
    for load in (
        lambda: torch.load(io.BytesIO(data), weights_only=False),
        lambda: np.load(io.BytesIO(data), allow_pickle=True),
        lambda: [np.load(io.BytesIO(data), allow_pickle=True)[name] for name in ("arr_0",)],
        lambda: pickle.loads(data),
    ):
        try:
            load()
        except Exception:
            continue


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    """The file that appears if a payload runs."""
    return tmp_path / "the payload ran"


@pytest.fixture(params=FORMS, ids=lambda form: form)
def data(request: pytest.FixtureRequest, mark: Path) -> bytes:
    """A payload in every form, shown to be alive."""
    found = FORMS[request.param](Payload(mark))
    if request.param != "behind a whole safetensors file":
        load_as_published(found)
        assert mark.exists(), "the payload is dead, and this test proves nothing"
        mark.unlink()
    return found


def one_reader(folder: Path) -> None:
    rejected(judged(folder), ExitCode.MALFORMED, "")


@pytest.mark.parametrize("name", [MANIFEST, TRANSCRIPT, OPENINGS])
def test_in_a_file_of_text(honest_run: Path, tmp_path: Path, data: bytes, mark: Path, name: str) -> None:
    folder = copied(honest_run, tmp_path / "proof")
    (folder / name).write_bytes(data)
    one_reader(folder)
    assert not mark.exists()


def test_in_a_state_of_its_own_name(honest_run: Path, tmp_path: Path, data: bytes, mark: Path) -> None:
    """Under the CID of the honest state, and, with the manifest made to fit, under its own."""
    folder = copied(honest_run, tmp_path / "proof")
    proof = Proof.read(folder)
    (folder / STATES / f"{proof.states[0].cid}.safetensors").write_bytes(data)
    one_reader(folder)
    (folder / STATES / f"{proof.states[0].cid}.safetensors").rename(folder / STATES / f"{cid_of(data)}.safetensors")
    renamed = replace(proof.states[0], cid=cid_of(data))
    replace(proof, states=(renamed, *proof.states[1:])).write(folder)
    assert Proof.read(folder).states[0].cid == cid_of(data)
    rejected(judged(folder), ExitCode.MALFORMED, "safetensors")
    assert not mark.exists()


@pytest.mark.parametrize("name", ["model.pkl", ".metadata", "states/data.pkl", "states/optimizer.pt", "__init__.py"])
def test_in_a_file_that_does_not_belong(honest_run: Path, tmp_path: Path, mark: Path, name: str) -> None:
    folder = copied(honest_run, tmp_path / "proof")
    (folder / name).write_bytes(pickle.dumps(Payload(mark)))
    rejected(judged(folder), ExitCode.MALFORMED, "of a proof")
    assert not mark.exists()


def test_in_a_blob(data: bytes, mark: Path) -> None:
    with pytest.raises(ProofError, match="safetensors"):
        from_safetensors(data, where="test")
    assert not mark.exists()


def test_as_the_bytes_of_a_tensor(honest_run: Path, mark: Path) -> None:
    """Where canonical JSON belongs: read as bytes and compared, in a state of the right names and dtypes."""
    payload = pickle.dumps(Payload(mark))
    state = from_safetensors(states_of(honest_run).get(Proof.read(honest_run).states[0].cid), where="test")
    state["scalars"] = torch.frombuffer(bytearray(payload), dtype=torch.uint8)
    assert bytes(from_safetensors(save(state), where="test")["scalars"].tolist()) == payload
    assert not mark.exists()


def test_in_the_metadata_of_a_blob(mark: Path) -> None:
    """Text that is part of a file but of no tensor: carried along, never looked into."""
    text = base64.b64encode(pickle.dumps(Payload(mark))).decode()
    tensors = from_safetensors(save({"w": torch.ones(2)}, {"format": "pickle", "data": text}), where="test")
    assert set(tensors) == {"w"} and not mark.exists()


# Data sets


@pytest.mark.parametrize("name", ["digits/train", "anything", "tokens/uint8/x", "arrow/a/b"])
def test_in_a_data_set(tmp_path: Path, data: bytes, mark: Path, name: str) -> None:
    (tmp_path / "blob").write_bytes(data)
    with pytest.raises(PolError):
        open_data(name, tmp_path / "blob")
    assert not mark.exists()


def test_as_tokens_they_are_tokens(tmp_path: Path, data: bytes, mark: Path) -> None:
    """A file of tokens has no form: any bytes are one, and nothing else."""
    (tmp_path / "blob").write_bytes(data)
    samples = open_data("tokens/uint8/8/anything", tmp_path / "blob")
    assert samples.sample(0)[0].tolist() == list(data[:9]) and not mark.exists()


def test_a_verifier_given_one_says_that_the_data_is_not_here(honest_run: Path, tmp_path: Path, mark: Path) -> None:
    """Which is the verifier's own file: nothing is said of the proof."""
    (tmp_path / "blob").write_bytes(_torch(Payload(mark), zipped=True))
    with pytest.raises(CannotRun, match="not to be had"):
        judged(honest_run, Policy(segments=[0], dataset=tmp_path / "blob"))
    assert not mark.exists()


def test_in_the_type_of_an_arrow_column(tmp_path: Path, mark: Path) -> None:
    """CVE-2023-47248: the extension type's metadata is a pickle."""
    datasets, arrow = pytest.importorskip("datasets"), pytest.importorskip("pyarrow")
    folder = tmp_path / "arrow"
    datasets.Dataset.from_dict({"a": [1, 2, 3]}).save_to_disk(str(folder))
    hostile = arrow.field("a", arrow.int64(), metadata={
        b"ARROW:extension:name": b"arrow.py_extension_type",
        b"ARROW:extension:metadata": pickle.dumps(Payload(mark)),
    })  # fmt: skip
    (path,) = folder.glob("*.arrow")
    schema = arrow.schema([hostile])
    with arrow.OSFile(str(path), "wb") as file, arrow.ipc.new_stream(file, schema) as writer:
        writer.write_table(arrow.table([arrow.array([1, 2, 3])], schema=schema))
    try:
        samples = open_data("arrow/a/hostile", folder)
        assert [int(samples.sample(i)[0]) for i in range(3)] == [1, 2, 3]
    except PolError:
        pass
    assert not mark.exists()


# What travels with a proof


@pytest.fixture
def claim(tmp_path: Path, train_set: Dataset) -> Path:
    """A sound claim of somebody who trained a wider perceptron."""
    key = WatermarkKey.generate(DEFAULT_PARAMETERS.leaf_count)
    shapes = {"layers.0": (512, 64), "layers.1": (512, 512), "layers.2": (10, 512)}
    model: Tensors = {}
    for name, shape in shapes.items():
        model |= {f"{name}.weight": torch.randn(shape), f"{name}.bias": torch.zeros(shape[0])}
    promise = WatermarkPromise(key_root=key.root, parameters=DEFAULT_PARAMETERS.to_json())
    spec = replace(small_spec(train_set), watermark=promise)
    state = {f"model/{name}": value for name, value in model.items()} | {"scalars": torch.zeros(1)}
    write_claim(tmp_path / "claim", Claim.make(key, bytes(32), DEFAULT_PARAMETERS, (0, 1), model), spec, state)
    return tmp_path / "claim"


def test_in_a_watermark_claim(claim: Path, tmp_path: Path, data: bytes, mark: Path) -> None:
    assert read_claim(claim).claim.groups == (0, 1), "the honest twin"
    names = {path.name for path in claim.iterdir()}
    assert names == {"claim.json", "theta_ref.safetensors", TABLE_FILE, SPEC_FILE}
    for name in names:
        hostile = Path(shutil.copytree(claim, tmp_path / f"with {name}"))
        (hostile / name).write_bytes(data)
        with pytest.raises(ProofError):
            read_claim(hostile)
    assert not mark.exists()


def test_in_a_bundle_and_in_a_task(tmp_path: Path, data: bytes, mark: Path) -> None:
    store = LocalStore(tmp_path / "store")
    with pytest.raises(ProofError):
        fetch_proof(store.put(data), store, tmp_path / "fetched")
    with pytest.raises((ProofError, SpecError)):
        TaskDescription.from_bytes(data)
    assert not mark.exists()


def test_no_module_of_ours_can_unpickle() -> None:
    """Not one line that loads a pickle, in whatever way it is spelled."""
    forbidden = ("pickle.load", "torch.load", "np.load", "numpy.load", "joblib", "allow_pickle", "dill", "marshal")
    root = Path(__file__).parents[2]
    sources = [path for name in ("pol", "watermark", "chain", "challenge") for path in (root / name).rglob("*.py")]
    assert len(sources) > 50
    lines = [f"{path}: {line}" for path in sources for line in path.read_text().splitlines()]
    assert not [line for line in lines for name in forbidden if name in line]


def test_the_honest_twin_is_read(honest_run: Path, tmp_path: Path, train_set: Dataset) -> None:
    """The same files with what belongs in them."""
    (tmp_path / "blob").write_bytes(train_set.to_bytes())
    assert open_data("anything", tmp_path / "blob").root == train_set.root
    assert json.loads((honest_run / MANIFEST).read_bytes())["format"] == "aiarena.proof/1"
    assert judged(honest_run, Policy(segments=[0])).exit_code is ExitCode.VERIFIED
