"""Case 28: old anchors, signatures or whole proofs handed in again, for another task, chain, trainer or format.

Source: replay of signed messages, as old as signatures are: work that was paid for once is shown for another job, or a
proof from a chain where everything is cheap is shown on one where it is not.

Here chain, contract, task, trainer and spec are in the seed, in the transcript digest and in what is signed. So an old
proof is not of the new job; and relabelled, with the new job's own beacon and its roots anchored anew, it starts from
another state than the new seed gives. (On chain: ``chain/contracts/test/attacks/StaleAnchor.t.sol``.)
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from challenge.segments import Policy
from challenge.verdict import ExitCode
from pol import Proof
from pol.encoding import canonical_json, parse_canonical_json
from pol.proof import MANIFEST, SeedSource
from pol.seed import run_seed
from pol.spec import TaskRef, TrainingSpec
from pol.transcript import segment_tree
from tests.attacks.forging import copied
from tests.attacks.judging import judged, rejected
from tests.attacks.ring import Ring, sign


@pytest.mark.parametrize("new", ["another task", "another trainer"])
def test_an_old_proof_under_the_name_of_a_new_run(ring: Ring, alices_run: Path, tmp_path: Path, new: str) -> None:
    """First as it is, with its old beacon and anchors; then with the new run's own, which the chain confirms."""
    folder, old = copied(alices_run, tmp_path / "proof"), Proof.read(alices_run)
    with ring.world.wound_back():
        job = Ring(ring.samples, ring.world) if new == "another task" else ring
        trainer = job.alice if new == "another task" else job.mallory
        spec = job.spec(trainer)
        source = job.register(trainer, spec)
        replace(old, spec=spec).write(folder)
        verdict = judged(sign(folder, trainer), chain=ring.world.reader)
        rejected(verdict, ExitCode.ANCHOR, "the seed's beacon is not the one latched on chain")
        rejected(verdict, ExitCode.ANCHOR, "the anchors are not those on chain")

        anchorer = job.anchorer(trainer)
        anew = tuple(anchorer.anchor(anchor.first, anchor.count, anchor.root) for anchor in old.anchors)
        replace(old, spec=spec, seed_source=source, anchors=anew).write(folder)
        verdict = judged(sign(folder, trainer), Policy(segments=[0]), chain=ring.world.reader)
        assert verdict.anchors_checked and "all on chain" in dict(verdict.checks)["anchors"]
        rejected(verdict, ExitCode.REPLAY_MISMATCH, "does not start from the program's initial state")
        rejected(verdict, ExitCode.REPLAY_MISMATCH, "does not start where the transcript says")


def elsewhere(spec: TrainingSpec, **change: object) -> TrainingSpec:
    assert spec.task is not None
    return replace(spec, task=replace(spec.task, **change))


def test_a_proof_of_another_chain(ring: Ring, alices_run: Path, tmp_path: Path) -> None:
    """The same contracts at the same address with the same history, on a chain that costs nothing."""
    folder = copied(alices_run, tmp_path / "proof")
    proof = Proof.read(folder)
    replace(proof, spec=elsewhere(proof.spec, chain_id=31_337)).write(folder)
    sign(folder, ring.alice)
    rejected(judged(folder, chain=ring.world.reader), ExitCode.ANCHOR, "the proof is of chain 31337")
    at_home = judged(folder, Policy(segments=[0]))
    rejected(at_home, ExitCode.REPLAY_MISMATCH, "does not start from the program's initial state")


@pytest.mark.parametrize(
    "change", [{"chain_id": 1}, {"arena": b"\1" * 20}, {"task_id": 999}], ids=lambda change: next(iter(change))
)
def test_a_signature_for_one_place_is_none_for_another(alices_run: Path, tmp_path: Path, change: dict) -> None:
    folder = copied(alices_run, tmp_path / "proof")
    proof = Proof.read(folder)
    replace(proof, spec=elsewhere(proof.spec, **change)).write(folder)
    rejected(judged(folder), ExitCode.MALFORMED, "signed by")


def test_a_signature_for_one_manifest_is_none_for_another(alices_run: Path, tmp_path: Path) -> None:
    folder = copied(alices_run, tmp_path / "proof")
    proof = Proof.read(folder)
    replace(proof, seed_source=replace(proof.seed_source, block=proof.seed_source.block + 1)).write(folder)
    rejected(judged(folder), ExitCode.MALFORMED, "signed by")


def test_a_proof_of_another_version_is_not_read(honest_run: Path, tmp_path: Path) -> None:
    folder = copied(honest_run, tmp_path / "proof")
    manifest = parse_canonical_json((folder / MANIFEST).read_bytes(), where="test")
    for changed in (
        manifest | {"format": "aiarena.proof/0"}, manifest | {"format": "aiarena.proof/2"},
        manifest | {"spec": manifest["spec"] | {"format": "aiarena.spec/2"}},
    ):  # fmt: skip
        (folder / MANIFEST).write_bytes(canonical_json(changed))
        rejected(judged(folder), ExitCode.MALFORMED, "this version reads")


def test_a_proof_without_a_task_is_of_no_task(honest_run: Path, tmp_path: Path, alices_run: Path) -> None:
    """A run recorded without a chain, to which a task is added; and a run of a task without its beacon."""
    theirs, mine = Proof.read(alices_run), Proof.read(honest_run)
    folder = copied(honest_run, tmp_path / "added")
    replace(mine, spec=replace(mine.spec, task=theirs.spec.task)).write(folder)
    rejected(judged(folder), ExitCode.MALFORMED, "a run of a task has a beacon")
    folder = copied(alices_run, tmp_path / "chosen")
    replace(theirs, seed_source=SeedSource(kind="chosen", value=theirs.seed)).write(folder)
    rejected(judged(folder), ExitCode.MALFORMED, "a run of a task has a beacon")


def test_equal_beacons_give_other_seeds_elsewhere() -> None:
    """Even where one block seeds two runs: chain, contract, task and trainer keep them apart."""
    here = dict(
        chain_id=1, arena=b"\1" * 20, task_id=1, trainer=b"\2" * 20, spec_digest=bytes(32), beacon=bytes(32)
    )  # fmt: skip
    elsewhere = ({"chain_id": 2}, {"arena": b"\2" * 20}, {"task_id": 2}, {"trainer": b"\1" * 20})
    assert len({run_seed(**here | change) for change in ({}, *elsewhere)}) == 5
    assert TaskRef(chain_id=1, arena=b"\1" * 20, task_id=1) != TaskRef(chain_id=2, arena=b"\1" * 20, task_id=1)


def test_the_same_roots_are_another_transcript_under_another_spec(alices_run: Path) -> None:
    proof = Proof.read(alices_run)
    assert replace(proof, spec=elsewhere(proof.spec, task_id=999)).transcript_digest != proof.transcript_digest
    root = segment_tree(proof.segments[: proof.anchors[0].count]).root
    assert root == proof.anchors[0].root, "the roots themselves are equal: a digest of the whole keeps them apart"


def test_training_again_for_the_new_task_is_honest(ring: Ring, tmp_path: Path) -> None:
    """The same trainer, program and data, another task: another seed, another run, and a pass."""
    with ring.world.wound_back():
        again = Ring(ring.samples, ring.world)
        spec = again.spec(again.alice)
        folder = again.train(again.alice, spec, again.register(again.alice, spec), tmp_path / "proof")
        verdict = judged(folder, Policy(segments=[0]), chain=ring.world.reader)
        assert verdict.exit_code is ExitCode.VERIFIED and verdict.anchors_checked
