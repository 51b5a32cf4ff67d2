"""Convolutions by the kernels of :mod:`pol.portable.compiled`, without copies of windows.

Images lie on a canvas of zeros in float64, each channel flat and followed by zeros. Place p of an output, counted along
the canvas, meets element ``at[k] + p`` of the canvas for every k of a window; what is worked out between the output's
lines is dropped. A canvas of a convolution with strides is split by the remainders of its coordinates, so that its
windows have none. As in :mod:`pol.portable.fused`, None is returned where there is no kernel; and where a group is not
finite, so that no NaN reaches a sum that it does not belong to.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from pol.portable.compiled import KERNELS
from pol.portable.fused import shift_factor, up

Whole = tuple[int, ...]

SHAPES = 256  # whose places are remembered


@dataclass(frozen=True, slots=True)
class Canvas:
    """Where images of ``image`` places lie on a canvas of ``size``: ``first`` is the first one's, ``apart`` the step.

    ``stride`` is that of the windows, ``kernel`` and ``dilation`` are theirs, and ``out`` is the size of the output.
    """

    image: Whole
    first: Whole
    apart: Whole
    size: Whole
    kernel: Whole
    dilation: Whole
    stride: Whole
    out: Whole

    @property
    def whole(self) -> bool:
        """Whether all of the images lies on the canvas, and there is an output."""
        last = [f + (n - 1) * a for f, n, a in zip(self.first, self.image, self.apart, strict=True)]
        inside = all(f >= 0 and end < n for f, end, n in zip(self.first, last, self.size, strict=True))
        return inside and min(self.out) > 0

    @property
    def split(self) -> Whole:
        """The size of each of the parts into which strides split the canvas."""
        return tuple(-(-n // s) for n, s in zip(self.size, self.stride, strict=True))

    @property
    def plane(self) -> int:
        """The numbers of one part of one channel, the zeros behind it included."""
        return up(math.prod(self.split), _lanes()) + _lanes()

    @property
    def channel(self) -> int:
        """The numbers of one channel."""
        return math.prod(self.stride) * self.plane

    @property
    def places(self) -> int:
        """From the output's first place to its last, along the canvas."""
        return 1 + sum((n - 1) * step for n, step in zip(self.out, _steps(self.split), strict=True))


def correlated(x: Tensor, canvas: Canvas, weight: Tensor, groups: int, beta: int) -> Tensor | None:
    """Images ``x`` (N, C, ...) with weights (C', C / groups, ...): each sample and each row of weights has a unit."""
    if not KERNELS.fit(x, weight) or not canvas.whole:
        return None
    assert KERNELS.functions is not None
    factor, rows, length = shift_factor(beta), len(weight) // groups, weight[0].numel()
    high = up(rows, KERNELS.functions["tile_height"])
    panels = x.new_empty(groups * high * length, dtype=torch.float64)
    flat = weight.contiguous()
    for group in range(groups):
        part = flat[group * rows : (group + 1) * rows]
        KERNELS("pack_high", rows, length, part, length, 1, factor, panels[group * high * length :])
    images = x.contiguous()
    shifts = x.new_empty(len(x), dtype=torch.float64)
    KERNELS("channel_shifts", len(x), 1, images[0].numel(), 0, images, factor, shifts)
    if not shifts.isfinite().all():
        return None
    drawn = _drawn(images, canvas, shifts, by_channel=False)
    places, channels = canvas.places, x.shape[1]
    strip = up(places, KERNELS.functions["tile_width"]) * KERNELS.functions["tile_height"]
    work = x.new_empty(torch.get_num_threads() * strip, dtype=torch.float64)
    out, lines = x.new_empty(len(x), len(weight), *canvas.out), _lines(canvas.out, canvas.split)
    KERNELS(
        "correlate", len(x), groups, rows, length, panels, drawn, channels * canvas.channel,
        channels // groups * canvas.channel, _windows(canvas, channels // groups), places, len(lines), lines,
        canvas.out[-1], work, out,
    )  # fmt: skip
    return out


def weight_gradient(large: Tensor, canvas: Canvas, small: Tensor, groups: int, beta: int) -> Tensor | None:
    """The sums over samples and places of ``small`` (N, C', ...) times the windows of ``large`` (N, C, ...).

    (groups, C' / groups, C / groups * offsets) in float64; each channel of either has a unit.
    """
    if not KERNELS.fit(large, small) or not canvas.whole:
        return None
    factor, places = shift_factor(beta), up(canvas.places, _lanes())
    parts, shifts = [large.contiguous(), small.contiguous()], []
    for part in parts:
        shifts.append(part.new_empty(part.shape[1], dtype=torch.float64))
        KERNELS("channel_shifts", *part.shape[:2], part[0, 0].numel(), 1, part, factor, shifts[-1])
    if not (shifts[0].isfinite().all() and shifts[1].isfinite().all()):
        return None
    drawn = _drawn(parts[0], canvas, shifts[0], by_channel=True)
    heights = small.new_zeros((*small.shape[:2], places), dtype=torch.float64)
    lines, line_to = _lines(canvas.out, canvas.out), _lines(canvas.out, canvas.split)
    KERNELS(
        "onto_grid", *small.shape[:2], len(lines), canvas.out[-1], parts[1], *parts[1].stride()[:2], lines, heights,
        heights.stride(0), places, line_to, 1, shifts[1], 0, 1,
    )  # fmt: skip
    channels, windows = large.shape[1], _windows(canvas, large.shape[1] // groups)
    sums = small.new_zeros((groups, small.shape[1] // groups, len(windows)), dtype=torch.float64)
    KERNELS(
        "dot_products", len(small), groups, sums.shape[1], len(windows), heights, places, drawn,
        channels * canvas.channel, channels // groups * canvas.channel, windows, sums,
    )  # fmt: skip
    return sums


def _drawn(images: Tensor, canvas: Canvas, shifts: Tensor, *, by_channel: bool) -> Tensor:
    """Images on their canvas, rounded to the grids: (N * C * channel), and zeros that tiles may reach behind it."""
    samples, channels = images.shape[:2]
    slack = 4 * KERNELS.functions["tile_width"] if KERNELS.functions else 0
    drawn = images.new_zeros(samples * channels * canvas.channel + slack, dtype=torch.float64)
    strided = math.prod(canvas.stride) > 1
    whole = tuple(n * s for n, s in zip(canvas.split, canvas.stride, strict=True))
    target = images.new_zeros((samples, channels, *whole), dtype=torch.float64) if strided else drawn
    apart = math.prod(whole) if strided else canvas.channel
    KERNELS(
        "onto_grid", samples, channels, len(_lines(canvas.image, canvas.image)), canvas.image[-1], images,
        images.stride(0), images.stride(1), _lines(canvas.image, canvas.image), target, channels * apart, apart,
        _drawn_lines(canvas, whole), canvas.apart[-1], shifts, int(not by_channel), int(by_channel),
    )  # fmt: skip
    if strided:
        sizes = [n for pair in zip(canvas.split, canvas.stride, strict=True) for n in pair]
        places = [2 + 2 * d for d in range(len(whole))]
        parts = target.view(samples, channels, *sizes).permute(0, 1, *(d + 1 for d in places), *places)
        split = drawn[: samples * channels * canvas.channel].view(samples, channels, *canvas.stride, canvas.plane)
        split[..., : math.prod(canvas.split)].copy_(parts.flatten(-len(places)))
    return drawn


def _lanes() -> int:
    assert KERNELS.functions is not None
    lanes: int = KERNELS.functions["lanes"]
    return lanes


def _steps(size: Sequence[int]) -> list[int]:
    return [math.prod(size[d + 1 :]) for d in range(len(size))]


@lru_cache(SHAPES)
def _lines(size: Whole, within: Whole) -> Tensor:
    """Where the lines of an array of ``size`` begin in one of size ``within``."""
    steps = _steps(within)[:-1]
    starts = itertools.product(*map(range, size[:-1]))
    return torch.tensor([sum(i * s for i, s in zip(start, steps, strict=True)) for start in starts], device="cpu")


@lru_cache(SHAPES)
def _drawn_lines(canvas: Canvas, whole: Whole) -> Tensor:
    """Where the lines of an image begin on a canvas of size ``whole``."""
    steps = _steps(whole)
    ranges = [range(f, f + n * a, a) for f, n, a in zip(canvas.first, canvas.image, canvas.apart, strict=True)][:-1]
    return torch.tensor(
        [
            sum(i * s for i, s in zip(at, steps[:-1], strict=True)) + canvas.first[-1]
            for at in itertools.product(*ranges)
        ],
        device="cpu",
    )


@lru_cache(SHAPES)
def _windows(canvas: Canvas, channels: int) -> Tensor:
    """Where the elements of the first window lie, channel by channel."""
    steps, places = _steps(canvas.split), []
    for channel in range(channels):
        for offset in itertools.product(*map(range, canvas.kernel)):
            reached = [k * d for k, d in zip(offset, canvas.dilation, strict=True)]
            part = 0
            for u, s in zip(reached, canvas.stride, strict=True):
                part = part * s + u % s
            inside = sum(u // s * step for u, s, step in zip(reached, canvas.stride, steps, strict=True))
            places.append(channel * canvas.channel + part * canvas.plane + inside)
    return torch.tensor(places, device="cpu")
