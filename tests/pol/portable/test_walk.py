"""Whole training steps of models and optimizers: every overload that they reach is classified, and the bits are one."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import optimizer
from torch.utils._python_dispatch import TorchDispatchMode

from experiments.exact.workload import elsewhere
from pol import exact
from pol.portable.mode import RefusedOperator, entry_of
from tests.pol.portable.models import MODELS, digest, trained
from tests.pol.portable.test_operators import CASES, inputs

STEPS = 3
EXACT, ROUGH = 1e-5, 0.02  # how far a loss may be from the native one, in float32 and where bf16 rounds otherwise
ATTENTION = "aten::_scaled_dot_product"  # replaced as a whole, before it becomes an operator of a device's own
WAYS: dict[str, dict[str, Any]] = {
    "training": {}, "evaluating": {"training": False}, "accumulated": {"parts": 2},
}  # fmt: skip


@pytest.fixture(autouse=True)
def _one_thread_and_no_warnings() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    torch.set_num_threads(threads)


class Watched(TorchDispatchMode):
    """Keeps the operators that it sees, and lets them run."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[Any] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen.add(func)
        return func(*args, **(kwargs or {}))

    def unclassified(self) -> list[str]:
        return [func.name() for func in self.seen if entry_of(func) is None]


@pytest.mark.parametrize("name", MODELS)
def test_a_model_trains_as_it_does_natively(name: str) -> None:
    # the dropout of an exact run draws other numbers, so that only models without it can be compared
    torch.manual_seed(0)
    model = MODELS[name]()
    start = {label: value.clone() for label, value in model.state_dict().items()}

    def same_start() -> nn.Module:
        model.load_state_dict(start)
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        return model

    _, native = trained(same_start)
    with exact():
        found, portable = trained(same_start)
    assert portable == pytest.approx(native, rel=ROUGH if "bf16" in name or "mixed" in name else EXACT)
    assert all(bool(value.isfinite().all()) for value in found.state_dict().values())


@pytest.mark.slow
@pytest.mark.parametrize("manner", WAYS)
@pytest.mark.parametrize("name", MODELS)
def test_every_overload_is_classified_and_the_digest_is_one(name: str, manner: str) -> None:
    train = partial(trained, MODELS[name], steps=STEPS, **WAYS[manner])
    with Watched() as native:
        train()
    with exact(), Watched() as portable:
        expected = digest(train()[0])
    assert len(native.seen) > 30 and portable.unclassified() == []
    assert all(name.startswith(ATTENTION) for name in native.unclassified())
    for fused in (True, False):
        with exact(fused=fused):
            assert digest(train(move=elsewhere)[0]) == expected
            torch.set_num_threads(2)
            assert digest(train()[0]) == expected
            torch.set_num_threads(1)


FORMS: list[dict[str, Any]] = [{"foreach": False}, {"foreach": True}, {"fused": True}]
SGD, ADAM, ADAMW = (partial(kind, lr=0.01) for kind in (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW))
COVERED: dict[str, tuple[Callable[..., torch.optim.Optimizer], dict[str, Any], list[str | None]]] = {
    "sgd": (SGD, {"weight_decay": 0.1}, [None, None, None]),
    "momentum": (SGD, {"momentum": 0.9, "dampening": 0.1}, [None, None, None]),
    "nesterov, upwards": (SGD, {"momentum": 0.9, "nesterov": True, "maximize": True}, [None, None, None]),
    "sgd, rate in a tensor": (SGD, {"lr": torch.tensor(0.01)}, [None, None, "_fused_sgd_.tensor_lr"]),
    "adam": (ADAM, {"weight_decay": 0.1}, [None, None, None]),
    "adamw": (ADAMW, {"maximize": True}, [None, None, None]),
    "amsgrad": (ADAM, {"amsgrad": True}, [None, None, "_fused_adam_.*amsgrad"]),
    "adamw, amsgrad": (ADAMW, {"amsgrad": True}, [None, None, "_fused_adamw_.*amsgrad"]),
}


@pytest.mark.parametrize("name", COVERED)
def test_each_form_of_an_optimizer_has_the_same_bits_or_is_refused_by_name(name: str) -> None:
    make, options, refusals = COVERED[name]
    digests = set()
    for form, refusal in zip(FORMS, refusals, strict=True):
        update = partial(make, **(options | form))
        with exact():
            if refusal is not None:
                with pytest.raises(RefusedOperator, match=refusal):
                    trained(MODELS["words"], update, STEPS)
                continue
            with Watched() as portable:
                digests.add(digest(trained(MODELS["words"], update, STEPS)[0]))
        with Watched() as native:
            trained(MODELS["words"], update, STEPS)
        assert portable.unclassified() == []
        assert all(name.startswith(ATTENTION) for name in native.unclassified())
    assert len(digests) == 1


OTHERS = [torch.optim.Adagrad, torch.optim.ASGD, torch.optim.NAdam, torch.optim.RAdam]


@pytest.mark.parametrize("make", OTHERS)
def test_the_form_that_torch_would_choose_on_another_device_is_not_taken(
    make: Callable[..., torch.optim.Optimizer], monkeypatch: pytest.MonkeyPatch
) -> None:
    def found(**form: bool) -> str:
        with exact():
            return digest(trained(MODELS["windows"], partial(make, lr=0.01, **form), STEPS)[0])

    one_by_one = found(foreach=False)
    assert found(foreach=True) != one_by_one, "these round otherwise in their multi-tensor form"
    monkeypatch.setattr(optimizer, "_get_foreach_kernels_supported_devices", lambda: ["cpu"])  # as CUDA is there
    assert found() == one_by_one
    assert optimizer._get_foreach_kernels_supported_devices() == ["cpu"]


def test_a_form_of_an_operator_takes_the_same_arguments() -> None:
    """``pow_.Scalar`` is no form of ``pow.Scalar``, nor ``round.decimals_out`` of ``round``."""
    base = torch.tensor([2.0, 3.0])
    with exact():
        assert base.clone().pow_(3.0).tolist() == [8.0, 27.0]
        assert torch.max(base, base.flip(0), out=torch.empty(2)).tolist() == [3.0, 3.0]
        assert [float(x) for x in torch._foreach_pow(2.0, [base[1], base[0]])] == [8.0, 4.0]
        torch._foreach_maximum_([largest := base.clone()], [base.flip(0)])
        assert largest.tolist() == [3.0, 3.0]
        for refused in (
            lambda: torch.round(base, decimals=1, out=torch.empty(2)),
            lambda: torch._foreach_powsum([base], 2.0),
            lambda: torch.ops.aten.native_group_norm.out(
                base.reshape(1, 2), None, None, 1, 2, 1, 1, 1e-5, out0=base, out1=base, out2=base
            ),
        ):
            with pytest.raises(RefusedOperator):
                refused()


@pytest.mark.parametrize("name", CASES)
def test_strides_do_not_tell_who_computed_a_result(name: str) -> None:
    """torch looks at them where it composes operators, and then sums in another order."""
    case, shapes = CASES[name]
    values = [elsewhere(value) for value in inputs(*shapes, seed=1)]
    found: list[list[Tensor]] = []
    for fused in (True, False):
        leaves = [value.requires_grad_() for value in values]
        with exact(fused=fused):
            result = case(*leaves)
            gradients = torch.autograd.grad(result, leaves, elsewhere(torch.ones_like(result)), allow_unused=True)
        found.append([result.detach(), *(gradient for gradient in gradients if gradient is not None)])
    for mine, other in zip(*found, strict=True):
        assert torch.equal(mine, other) and mine.stride() == other.stride()


@pytest.mark.slow
def test_attention_of_torch_over_many_rows_is_the_same_fused_and_not() -> None:
    """In it torch composes ``linear``, whose bias has another gradient where its rows do not lie in order."""
    rows = torch.randn(20, 600, 8, generator=torch.Generator().manual_seed(0)).transpose(0, 1)
    norm, attention = nn.LayerNorm(8), nn.MultiheadAttention(8, 2)
    found = []
    for fused in (True, False):
        attention.zero_grad()
        with exact(fused=fused):
            x = norm(rows)
            result, _ = attention(x, x + 0.0, x * 1.0, need_weights=False)
            result.backward(torch.linspace(-1, 1, result.numel()).reshape(result.shape))
        found.append([parameter.grad for parameter in attention.parameters()])
    assert all(torch.equal(mine, other) for mine, other in zip(*found, strict=True))
