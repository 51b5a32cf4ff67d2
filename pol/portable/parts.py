"""What products and convolutions are made of, as steps of which each element can be recomputed by itself.

They end in ``exact::product``: rows of integers times rows of integers, of which :func:`pol.portable.dot.exact_dot`
gives any element from two rows and their exponents. What comes before leads from the operands to those rows:

- ``exact::transpose``: the right operand of a matrix product with its columns as rows (a vector as one row);
- ``exact::kernels``, ``exact::channels``: a convolution's weights, or the images that its weights' gradient is
  contracted with, as rows: (groups, channels of a group, what is summed over);
- ``exact::quantise``: integers (int32), and the exponents of their units (int16, 1 where a unit is shared);
- ``exact::windows``: for an image's integers and exponents, a row for each position of the kernel, or, turned, for each
  channel and offset of it: (groups, rows, what is summed over).

A long contraction has such steps for each of its blocks, whose products are added in order. Windows are written out
for a whole batch: a trace of convolutions needs that memory, training does not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional

from pol.encoding import Json
from pol.portable.dot import BLOCK, product_bits
from pol.portable.grid import quantised, unit

Part: TypeAlias = tuple[str, dict[str, Json], list[Tensor], list[Tensor]]
"""A step: its name, attributes, the tensors it reads and those it gives."""

Parts: TypeAlias = Iterator[Part]
Sizes: TypeAlias = Sequence[int]


def parts_of(name: str, args: Sequence[Any]) -> Parts:
    """The steps of the operator with this ``name`` in the table; none if it is no product."""
    if name in _MATRICES:
        yield from _product_of_matrices(*(args[place] for place in _MATRICES[name]))
    elif name in _CONVOLUTIONS:
        yield from _CONVOLUTIONS[name](*args)


@dataclass(frozen=True, slots=True)
class Windows:
    """How images are cut, a number for each dimension of space.

    They are spread out by ``stretch`` (zeros between), get ``before`` and ``after`` zeros at their ends (negative: are
    cut), and a kernel of ``kernel`` offsets, ``dilation`` apart, stands at ``size`` places, ``stride`` apart.
    """

    groups: int
    kernel: list[int]
    size: list[int]
    stride: list[int]
    dilation: list[int]
    stretch: list[int]
    before: list[int]
    after: list[int]

    def of(self, images: Tensor) -> Tensor:
        """(groups, samples * places, channels of a group * offsets) of ``images`` (samples, channels, ...)."""
        n, channels = images.shape[:2]
        wide = [(length - 1) * step + 1 for length, step in zip(images.shape[2:], self.stretch, strict=True)]
        canvas = images.new_zeros(n, channels, *wide)
        canvas[(slice(None), slice(None), *(slice(None, None, step) for step in self.stretch))] = images
        ends = [end for pair in zip(reversed(self.before), reversed(self.after), strict=True) for end in pair]
        canvas = functional.pad(canvas, ends).contiguous()
        sample, channel, *over = canvas.stride()
        moved = [step * s for step, s in zip(over, self.stride, strict=True)]
        between = [step * d for step, d in zip(over, self.dilation, strict=True)]
        each = channels // self.groups
        shape = (self.groups, n, *self.size, each, *self.kernel)
        view = canvas.as_strided(shape, (channel * each, sample, *moved, channel, *between))
        return view.reshape(self.groups, n * math.prod(self.size), each * math.prod(self.kernel))


def _product_of_matrices(left: Tensor, right: Tensor) -> Parts:
    rows, columns = left, right.unsqueeze(0) if right.dim() == 1 else right.transpose(-1, -2).contiguous()
    if left.dim() == 1:
        rows = left.unsqueeze(0)
        yield "exact::transpose", {}, [left], [rows]
    yield "exact::transpose", {}, [right], [columns]
    for start in range(0, rows.shape[-1], BLOCK):
        block = slice(start, start + BLOCK)
        beta = product_bits(rows[..., block].shape[-1])
        a = yield from _quantise(rows, rows[..., block], [-1], beta, start)
        b = yield from _quantise(columns, columns[..., block], [-1], beta, start)
        yield _product(a, b, start)


def _convolution(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: Sizes, padding: Sizes, dilation: Sizes,
    transposed: bool, output_padding: Sizes, groups: int,
) -> Parts:  # fmt: skip
    if transposed:
        size = [
            (n - 1) * s - 2 * p + d * (k - 1) + o + 1
            for n, s, p, d, k, o in zip(
                x.shape[2:], stride, padding, dilation, weight.shape[2:], output_padding, strict=True
            )
        ]
        yield from _spread(x, weight, size, stride, padding, dilation, groups)
    else:
        yield from _gathered(x, weight, stride, padding, dilation, groups)


def _convolution_backward(
    grad: Tensor, x: Tensor, weight: Tensor, bias_sizes: Sizes | None, stride: Sizes, padding: Sizes, dilation: Sizes,
    transposed: bool, output_padding: Sizes, groups: int, wanted: Sequence[bool],
) -> Parts:  # fmt: skip
    geometry: tuple[Sizes, Sizes, Sizes, int] = (stride, padding, dilation, groups)
    if wanted[0] and transposed:
        yield from _gathered(grad, weight, *geometry, x.shape[2:])
    elif wanted[0]:
        yield from _spread(grad, weight, x.shape[2:], *geometry)
    if wanted[1]:
        large, small = (grad, x) if transposed else (x, grad)
        yield from _weight_gradient(large, small, weight.shape, *geometry)


def _gathered(
    x: Tensor, weight: Tensor, stride: Sizes, padding: Sizes, dilation: Sizes, groups: int, given: Sizes | None = None
) -> Parts:
    """The ordinary convolution: windows of padded images, at the ``given`` number of places or at all that fit."""
    kernel = list(weight.shape[2:])
    size = list(given or []) or [
        (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, p, d, k, s in zip(x.shape[2:], padding, dilation, kernel, stride, strict=True)
    ]
    ones = [1] * len(kernel)
    cut = Windows(groups, kernel, size, list(stride), list(dilation), ones, list(padding), list(padding))
    yield from _correlated(x, weight, weight.reshape(groups, len(weight) // groups, -1), cut, mirrored=False)


def _spread(
    x: Tensor, weight: Tensor, size: Sizes, stride: Sizes, padding: Sizes, dilation: Sizes, groups: int
) -> Parts:
    """The transposed convolution onto ``size``: windows of images spread by the stride, and mirrored weights."""
    kernel = list(weight.shape[2:])
    reach = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
    before = [r - p for r, p in zip(reach, padding, strict=True)]
    after = [
        n + r - b - ((length - 1) * s + 1)
        for n, r, b, length, s in zip(size, reach, before, x.shape[2:], stride, strict=True)
    ]
    cut = Windows(groups, kernel, list(size), [1] * len(kernel), list(dilation), list(stride), before, after)
    turned = torch.unflatten(weight, 0, (groups, -1)).transpose(1, 2).flip(list(range(3, weight.dim() + 1)))
    yield from _correlated(x, weight, turned.flatten(2), cut, mirrored=True)


def _correlated(x: Tensor, weight: Tensor, kernels: Tensor, cut: Windows, *, mirrored: bool) -> Parts:
    """One product: a unit for each sample, and one for each channel of the result."""
    beta = product_bits(kernels.shape[-1])
    yield "exact::kernels", {"groups": cut.groups, "mirrored": mirrored}, [weight], [kernels]
    integers, exponents = yield from _quantise(x, x, list(range(1, x.dim())), beta, 0)
    powers = exponents.reshape(-1).repeat_interleave(math.prod(cut.size)).expand(cut.groups, -1).unsqueeze(-1)
    rows = [cut.of(integers), powers.contiguous()]
    yield "exact::windows", {**asdict(cut), "turned": False}, [integers, exponents], rows
    b = yield from _quantise(kernels, kernels, [-1], beta, 0)
    yield _product(rows, b, 0)


def _weight_gradient(
    large: Tensor, small: Tensor, shape: Sizes, stride: Sizes, padding: Sizes, dilation: Sizes, groups: int
) -> Parts:
    """Products over samples and places, in blocks of whole samples: a unit for each channel of either."""
    places, kernel = math.prod(small.shape[2:]), list(shape[2:])
    block = max(1, BLOCK // max(1, places))
    ones, dims = [1] * len(kernel), [0, *range(2, large.dim())]
    size = list(small.shape[2:])
    cut = Windows(groups, kernel, size, list(stride), list(dilation), ones, list(padding), list(padding))
    for start in range(0, len(small), block):
        images = small[start : start + block]
        beta = product_bits(max(1, len(images) * places))
        heights = images.reshape(len(images), groups, -1, places).permute(1, 2, 0, 3).flatten(2)
        yield "exact::channels", {"groups": groups, "start": start}, [small], [heights]
        a = yield from _quantise(heights, heights, [-1], beta, 0)
        integers, exponents = yield from _quantise(large, large[start : start + block], dims, beta, start)
        powers = exponents.reshape(groups, -1).repeat_interleave(math.prod(kernel), 1).unsqueeze(-1)
        columns = [cut.of(integers).transpose(1, 2).contiguous(), powers]
        yield "exact::windows", {**asdict(cut), "turned": True}, [integers, exponents], columns
        yield _product(a, columns, start)


_MATRICES = {"mm": (0, 1), "bmm": (0, 1), "mv": (0, 1), "dot": (0, 1), "addmm": (1, 2), "baddbmm": (1, 2)}
_CONVOLUTIONS: dict[str, Callable[..., Parts]] = {
    "convolution": _convolution,
    "convolution_backward": _convolution_backward,
}


def _quantise(whole: Tensor, block: Tensor, dims: list[int], beta: int, start: int) -> Any:
    """The step that rounds ``block``, which begins at ``start`` of ``whole``; its integers and exponents.

    The exponent is 0 for a group of zeros, and so are the integers of one that is not finite.
    """
    x = block.float()
    units = unit(x, dims, beta)
    multiples = quantised(x, dims, beta) / units
    integers = torch.where(multiples.isfinite(), multiples, 0.0).to(torch.int32)
    exponents = torch.where(units == 0, 0, (units.view(torch.int64) >> 52) - 1023).to(torch.int16)
    yield "exact::quantise", {"beta": beta, "dims": list(dims), "start": start}, [whole], [integers, exponents]
    return [integers, exponents]


def _product(left: list[Tensor], right: list[Tensor], start: int) -> Part:
    values = (_values(*left) @ _values(*right).transpose(-1, -2)).add_(0.0)
    return "exact::product", {"start": start}, [*left, *right], [values]


def _values(integers: Tensor, exponents: Tensor) -> Tensor:
    scale = ((exponents.to(torch.int64) + 1023) << 52).view(torch.float64)
    return integers.to(torch.float64) * scale
