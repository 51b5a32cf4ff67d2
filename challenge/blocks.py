"""Opening one block of one tensor of a state, for a contract to check: how a wrong first state is shown on chain."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch

from chain.case import BlockOpening
from pol.merkle import MerkleTree, leaf_digest
from pol.tensors import BLOCK_BYTES, BLOCK_DOMAIN, TENSOR_DOMAIN, little_endian_bytes, tensor_header, tensor_table

MODEL_PREFIX = "model/"
"""What a trunk state puts before the names of the model's tensors."""


@dataclass(frozen=True, slots=True)
class WrongStart:
    """A block that a first state (``mine``) should have taken over from its base model, whose bytes are ``block``."""

    mine: BlockOpening
    base: BlockOpening
    block: bytes


def open_block(tensors: Mapping[str, torch.Tensor], name: str, index: int) -> BlockOpening:
    """The opening of block ``index`` of tensor ``name``, against :func:`pol.tensors.tensors_digest` of ``tensors``.

    Raises ``KeyError`` and ``IndexError`` for a tensor or a block there is not.
    """
    header = tensor_header(name, tensors[name])
    leaves = [leaf_digest(BLOCK_DOMAIN, number, header + block) for number, block in enumerate(_blocks(tensors[name]))]
    table = tensor_table(tensors)
    named = MerkleTree([leaf_digest(TENSOR_DOMAIN, i, root + head) for i, (head, root) in enumerate(table)])
    path = MerkleTree(leaves).prove(index)
    place = named.prove(sorted(tensors, key=lambda each: each.encode("utf-8")).index(name))
    return BlockOpening(
        header=header,
        leaf=leaves[index],
        index=index,
        blocks=path.count,
        block_siblings=path.siblings,
        position=place.position,
        tensors=place.count,
        tensor_siblings=place.siblings,
    )


def wrong_start(state: Mapping[str, torch.Tensor], base: Mapping[str, torch.Tensor]) -> WrongStart | None:
    """The first block in which a training state differs from the base model; None if there is none.

    Compared are tensors of ``base`` that ``state`` has too, as the model's, with the same dtype and shape.
    """
    for name in sorted(base, key=lambda each: each.encode("utf-8")):
        mine = state.get(MODEL_PREFIX + name)
        if mine is None or (mine.dtype, mine.shape) != (base[name].dtype, base[name].shape):
            continue
        for index, (own, theirs) in enumerate(zip(_blocks(mine), _blocks(base[name]), strict=True)):
            if own != theirs:
                openings = (open_block(state, MODEL_PREFIX + name, index), open_block(base, name, index))
                return WrongStart(*openings, theirs)
    return None


def _blocks(tensor: torch.Tensor) -> Iterator[bytes]:
    data = little_endian_bytes(tensor)
    for start in range(0, max(1, len(data)), BLOCK_BYTES):
        yield bytes(data[start : start + BLOCK_BYTES])
