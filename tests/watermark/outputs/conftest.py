"""The honest parties of these tests: an owner whose network sharpens images, and an innocent who does the same."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import pytest
import torch

from pol.programs.image_to_image import Translator
from watermark import WatermarkKey
from watermark.bits import mark_bit
from watermark.outputs import OutputMark, mark_images
from watermark.outputs.fit import fit
from watermark.outputs.training import degraded, network, scenes

SIZE = 24
BETA = bytes(range(32))
MARK = OutputMark(groups=16, leaves=8, strength=0.03)
OWNERS, THIEFS, PROBES = slice(0, 600), slice(600, 1200), slice(1200, 1200 + MARK.images)


@dataclass(frozen=True)
class Task:
    """Images [n, 1, 24, 24] that were degraded, and the clean ones."""

    inputs: torch.Tensor
    labels: torch.Tensor

    def learned(self, part: slice, *, seed: int, steps: int, filters: int = 8) -> Translator:
        """A fresh network that has learned this part of the task."""
        torch.manual_seed(seed)
        learner = network(filters, SIZE)
        fit(learner, self.inputs[part], self.labels[part], steps=steps, rate=2e-3)
        return learner.eval()


@dataclass(frozen=True)
class Owner:
    """An owner who runs the embedder H behind the unmarked network, and the inputs of the judge."""

    theta_ref: Translator
    key: WatermarkKey
    probes: torch.Tensor

    @cached_property
    def seeds(self) -> list[bytes]:
        return [leaf.seed for leaf in self.key.leaves]

    @cached_property
    def bits(self) -> list[int]:
        return [mark_bit(BETA, self.key.root, leaf.index, leaf.seed) for leaf in self.key.leaves]

    def marked(self, inputs: torch.Tensor) -> torch.Tensor:
        """What the world sees: theta_ref's outputs with the payload in them."""
        return mark_images(self.theta_ref(inputs).clamp(0, 1), self.seeds, self.bits, MARK.strength)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def task() -> Task:
    torch.manual_seed(0)
    labels = scenes(PROBES.stop, SIZE)
    return Task(degraded(labels), labels)


@pytest.fixture(scope="session")
def owner(task: Task) -> Owner:
    key = WatermarkKey(b"the owner's secret, 32 bytes ...", MARK.leaf_count)
    return Owner(task.learned(OWNERS, seed=1, steps=80), key, task.inputs[PROBES])


@pytest.fixture(scope="session")
def innocent(task: Task) -> Translator:
    """A network of another seed, trained on other data of the same task."""
    return task.learned(THIEFS, seed=2, steps=80)
