"""A network that carries the mark in its weights, and what is left of it after theft."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch

from pol.programs.image_to_image import Translator
from tests.watermark.outputs.conftest import BETA, MARK, OWNERS, Owner, Task
from tests.watermark.outputs.test_embed import psnr
from tests.watermark.outputs.test_reading import evidence
from watermark.outputs import embed_outputs, translator

pytestmark = pytest.mark.slow


ABSORBED_LOG2 = -15
"""Far beyond chance, and far from a conviction: 300 steps do not teach a network of this size the whole payload."""


@pytest.fixture(scope="module")
def owner(task: Task, owner: Owner) -> Owner:
    """The owner with a network twice as wide and longer trained."""
    return dataclasses.replace(owner, theta_ref=task.learned(OWNERS, seed=1, steps=250, filters=16))


@pytest.fixture(scope="module")
def stolen(owner: Owner, task: Task) -> Translator:
    """The owner's network after :func:`embed_outputs`, which has nothing behind it."""
    torch.manual_seed(3)
    result = copy.deepcopy(owner.theta_ref)
    embed_outputs(result, task.inputs[OWNERS], owner.key.leaves, BETA, owner.key.root, MARK, steps=300)
    return result


def quantised(stolen: Translator, bits: int) -> dict[str, torch.Tensor]:
    """Each convolution rounded to ``bits`` bits, symmetrically."""
    state = {name: tensor.clone() for name, tensor in stolen.state_dict().items()}
    for name, tensor in state.items():
        if tensor.dim() == 4:
            step = tensor.abs().max() / (2 ** (bits - 1) - 1)
            state[name] = torch.round(tensor / step) * step
    return state


def test_training_to_be_read_reads_far_better_than_chance(owner: Owner, stolen: Translator) -> None:
    assert evidence(owner, stolen).log2_p < ABSORBED_LOG2
    assert psnr(stolen(owner.probes), owner.theta_ref(owner.probes)) > 30


def test_a_copy_of_eight_bits_reads_the_same(owner: Owner, stolen: Translator) -> None:
    copied = translator(quantised(stolen, 8), where="the suspect")
    assert evidence(owner, copied).log2_p < ABSORBED_LOG2
