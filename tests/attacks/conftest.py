"""How every attack here is judged: all segments replayed, beside the honest twin."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from challenge.verdict import ExitCode, Verdict
from pol.data import Dataset
from pol.machine import make_deterministic
from pol.state import Tensors, model_tensors
from tests.attacks.forging import trained_states
from tests.attacks.judging import judged
from tests.attacks.one_lie import AFTERWARDS, DURING, Findings, forged, told
from tests.attacks.ring import Ring
from tests.attacks.spoofs import convnet_spec
from tests.runs import Cheat, record, small_spec


@pytest.fixture(scope="session")
def honest_verdict(honest_run: Path) -> Verdict:
    """The verdict on the honest twin; it must pass, or no rejection below means anything."""
    verdict = judged(honest_run)
    assert verdict.exit_code is ExitCode.VERIFIED, verdict.findings
    return verdict


@pytest.fixture
def caught(tmp_path: Path, train_set: Dataset, honest_verdict: Verdict) -> Callable[[Cheat], Verdict]:
    """Record the same run with a cheat before one step, and verify it."""

    def run(cheat: Cheat) -> Verdict:
        folder = tmp_path / "proof"
        record(small_spec(train_set), train_set, folder, cheat)
        return judged(folder)

    return run


@pytest.fixture(scope="session")
def stolen(train_set: Dataset) -> Tensors:
    """Somebody else's trained network, from an initial state and an order that the thief does not have."""
    victims = convnet_spec(train_set, segments=1, segment_length=100)
    return model_tensors(trained_states(victims, train_set, seed=b"v" * 32)[-1])


@pytest.fixture(scope="session")
def told_lies(train_set: Dataset, tmp_path_factory: pytest.TempPathFactory, honest_verdict: Verdict) -> Findings:
    """What was found of every lie told during training; the honest segments between them passed."""
    return told(small_spec(train_set), train_set, DURING, tmp_path_factory.mktemp("told") / "proof")


@pytest.fixture(scope="session")
def forged_lies(train_set: Dataset, tmp_path_factory: pytest.TempPathFactory, honest_verdict: Verdict) -> Findings:
    """What was found of every lie forged into a state; the honest segments between them passed."""
    return forged(small_spec(train_set), train_set, AFTERWARDS, tmp_path_factory.mktemp("forged") / "proof")


@pytest.fixture(scope="session")
def ring(train_set: Dataset) -> Ring:
    """A task on a chain, shared by all: whoever sends a transaction winds the chain back."""
    return Ring(train_set)


@pytest.fixture(scope="session")
def alices_run(ring: Ring, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Alice's honest run on that chain: anchored, signed, nothing submitted. Read only."""
    make_deterministic(1)
    spec = ring.spec(ring.alice)
    source = ring.register(ring.alice, spec)
    return ring.train(ring.alice, spec, source, tmp_path_factory.mktemp("alice") / "proof")
