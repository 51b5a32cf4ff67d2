"""Case 11: an honest proof about another data set than the one it names.

Source: Choi, Shavit and Duvenaud, NeurIPS 2023 (a valid proof of other data). Everything in the training is as promised
but the data: some labels are the trainer's own, and the published verifier of 2021 hashes no labels. It fails here
because the data set is committed to sample by sample before the beacon, every batch opens to it, and on chain it must
be the task's.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from challenge.verdict import ExitCode, Verdict
from pol.data import Dataset
from pol.errors import CannotRun
from tests.attacks.forging import trained_states, write_forgery
from tests.attacks.judging import judged, rejected
from tests.attacks.ring import Ring
from tests.runs import small_spec


@pytest.fixture(scope="module")
def relabelled(train_set: Dataset) -> Dataset:
    """Every third 3 is called an 8."""
    threes = (train_set.labels == 3).nonzero().flatten()[::3]
    return Dataset(train_set.inputs, train_set.labels.index_fill(0, threes, 8))


def test_claiming_the_right_data_set(train_set: Dataset, relabelled: Dataset, tmp_path: Path) -> None:
    spec = small_spec(train_set)
    verdict = judged(write_forgery(tmp_path / "proof", spec, relabelled, trained_states(spec, relabelled)))
    assert rejected(verdict, ExitCode.REPLAY_MISMATCH, "was not trained on the committed batches") == {0, 1, 2, 3}


def test_claiming_its_batches_too(train_set: Dataset, relabelled: Dataset, tmp_path: Path) -> None:
    spec = small_spec(train_set)
    verdict = judged(write_forgery(tmp_path / "proof", spec, train_set, trained_states(spec, relabelled)))
    assert rejected(verdict, ExitCode.REPLAY_MISMATCH, "does not replay to the promised state") == {0, 1, 2, 3}


def test_committing_to_ones_own_under_the_same_name(train_set: Dataset, relabelled: Dataset, tmp_path: Path) -> None:
    """Neither a pass nor an accusation: a verifier that has other data under that name cannot say who is right."""
    spec = small_spec(relabelled)
    folder = write_forgery(tmp_path / "proof", spec, relabelled, trained_states(spec, relabelled))
    with pytest.raises(CannotRun, match="the data set 'digits/train' here is not the committed one"):
        judged(folder)


def test_on_chain_it_is_not_the_tasks(ring: Ring, relabelled: Dataset, tmp_path: Path) -> None:
    """An honest run, registered, anchored and signed, on data of the trainer's own."""
    with ring.world.wound_back():
        spec = replace(ring.spec(ring.mallory), dataset_root=relabelled.root)
        source = ring.register(ring.mallory, spec)
        folder = ring.train(ring.mallory, spec, source, tmp_path / "proof", samples=relabelled)
        verdict = judged(folder, chain=ring.world.reader)
        assert rejected(verdict, ExitCode.MALFORMED, "training data is not the task's")
        assert not verdict.segments, "nothing was replayed"


def swapped(data: Dataset) -> Dataset:
    order = torch.arange(len(data))
    order[[0, 1]] = order[[1, 0]]
    return Dataset(data.inputs[order], data.labels[order])


@pytest.mark.parametrize(
    "change",
    [
        lambda data: Dataset(data.inputs, data.labels.index_fill(0, torch.tensor([1196]), 9)),
        lambda data: Dataset(data.inputs + torch.eye(1197, 64) * 2**-24, data.labels),
        swapped,
        lambda data: Dataset(data.inputs, data.labels.int()),
        lambda data: Dataset(data.inputs.reshape(-1, 8, 8), data.labels),
        lambda data: Dataset(data.inputs[:-1], data.labels[:-1]),
        lambda data: Dataset(torch.cat([data.inputs, data.inputs[-1:]]), torch.cat([data.labels, data.labels[-1:]])),
    ],
    ids=["a label", "a last bit", "the order", "a dtype", "a shape", "one sample less", "one sample twice"],
)
def test_nothing_of_the_data_can_change_under_its_root(train_set: Dataset, change) -> None:
    assert change(train_set).root != train_set.root
    assert Dataset(train_set.inputs.clone(), train_set.labels.clone()).root == train_set.root, "the honest twin"


def test_the_honest_twin_passes(honest_verdict: Verdict, ring: Ring, alices_run: Path) -> None:
    assert honest_verdict.exit_code is ExitCode.VERIFIED
    assert judged(alices_run, chain=ring.world.reader).exit_code is ExitCode.VERIFIED
