"""Several submissions in one proof: what the manifest says of them, strictly, and sealing that is interrupted."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pol import Proof, Recorder, SeedSource, recorded, seal
from pol.data import Dataset
from pol.encoding import canonical_json
from pol.errors import CannotRun, ProofError, RecordingError
from pol.proof import MANIFEST, states_of
from pol.spec import WatermarkPromise
from pol.submission import MAX_EARLIER
from tests.runs import SEED, branch, record, small_spec


@pytest.fixture
def folder(honest_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(honest_run, tmp_path / "proof"))


def test_all_models_come_back_in_order(folder: Path) -> None:
    first, last = branch(folder, 1), branch(folder, 3)
    sealed = seal(folder, *last, None, earlier=iter([first]))
    assert Proof.read(folder) == sealed and sealed.submissions == (first[0], last[0]) and sealed.reference == 1
    (row,) = json.loads((folder / MANIFEST).read_bytes())["earlier"]
    assert set(row) == {"model_digest", "model_cid", "reference_segment"}


def test_one_model_leaves_no_trace_of_the_field(folder: Path) -> None:
    assert seal(folder, *branch(folder, 3), None).reference == 3
    assert "earlier" not in json.loads((folder / MANIFEST).read_bytes())


@pytest.fixture(scope="module")
def promising(train_set: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that promises a watermark, and keeps its states after segments 1 and 3."""
    folder = tmp_path_factory.mktemp("promising") / "proof"
    record(replace(small_spec(train_set), watermark=WatermarkPromise(key_root=SEED, parameters={})), train_set, folder)
    return folder


def late(folder: Path, theta_ref: int | None) -> Proof:
    """A proof whose only model leaves the trunk after segment 3."""
    mark, blob = branch(folder, 3)
    return seal(folder, replace(mark, beta=SEED), blob, None, theta_ref=theta_ref)


def test_theta_ref_is_named_where_no_model_leaves_the_trunk(promising: Path, tmp_path: Path) -> None:
    for theta_ref, reference, named in ((1, 1, 1), (3, 3, None), (None, 3, None)):
        folder = Path(shutil.copytree(promising, tmp_path / f"theta-{theta_ref}"))
        assert late(folder, theta_ref) == Proof.read(folder)
        assert Proof.read(folder).reference == reference
        assert json.loads((folder / MANIFEST).read_bytes()).get("theta_ref") == named


REFERENCES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "null": lambda m: m.update(theta_ref=None),
    "text": lambda m: m.update(theta_ref="1"),
    "negative": lambda m: m.update(theta_ref=-1),
    "no state there": lambda m: m.update(theta_ref=0),
    "the branch itself": lambda m: m.update(theta_ref=3),
    "beyond the end": lambda m: m.update(theta_ref=4),
    "no model": lambda m: m.update(submission=None),
    "no watermark": lambda m: m["submission"].update(beta=None),
}  # fmt: skip


@pytest.mark.parametrize("name", REFERENCES)
def test_a_theta_ref_that_cannot_be_is_refused(promising: Path, tmp_path: Path, name: str) -> None:
    folder = Path(shutil.copytree(promising, tmp_path / "proof"))
    late(folder, 1)
    manifest = json.loads((folder / MANIFEST).read_bytes())
    REFERENCES[name](manifest)
    (folder / MANIFEST).write_bytes(canonical_json(manifest))
    with pytest.raises(ProofError):
        Proof.read(folder)


CHANGES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "empty": lambda m: m.update(earlier=[]),
    "null": lambda m: m.update(earlier=None),
    "an object": lambda m: m.update(earlier=m["earlier"][0]),
    "too many": lambda m: m.update(earlier=m["earlier"] * (MAX_EARLIER + 1)),
    "twice": lambda m: m.update(earlier=m["earlier"] * 2),
    "without the last": lambda m: m.update(submission=None),
    "the last once more": lambda m: m["earlier"][0].update(model_digest=m["submission"]["model_digest"]),
    "its own beacon": lambda m: m["earlier"][0].update(beta=None, beta_block=0),
    "a missing field": lambda m: m["earlier"][0].pop("model_cid"),
    "no state there": lambda m: m["earlier"][0].update(reference_segment=0),
    "beyond the end": lambda m: m["earlier"][0].update(reference_segment=4),
    "after the end's": lambda m: (
        m["earlier"][0].update(reference_segment=3), m["submission"].update(reference_segment=1)
    ),
    "another model": lambda m: m["earlier"][0].update(model_cid=m["states"][0]["cid"]),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_what_cannot_be_is_refused(folder: Path, name: str) -> None:
    seal(folder, *branch(folder, 3), None, earlier=[branch(folder, 1)])
    manifest = json.loads((folder / MANIFEST).read_bytes())
    (folder / MANIFEST).write_bytes(canonical_json(manifest))
    Proof.read(folder)
    CHANGES[name](manifest)
    (folder / MANIFEST).write_bytes(canonical_json(manifest))
    with pytest.raises(ProofError):
        Proof.read(folder)


def test_a_sealing_that_fails_or_is_killed_leaves_a_folder_to_seal(folder: Path) -> None:
    first, last = branch(folder, 1), branch(folder, 3)
    before = Proof.read(folder)
    with pytest.raises(RecordingError, match="names model"):
        seal(folder, last[0], last[1] + b"\0", None, earlier=[first])
    with pytest.raises(ProofError, match="ascend"):
        seal(folder, *first, None, earlier=[last])
    with pytest.raises(ProofError, match="beacon"):
        seal(folder, *last, None, earlier=[(replace(first[0], beta=bytes(32)), first[1])])
    assert Proof.read(folder) == before
    states_of(folder).put(first[1])  # killed after this
    assert seal(folder, *last, None, earlier=[first]).earlier == (first[0],)


def test_an_unfinished_recording_says_what_is_safe(train_set: Dataset, tmp_path: Path) -> None:
    spec, out, seen = small_spec(train_set), tmp_path / "run", []
    with pytest.raises(CannotRun, match="no recorded run"):
        recorded(out)
    with Recorder(spec, out, seed_source=SeedSource(kind="chosen", value=SEED)) as recorder:
        state = recorder.program.build(spec.config, recorder.seed)
        recorder.attach(model=state.model, optimizer=state.optimizer, scheduler=state.scheduler)
        for batch in recorder.batches(train_set):
            if recorder.state.step == 35:
                recorder.wait()
                seen.append(recorded(out))
            recorder.step(recorder.program.train_step(state, batch))
    whole, (part,) = recorded(out), seen
    assert whole == Proof.read(out)
    assert part.segments == whole.segments[:3] and part.states == whole.states[:1] and part.seed == whole.seed
