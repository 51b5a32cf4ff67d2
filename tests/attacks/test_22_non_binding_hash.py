"""Case 22: two different things with one digest, so that one is promised and the other is shown.

Source: found in published code. Jia et al. 2021 hash ``str(array)``, in which numpy prints ``...`` for most of an image
(65.8 % of all pixel bytes could be replaced under one digest); others cast to float32 first, skip keys, hash Python's
``str(dict)``, or leave optimizer state and labels out.

Here everything is hashed as bytes of one canonical form: names, dtypes, shapes, positions, counts and lengths are
bound, and nothing is that cannot be told apart again. The honest twin is whatever only looks different: another order
of a dict, other strides, another copy.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pol import Proof, TrainingSpec
from pol.data import Dataset, batch_root, sample_leaf
from pol.encoding import Json, canonical_json, digest, parse_canonical_json
from pol.errors import PolError, ProofError
from pol.machine import MachineClass
from pol.proof import MANIFEST, TRANSCRIPT, states_of
from pol.seed import draw, run_seed
from pol.spec import TaskRef, WatermarkPromise
from pol.state import Tensors, from_safetensors, model_tensors
from pol.tensors import DTYPES, little_endian_bytes, same_bits, tensor_root, tensors_digest
from pol.transcript import extend_transcript
from tests.attacks.forging import copied
from tests.runs import small_spec
from watermark import DEFAULT_PARAMETERS

NUMBERS = [dtype for dtype in DTYPES if dtype is not torch.bool]


def published_digest(dataset: np.ndarray) -> str:
    """As the published code hashes data: what numpy prints of every sample."""
    hasher = hashlib.sha256()
    for sample in dataset:
        hasher.update(str(sample).encode())
    return hasher.hexdigest()


def test_a_printed_array_binds_almost_nothing() -> None:
    images = np.zeros((2, 32, 32, 3), dtype=np.uint8)
    poisoned = images.copy()
    poisoned[:, 3:-3, 3:-3] = 255
    assert (poisoned != images).mean() > 0.65
    assert published_digest(poisoned) == published_digest(images)
    honest, other = (Dataset(torch.from_numpy(data), torch.zeros(2, dtype=torch.int64)) for data in (images, poisoned))
    assert honest.root != other.root


# States


@pytest.fixture(scope="module")
def state(honest_run: Path) -> Tensors:
    """A whole state as it was recorded: weights, buffers, moments, generators and scalars."""
    proof = Proof.read(honest_run)
    return from_safetensors(states_of(honest_run).get(proof.states[0].cid), where="test")


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_any_bit_of_a_state_is_bound(state: Tensors, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(state)))
    raw = bytearray(little_endian_bytes(state[name]))
    position, bit = data.draw(st.integers(0, len(raw) - 1)), data.draw(st.integers(0, 7))
    raw[position] ^= 1 << bit
    other = torch.frombuffer(raw, dtype=state[name].dtype).reshape(state[name].shape)
    assert tensors_digest(state | {name: other}) != tensors_digest(state)


def test_every_tensor_of_a_state_is_bound(state: Tensors) -> None:
    """By its name and its presence too: no key is skipped."""
    whole = tensors_digest(state)
    for name, value in state.items():
        rest = {other: tensor for other, tensor in state.items() if other != name}
        assert tensors_digest(rest) != whole
        assert tensors_digest(rest | {f"{name}_": value}) != whole
        assert tensors_digest(state | {f"{name}_": value}) != whole
        assert tensors_digest(state | {name: value.unsqueeze(0)}) != whole


def test_two_tensors_cannot_change_places(state: Tensors) -> None:
    one, other = "optimizer/0/exp_avg", "optimizer/0/exp_avg_sq"
    assert state[one].shape == state[other].shape
    assert tensors_digest(state | {one: state[other], other: state[one]}) != tensors_digest(state)


def test_only_what_is_different_is_different(state: Tensors) -> None:
    """The honest twin: another order of names, other strides, other memory."""

    def restrided(value: torch.Tensor) -> torch.Tensor:
        wide = torch.stack([value, value], dim=-1)
        return wide[..., 0]

    again = {name: restrided(state[name]) for name in sorted(state, reverse=True)}
    assert any(not value.is_contiguous() for value in again.values())
    assert tensors_digest(again) == tensors_digest(state)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_values_of_every_dtype_are_told_apart(dtype: torch.dtype) -> None:
    """All from the same bytes where that is possible, and without dimensions too."""
    ones = torch.ones(8, dtype=dtype)
    seen = {tensor_root("w", ones), tensor_root("w", ones.reshape(2, 4)), tensor_root("w", ones.reshape(4, 2))}
    seen |= {tensor_root("w", ones[0]), tensor_root("w", ones[:1]), tensor_root("w", ones[:1, None])}
    seen |= {
        tensor_root("w", ones[:0]),
        tensor_root("w", ones[:0].reshape(0, 3)),
        tensor_root("w", ones[:0].view(3, 0)),
    }
    assert len(seen) == 9
    assert tensor_root("w", ~ones if dtype is torch.bool else ones + 1) not in seen


@pytest.mark.parametrize("dtype", NUMBERS, ids=str)
def test_the_same_bytes_under_another_dtype_are_another_tensor(dtype: torch.dtype) -> None:
    data = torch.arange(16, dtype=torch.uint8)
    roots = {tensor_root("w", data.view(other)) for other in NUMBERS}
    assert len(roots) == len(NUMBERS)
    assert tensor_root("w", data.view(dtype)) in roots


@pytest.mark.parametrize("dtype", [dtype for dtype in DTYPES if dtype.is_floating_point], ids=str)
def test_numbers_that_compare_equal_are_told_apart(dtype: torch.dtype) -> None:
    plus, minus = torch.zeros(3, dtype=dtype), -torch.zeros(3, dtype=dtype)
    assert torch.equal(plus, minus)
    assert not same_bits(plus, minus) and tensor_root("w", plus) != tensor_root("w", minus)
    smallest = torch.zeros(3, dtype=dtype)
    smallest.view(torch.uint8)[0] = 1  # the least number above zero, which a cast or a flush would swallow
    assert tensor_root("w", smallest) != tensor_root("w", plus)


def test_a_transposed_matrix_is_another_matrix() -> None:
    """In one memory: strides decide what the elements are, so they are read, not the memory."""
    square = torch.arange(9.0).reshape(3, 3)
    assert square.data_ptr() == square.t().data_ptr()
    assert tensor_root("w", square) != tensor_root("w", square.t())
    assert tensor_root("w", square.t()) == tensor_root("w", square.t().contiguous())
    expanded = torch.ones(1, 3).expand(4, 3)
    assert tensor_root("w", expanded) == tensor_root("w", torch.ones(4, 3))


def test_a_tied_weight_is_bound_under_both_names() -> None:
    weight = torch.ones(4)
    tied = {"model/a": weight, "model/b": weight}
    assert tensors_digest(tied) == tensors_digest({"model/a": weight.clone(), "model/b": weight.clone()})
    assert tensors_digest(tied) != tensors_digest({"model/a": weight})
    assert tensors_digest(tied) != tensors_digest({"model/a": weight, "model/b": weight + 1})


def test_names_do_not_run_into_what_follows_them() -> None:
    """Lengths come first, so no byte can move from a name into a dtype, a shape or the data."""
    value = torch.tensor(list(b"F32"), dtype=torch.uint8)
    assert tensor_root("wF32", value) != tensor_root("w", torch.tensor(list(b"F32F32"), dtype=torch.uint8))
    assert tensor_root("w\0", value) != tensor_root("w", value)
    assert tensors_digest({"a": value, "b": value}) != tensors_digest({"ab": torch.cat([value, value])})
    assert tensor_root("é", value) != tensor_root("e\u0301", value), "the same to the eye only"


# What is written as JSON


def mutations(value: Json) -> Iterator[Json]:
    """``value`` with one thing changed, everywhere in it: a leaf, a name, an order, one more or one less."""
    if isinstance(value, dict):
        for key, item in value.items():
            rest = {name: other for name, other in value.items() if name != key}
            yield rest
            yield rest | {f"{key}_": item}
            yield from (value | {key: changed} for changed in mutations(item))
        yield value | {"tolerance": 1}
    elif isinstance(value, list):
        yield [*value, 0]
        for index, item in enumerate(value):
            yield value[:index] + value[index + 1 :]
            yield from ([*value[:index], changed, *value[index + 1 :]] for changed in mutations(item))
        if value[::-1] != value:
            yield value[::-1]
    elif isinstance(value, bool):
        yield not value
        yield int(value)
    elif isinstance(value, int):
        yield value + 1
        yield str(value)
    elif isinstance(value, str):
        yield value[:-1] + ("1" if value.endswith("0") else "0")
        yield value + "0"
        yield value.upper() if value != value.upper() else value.lower()
        yield ""
    else:
        yield 0


def full_spec(dataset: Dataset) -> TrainingSpec:
    """A spec in which no field is left out."""
    return replace(
        small_spec(dataset),
        task=TaskRef(chain_id=1, arena=b"\1" * 20, task_id=7),
        watermark=WatermarkPromise(key_root=bytes(32), parameters=DEFAULT_PARAMETERS.to_json()),
    )


def test_every_field_of_a_spec_is_bound(train_set: Dataset) -> None:
    spec = full_spec(train_set)
    seen, refused = {spec.digest}, 0
    for changed in mutations(spec.to_json()):
        try:
            other = TrainingSpec.from_json(json.loads(canonical_json(changed)))
        except ProofError:
            refused += 1
            continue
        assert other.digest not in seen
        seen.add(other.digest)
    assert len(seen) > 60 and refused > 60
    assert TrainingSpec.from_json(spec.to_json()).digest == spec.digest, "the honest twin"


def test_every_field_of_a_machine_class_is_bound(train_set: Dataset) -> None:
    machine = MachineClass.from_json(small_spec(train_set).machine, where="test")
    changed = [
        replace(machine, **{field.name: "x" if field.type == "str" else 7})
        for field in fields(machine)
        if field.name != "deterministic"
    ]
    assert len({machine.digest, *(other.digest for other in changed)}) == len(changed) + 1


def test_every_field_of_a_segment_is_bound(honest_run: Path) -> None:
    segment = Proof.read(honest_run).segments[1]
    changed = [replace(segment, **{name: getattr(segment, name) + 1}) for name in ("index", "start_step", "end_step")]
    for name in ("start_digest", "end_digest", "batch_root"):
        for position in (0, 31):
            value = bytearray(getattr(segment, name))
            value[position] ^= 1
            changed.append(replace(segment, **{name: bytes(value)}))
    changed.append(replace(segment, start_digest=segment.end_digest, end_digest=segment.start_digest))
    assert len({segment.leaf(), *(other.leaf() for other in changed)}) == len(changed) + 1
    assert replace(segment).leaf() == segment.leaf()


def test_every_field_of_a_manifest_is_bound(honest_run: Path, tmp_path: Path) -> None:
    """Another manifest is refused, or read as another proof; openings and signature are what is not in its digest."""
    folder = copied(honest_run, tmp_path / "proof")
    proof, data = Proof.read(folder), (folder / MANIFEST).read_bytes()
    tried = 0
    for changed in mutations(parse_canonical_json(data, where="test")):
        (folder / MANIFEST).write_bytes(canonical_json(changed))
        tried += 1
        try:
            assert Proof.read(folder).manifest_digest != proof.manifest_digest, changed
        except PolError:
            continue
    assert tried > 150
    (folder / MANIFEST).write_bytes(data)
    assert Proof.read(folder) == proof


def test_every_field_of_the_transcript_is_bound(honest_run: Path, tmp_path: Path) -> None:
    """The anchors' roots hold the segments, so no line can be another."""
    folder = copied(honest_run, tmp_path / "proof")
    lines = (folder / TRANSCRIPT).read_bytes().splitlines()
    for number, line in enumerate(lines):
        for changed in mutations(parse_canonical_json(line, where="test")):
            others = [*lines[:number], canonical_json(changed), *lines[number + 1 :]]
            (folder / TRANSCRIPT).write_bytes(b"".join(other + b"\n" for other in others))
            with pytest.raises(ProofError):
                Proof.read(folder)


@pytest.mark.parametrize(
    "spelled",
    [
        b'{"a":1,"a":2}', b'{"b":1,"a":2}', b'{"a": 1}', b'{"a":1.0}', b'{"a":1e3}', b'{"a":01}', b'{"a":-0}',
        b'{"a":NaN}', b'{"a":"\\u0041"}', b'{"a":"\\/"}', b'{"a":1}\n', b'\xef\xbb\xbf{"a":1}', b'{"a":"\xc3\xa9"}',
        b'{"a":"\\ud800"}', b'{"a":18446744073709551616}', b'{"a":"\\U00e9"}', b'{"a":"\\u00E9"}', b'{"a":+1}',
    ],
    ids=repr,
)  # fmt: skip
def test_a_value_has_one_spelling(spelled: bytes) -> None:
    """Else one reader could see another value than the next, under one signature."""
    with pytest.raises(ProofError, match="not canonical"):
        parse_canonical_json(spelled, where="test")
    assert parse_canonical_json(b'{"a":1}', where="test") == {"a": 1}


# Chains, seeds and data


def test_every_part_of_a_transcript_digest_is_bound() -> None:
    parts = dict(transcript_digest=bytes(32), first=1, count=2, root=b"\1" * 32)
    others = [parts | change for change in ({"transcript_digest": b"\2" * 32}, {"first": 2}, {"count": 1})]
    others += [parts | {"root": bytes(32)}, parts | {"first": 2, "count": 1}]
    digests = {extend_transcript(**each) for each in (parts, *others)}
    assert len(digests) == len(others) + 1


def test_every_part_of_a_seed_is_bound() -> None:
    parts = dict(
        chain_id=1, arena=b"\1" * 20, task_id=2, trainer=b"\2" * 20, spec_digest=b"\3" * 32, beacon=b"\4" * 32
    )  # fmt: skip
    others = [parts | {name: parts[name] + 1} for name in ("chain_id", "task_id")]
    others += [parts | {name: parts[name][:-1] + rb"\9"} for name in ("arena", "trainer", "spec_digest", "beacon")]
    others.append(parts | {"chain_id": 2, "task_id": 1})
    assert len({run_seed(**each) for each in (parts, *others)}) == len(others) + 1
    draws = {draw(bytes(32), purpose, counter) for purpose in ("init", "rng/torch") for counter in range(5)}
    assert len(draws | {draw(b"\1" * 32, "init", 0)}) == 11


def test_pixels_labels_and_places_of_samples_are_bound(train_set: Dataset) -> None:
    pixels, label = train_set.sample(3)
    leaf = sample_leaf(("input", "label"), 3, (pixels, label))
    assert leaf == train_set.leaves[3]
    brighter = pixels.clone()
    brighter[7] += 1 / 255
    others = [
        sample_leaf(("input", "label"), 3, (brighter, label)),
        sample_leaf(("input", "label"), 3, (pixels, (label + 1) % 10)),
        sample_leaf(("input", "label"), 3, (pixels, label.int())),
        sample_leaf(("input", "label"), 3, (pixels.reshape(8, 8), label)),
        sample_leaf(("input", "label"), 4, (pixels, label)),
        sample_leaf(("label", "input"), 3, (pixels, label)),
    ]
    assert len({leaf, *others}) == len(others) + 1


def test_the_order_of_samples_and_batches_is_bound(train_set: Dataset) -> None:
    batches = [[1, 2], [3, 4]]
    others = [[[2, 1], [3, 4]], [[3, 4], [1, 2]], [[1, 2]], [[1, 2, 3], [4]], [[1, 2], [3, 4], [3, 4]]]
    roots = {batch_root(train_set, each, 0) for each in (batches, *others)}
    assert len(roots | {batch_root(train_set, batches, 1)}) == len(others) + 2
    assert batch_root(train_set, [list(batch) for batch in batches], 0) in roots


def test_domains_keep_kinds_apart() -> None:
    """The same bytes hashed as two kinds of thing are two digests, and no domain is short enough to be confused."""
    assert digest("aiarena/segment/v1", b"x") != digest("aiarena/anchors/v1", b"x")
    with pytest.raises(ValueError, match="16 bytes"):
        digest("short", b"x")


def test_a_model_and_a_state_do_not_share_a_digest(state: Tensors) -> None:
    model = model_tensors(state)
    assert tensors_digest(model) != tensors_digest({f"model/{name}": value for name, value in model.items()})
