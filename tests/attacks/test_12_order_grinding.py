"""Case 12: the order of the data ground until it serves the trainer (data-ordering attack).

Source: Shumailov et al., NeurIPS 2021, and Choi et al. 2023. What a network learns depends on the order alone: a
trainer who may choose a seed tries many, and takes one whose first batches starve a class. It fails here because the
order follows from a beacon that is drawn after everything else was promised; without a chain the verdict says that the
order could have been ground.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from challenge.segments import Policy
from challenge.verdict import ExitCode, Verdict
from pol import SeedSource
from pol.data import Dataset, batch_root
from pol.order import DataOrder
from pol.seed import run_seed
from tests.attacks.forging import Batches, copied, edit_proof, edit_segment, trained_states, write_forgery
from tests.attacks.judging import judged, rejected
from tests.attacks.ring import Ring, sign
from tests.runs import SEED, small_spec

TRIES, FIRST_STEPS, STARVED = 300, 5, 8


def starved(samples: Dataset, seed: bytes) -> int:
    """How many samples of one class the first steps see under a seed."""
    order = DataOrder(seed, len(samples), 32)
    rows = [row for step in range(FIRST_STEPS) for row in order.batch(step)]
    return int((samples.labels[rows] == STARVED).sum())


@pytest.fixture(scope="module")
def ground(train_set: Dataset) -> bytes:
    return min((number.to_bytes(32, "big") for number in range(TRIES)), key=lambda seed: starved(train_set, seed))


def test_grinding_pays(train_set: Dataset, ground: bytes) -> None:
    """One sample in ten is of that class: 16 are expected, give or take 4."""
    assert starved(train_set, ground) <= 6
    assert starved(train_set, SEED) >= 10


def test_without_a_chain_the_verdict_says_so(train_set: Dataset, ground: bytes, tmp_path: Path) -> None:
    spec = small_spec(train_set)
    states = trained_states(spec, train_set, ground)
    verdict = judged(write_forgery(tmp_path / "proof", spec, train_set, states, seed=ground), Policy(segments=[0]))
    assert verdict.exit_code is ExitCode.VERIFIED
    assert any("order and initial state could have been ground" in note for note in verdict.limits)


def by_class(samples: Dataset) -> Batches:
    """An order that no seed gives: sorted by label."""
    rows = samples.labels.argsort(stable=True).tolist()
    return lambda step: rows[32 * (step % 37) :][:32]


def test_an_order_of_ones_own_is_not_the_seeds(train_set: Dataset, tmp_path: Path) -> None:
    """Really trained on, and committed to."""
    spec, order = small_spec(train_set), by_class(train_set)

    def reorder(step: int, _state: object, batch: list) -> None:
        batch[:] = train_set.batch(order(step))

    states = trained_states(spec, train_set, cheat=reorder)
    verdict = judged(write_forgery(tmp_path / "proof", spec, train_set, states, batches=order))
    assert rejected(verdict, ExitCode.REPLAY_MISMATCH, "was not trained on the committed batches") == {0, 1, 2, 3}


def test_an_order_of_ones_own_beside_honest_states_is_not_the_seeds(
    train_set: Dataset, honest_run: Path, tmp_path: Path
) -> None:
    """Nothing is wrong but what was committed to."""
    folder = copied(honest_run, tmp_path / "proof")
    edit_segment(folder, 1, batch_root=batch_root(train_set, [by_class(train_set)(step) for step in range(10, 20)], 10))
    verdict = judged(folder)
    assert rejected(verdict, ExitCode.REPLAY_MISMATCH, "was not trained on the committed batches") == {1}
    assert len(verdict.findings) == 1


def test_a_tasks_run_cannot_have_a_chosen_seed(ring: Ring, alices_run: Path, ground: bytes, tmp_path: Path) -> None:
    folder = copied(alices_run, tmp_path / "proof")
    edit_proof(folder, lambda proof: replace(proof, seed_source=SeedSource(kind="chosen", value=ground)))
    rejected(judged(folder, chain=ring.world.reader), ExitCode.MALFORMED, "kind 'chosen' does not fit")


def test_a_beacon_of_ones_own_is_not_the_chains(ring: Ring, ground: bytes, tmp_path: Path) -> None:
    """A whole honest run from it, signed. Only the chain knows the promised block, and a verdict without it says so."""
    source = SeedSource(kind="beacon", value=ground, block=7)
    folder = ring.train(ring.alice, ring.spec(ring.alice), source, tmp_path / "proof", anchored=False)
    offline = judged(folder)
    assert offline.exit_code is ExitCode.VERIFIED
    assert any("the seed could have been ground" in note for note in offline.limits)
    verdict = judged(folder, chain=ring.world.reader)
    rejected(verdict, ExitCode.ANCHOR, "the seed's beacon is not the one latched on chain")
    assert not verdict.segments, "nothing was replayed"


def test_another_spec_after_the_beacon_is_not_the_registered_one(ring: Ring, alices_run: Path, tmp_path: Path) -> None:
    """A rate in its ninth digit would be as good a thing to grind with as a seed."""
    other = ring.spec(ring.alice, learning_rate=1.00000001e-3)
    folder = copied(alices_run, tmp_path / "proof")
    edit_proof(folder, lambda proof: replace(proof, spec=other))
    verdict = judged(sign(folder, ring.alice), chain=ring.world.reader)
    rejected(verdict, ExitCode.ANCHOR, "the spec is not the one registered on chain")


def test_everything_promised_is_in_the_seed() -> None:
    """So nothing can be chosen after the beacon without getting another order."""
    promised = dict(
        chain_id=1, arena=b"a" * 20, task_id=1, trainer=b"t" * 20, spec_digest=b"s" * 32, beacon=b"b" * 32
    )  # fmt: skip
    changed = dict(
        chain_id=2, arena=b"A" * 20, task_id=2, trainer=b"T" * 20, spec_digest=b"S" * 32, beacon=b"B" * 32
    )  # fmt: skip
    seeds = {run_seed(**(promised | {name: value})) for name, value in changed.items()} | {run_seed(**promised)}
    assert len(seeds) == len(changed) + 1
    assert len({DataOrder(seed, 1197, 32).batch(0) for seed in seeds}) == len(seeds)


def test_the_honest_twin_passes(honest_verdict: Verdict, ring: Ring, alices_run: Path) -> None:
    assert honest_verdict.exit_code is ExitCode.VERIFIED
    verdict = judged(alices_run, chain=ring.world.reader)
    assert verdict.exit_code is ExitCode.VERIFIED
    assert not any("ground" in note for note in verdict.limits)
