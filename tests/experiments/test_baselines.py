"""The baselines find what they embed, and no more than chance elsewhere; likenesses obey their laws."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from experiments.baselines import EMBEDDED, UNMARKED
from experiments.baselines.scheme import Owner, Scheme, features
from experiments.baselines.similarity import linear_cka
from experiments.stolen_model.workloads import Workload

WORK = Workload(
    name="small",
    kind="mlp",
    program="classifier",
    data={"source": "digits", "owner": 600, "attacker": 600, "test": 500},
    config={
        "inputs": 64, "width": 128, "hidden": 2, "classes": 10, "steps": 300,
        "learning_rate": 2e-3, "weight_decay": 0.0, "dropout": 0.0, "batch_norm": False,
    },
    student={"width": 64},
    batch=64,
    fit_steps=600,
    marks=("uchida", "adi"),
    channels={},
    shape=(1, 8, 8),
)  # fmt: skip


@cache
def owner() -> Owner:
    split = WORK.split(1)
    model = WORK.train(split.owner, 1)
    return Owner(
        model,
        split.owner,
        split.test,
        WORK.setting(split.owner, split.owner.inputs),
        1,
        partial(WORK.fit, split.owner, 1),
    )


@cache
def independent() -> nn.Module:
    return WORK.train(WORK.split(1).attacker, 2)


@pytest.mark.parametrize(("name", "chance"), [("uchida", 0.75), ("adi", 0.4)])
def test_an_embedded_mark_is_found_and_costs_little(name: str, chance: float) -> None:
    scheme = EMBEDDED[name]
    marked = scheme.mark(owner(), owner().model)
    read = scheme.reader(owner(), marked)
    assert read(marked).score >= 0.95
    assert read(owner().model).score < chance  # the honest twins
    assert read(independent()).score < chance
    assert WORK.quality(marked, owner().public) > 90


@pytest.mark.parametrize("name", ["cosine", "cka"])
def test_a_model_is_like_itself_and_less_like_an_independent_one(name: str) -> None:
    read = UNMARKED[name].reader(owner(), owner().model)
    assert read(owner().model).score == pytest.approx(1.0)
    assert read(independent()).score < 0.99


def test_cka_is_fooled_by_common_data_where_the_cosine_is_not() -> None:
    """Why likeness is no evidence: models with nothing in common but the task look alike to CKA."""
    reads = {name: UNMARKED[name].reader(owner(), owner().model)(independent()).score for name in ("cosine", "cka")}
    assert reads["cka"] > 0.5 > reads["cosine"]


def test_dataset_inference_tells_data_apart_not_models() -> None:
    """It accuses an innocent that was trained on the owner's data as much as the owner's own model."""
    read = UNMARKED["dataset-inference"].reader(owner(), owner().model)
    same_data, other_data = WORK.train(owner().private, 3), independent()
    assert read(same_data).score > read(other_data).score


def _broken(fill: float) -> nn.Module:
    model = WORK.network()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(fill)
    return model


@pytest.mark.parametrize("fill", [0.0, float("nan"), float("inf"), 1e30])
@pytest.mark.parametrize("scheme", [*EMBEDDED.values(), *UNMARKED.values()], ids=lambda scheme: type(scheme).__name__)
def test_hostile_suspects_get_a_finite_score(scheme: Scheme, fill: float) -> None:
    reading = scheme.reader(owner(), owner().model)(_broken(fill))
    assert reading.score < 0.9 or fill == 0.0


def rotated(rows: torch.Tensor, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    size = rows.shape[1]
    basis = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64)).Q
    return rows @ basis


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(3, 30),
    left=st.integers(1, 12),
    right=st.integers(1, 12),
    scale=st.floats(1e-3, 1e3),
)
def test_cka_is_symmetric_and_blind_to_rotation_scale_and_shift(
    seed: int, n: int, left: int, right: int, scale: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, left, generator=generator, dtype=torch.float64)
    y = torch.randn(n, right, generator=generator, dtype=torch.float64)
    value = linear_cka(x, y)
    assert -1e-9 <= value <= 1 + 1e-9
    assert linear_cka(y, x) == pytest.approx(value)
    assert linear_cka(rotated(x, seed) * scale + 3, y) == pytest.approx(value, abs=1e-9)
    assert linear_cka(x, x) == pytest.approx(1.0)


def test_features_are_what_enters_the_last_layer() -> None:
    inputs = owner().public.inputs[:20]
    last: Callable[[torch.Tensor], torch.Tensor] = owner().model.layers[-1]  # type: ignore[index,assignment]
    with torch.no_grad():
        assert torch.allclose(last(features(owner().model, inputs).float()), owner().model(inputs), atol=1e-5)
