"""Marking is invisible, repeatable, and refuses what it cannot mark."""

from __future__ import annotations

import copy
import math

import pytest
import torch

from pol.errors import SpecError
from tests.watermark.outputs.conftest import BETA, MARK, OWNERS, PROBES, SIZE, Owner, Task
from watermark.outputs import embed_outputs, mark_images
from watermark.outputs.extractor import Extractor, Regression
from watermark.outputs.fit import outputs_of
from watermark.outputs.training import network


def psnr(left: torch.Tensor, right: torch.Tensor) -> float:
    """The peak signal-to-noise ratio in dB of images in [0, 1]."""
    return -10 * math.log10(float((left - right).detach().square().mean()))


def test_marked_images_look_the_same(owner: Owner, task: Task) -> None:
    clean = task.labels[PROBES]
    marked = mark_images(clean, owner.seeds, owner.bits, MARK.strength)
    assert 34 < psnr(marked, clean) < 45
    assert 0 <= marked.min() <= marked.max() <= 1


def test_a_bit_changes_its_own_soft_value_only(owner: Owner, task: Task) -> None:
    """The regression undoes what carriers have in common."""
    clean = 0.2 + 0.6 * task.labels[PROBES]
    regression, flipped = Regression(clean, owner.seeds), [-owner.bits[0], *owner.bits[1:]]
    one, other = (
        regression.soft_values(mark_images(clean, owner.seeds, bits, MARK.strength), clean, Extractor())
        for bits in (owner.bits, flipped)
    )
    changes = (one - other).detach() * owner.bits[0]
    assert changes[0] > 5 * changes[1:].abs().max() > 0


def marked(owner: Owner, task: Task, *, seed: int, steps: int) -> torch.nn.Module:
    torch.manual_seed(seed)
    result = copy.deepcopy(owner.theta_ref)
    embed_outputs(result, task.inputs[OWNERS][:96], owner.key.leaves, BETA, owner.key.root, MARK, steps=steps)
    return result


def test_embedding_is_the_same_for_the_same_generators(owner: Owner, task: Task) -> None:
    first, again, other = (marked(owner, task, seed=seed, steps=2).state_dict() for seed in (5, 5, 6))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_batch_norm_statistics_stay_those_of_theta_ref(owner: Owner, task: Task) -> None:
    reference, result = owner.theta_ref.state_dict(), marked(owner, task, seed=5, steps=2).state_dict()
    held = [name for name in reference if "running" in name or "tracked" in name]
    assert all(torch.equal(reference[name], result[name]) for name in held)
    assert not any(torch.equal(reference[name], result[name]) for name in reference if name not in held)


def test_what_cannot_be_marked_is_refused(owner: Owner) -> None:
    with pytest.raises(SpecError, match="127 leaves"):
        embed_outputs(network(4, SIZE), owner.probes, owner.key.leaves[1:], BETA, owner.key.root, MARK, steps=1)
    broken = network(4, SIZE)
    torch.nn.init.constant_(broken.tail.bias, math.nan)
    with pytest.raises(SpecError, match="not finite"):
        embed_outputs(broken, owner.probes, owner.key.leaves, BETA, owner.key.root, MARK, steps=1)
    with pytest.raises(SpecError, match="images"):
        outputs_of(torch.nn.Flatten(), owner.probes, where="theta_ref")
