"""The trace of a step: the same on any machine, and two part at the operator that was computed wrongly."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from pol import exact
from pol.data import Batch, Dataset
from pol.encoding import digest, u64
from pol.merkle import MerkleTree, root_from_proof
from pol.order import DataOrder
from pol.portable import products
from pol.portable.dot import exact_dot, on_grid, product_bits
from pol.portable.mode import way
from pol.portable.random import draw_key
from pol.portable.trace import KEY_DOMAIN, OperatorTrace, first_difference, traced_step
from pol.program import load_program
from pol.tensors import tensor_root
from tests.pol.portable.test_dot import bits_of
from tests.runs import SEED, small_spec


@pytest.fixture
def batch(train_set: Dataset) -> Batch:
    return train_set.batch(DataOrder(SEED, len(train_set), 32).batch(0))


def trace_of(train_set: Dataset, batch: Batch) -> OperatorTrace:
    spec = small_spec(train_set)
    program = load_program(spec.program, spec.program_digest)
    with exact():
        state = program.build(spec.config, SEED)
    return traced_step(program, state, batch, SEED)


def outputs(trace: OperatorTrace) -> set[bytes]:
    return {root for operation in trace.operations for root in operation.outputs}


def test_threads_and_layout_do_not_matter(train_set: Dataset, batch: Batch) -> None:
    mine = trace_of(train_set, batch)
    turned = trace_of(train_set, (batch[0].t().contiguous().t(), batch[1]))
    assert outputs(turned) == outputs(mine)
    torch.set_num_threads(2)
    theirs = trace_of(train_set, batch)
    assert first_difference(mine.operations, theirs.operations) is None
    assert mine.root == theirs.root
    assert {"addmm", "exact::quantise", "native_batch_norm", "bernoulli_.float"} <= {
        o.operator for o in mine.operations
    }


def test_a_wrong_operator_is_the_first_difference(
    train_set: Dataset, batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One party's matrix product is off by one unit in the last place of one element, in the backward pass."""
    honest, count = trace_of(train_set, batch), 0

    def wrong(a: Tensor, b: Tensor) -> Tensor:
        nonlocal count
        result, count = products.mm(a, b), count + 1
        if count == 3:
            result[0, 0] = torch.nextafter(result[0, 0], torch.tensor(9.0))
        return result

    true_way: Callable = way
    monkeypatch.setattr(
        "pol.portable.mode.way", lambda func: (False, wrong) if func is torch.ops.aten.mm.default else true_way(func)
    )
    lying = trace_of(train_set, batch)
    index = first_difference(honest.operations, lying.operations)
    assert index is not None and honest.root != lying.root
    mine, theirs = honest.operations[index], lying.operations[index]
    assert mine.operator == theirs.operator == "mm" and mine.inputs == theirs.inputs and mine.outputs != theirs.outputs
    tree = MerkleTree([operation.leaf(number) for number, operation in enumerate(lying.operations)])
    assert root_from_proof(theirs.leaf(index), tree.prove(index)) == lying.root


def test_a_shorter_trace_differs_where_it_ends(train_set: Dataset, batch: Batch) -> None:
    operations = trace_of(train_set, batch).operations
    assert first_difference(operations, operations[:-1]) == len(operations) - 1
    assert first_difference([], []) is None


def test_a_product_is_opened_as_rows_and_columns_of_integers() -> None:
    generator = torch.Generator().manual_seed(3)
    a, b = torch.randn(4, 9, generator=generator), torch.randn(9, 5, generator=generator)
    with exact(), OperatorTrace() as trace:
        result = a @ b
    transposed, left, right, product, whole = trace.operations
    assert [o.operator for o in trace.operations] == [
        "exact::transpose", "exact::quantise", "exact::quantise", "exact::product", "mm",
    ]  # fmt: skip
    beta = product_bits(9)
    rows, columns = ([on_grid(bits_of(row), beta) for row in side] for side in (a, b.t()))
    assert left.outputs == (_integers(rows), _exponents(rows))
    assert right.outputs == (_integers(columns), _exponents(columns))
    assert product.inputs == left.outputs + right.outputs
    dots = [[exact_dot(row, column) for column in columns] for row in rows]
    values = torch.tensor([[n * 2.0**e for n, e in line] for line in dots], dtype=torch.float64)
    assert product.outputs == (tensor_root("", values),)
    assert transposed.outputs == right.inputs == (tensor_root("", b.t().contiguous()),)
    assert whole.outputs == (tensor_root("", values.float()),) == (tensor_root("", result),)


def _integers(rows: list) -> bytes:
    return tensor_root("", torch.tensor([row.integers for row in rows], dtype=torch.int32))


def _exponents(rows: list) -> bytes:
    return tensor_root("", torch.tensor([[row.exponent] for row in rows], dtype=torch.int16))


def test_memory_that_nobody_wrote_is_no_input() -> None:
    def drawn(fill: float) -> bytes:
        torch.manual_seed(1)
        with exact(), OperatorTrace() as trace:
            torch.full((50,), fill).detach().uniform_()
        return trace.operations[-1].leaf(0)

    assert drawn(1.0) == drawn(2.0)


def test_attributes_are_bound() -> None:
    x = torch.ones(3, 4)

    def traced(call: Callable[[], Tensor]) -> bytes:
        with exact(), OperatorTrace() as trace:
            call()
        return trace.root

    calls = [
        lambda: x.sum(0), lambda: x.sum(1), lambda: x * 2, lambda: x * 2.0, lambda: x * 3, lambda: x * x,
        lambda: nn.functional.pad(x, (1, 0)), lambda: nn.functional.pad(x, (0, 1)),
    ]  # fmt: skip
    assert len({traced(call) for call in calls}) == len(calls)


def test_the_key_of_a_random_operator_is_among_its_inputs() -> None:
    """Two keys, two inputs; who has the key has the numbers, and the trace itself draws none."""

    def drawn(seed: int, call: Callable[[], Tensor]) -> tuple[tuple[bytes, ...], Tensor]:
        torch.manual_seed(seed)
        with exact(), OperatorTrace() as trace:
            result = call()
        (inputs,) = [operation.inputs for operation in trace.operations if operation.inputs]
        return inputs, result

    calls: list[Callable[[], Tensor]] = [
        lambda: torch.empty(3).bernoulli_(0.5), lambda: torch.randn(3), lambda: torch.randperm(9),
        lambda: torch.rand(3, generator=torch.Generator().manual_seed(torch.initial_seed())),
    ]  # fmt: skip
    for call in calls:
        (*_, first), numbers = drawn(1, call)
        (*_, again), same = drawn(1, call)
        (*_, other), _ = drawn(2, call)
        assert first == again != other and torch.equal(numbers, same)
        torch.manual_seed(1)
        key = digest(KEY_DOMAIN, u64(draw_key()))
        assert first == key
        torch.manual_seed(1)
        with exact():
            assert torch.equal(call(), numbers)
    with exact(), OperatorTrace() as trace:
        torch.linspace(0, 1, 5)
    assert all(not operation.inputs for operation in trace.operations)
