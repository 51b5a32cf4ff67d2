"""The honest parties of these tests: an owner of a full-size model, and one of a smaller and quicker one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

import pytest
import torch

from tests.watermark import digits
from watermark import DEFAULT_PARAMETERS, Claim, MarkParameters, WatermarkKey, embed, mlp_mark, opening_groups

BETA = bytes(range(32))
OPENING_BEACON = bytes(range(32, 64))
SMALL = mlp_mark("layers.1.weight", groups=16, rows=16, leaves=16, margin=3.0)
SMALL_WIDTHS = (64, 256, 256, 10)


def changed(parameters: MarkParameters, **change: Any) -> MarkParameters:
    """Parameters of an MLP's mark with some of tensor, groups, rows, leaves and margin changed."""
    (carrier,) = parameters.weights.carriers
    old = {field.name: getattr(carrier, field.name) for field in fields(carrier)} | {
        "leaves": parameters.weights.leaves
    }
    return mlp_mark(**(old | change))


def block(parameters: MarkParameters, group: int) -> slice:
    """The rows of the one carrier that ``group`` owns."""
    return parameters.weights.place(group)[1]


@dataclass(frozen=True)
class Owner:
    """Everything that the owner of a marked model has, and the claim that accuses with it."""

    theta_0: digits.State
    theta_ref: digits.State
    key: WatermarkKey
    parameters: MarkParameters
    model: digits.State
    claim: Claim


def make_owner(widths: tuple[int, ...], parameters: MarkParameters, opened: int, steps: int, seed: int = 1) -> Owner:
    theta_0 = digits.initial(seed, widths)
    theta_ref = digits.train(theta_0, steps=steps, seed=seed)
    key = WatermarkKey(b"the owner's secret, 32 bytes .." + bytes([45 + seed]), parameters.leaf_count)
    groups = opening_groups(OPENING_BEACON, key.root, parameters.groups, opened)
    claim = Claim.make(key, BETA, parameters, groups, theta_ref)
    return Owner(theta_0, theta_ref, key, parameters, embed(theta_ref, key, BETA, parameters), claim)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def owner() -> Owner:
    """The default parameters on a 64-512-512-10 model, half of the groups opened: 256 trials."""
    return make_owner((64, 512, 512, 10), DEFAULT_PARAMETERS, opened=32, steps=300)


@pytest.fixture(scope="session")
def small() -> Owner:
    """A 64-256-256-10 model with all of its 256 leaves opened."""
    return make_owner(SMALL_WIDTHS, SMALL, opened=16, steps=150)
