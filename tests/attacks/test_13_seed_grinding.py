"""Case 13: seeds ground for a good start, and runs begun again until one turns out well.

Source: Choi et al. 2023 (fixing the initialisation removes the freedom); Zhang et al. 2022 start from a chosen W0. A
trainer who draws the seed tries hundreds and keeps the best initial network; one who may register again keeps the best
run. It fails here because the initial state is built from a seed that nobody had when the spec was promised, and
because a trainer of a task registers once: each further try is another stake.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from statistics import median

import pytest

from challenge.segments import Policy
from challenge.verdict import ExitCode
from pol import Proof, TrainingSpec
from pol.data import Dataset, digits
from pol.program import load_program
from tests.attacks.forging import built, copied, edit_proof, trained_states, write_forgery
from tests.attacks.judging import judged, rejected
from tests.attacks.ring import KEY_ROOT, Ring, sign
from tests.attacks.spoofs import model_of
from tests.chain.play import refused
from tests.runs import SEED, small_spec

TRIES = 100


def score(spec: TrainingSpec, seed: bytes, test_set: Dataset) -> float:
    """How well the network does that a seed gives, before it has learned anything."""
    program = load_program(spec.program, spec.program_digest)
    return program.evaluate(model_of(built(spec, seed)), spec.config, test_set)


@pytest.fixture(scope="module")
def scores(train_set: Dataset) -> dict[bytes, float]:
    spec, test_set = small_spec(train_set), digits("submission-validation")
    return {seed: score(spec, seed, test_set) for seed in (number.to_bytes(32, "big") for number in range(TRIES))}


@pytest.fixture(scope="module")
def ground(scores: dict[bytes, float]) -> bytes:
    return max(scores, key=scores.__getitem__)


def test_grinding_pays(scores: dict[bytes, float], ground: bytes) -> None:
    """One digit in ten is right by chance."""
    assert median(scores.values()) < 0.12
    assert scores[ground] > 0.15


def test_a_ground_start_is_not_the_seeds(train_set: Dataset, ground: bytes, tmp_path: Path) -> None:
    """Trained honestly from it, in the seed's own order."""
    spec = small_spec(train_set)
    states = trained_states(spec, train_set, start=model_of(built(spec, ground)))
    verdict = judged(write_forgery(tmp_path / "proof", spec, train_set, states))
    assert rejected(verdict, ExitCode.REPLAY_MISMATCH, "does not start from the program's initial state") == {0}


def test_promising_the_seeds_start_and_training_from_another_is_refused(
    train_set: Dataset, ground: bytes, tmp_path: Path
) -> None:
    spec = small_spec(train_set)
    _, *rest = trained_states(spec, train_set, start=model_of(built(spec, ground)))
    verdict = judged(write_forgery(tmp_path / "proof", spec, train_set, [built(spec).capture(SEED), *rest]))
    assert rejected(verdict, ExitCode.REPLAY_MISMATCH, "segment 0 (steps 0 to 10) does not replay") == {0}


def test_a_run_is_seeded_once(ring: Ring, alices_run: Path) -> None:
    """The beacon is not drawn anew; the same spec registered again is another run, which the proof is not of."""
    spec = Proof.read(alices_run).spec
    with ring.world.wound_back():
        refused("BeaconAlreadyRequested", ring.alice.arena.latch_beacon, ring.run_of(ring.alice))
        again = ring.register(ring.alice, spec)
        assert again.seed(spec) != Proof.read(alices_run).seed
        assert judged(alices_run, Policy(segments=[1]), chain=ring.world.reader).exit_code is ExitCode.VERIFIED


def test_another_try_needs_another_bond(ring: Ring) -> None:
    """Or a trainer's stake, for somebody else: five seeds are looked at, and four bonds burn."""
    sybil, token = ring.world.clients[9], ring.world.reader.token
    with ring.world.wound_back():
        job = Ring(ring.samples, ring.world)
        bond = job.task.config.pay.run_bond
        refused("NotTrainer", sybil.arena.register_run, job.task.id, job.spec(sybil).digest, KEY_ROOT, bond)
        before, supply = token.balance_of(job.mallory.address), token.total_supply()
        seeds = {job.register(job.mallory, job.spec(job.mallory)).value for _ in range(5)}
        assert len(seeds) == 5
        assert token.balance_of(job.mallory.address) == before - 5 * bond
        job.task.to_closed()
        for run_id in job.mallory.arena.runs_of(job.task.id, job.mallory.address)[1:]:
            job.alice.arena.void_run(run_id)
        assert token.total_supply() == supply - 4 * bond


def test_the_beacon_is_not_there_when_the_spec_is_promised(ring: Ring) -> None:
    with ring.world.wound_back():
        digest, bond = ring.spec(ring.mallory).digest, ring.task.config.pay.run_bond
        run_id = ring.mallory.arena.register_run(ring.task.id, digest, KEY_ROOT, bond)
        beacon = ring.world.reader.arena.run(run_id).beacon
        assert beacon.block > ring.world.chain.block() and not beacon.latched
        refused("BeaconNotReady", ring.mallory.arena.latch_beacon, run_id)


def test_a_run_on_another_try_of_the_same_spec_is_not_the_registered_one(
    ring: Ring, alices_run: Path, tmp_path: Path
) -> None:
    """Alice trains her own spec again, from a beacon that she would rather have had."""
    folder = copied(alices_run, tmp_path / "proof")
    edit_proof(folder, lambda proof: replace(proof, seed_source=replace(proof.seed_source, block=1)))
    verdict = judged(sign(folder, ring.alice), chain=ring.world.reader)
    rejected(verdict, ExitCode.ANCHOR, "the seed's beacon is not the one latched on chain")


def test_the_honest_twin_passes(ring: Ring, alices_run: Path) -> None:
    assert judged(alices_run, chain=ring.world.reader).exit_code is ExitCode.VERIFIED
