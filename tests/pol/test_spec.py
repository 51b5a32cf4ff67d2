"""The spec: a strict parse that is the inverse of the format, and a digest that binds every field."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import pytest

from pol.data import Dataset
from pol.encoding import canonical_json, parse_canonical_json
from pol.errors import CannotRun, ProofError, SpecError
from pol.spec import EXACT, TaskRef, TrainingSpec, WatermarkPromise
from tests.runs import small_spec

TOML = """
program = "pol.programs.classifier:ImageClassifier"
dataset = "digits/train"
batch_size = 32
steps = 40
segment_length = 10

[config]
inputs = 64
width = 32
hidden = 2
classes = 10
steps = 40
learning_rate = 1e-3
weight_decay = 0.01
dropout = 0.1
batch_norm = true
"""


@pytest.fixture
def spec(train_set: Dataset) -> TrainingSpec:
    return replace(
        small_spec(train_set),
        task=TaskRef(chain_id=1, arena=bytes(20), task_id=7),
        watermark=WatermarkPromise(key_root=bytes(32), parameters={"groups": 64}),
    )


def test_parse_is_the_inverse_of_encode(spec: TrainingSpec) -> None:
    data = canonical_json(spec.to_json())
    parsed = TrainingSpec.from_json(parse_canonical_json(data, where="spec"))
    assert parsed == spec and parsed.digest == spec.digest


CHANGES = {
    "program": "pol.programs.other:Program", "program_digest": b"\1" * 32, "config": {}, "dataset": "other",
    "dataset_root": b"\1" * 32, "dataset_size": 2000, "batch_size": 33, "steps": 41, "segment_length": 9,
    "machine": None, "trainer": b"\1" * 20, "task": None, "watermark": None,
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(CHANGES))
def test_the_digest_binds_every_field(spec: TrainingSpec, name: str) -> None:
    assert {field.name for field in fields(TrainingSpec)} == {*CHANGES, "numerics"}
    assert replace(spec, **{name: CHANGES[name]}).digest != spec.digest


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("format", "aiarena.spec/2"), ("steps", 0), ("steps", True), ("steps", "40"), ("batch_size", 10**6),
        ("segment_length", 0), ("steps", 2**60), ("program_digest", "0x12"), ("trainer", "0x" + "00" * 32),
        ("numerics", "float8"), ("numerics", "exact"), ("config", []),
        ("task", {}), ("watermark", {"key_root": "0x"}), ("dataset", "x" * 999),
    ],
)  # fmt: skip
def test_impossible_values_are_refused(spec: TrainingSpec, name: str, value: object) -> None:
    with pytest.raises(ProofError, match="spec"):
        TrainingSpec.from_json(spec.to_json() | {name: value})


def test_unknown_and_missing_fields_are_refused(spec: TrainingSpec) -> None:
    row = spec.to_json()
    with pytest.raises(ProofError, match="unknown"):
        TrainingSpec.from_json(row | {"note": 1})
    del row["steps"]
    with pytest.raises(ProofError, match="missing"):
        TrainingSpec.from_json(row)


def test_segments_cover_all_steps(train_set: Dataset) -> None:
    spec = small_spec(train_set, steps=25)
    assert [spec.bounds(i) for i in range(spec.segments)] == [(0, 10), (10, 20), (20, 25)]


def test_a_run_file_gives_the_same_promise(tmp_path: Path, train_set: Dataset) -> None:
    path = tmp_path / "run.toml"
    path.write_text(TOML)
    assert TrainingSpec.load(path) == small_spec(train_set)


@pytest.mark.parametrize("name", ["exact", EXACT])
def test_a_run_file_may_promise_exact_numerics(tmp_path: Path, train_set: Dataset, name: str) -> None:
    path = tmp_path / "run.toml"
    path.write_text(f'numerics = "{name}"\n{TOML}')
    spec = TrainingSpec.load(path)
    assert spec == replace(small_spec(train_set), numerics=EXACT)
    assert spec.exact and spec.digest != small_spec(train_set).digest


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('numerics = "exact/0"\n' + TOML, "numerics 'exact/0' is unknown"),
        ("steps =", "not TOML"), (TOML.replace("steps = 40\n", "", 1), "missing"), ("other = 1\n" + TOML, "unknown"),
        (TOML.replace("digits/train", "imagenet"), "digits/train"), (TOML.replace("= 32", '= "x"', 1), "wrong type"),
    ],
)  # fmt: skip
def test_a_bad_run_file_says_what_to_do(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "run.toml"
    path.write_text(text)
    with pytest.raises(SpecError, match=message):
        TrainingSpec.load(path)


def test_a_missing_run_file_is_not_the_authors_fault(tmp_path: Path) -> None:
    with pytest.raises(CannotRun, match="cannot be read"):
        TrainingSpec.load(tmp_path / "none.toml")
