"""The canonical digest binds every byte, dtype, shape and name, and nothing else."""

from __future__ import annotations

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pol.errors import ProofError
from pol.merkle import leaf_digest, merkle_root
from pol.tensors import (
    BLOCK_BYTES,
    BLOCK_DOMAIN,
    DTYPES,
    check_values,
    little_endian_bytes,
    table_digest,
    tensor_header,
    tensor_root,
    tensor_table,
    tensors_digest,
)

dtypes = st.sampled_from(sorted(DTYPES, key=str))
shapes = st.lists(st.integers(0, 5), max_size=3)


def random_tensor(dtype: torch.dtype, shape: list[int], seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 2 if dtype is torch.bool else 100, shape, generator=generator).to(dtype)


tensors = st.builds(random_tensor, dtypes, shapes, st.integers(0, 1000))
states = st.dictionaries(st.text(min_size=1, max_size=8), tensors, min_size=1, max_size=4)


@given(states)
def test_equal_states_have_equal_digests_whatever_their_order_or_strides(state: dict[str, torch.Tensor]) -> None:
    def restrided(value: torch.Tensor) -> torch.Tensor:
        return value.t().contiguous().t() if value.dim() == 2 else value

    again = {name: restrided(state[name].clone()) for name in reversed(state)}
    assert tensors_digest(again) == tensors_digest(state)


@given(states, st.data())
def test_any_flipped_bit_changes_the_digest(state: dict[str, torch.Tensor], data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(state)))
    raw = bytearray(little_endian_bytes(state[name]))
    if not raw or state[name].dtype is torch.bool:
        return
    position, bit = data.draw(st.integers(0, len(raw) - 1)), data.draw(st.integers(0, 7))
    raw[position] ^= 1 << bit
    flipped = torch.frombuffer(raw, dtype=state[name].dtype).reshape(state[name].shape)
    assert tensors_digest(state | {name: flipped}) != tensors_digest(state)


@given(tensors)
def test_dtype_shape_and_name_are_bound(value: torch.Tensor) -> None:
    same_bytes = [value.unsqueeze(0)]
    if value.dtype is torch.float32:
        same_bytes.append(value.view(torch.int32))
    for other in same_bytes:
        assert little_endian_bytes(other) == little_endian_bytes(value)
        assert tensor_root("w", other) != tensor_root("w", value)
    assert tensor_root("v", value) != tensor_root("w", value)


def test_names_and_contents_cannot_be_swapped() -> None:
    a, b = torch.zeros(3), torch.ones(3)
    assert tensors_digest({"a": a, "b": b}) != tensors_digest({"a": b, "b": a})
    assert tensors_digest({"a": a}) != tensors_digest({"a": a, "b": b})
    assert tensors_digest({"a": a}) != tensors_digest({"c": a})


@settings(max_examples=20)
@example(BLOCK_BYTES // 4)
@example(BLOCK_BYTES // 4 + 1)
@example(2 * BLOCK_BYTES // 4 + 1)
@given(st.integers(0, 2 * BLOCK_BYTES // 4 + 7))
def test_blocks_are_as_the_format_says(count: int) -> None:
    """One block can be opened alone: the root is the Merkle root over leaves of header and 16 KiB."""
    value = torch.arange(count, dtype=torch.int32)
    data, header = value.numpy().astype("<i4").tobytes(), tensor_header("w", value)
    blocks = [data[i : i + BLOCK_BYTES] for i in range(0, max(1, len(data)), BLOCK_BYTES)]
    leaves = [leaf_digest(BLOCK_DOMAIN, i, header + block) for i, block in enumerate(blocks)]
    assert tensor_root("w", value) == merkle_root(leaves)


@given(states)
def test_the_table_leads_to_the_digest(state: dict[str, torch.Tensor]) -> None:
    assert table_digest(tensor_table(state)) == tensors_digest(state)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_non_finite_values_are_found(dtype: torch.dtype, bad: float) -> None:
    value = torch.zeros(5, dtype=dtype)
    check_values({"w": value}, where="test")
    value[3] = bad
    with pytest.raises(ProofError, match="tensor 'w'"):
        check_values({"w": value}, where="test")


def test_booleans_are_zero_or_one() -> None:
    """A byte of 2 compares equal to one of 1, but has another digest."""
    odd = torch.tensor([2], dtype=torch.uint8).view(torch.bool)
    check_values({"w": torch.tensor([True, False])}, where="test")
    with pytest.raises(ProofError, match="boolean"):
        check_values({"w": odd}, where="test")


def test_names_and_dimensions_have_limits() -> None:
    tensor_root("n" * 1024, torch.zeros(1))
    with pytest.raises(ProofError, match="limit"):
        tensor_root("n" * 1025, torch.zeros(1))
    with pytest.raises(ProofError, match="limit"):
        tensor_root("n", torch.zeros([1] * 65))


def test_a_dtype_without_canonical_bytes_is_refused() -> None:
    with pytest.raises(ProofError, match="dtype"):
        tensor_root("w", torch.zeros(2, dtype=torch.complex64))
