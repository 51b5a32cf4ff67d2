"""Proofs edited after the fact, with every hash made consistent again: the strongest forger of the files."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from challenge.segments import Policy
from challenge.verdict import ExitCode, Verdict
from challenge.verify import verify
from pol import Proof
from pol.anchorer import NoChain
from pol.proof import states_of
from pol.state import Tensors, from_safetensors, to_safetensors
from pol.tensors import tensors_digest
from pol.transcript import segment_tree

FORGED = 1
"""The state after this segment is stored in the honest run; the forger replaces it and all that commits to it."""


def reanchored(proof: Proof) -> Proof:
    """The proof with the roots of its anchors worked out anew."""
    anchors = [
        NoChain().anchor(a.first, a.count, segment_tree(proof.segments[a.first : a.first + a.count]).root)
        for a in proof.anchors
    ]
    return replace(proof, anchors=tuple(anchors))


@pytest.fixture
def forge(honest_run: Path, honest_verdict: Verdict, tmp_path: Path) -> Callable[[Callable[[Tensors], None]], Path]:
    def edit(change: Callable[[Tensors], None]) -> Path:
        folder = Path(shutil.copytree(honest_run, tmp_path / "forged"))
        proof, store = Proof.read(folder), states_of(folder)
        stored = proof.stored_at(proof.segments[FORGED].end_step)
        tensors = from_safetensors(store.get(stored.cid), where="test")
        change(tensors)
        store.path(stored.cid).unlink()
        cid, digest = store.put(to_safetensors(tensors)), tensors_digest(tensors)
        segments = list(proof.segments)
        segments[FORGED] = replace(segments[FORGED], end_digest=digest)
        segments[FORGED + 1] = replace(segments[FORGED + 1], start_digest=digest)
        states = tuple(replace(s, cid=cid) if s.step == stored.step else s for s in proof.states)
        reanchored(replace(proof, segments=tuple(segments), states=states)).write(folder)
        return folder

    return edit


def weights(tensors: Tensors) -> None:
    tensors["model/layers.1.weight"] += 1e-7


def moments(tensors: Tensors) -> None:
    """Optimizer-state injection: the classic way to land anywhere in one step."""
    tensors["optimizer/0/exp_avg"] += 1e-3


def buffer(tensors: Tensors) -> None:
    tensors["model/norms.0.running_var"][0] = 2.0


def generator(tensors: Tensors) -> None:
    tensors["rng/torch"][100] ^= 1


def rate(tensors: Tensors) -> None:
    """A learning rate smuggled in with the state, as rivals' verifiers load it."""
    text = bytes(tensors["scalars"].tolist()).replace(b'"step":20', b'"step":21')
    tensors["scalars"] = torch.frombuffer(bytearray(text), dtype=torch.uint8)


@pytest.mark.parametrize("change", [weights, moments, buffer, generator, rate], ids=lambda change: change.__name__)
def test_a_consistent_forgery_still_does_not_replay(forge, change) -> None:
    verdict = verify(forge(change), Policy(segments=None))
    assert verdict.exit_code is ExitCode.REPLAY_MISMATCH
    assert FORGED in {f.segment for f in verdict.findings}, "the state before the forged one is where the lie shows"


def test_other_batches_than_the_orders_are_a_mismatch(honest_run: Path, tmp_path: Path) -> None:
    """The states are honest, but the batches that were committed to are not those of the data order."""
    folder = Path(shutil.copytree(honest_run, tmp_path / "forged"))
    proof = Proof.read(folder)
    segments = list(proof.segments)
    segments[FORGED] = replace(segments[FORGED], batch_root=bytes(32))
    reanchored(replace(proof, segments=tuple(segments))).write(folder)
    verdict = verify(folder, Policy(segments=[FORGED]))
    assert verdict.exit_code is ExitCode.REPLAY_MISMATCH
    assert "not trained on the committed batches" in verdict.findings[0].message


def test_values_that_are_not_finite_never_reach_a_comparison(forge) -> None:
    def poison(tensors: Tensors) -> None:
        tensors["model/layers.0.weight"][0, 0] = float("nan")

    verdict = verify(forge(poison), Policy(segments=None))
    assert verdict.exit_code is ExitCode.MALFORMED
    assert "NaN" in verdict.findings[0].message


def test_rewriting_without_a_change_passes(forge) -> None:
    """The honest twin of this file: the forger's own tools do not break a proof."""
    assert verify(forge(lambda tensors: None), Policy(segments=[1, 2])).exit_code is ExitCode.VERIFIED
