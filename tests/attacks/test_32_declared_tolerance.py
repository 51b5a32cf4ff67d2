"""Case 32: the prover says how much error is to be allowed.

Source: formats in which thresholds travel with the proof, or are left to the caller and so to whatever example the
prover wrote (the published verifier of Jia et al. 2021 takes them from the command line that the prover gives, and its
defaults are wider than forty steps of honest training).

Here no field of any file says anything about exactness, and a field that the format does not name is refused wherever
it stands. How many segments, which, on what machine and with which data is the verifier's policy; the tolerance of tier
T2 is measured by the verifier on its own machine, and convicts and clears nobody on the class that was promised.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from challenge import tolerance
from challenge.bundle import fetch_proof, publish_proof
from challenge.segments import Policy
from challenge.verdict import ExitCode
from challenge.verify import verify
from pol import Proof
from pol.data import Dataset
from pol.encoding import Json, canonical_json, parse_canonical_json
from pol.errors import ProofError, SpecError
from pol.program import BUILT_IN, load_program, program_digest
from pol.proof import MANIFEST, OPENINGS, TRANSCRIPT, StoredState, states_of, write_openings
from pol.state import to_safetensors
from pol.store import LocalStore
from tests.attacks.forging import copied, edit_state, trained_states
from tests.attacks.judging import judged, rejected
from tests.runs import small_spec

DECLARED: dict[str, Json] = {"tolerance": "0x1.0p+0", "delta": 1000, "tier": "T2", "exact": False, "segments": [0]}


def places(value: Json, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where in ``value`` there is an object."""
    if isinstance(value, dict):
        yield path
        for key, item in value.items():
            yield from places(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from places(item, (*path, index))


def declared(value: Json, path: tuple[Any, ...], field: str) -> Json:
    """``value`` with one more field in the object at ``path``."""
    if not path:
        assert isinstance(value, dict)
        return value | {field: DECLARED[field]}
    here, *rest = path
    inner = declared(value[here], tuple(rest), field)  # type: ignore[index, call-overload]
    return value | {here: inner} if isinstance(value, dict) else [*value[:here], inner, *value[here + 1 :]]  # type: ignore


@pytest.fixture
def folder(honest_run: Path, tmp_path: Path, train_set: Dataset) -> Path:
    """An honest proof with an opened state, so that every kind of file is there."""
    folder = copied(honest_run, tmp_path / "proof")
    state = trained_states(Proof.read(folder).spec, train_set)[1]
    write_openings(folder, [StoredState(step=10, cid=states_of(folder).put(to_safetensors(state)))])
    return folder


def refused_everywhere(path: Path, read: Callable[[], object], *, skip: frozenset[str] = frozenset()) -> int:
    """Insist that nothing can be declared in any object of a file; returns how many were tried."""
    data, tried = path.read_bytes(), 0
    lines = data.split(b"\n")
    for number, line in enumerate(lines):
        if not line:
            continue
        value = parse_canonical_json(line, where="test")
        for where in places(value):
            if skip & set(where):
                continue
            for field in DECLARED:
                changed = [*lines[:number], canonical_json(declared(value, where, field)), *lines[number + 1 :]]
                path.write_bytes(b"\n".join(changed))
                with pytest.raises(ProofError):
                    read()
                tried += 1
    path.write_bytes(data)
    read()
    return tried


def test_nowhere_in_a_proof(folder: Path) -> None:
    """Config and machine are the program's and the machine's own, see below."""
    skip = frozenset({"config", "machine"})
    objects = sum(
        refused_everywhere(folder / name, lambda: Proof.read(folder), skip=skip) for name in (MANIFEST, OPENINGS)
    )
    assert objects == 5 * (1 + 1 + 1 + 4 + 2 + 1 + 1), "manifest, spec, seed, anchors, states, openings and its state"
    assert refused_everywhere(folder / TRANSCRIPT, lambda: Proof.read(folder)) == 5 * 4


def test_not_in_the_machine_class(folder: Path) -> None:
    proof = Proof.read(folder)
    for field, value in DECLARED.items():
        replace(proof, spec=replace(proof.spec, machine=dict(proof.spec.machine) | {field: value})).write(folder)
        rejected(judged(folder), ExitCode.MALFORMED, f"unknown fields ['{field}']")


def test_not_in_a_programs_config(folder: Path) -> None:
    """Which is read by the program itself, in the replay: it refuses what it does not know."""
    proof = Proof.read(folder)
    config = proof.spec.config | {"tolerance": DECLARED["tolerance"]}
    replace(proof, spec=replace(proof.spec, config=config)).write(folder)
    rejected(judged(folder), ExitCode.MALFORMED, "tolerance")


@pytest.mark.parametrize("name", sorted(BUILT_IN))
def test_every_built_in_program_refuses_it(name: str) -> None:
    with pytest.raises(SpecError, match="tolerance"):
        load_program(name, program_digest(name)).build({"tolerance": DECLARED["tolerance"]}, bytes(32))


def test_not_as_numerics(folder: Path) -> None:
    data = (folder / MANIFEST).read_bytes()
    for numerics in (b"tolerant", b"Native", b"", b"native "):
        (folder / MANIFEST).write_bytes(data.replace(b'"numerics":"native"', b'"numerics":"' + numerics + b'"'))
        rejected(judged(folder), ExitCode.MALFORMED, "numerics")


def test_not_in_a_bundle(folder: Path, tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    index = parse_canonical_json(store.get(publish_proof(folder, store)), where="test")
    for field in DECLARED:
        cid = store.put(canonical_json(declared(index, (), field)))
        with pytest.raises(ProofError, match="unknown fields"):
            fetch_proof(cid, store, tmp_path / field)


def test_not_in_a_state(folder: Path) -> None:
    """A tensor of that name is one that the program does not have; in the text of ``scalars`` see case 20."""
    edit_state(folder, 1, lambda tensors: tensors.update({"tolerance": torch.ones(())}))
    verdict = judged(folder, Policy(segments=[2]))
    rejected(verdict, ExitCode.REPLAY_MISMATCH, "other tensors than the program's: ['tolerance']")


def test_the_smallest_error_is_one(folder: Path) -> None:
    """On the promised class there is no tolerance to widen: one lowest bit of one number."""

    def lowest_bit(tensors: dict[str, torch.Tensor]) -> None:
        tensors["model/layers.0.bias"].view(torch.int32)[0] ^= 1

    edit_state(folder, 1, lowest_bit)
    verdict = judged(folder, Policy(segments=[1]))
    assert rejected(verdict, ExitCode.REPLAY_MISMATCH, "does not replay to the promised state") == {1}


def test_the_policy_is_the_verifiers() -> None:
    """Everything that a verdict depends on besides the proof is an argument; and tier T2's numbers are constants."""
    policy = {field.name for field in dataclasses.fields(Policy)}
    assert policy == {"segments", "dataset", "trusted", "device", "executor", "limits"}
    spec = {field.name for field in dataclasses.fields(Proof)} | set(small_spec.__kwdefaults__ or {})
    assert not policy - {"segments"} & spec
    assert set(inspect.signature(verify).parameters) == {"folder", "policy", "claims", "chain", "watcher", "store"}
    assert isinstance(tolerance.MARGIN, float) and isinstance(tolerance.CEILING, float)


def test_the_honest_twin_passes(folder: Path) -> None:
    assert judged(folder, Policy(segments=[1])).exit_code is ExitCode.VERIFIED
