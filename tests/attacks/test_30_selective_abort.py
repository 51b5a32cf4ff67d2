"""Case 30: look at the draw, give up if it is bad, and register again for a better one.

Source: any scheme with an unpredictable seed but free attempts: a trainer registers many runs, or many names, looks at
the order, the initial state or the sample that each seed gives, and finishes the one it likes.

The half that is seen here: a registration fixes its seed, and another registration is another seed, under which the
states of the first lead nowhere. So nothing that was computed for an abandoned attempt is worth anything in the next.
The other half is money, on chain: each run takes a bond, and one from which nothing was submitted, or which nobody
latched, burns it (``RunBonds.t.sol``, ``SeedGrinding.t.sol``, and below on the embedded chain).
"""

from __future__ import annotations

from pathlib import Path

from chain.commitments import run_beacon
from challenge.segments import Policy
from challenge.verdict import ExitCode
from pol import Proof, SeedSource
from pol.order import DataOrder
from pol.tensors import tensors_digest
from tests.attacks.forging import built, copied
from tests.attacks.judging import judged, rejected
from tests.attacks.ring import Ring, sign
from tests.chain.play import refused


def test_another_registration_is_another_run(ring: Ring) -> None:
    """Two names of one person, the same program, data and terms: nothing of one is right in the other."""
    with ring.world.wound_back():
        job = Ring(ring.samples, ring.world)
        specs = [job.spec(client) for client in (job.alice, job.mallory)]
        seeds = [job.register(c, s).seed(s) for c, s in zip((job.alice, job.mallory), specs, strict=True)]
    starts = {tensors_digest(built(spec, seed).capture(seed)) for spec, seed in zip(specs, seeds, strict=True)}
    orders = {DataOrder(seed, specs[0].dataset_size, 32).batch(0) for seed in seeds}
    assert len(set(seeds)) == len(starts) == len(orders) == 2


def test_what_was_computed_for_one_attempt_is_worth_nothing_in_the_next(
    ring: Ring, alices_run: Path, tmp_path: Path
) -> None:
    """The attempt that was liked is finished, and shown under the registration that was not given up."""
    folder = copied(alices_run, tmp_path / "proof")
    with ring.world.wound_back():
        source = ring.register(ring.mallory, ring.spec(ring.mallory))
    sign(folder, ring.alice, seed_source=source)
    verdict = judged(folder, chain=ring.world.reader)
    rejected(verdict, ExitCode.ANCHOR, "the seed's beacon is not the one latched on chain")
    verdict = judged(folder, Policy(segments=[0]))
    rejected(verdict, ExitCode.REPLAY_MISMATCH, "does not start from the program's initial state")


def test_a_hash_that_was_known_before_is_no_beacon(ring: Ring, alices_run: Path, tmp_path: Path) -> None:
    """A trainer who would rather have another block: each gives another seed, and only one of them is latched."""
    folder = copied(alices_run, tmp_path / "proof")
    proof, chain = Proof.read(folder), ring.world.chain.web3.eth
    for block in (proof.seed_source.block - 2, proof.seed_source.block + 1):
        value = run_beacon(bytes(chain.get_block(block)["hash"]), ring.run_of(ring.alice))
        known = SeedSource(kind="beacon", value=value, block=block)
        assert known.seed(proof.spec) != proof.seed
        sign(folder, ring.alice, seed_source=known)
        verdict = judged(folder, chain=ring.world.reader)
        rejected(verdict, ExitCode.ANCHOR, "the seed's beacon is not the one latched on chain")


def test_an_abandoned_attempt_costs_its_bond(ring: Ring) -> None:
    """On the embedded chain: Alice submits; Mallory sees a seed, gives up, and submits from her second run."""
    with ring.world.wound_back():
        job, reader = Ring(ring.samples, ring.world), ring.world.reader
        held = {client: reader.token.balance_of(client.address) for client in (job.alice, job.mallory)}
        job.register(job.mallory, job.spec(job.mallory))
        proofs = {client: job.task.submit(client) for client in held}
        job.task.to_round_end(1)
        for client, proof in proofs.items():
            job.task.reveal(client, proof)
        job.task.to_closed()
        for client in held:
            for run_id in reader.arena.runs_of(job.task.id, client.address):
                if reader.arena.run(run_id).first_order:
                    client.arena.release_run_bond(run_id)
                else:
                    refused("BondForfeited", client.arena.release_run_bond, run_id)
                    ring.world.creator.arena.void_run(run_id)
        lost = {client: before - reader.token.balance_of(client.address) for client, before in held.items()}
        assert lost == {job.alice: 0, job.mallory: job.task.config.pay.run_bond}


def test_the_honest_twin_keeps_its_first_seed(ring: Ring, alices_run: Path) -> None:
    run = ring.world.reader.arena.run(ring.run_of(ring.alice))
    assert Proof.read(alices_run).seed_source.value == run.beacon.value
    assert judged(alices_run, Policy(segments=[1]), chain=ring.world.reader).exit_code is ExitCode.VERIFIED
