"""The training of an extractor is a function of its seed, and learns something of its own."""

from __future__ import annotations

import torch

from watermark.outputs.training import train_extractor


def test_one_seed_gives_one_extractor() -> None:
    first, again, other = (train_extractor(seed, images=8, steps=2).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in first)
    assert first["correction.4.weight"].abs().max() > 0
