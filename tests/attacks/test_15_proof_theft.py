"""Case 15: somebody else's proof, or its promises, handed in as one's own; if need be before the owner does.

Source: RPoL (ICDCS 2023) for proofs, and every mempool for promises: a root, a registration or a commitment is public
the moment it is sent, and a copy with a higher fee comes first. It fails here because the trainer's account is in the
seed, in the signature and in every commitment: a copy is worthless to anybody else, however early it comes.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from chain.commitments import submission_commitment
from chain.types import tokens
from challenge.segments import Policy
from challenge.verdict import ExitCode
from pol import Proof
from tests.attacks.forging import copied, edit_proof
from tests.attacks.judging import judged, rejected
from tests.attacks.ring import Ring, sign
from tests.chain.play import refused


@pytest.fixture
def loot(alices_run: Path, tmp_path: Path) -> Path:
    """A copy of all that Alice has published."""
    return copied(alices_run, tmp_path / "loot")


def test_under_another_signature(ring: Ring, loot: Path) -> None:
    rejected(judged(sign(loot, ring.mallory)), ExitCode.MALFORMED, f"signed by {ring.mallory.address}")


def test_without_a_signature(loot: Path) -> None:
    edit_proof(loot, lambda proof: replace(proof, signature=None))
    rejected(judged(loot), ExitCode.MALFORMED, "not signed")


def test_under_another_name(ring: Ring, loot: Path) -> None:
    """Signed by the account it names, so it is well formed; but that account has another seed."""
    edit_proof(loot, lambda proof: replace(proof, spec=ring.spec(ring.mallory)))
    verdict = judged(sign(loot, ring.mallory), Policy(segments=[1]))
    rejected(verdict, ExitCode.REPLAY_MISMATCH, "does not start from the program's initial state")


def test_under_another_name_on_chain(ring: Ring, loot: Path) -> None:
    """Mallory registers, anchors Alice's own roots, and has every receipt right."""
    with ring.world.wound_back():
        spec = ring.spec(ring.mallory)
        source, anchorer = ring.register(ring.mallory, spec), ring.anchorer(ring.mallory)
        roots = Proof.read(loot).anchors
        anchors = tuple(anchorer.anchor(anchor.first, anchor.count, anchor.root) for anchor in roots)
        edit_proof(loot, lambda proof: replace(proof, spec=spec, seed_source=source))
        sign(loot, ring.mallory, anchors=anchors)
        verdict = judged(loot, chain=ring.world.reader)
        rejected(verdict, ExitCode.REPLAY_MISMATCH, "does not start from the program's initial state")
        assert verdict.anchors_checked, "the chain has nothing against it"
        later = [anchor.block for anchor in anchors]
        assert min(later) > max(anchor.block for anchor in roots), "and says who came first"


def test_a_registration_seen_in_the_mempool(ring: Ring, loot: Path, tmp_path: Path) -> None:
    """Mallory registers Alice's spec before Alice does: the beacon is another one for each of them."""
    with ring.world.wound_back():
        stolen = Proof.read(loot).spec
        source = ring.register(ring.mallory, stolen)
        assert source.value != Proof.read(loot).seed_source.value
        edit_proof(loot, lambda proof: replace(proof, seed_source=source))
        rejected(judged(sign(loot, ring.mallory)), ExitCode.MALFORMED, "signed by")
        rejected(
            judged(sign(loot, ring.alice), chain=ring.world.reader),
            ExitCode.ANCHOR,
            "the seed's beacon is not the one latched on chain",
        )


def test_a_commitment_seen_in_the_mempool(ring: Ring) -> None:
    """The copy comes first, and its sender cannot show it: what is committed to is a model of Alice's."""
    with ring.world.wound_back():
        task = ring.world.task()
        alice, mallory = task.trainer(1, tokens(1_000)), task.trainer(2, tokens(1_000))
        task.to_submission()
        proofs = {client: task.register(client) for client in (alice, mallory)}
        for client, proof in proofs.items():
            task.anchor(client, proof)
            task.mark(client, proof)
        hers = proofs[alice]
        seen = submission_commitment(
            alice.arena.site,
            task.id,
            alice.address,
            run_id=hers.run_id,
            round_=1,
            branch=hers.branch,
            model_digest=hers.model_digest,
            transcript_digest=alice.arena.run(hers.run_id).transcript_digest,
            model_cid=hers.model_cid,
            salt=hers.salt,
        )
        refused("NotAllowed", mallory.arena.send, "commitSubmission", hers.run_id, seen)
        mallory.arena.send("commitSubmission", proofs[mallory].run_id, seen)
        task.commit(alice, hers)
        task.to_round_end(1)
        refused("BadReveal", task.reveal, mallory, hers)
        task.reveal(alice, hers)
        assert ring.world.reader.arena.standing_order(task.id, alice.address, 1)
        assert not ring.world.reader.arena.standing_order(task.id, mallory.address, 1)


def test_the_same_run_of_another_trainer_has_another_seed(ring: Ring, alices_run: Path) -> None:
    """Even from the same beacon."""
    source = Proof.read(alices_run).seed_source
    assert source.seed(ring.spec(ring.alice)) != source.seed(ring.spec(ring.mallory))


def test_the_honest_twin_passes(ring: Ring, loot: Path) -> None:
    """Alice signs the copy again with her own account."""
    verdict = judged(sign(loot, ring.alice), chain=ring.world.reader)
    assert verdict.exit_code is ExitCode.VERIFIED and verdict.anchors_checked
