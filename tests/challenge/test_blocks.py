"""Openings of single blocks, and the golden files that the contracts read: an opening leads to the digest, and
nothing else does; the first block that a first state does not share with its base model is found."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from challenge.blocks import open_block, wrong_start
from pol.encoding import u64
from pol.merkle import MerkleProof, leaf_digest, root_from_proof
from pol.tensors import BLOCK_DOMAIN, TENSOR_DOMAIN, tensors_digest
from tests.golden.openings import base_model, block_rows, first_state, mark_rows, wrong_state

GOLDEN = Path(__file__).parents[1] / "golden"
states = st.dictionaries(
    st.text(max_size=5), st.integers(0, 9_000).map(lambda n: torch.arange(n, dtype=torch.int32)), min_size=1, max_size=5
)


def leads_to(opening):
    """The state digest that an opening leads to, as a contract works it out."""
    blocks = MerkleProof(opening.index, opening.blocks, opening.block_siblings)
    named = leaf_digest(TENSOR_DOMAIN, opening.position, root_from_proof(opening.leaf, blocks) + opening.header)
    return root_from_proof(named, MerkleProof(opening.position, opening.tensors, opening.tensor_siblings))


@given(states, st.data())
def test_every_block_leads_to_the_digest(state, data):
    name = data.draw(st.sampled_from(sorted(state)))
    opening = open_block(state, name, 0)
    index = data.draw(st.integers(0, opening.blocks - 1))
    opening = open_block(state, name, index)
    assert leads_to(opening) == tensors_digest(state)
    assert leads_to(replace(opening, leaf=bytes(32))) != tensors_digest(state)
    content = state[name].numpy().tobytes()[index * 16_384 : (index + 1) * 16_384]
    assert opening.leaf == hashlib.sha256(BLOCK_DOMAIN.encode() + u64(index) + opening.header + content).digest()


def test_what_is_not_there_is_not_opened():
    with pytest.raises(KeyError):
        open_block(base_model(), "layers.9.weight", 0)
    with pytest.raises(IndexError):
        open_block(base_model(), "layers.0.weight", 3)


def test_a_wrong_start_is_found_and_a_right_one_is_not():
    base = base_model()
    assert wrong_start(first_state(base), base) is None
    found = wrong_start(wrong_state(base), base)
    assert found is not None and (found.mine.index, found.base.index) == (1, 1)
    assert leads_to(found.mine) == tensors_digest(wrong_state(base))
    assert leads_to(found.base) == tensors_digest(base)
    assert found.base.leaf == leaf_digest(BLOCK_DOMAIN, 1, found.base.header + found.block)
    assert found.mine.leaf != leaf_digest(BLOCK_DOMAIN, 1, found.mine.header + found.block)


def test_a_tensor_of_another_shape_is_no_wrong_start():
    """A head that the program makes anew is not the base model's."""
    base = base_model()
    assert wrong_start(first_state({**base, "b": torch.zeros(2)}), base) is None


@pytest.mark.parametrize(("name", "rows"), [("blocks.json", block_rows), ("mark.json", mark_rows)])
def test_the_golden_files_are_what_the_packages_say(name, rows):
    assert json.loads((GOLDEN / name).read_text()) == rows()
