"""Nothing gets past the table: known operators are taken over in place, unknown ones are refused by name."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pol import exact
from pol.errors import SpecError
from pol.portable.mode import RefusedOperator, active, entry_of
from pol.portable.table import TABLE, Kind
from tests.pol.portable.test_walk import Watched
from tests.pol.programs import NAMES, case, tiny_base

SQUARE = torch.eye(3) * 2 + torch.ones(3, 3)
ROW = torch.linspace(0.1, 0.9, 6)

UNKNOWN: dict[str, Callable[[], Any]] = {
    "linalg_cholesky_ex": lambda: torch.linalg.cholesky(SQUARE),
    "_linalg_svd": lambda: torch.linalg.svd(SQUARE),
    "linalg_inv": lambda: torch.linalg.inv(SQUARE),
    "_linalg_det": lambda: torch.linalg.det(SQUARE),
    "_fft_r2c": lambda: torch.fft.rfft(ROW),
    "atan": ROW.atan,
    "atan2": lambda: torch.atan2(ROW, ROW),
    "sinh": ROW.sinh,
    "lgamma": ROW.lgamma,
    "digamma": ROW.digamma,
    "expm1": ROW.expm1,
    "log1p": ROW.log1p,
    "log2": ROW.log2,
    "exp2": ROW.exp2,
    "logsumexp": lambda: ROW.logsumexp(0),
    "topk": lambda: ROW.topk(2),
    "cumsum": lambda: ROW.cumsum(0),
    "cumprod": lambda: ROW.cumprod(0),
    "prod": ROW.prod,
    "elu": lambda: F.elu(ROW),
    "mish": lambda: F.mish(ROW),
    "_cdist_forward": lambda: torch.cdist(SQUARE, SQUARE),
    "upsample_bilinear2d": lambda: F.interpolate(SQUARE[None, None], scale_factor=2, mode="bilinear"),
    "_ctc_loss": lambda: F.ctc_loss(ROW.reshape(3, 1, 2).log(), torch.ones(1, 1, dtype=torch.long), (3,), (1,)),
    "multinomial": lambda: ROW.multinomial(2),
    "poisson": lambda: torch.poisson(ROW),
    "histc": lambda: ROW.histc(3),
    "floor_divide": lambda: ROW // 0.3,
    "remainder": lambda: ROW % 0.3,
    "scatter_reduce": lambda: ROW.scatter_reduce(0, torch.zeros(6, dtype=torch.long), ROW, "prod"),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_an_operator_outside_the_table_is_refused_by_name(name: str) -> None:
    UNKNOWN[name]()  # torch itself has nothing against it
    with exact(), pytest.raises(SpecError, match=rf"aten::{name}.*test_mode\.py:\d+.*: .*use|portable for integers"):
        UNKNOWN[name]()


def test_a_refusal_names_the_module_and_in_a_backward_pass_the_operator() -> None:
    class Odd(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.atan()

    with exact(), pytest.raises(RefusedOperator, match=r"aten::atan \(in Odd, .*test_mode.py:\d+\)"):
        nn.Sequential(Odd())(ROW)
    root = ROW.clone().requires_grad_()
    result = root.cumprod(0).sum()
    with exact(), pytest.raises(RefusedOperator, match="backward pass"):
        result.backward()


@pytest.mark.parametrize(
    "use",
    [
        lambda: SQUARE.double() @ SQUARE.double(),
        SQUARE.double().sum,
        lambda: torch.complex(ROW, ROW) + 1,
        partial(ROW.to, torch.complex64),
        partial(ROW.to, torch.float8_e4m3fn),
        (ROW * 1e30).long,
        lambda: (ROW * math.nan).to(torch.int32),
        lambda: torch.zeros(6, dtype=torch.int64).copy_(ROW * 1e30),
        lambda: ROW.to_sparse() * 2,
        lambda: torch.zeros(3).index_put((torch.tensor([1, 1]),), torch.ones(2)),
        lambda: torch.zeros(3).scatter(0, torch.tensor([1, 1]), torch.ones(2)),
        partial(torch.linalg.vector_norm, ROW, 3),
        partial(torch.arange, 0, 1, 0.1),
        partial(F.avg_pool2d, SQUARE[None], 2, 1),
        lambda: torch.ones(3, dtype=torch.int64).mul_(torch.ones(3)),
    ],
)
def test_a_use_without_a_portable_form_is_refused(use: Callable[[], Any]) -> None:
    with exact(), pytest.raises((SpecError, RuntimeError)) as refusal:
        use()
    assert isinstance(refusal.value, SpecError) or "can't be cast" in str(refusal.value)


def test_the_table_names_operators_of_torch_and_gives_each_a_reason() -> None:
    for name, entry in TABLE.items():
        space, _, rest = name.rpartition("::")
        base, _, overload = rest.partition(".")
        packet = getattr(getattr(torch.ops, space or "aten"), base, None)
        if name != "_index_put_impl":  # torch has only its in-place form
            assert packet is not None and (overload or "default") in packet.overloads(), name
        assert entry.why and (entry.run is None) == (entry.kind in (Kind.MOVE, Kind.SINGLE)), name


@contextmanager
def unwarned() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("convnet/cnn", "language/fp32")])
def test_every_operator_of_a_built_in_program_is_classified(name: str, tmp_path: Path) -> None:
    if name.startswith("lora"):
        tiny_base(tmp_path)
    program = case(name)
    with unwarned(), Watched() as native:
        program.train(program.build(), 2)
    with unwarned(), exact(), Watched() as portable:
        program.train(program.build(), 2)
    assert len(native.seen) > 30
    assert [func.name() for func in native.seen | portable.seen if entry_of(func) is None] == []


def test_in_place_forms_keep_the_tensor_and_count_a_change() -> None:
    target = torch.ones(3)
    with exact():
        for change in (
            lambda: target.add_(torch.ones(3), alpha=0.5),
            lambda: target.lerp_(torch.zeros(3), 0.25),
            lambda: target.div_(3),
            target.exp_,
            lambda: (torch._foreach_mul_([target], 2.0), target)[1],
            lambda: torch.mul(target, 2, out=target),
        ):
            address, version = target.data_ptr(), target._version
            result = change()
            assert result is target
            assert target.data_ptr() == address and target._version > version
    leaf = torch.ones(3, requires_grad=True)
    with exact():
        value = leaf * 2
        value.add_(leaf, alpha=3)
        value.sum().backward()
    assert leaf.grad is not None and leaf.grad.tolist() == [5, 5, 5]


def test_exact_ends_with_its_block_and_may_be_nested() -> None:
    enabled = torch.backends.cudnn.enabled
    with exact(), pytest.raises(KeyError):
        assert active()
        with exact():
            assert (SQUARE @ SQUARE).dtype is torch.float32
        assert active()
        raise KeyError
    assert not active() and torch.backends.cudnn.enabled == enabled
    assert ROW.atan().isfinite().all()


def test_half_precision_is_rounded_once_from_float32() -> None:
    a, b = torch.randn(2, 1000, generator=torch.Generator().manual_seed(0)).bfloat16()
    with exact():
        assert torch.equal(a + b * 1.0, (a.float() + b.float()).bfloat16())
        assert torch.equal(torch.add(a, b, alpha=0.3), (a.float() + b.float() * 0.3).bfloat16())
        assert torch.equal(a * 0.1, (a.float() * 0.1).bfloat16())
        assert (a @ b).dtype is torch.bfloat16
    assert float(a @ b) == pytest.approx(float(a.double() @ b.double()), rel=1e-2, abs=0.5)


def test_norms_of_many_tensors_are_those_of_each_at_any_scale() -> None:
    rows = [torch.full((70,), 3e38), torch.full((3,), 2.0**-149), torch.tensor([3.0, 4.0]), torch.zeros(2, 2)]
    truths = {order: [row.double().norm(order).float() for row in rows] for order in (1, 2, math.inf)}
    with exact():
        for order, expected in truths.items():
            found = torch._foreach_norm(rows, order)
            assert [float(x) for x in found] == [float(torch.linalg.vector_norm(row, order)) for row in rows]
            assert [float(x) for x in found] == [float(truth) for truth in expected]
        assert float(torch._foreach_norm(rows)[2]) == 5.0


def test_what_torch_composes_on_a_cpu_is_not_replaced_where_a_gpu_has_an_operator_for_it() -> None:
    """It would arrive there alone, and take another way: ``rms_norm`` is replaced as a function."""
    has = torch._C._dispatch_has_kernel_for_dispatch_key
    aten = [f"aten::{name}" for name in TABLE if "::" not in name and name != "_index_put_impl"]
    composed = [name for name in aten if has(name, "CompositeImplicitAutograd") and not has(name, "CPU")]
    assert composed == ["aten::square"]  # x * x on either way


def test_root_mean_square_norms_are_composed_as_by_torch() -> None:
    for dtype in (torch.float32, torch.bfloat16):
        x, weight = torch.linspace(-2, 3, 24).reshape(2, 3, 4).to(dtype), torch.linspace(0.5, 1.5, 12).reshape(3, 4)
        for rows in (x, x.permute(2, 0, 1).contiguous().permute(1, 2, 0)):
            for eps in (None, 1e-5):
                with exact():
                    found = F.rms_norm(rows, (3, 4), weight.to(dtype), eps)
                    with torch._C.DisableTorchFunction():
                        assert torch.equal(found, F.rms_norm(rows, (3, 4), weight.to(dtype), eps))
    with exact(), pytest.raises(SpecError, match="does not end with"):
        F.rms_norm(ROW, (5,))


def test_no_multiplication_is_contracted_with_an_addition() -> None:
    a, b, c = torch.randn(3, 1000, generator=torch.Generator().manual_seed(0))

    def rounded(x: Tensor) -> Tensor:
        return x.float().double()

    third = float(torch.tensor(0.3))
    x, y, z = a.double(), b.double(), c.double()
    with exact():
        assert torch.equal(torch.add(a, b, alpha=0.3).double(), rounded(x + rounded(y * third)))
        assert torch.equal(torch.sub(a, b, alpha=0.3).double(), rounded(x - rounded(y * third)))
        assert torch.equal(torch.addcmul(a, b, c).double(), rounded(x + rounded(y * z)))
        assert torch.equal(torch.lerp(a, b, 0.3).double(), rounded(x + rounded(rounded(y - x) * third)))
    fused = (x + y * z).float()
    assert not torch.equal(fused, (a + b * c)), "the numbers must tell the one from the other"


def test_zeros_have_one_sign_and_ties_the_lowest_index() -> None:
    zeros = torch.tensor([-0.0, 0.0, -0.0])
    with exact():
        for chosen in (zeros.relu(), torch.maximum(zeros, zeros.flip(0)), zeros.amax(0), zeros.min(0).values):
            assert not chosen.signbit().any()
        assert torch.tensor([1.0, 3.0, 3.0, 2.0, 3.0]).argmax() == 1
        assert torch.tensor([1.0, math.nan, 3.0]).argmax() == 1
        assert torch.tensor([True, False]).amax(0).dtype is torch.bool
        assert torch.ones(5, dtype=torch.bool).sum(dtype=torch.float32) == 5
        assert torch.tensor([[2.0, 1.0, 1.0]]).min(1).indices.tolist() == [1]
        assert torch.tensor([2, 1, 2, 1]).sort().indices.tolist() == [1, 3, 0, 2]
        assert not zeros[:1].sum().signbit() and not (-zeros).sum().signbit()
        assert torch.tensor([1.0, math.nan]).relu().isnan().tolist() == [False, True]


def test_compiled_and_scripted_functions_do_not_get_around_the_mode() -> None:
    def unknown(x: Tensor) -> Tensor:
        return x.atan() * 2

    compiled = torch.compile(unknown, backend="eager")
    with unwarned():
        scripted = torch.jit.script(unknown)
    for function in (compiled, scripted):
        assert torch.equal(function(ROW), ROW.atan() * 2)
        with exact(), pytest.raises(RuntimeError if function is scripted else SpecError, match="atan"):
            function(ROW)


def test_attention_inside_a_function_of_torch_is_composed_of_operators() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    rows = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(0))
    native = layer(rows)
    with exact():
        found = layer(rows)
        found.sum().backward()
    torch.testing.assert_close(found, native)


def test_attention_gives_nothing_to_a_query_that_sees_no_key() -> None:
    query, key, value = torch.randn(3, 1, 2, 4, 8, generator=torch.Generator().manual_seed(0))
    mask = torch.ones(4, 4, dtype=torch.bool).tril()
    mask[2] = False
    with exact():
        found = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        bias = torch.zeros(4, 4).masked_fill(~mask, -math.inf)
        assert torch.equal(found, F.scaled_dot_product_attention(query, key, value, attn_mask=bias))
    assert not found[:, :, 2].any()
    native = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    torch.testing.assert_close(found, native)
