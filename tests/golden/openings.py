"""Writes blocks.json and mark.json: openings by the packages, for the contracts to check.

``python -m tests.golden.openings``, from the repository's root. Byte strings are ``0x`` and hex. ``blocks.json`` has
blocks of states, among them the two of a first state that is not its base model; ``mark.json`` has the leaves of
watermark keys that a beacon draws.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from chain.case import BlockOpening, LeafRange
from challenge.blocks import MODEL_PREFIX, open_block, wrong_start
from challenge.claims import OPENED_GROUPS
from challenge.dispute import leaf_ranges
from pol.encoding import to_hex
from pol.tensors import tensors_digest
from watermark import MarkParameters, WatermarkKey, opening_groups
from watermark.parameters import mlp_mark
from watermark.triggers.parameters import Images, TriggerMark

HERE = Path(__file__).parent
CHUNK = 7
"""Leaves that are opened together: some groups are cut."""
UNDRAWN = 3
"""Leaves from the first drawn one on, the third of another group where groups have two."""
State = Mapping[str, torch.Tensor]


def base_model() -> dict[str, torch.Tensor]:
    """Three tensors: of three blocks (the last one short), of one element, of none."""
    wide = torch.arange(9_000, dtype=torch.float32).reshape(90, 100) / 7
    return {"layers.0.weight": wide, "b": torch.tensor(True), "empty": torch.empty(0, 3)}


def first_state(base: State) -> dict[str, torch.Tensor]:
    """A training state that starts from the base model, with another tensor beside it."""
    beside = {"scalars": torch.zeros(5, dtype=torch.uint8)}
    return {MODEL_PREFIX + name: tensor for name, tensor in base.items()} | beside


def wrong_state(base: State) -> dict[str, torch.Tensor]:
    """The same with one element changed, in the second block of the first tensor."""
    changed = base["layers.0.weight"].clone()
    changed[45, 50] += 1
    return first_state({**base, "layers.0.weight": changed})


def block_rows() -> dict[str, Any]:
    """The content of blocks.json."""
    base = base_model()
    right, wrong = first_state(base), wrong_state(base)
    found = wrong_start(wrong, base)
    assert found is not None
    states = [(state, name) for state in (base, right) for name in sorted(state)]
    cases = [
        {"digest": to_hex(tensors_digest(state)), **_plain(open_block(state, name, index))}
        for state, name in states
        for index in range(3 if "layers" in name else 1)
    ]
    return {
        "about": "Openings of single blocks of states, by challenge/blocks.py; see README.md.",
        "cases": cases,
        "start": {
            "base_digest": to_hex(tensors_digest(base)),
            "right_digest": to_hex(tensors_digest(right)),
            "wrong_digest": to_hex(tensors_digest(wrong)),
            "block": to_hex(found.block),
            "base": _plain(found.base),
            "wrong": _plain(found.mine),
            "right": _plain(open_block(right, MODEL_PREFIX + "layers.0.weight", found.base.index)),
        },
    }


def marks() -> list[MarkParameters]:
    """One channel with fewer groups than are opened, one with more, and two channels of unequal groups."""
    few, many = (mlp_mark("layers.1.weight", groups=n, rows=4, leaves=m, margin=2.0) for n, m in ((4, 3), (40, 2)))
    triggers = TriggerMark(Images(1, 4, 4), classes=10, groups=3, leaves=5)
    return [few, many, MarkParameters(weights=many.weights, triggers=triggers, branch_steps=4)]


def mark_rows() -> dict[str, Any]:
    """The content of mark.json."""
    return {
        "about": "Leaves that a beacon draws from watermark keys, by watermark/; see README.md.",
        "cases": [_mark_row(number, parameters) for number, parameters in enumerate(marks())],
    }


def _mark_row(number: int, parameters: MarkParameters) -> dict[str, Any]:
    key = WatermarkKey(hashlib.sha256(f"key {number}".encode()).digest(), parameters.leaf_count)
    beacon = hashlib.sha256(f"beacon {number}".encode()).digest()
    count = min(OPENED_GROUPS, parameters.groups)
    drawn = parameters.indices(opening_groups(beacon, key.root, parameters.groups, count))
    opened = key.open(drawn)
    chunks = [opened[start : start + CHUNK] for start in range(0, len(opened), CHUNK)]
    ranges = [part for chunk in chunks for part in leaf_ranges(chunk, parameters.leaf_count)]
    return {
        "beacon": to_hex(beacon),
        "key_root": to_hex(key.root),
        "count": parameters.leaf_count,
        "groups": [part.groups for part in parameters.channels.values()],
        "leaves": [part.leaves for part in parameters.channels.values()],
        "indices": drawn,
        "ranges": [_plain(part) for part in ranges],
        "undrawn": _plain(*leaf_ranges(key.open(range(drawn[0], drawn[0] + UNDRAWN)), parameters.leaf_count)),
    }


def _plain(opening: BlockOpening | LeafRange) -> dict[str, Any]:
    return {name: _hexed(value) for name, value in asdict(opening).items()}


def _hexed(value: Any) -> Any:
    if isinstance(value, tuple):
        return [to_hex(item) for item in value]
    return to_hex(value) if isinstance(value, bytes) else value


if __name__ == "__main__":
    for name, rows in (("blocks.json", block_rows()), ("mark.json", mark_rows())):
        (HERE / name).write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
