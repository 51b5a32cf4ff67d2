"""Data commitments bind every sample and its place; the built-in digits are the real ones."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_digits

from pol.data import DIGITS_SPLITS, Dataset, batch_root, built_in, digits
from pol.errors import ProofError, SpecError
from pol.merkle import MerkleTree, root_from_proof


@pytest.fixture(scope="module")
def small() -> Dataset:
    whole = digits("train")
    return Dataset(whole.inputs[:20], whole.labels[:20])


def test_the_splits_are_the_real_digits_cut_once() -> None:
    parts = [digits(split) for split in DIGITS_SPLITS]
    assert [len(part) for part in parts] == [1197, 300, 300]
    rows = sorted(tuple(row) for part in parts for row in (part.inputs * 16).int().tolist())
    assert rows == sorted(tuple(row) for row in load_digits(return_X_y=True)[0].astype(int).tolist())


@given(st.integers(0, 19), st.integers(0, 63))
def test_any_changed_pixel_or_label_changes_the_root(sample: int, pixel: int) -> None:
    data = digits("train")
    inputs, labels = data.inputs[:20].clone(), data.labels[:20].clone()
    root = Dataset(inputs.clone(), labels.clone()).root
    inputs[sample, pixel] += 1 / 16
    assert Dataset(inputs, data.labels[:20]).root != root
    labels[sample] = (labels[sample] + 1) % 10
    assert Dataset(data.inputs[:20], labels).root != root


def test_order_is_bound(small: Dataset) -> None:
    flipped = Dataset(small.inputs.flip(0), small.labels.flip(0))
    assert flipped.root != small.root
    assert small.batch_digest([1, 2]) != small.batch_digest([2, 1])
    assert batch_root(small, [[1], [2]], 0) != batch_root(small, [[2], [1]], 0)
    assert batch_root(small, [[1], [2]], 0) != batch_root(small, [[1], [2]], 2)


def test_a_single_sample_can_be_opened(small: Dataset) -> None:
    proof = MerkleTree(small.leaves).prove(7)
    assert root_from_proof(small.leaves[7], proof) == small.root


def test_blobs_come_back_as_they_were(small: Dataset) -> None:
    again = Dataset.from_bytes(small.to_bytes())
    assert again.root == small.root and again.to_bytes() == small.to_bytes()


@pytest.mark.parametrize("data", [b"", b"\x80\x04N.", b"\0" * 100])
def test_what_is_no_dataset_is_refused(data: bytes) -> None:
    with pytest.raises(ProofError):
        Dataset.from_bytes(data)


def test_impossible_data_is_refused() -> None:
    with pytest.raises(SpecError):
        Dataset(torch.zeros(3, 2), torch.zeros(2, dtype=torch.int64))
    with pytest.raises(SpecError, match="digits/train"):
        built_in("imagenet")
    with pytest.raises(SpecError, match="no split"):
        digits("test")


def test_equal_samples_at_other_positions_have_other_leaves() -> None:
    leaves = Dataset(torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64)).leaves
    assert leaves[0] != leaves[1]
