"""What a state can hold besides weights and moments, and that each of it is bound and comes back."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save
from torch import nn
from torch.optim.swa_utils import AveragedModel

from pol.errors import ProofError, SpecError
from pol.state import TrainingState, from_safetensors, safetensors_chunks, to_safetensors
from pol.tensors import DTYPES, same_bits, tensors_digest
from tests.pol.test_tensors import states

SEED = bytes(range(32))


class Net(nn.Module):
    """Tied weights, every kind of buffer, and parameters that are not contiguous."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 4)
        self.hidden = nn.Linear(4, 4)
        self.hidden.weight = nn.Parameter(torch.randn(4, 4).t())  # not contiguous
        self.norm = nn.BatchNorm1d(4)
        self.head = nn.Linear(4, 5, bias=False)
        self.head.weight = self.embed.weight
        self.register_buffer("cache", torch.ones(3), persistent=False)
        self.register_buffer("a_half", torch.ones(2, dtype=torch.float16))
        self.register_buffer("a_brain", torch.ones(2, dtype=torch.bfloat16))
        self.register_buffer("a_small", torch.ones(2, dtype=torch.int8))
        self.register_buffer("a_double", torch.ones((), dtype=torch.float64))
        self.register_buffer("a_mask", torch.tensor([True, False]))
        self.register_buffer("a_empty", torch.empty(0, 3))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(self.hidden(self.embed(tokens))))


def build() -> TrainingState:
    torch.manual_seed(1)
    model = Net()
    return TrainingState(
        model=model,
        optimizer=torch.optim.AdamW(model.parameters(), lr=1e-2, foreach=False),
        scaler=torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=2),
        ema=AveragedModel(model),
    )


def train(state: TrainingState, steps: int) -> None:
    for _ in range(steps):
        state.key_generators(SEED)
        tokens = torch.randint(0, 5, (6,))
        loss = nn.functional.cross_entropy(state.model(tokens), tokens)
        state.scaler.scale(loss).backward()
        state.scaler.step(state.optimizer)
        state.scaler.update()
        state.optimizer.zero_grad()
        state.ema.update_parameters(state.model)
        state.model.cache.mul_(1.5)
        state.step += 1


@pytest.fixture
def trained() -> TrainingState:
    state = build()
    train(state, 3)
    return state


def test_everything_is_in_the_state(trained: TrainingState) -> None:
    names = set(trained.capture(SEED))
    assert {
        "buffer/cache",
        "ema/n_averaged",
        "ema/module.embed.weight",
        "scaler/scale",
        "scaler/growth_tracker",
    } <= names
    assert {"model/embed.weight", "model/head.weight", "model/a_mask", "model/a_empty", "model/a_double"} <= names
    assert "model/cache" not in names


def test_a_restored_state_continues_bit_for_bit(trained: TrainingState) -> None:
    tensors = from_safetensors(to_safetensors(trained.capture(SEED)), where="test")
    copy = build()
    copy.restore(tensors, layout=tensors, seed=SEED, step=3)
    assert copy.model.head.weight is copy.model.embed.weight
    for state in (trained, copy):
        train(state, 3)
    mine, theirs = copy.capture(SEED), trained.capture(SEED)
    assert [name for name in theirs if not same_bits(mine[name], theirs[name])] == []
    assert tensors_digest(mine) == tensors_digest(theirs)
    assert trained.scaler.get_scale() == 64.0, "the scale grew before and after"


def touch(name: str) -> Callable[[TrainingState], None]:
    def change(state: TrainingState) -> None:
        value = dict(state.model.named_buffers()) | dict(state.ema.named_parameters(prefix="ema"))
        with torch.no_grad():
            tensor = value[name]
            tensor.copy_(~tensor if tensor.dtype is torch.bool else tensor + 1)

    change.__name__ = name
    return change


PARTS = ("cache", "a_half", "a_brain", "a_small", "a_double", "a_mask", "ema.module.hidden.weight")


def scale(state: TrainingState) -> None:
    state.scaler.update(state.scaler.get_scale() * 2)


def growth(state: TrainingState) -> None:
    state.scaler.set_growth_interval(1000)


def decay(state: TrainingState) -> None:
    state.optimizer.param_groups[0]["weight_decay"] = 0.5


@pytest.mark.parametrize(
    "change",
    [
        *map(touch, PARTS),
        scale,
        growth,
        decay,
    ],
    ids=lambda change: change.__name__,
)
def test_each_part_is_bound(trained: TrainingState, change: Callable[[TrainingState], None]) -> None:
    before = tensors_digest(trained.capture(SEED))
    assert tensors_digest(trained.capture(SEED)) == before
    change(trained)
    assert tensors_digest(trained.capture(SEED)) != before


def test_tied_weights_that_differ_in_a_proof_are_refused(trained: TrainingState) -> None:
    tensors = trained.capture(SEED)
    layout = {name: value.clone() for name, value in tensors.items()}
    tensors["model/embed.weight"][0, 0] += 1
    with pytest.raises(ProofError, match="embed"):
        build().restore(tensors, layout=layout, seed=SEED, step=3)


def test_a_capture_reuses_memory_and_never_shares_it(trained: TrainingState) -> None:
    first = trained.capture(SEED)
    before = tensors_digest(first)
    train(trained, 1)
    assert tensors_digest(first) == before
    second = trained.capture(SEED, first)
    assert all(
        second[name].data_ptr() == first[name].data_ptr() for name in first if name.startswith(("model/", "ema/"))
    )
    assert tensors_digest(second) == tensors_digest(trained.capture(SEED))


def test_pinned_tensors_are_bound_by_one_digest_and_not_stored(trained: TrainingState) -> None:
    trained.pinned = frozenset({"hidden.weight", "hidden.bias"})
    tensors = trained.capture(SEED)
    assert "model/hidden.weight" not in tensors and tensors["pinned"].shape == (32,)
    twin = build()
    twin.pinned = trained.pinned
    with pytest.raises(ProofError, match="pinned"):  # the twin's base is the untrained one
        twin.restore(tensors, layout=tensors, seed=SEED, step=3)
    with torch.no_grad():
        trained.model.hidden.bias[0] += 1
    assert not same_bits(trained.capture(SEED)["pinned"], tensors["pinned"])


def test_what_is_no_tensor_is_refused(trained: TrainingState) -> None:
    trained.optimizer.state[trained.model.norm.bias]["note"] = [1, 2]
    with pytest.raises(SpecError, match="'note' is a list"):
        trained.capture(SEED)


@given(states)
def test_blobs_have_the_librarys_bytes(state: dict[str, torch.Tensor]) -> None:
    assert b"".join(safetensors_chunks(state)) == save({name: value.contiguous() for name, value in state.items()})


@given(st.sampled_from(sorted(DTYPES, key=str)), st.booleans())
def test_bits_are_compared_and_not_values(dtype: torch.dtype, scalar: bool) -> None:
    one = torch.zeros(() if scalar else (2,), dtype=dtype)
    assert same_bits(one, one.clone())
    assert not same_bits(one, one.unsqueeze(0))
    if dtype.is_floating_point:
        nan = torch.full_like(one, float("nan"))
        assert same_bits(nan, nan.clone())
        assert not same_bits(one, -one)
