"""Case 26: challenges that the prover can know beforehand, because the verifier draws them from a seeded generator.

Source: found in Templar's published validator, which calls ``random.seed(42)`` when it is imported and draws the data
of its checks with ``random.randint`` afterwards: a public sequence. Where challenges are the hash of the transcript, a
prover tries transcripts until the draw misses its lie (for a tenth of the segments forged and 30 drawn, 4.6 bits of
work). A prover who knows the sample trains those segments and forges the rest.

Here a verifier who decides alone draws from the operating system's generator, which nothing in the process can seed; on
a chain the segments follow from the hash of a block that is mined after the case was opened. No global generator is
used for either, nor for keys, salts and seeds.
"""

from __future__ import annotations

import ast
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from chain.commitments import case_seed, new_salt, sampled_segments
from challenge import sampling
from challenge.sampling import miss_probability, unpredictable_segments
from challenge.segments import Policy
from challenge.verdict import ExitCode
from pol import Recorder
from pol.data import Dataset
from tests.attacks.judging import judged
from tests.runs import small_spec
from watermark import WatermarkKey

GLOBAL = {
    random: ["random", "randint", "randrange", "sample", "choice", "choices", "shuffle", "uniform", "getrandbits"],
    np.random: ["rand", "randn", "randint", "choice", "permutation", "shuffle", "random", "bytes", "uniform"],
    torch: ["rand", "randn", "randint", "randperm", "rand_like", "normal", "bernoulli", "multinomial"],
}


def seed_all(number: int) -> None:
    random.seed(number)
    np.random.seed(number)
    torch.manual_seed(number)


def published_draw(count: int, total: int) -> list[int]:
    """The published validator's way: a fixed seed, then the global generator."""
    random.seed(42)
    return sorted(random.sample(range(total), count))


@pytest.fixture
def no_generators(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every global generator raises when it is asked for anything."""

    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("a global generator was used")

    for module, names in GLOBAL.items():
        for name in names:
            monkeypatch.setattr(module, name, forbidden)
    before = random.getstate(), np.random.get_state(legacy=True)[1].tolist(), torch.get_rng_state()
    yield
    after = random.getstate(), np.random.get_state(legacy=True)[1].tolist(), torch.get_rng_state()
    assert before[:2] == after[:2] and torch.equal(before[2], after[2]), "a global generator was drawn from"


def test_the_published_draw_is_known_to_everybody() -> None:
    assert published_draw(30, 1000) == published_draw(30, 1000)


def test_seeding_this_process_changes_nothing() -> None:
    """Thirty of a thousand, four times under one seed: the same draw twice has odds of 2^-190."""
    draws = set()
    for _ in range(4):
        seed_all(42)
        draws.add(tuple(unpredictable_segments(30, 1000)))
    assert len(draws) == 4


def test_a_prover_who_knows_the_seed_does_not_know_the_draw() -> None:
    """He trains what the seed says will be drawn and forges the other 970: he is caught all the same."""
    trained = set(published_draw(30, 1000))
    seed_all(42)
    assert set(unpredictable_segments(30, 1000)) - trained
    assert miss_probability(1000, 30, 970) < 1e-30


def test_no_global_generator_is_asked(no_generators: None, honest_run: Path) -> None:
    """From the draw to the verdict: what the replay draws, it draws in a process of its own, keyed by (seed, step)."""
    verdict = judged(honest_run, Policy(segments=2))
    assert verdict.exit_code is ExitCode.VERIFIED
    assert {0, 3} <= set(verdict.segments)


def test_nor_for_keys_salts_and_seeds(no_generators: None, train_set: Dataset, tmp_path: Path) -> None:
    assert WatermarkKey.generate(8).root != WatermarkKey.generate(8).root
    assert new_salt() != new_salt()
    seeds = {Recorder(small_spec(train_set), tmp_path / name).seed for name in ("a", "b")}
    assert len(seeds) == 2


def test_every_segment_can_be_drawn_and_none_is_preferred() -> None:
    """Four of twenty, 2,000 times: 400 for each, and eight standard deviations are 143."""
    counts = np.zeros(20)
    for _ in range(2000):
        drawn = unpredictable_segments(4, 20)
        assert drawn == sorted(set(drawn)) and len(drawn) == 4
        counts[drawn] += 1
    assert (abs(counts - 400) < 143).all()


def test_the_verifier_draws_afresh_every_time(honest_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The proof has no say: the same folder twice is drawn for twice."""
    asked = []

    class Counted:
        def sample(self, population: range, count: int) -> list[int]:
            asked.append((len(population), count))
            return [1 + len(asked) % 2]

    monkeypatch.setattr(sampling.secrets, "SystemRandom", Counted)
    samples = [judged(honest_run, Policy(segments=1)).segments for _ in range(2)]
    assert asked == [(4, 1), (4, 1)] and samples == [[0, 2, 3], [0, 1, 3]]


def test_a_case_is_drawn_by_a_block_that_comes_after_it() -> None:
    """Another block or another case is another draw; the same one is the same for every juror."""
    seeds = {case_seed(bytes([block]) * 32, case) for block in range(8) for case in range(8)}
    assert len(seeds) == 64
    draws = {tuple(sampled_segments(seed, 1000, 8)) for seed in seeds}
    assert len(draws) == 64
    (one, *_), block = seeds, bytes(32)
    assert sampled_segments(one, 1000, 8) == sampled_segments(one, 1000, 8)
    assert case_seed(block, 1) != case_seed(block, 2)


ALLOWED = {
    "pol/machine.py": "keys the generators of a run, before every step",
    "pol/portable/draws.py": "draws, for a program that asks torch, one key from a keyed generator",
    "pol/state.py": "reads the keyed generators, which are part of the state",
    "pol/programs": "programs draw from the keyed generators",
    "pol/census.py": "describes generators that a program keeps",
    "pol/tracer.py": "watches what a program draws",
    "pol/rehearsal_program.py": "gives a rehearsal another state than the one before it",
    "watermark/branch.py": "draws from the keyed generators of a branch, like a program",
    "watermark/triggers/train.py": "the same",
    "watermark/outputs": "embedding and the extractor's training; their caller keys the generators",
    "challenge/demo/mallory.py": "a thief's own noise",
}


def test_no_other_module_touches_a_global_generator() -> None:
    root = Path(__file__).parents[2]
    touched = set()
    for package in ("pol", "watermark", "chain", "challenge"):
        for path in (root / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Attribute) and _is_global(ast.unparse(node)):
                    touched.add(str(path.relative_to(root)))
    unexpected = {name for name in touched if not any(name.startswith(place) for place in ALLOWED)}
    assert touched and not unexpected


def _is_global(name: str) -> bool:
    module, _, drawn = name.rpartition(".")
    known = {"random": [*GLOBAL[random], "seed"], "torch": [*GLOBAL[torch], "manual_seed"], "np.random": [drawn]}
    return drawn in known.get(module, [])
