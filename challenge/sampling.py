"""Which segments are replayed, what that sample can miss, and what it costs."""

from __future__ import annotations

import math
import secrets
from collections.abc import Collection, Sequence
from fractions import Fraction

DEFAULT_SEGMENTS = 8


def unpredictable_segments(count: int, total: int) -> list[int]:
    """``count`` distinct segments of ``total`` from the operating system's generator, ascending.

    For a verifier who decides alone; nobody else could know or choose them. A challenge on chain takes its segments
    from a later block instead (``chain.commitments.sampled_segments``).
    """
    return sorted(secrets.SystemRandom().sample(range(total), min(count, total)))


def with_ends(drawn: Sequence[int], total: int, branches: Collection[int] = ()) -> list[int]:
    """``drawn``, the first and the last segment, and those at whose ends models branch off, ascending.

    A lie at the start (another initial state), in a short last segment, or in the one that a submitted model comes from
    is cheap for a trainer, so a verifier who draws for itself never leaves these to chance. They add nothing to the
    strength of the draw.
    """
    return sorted({0, total - 1, *branches, *drawn})


def miss_probability(total: int, sampled: int, forged: int) -> Fraction:
    """The exact probability that a uniform sample without replacement holds no forged segment.

    C(total - forged, sampled) / C(total, sampled), for 0 <= sampled, forged <= total.
    """
    return Fraction(math.comb(total - forged, sampled), math.comb(total, sampled))


def needed_sample(total: int, forged: int, detection: Fraction) -> int:
    """The smallest sample that holds one of ``forged`` >= 1 segments with at least probability ``detection`` <= 1."""
    low, high = 0, total
    while low < high:
        middle = (low + high) // 2
        enough = 1 - miss_probability(total, middle, forged) >= detection
        low, high = (low, middle) if enough else (middle + 1, high)
    return low


def replayed_segments(
    starts: Sequence[int], total: int, sampled: int, branches: Collection[int] = ()
) -> tuple[Fraction, int]:
    """How many segments a verifier replays for a draw of ``sampled``: the mean, and the most it can come to.

    ``starts`` are the segments before which a state is at hand, ascending, 0 (the initial state) included. A replay
    begins at the latest one at or before a sampled segment, so what lies in between is replayed as well. The first and
    the last segment are always in the sample, and so are ``branches``, after each of which a state is at hand
    (:func:`with_ends`).
    """
    lengths = {end: end - start for start, end in zip(starts, [*starts[1:], total], strict=True)}
    always = {end: length for end, length in lengths.items() if end == total or end - 1 in branches}
    spans, fixed = [length for end, length in lengths.items() if end not in always], sum(always.values())
    samples = miss = math.comb(total, sampled)
    replays = [0]  # in a span of this length, over all samples; a segment is replayed if it or a later one is hit
    for length in range(1, max([0, *spans]) + 1):
        left = total - length + 1
        miss = miss * (left - sampled) // left  # how many samples hold none of `length` given segments
        replays.append(replays[-1] + samples - miss)
    mean = fixed + Fraction(sum(replays[length] for length in spans), samples)
    first = min(lengths) if min(lengths) not in always else 0  # the end of the first span, where it is not fixed
    others = sorted(spans[1:] if first else spans, reverse=True)
    if not first:
        return mean, fixed + sum(others[:sampled])
    mean += 1 - Fraction(replays[first] - replays[first - 1], samples)
    return mean, fixed + max(1 + sum(others[:sampled]), first + sum(others[: sampled - 1]))


def strength(sampled: Sequence[int], total: int) -> str:
    """One sentence that says what a random sample is worth, for a cheat in a tenth of the segments and in one."""
    count = len(sampled)
    if count == total:
        return f"all {total} segments replayed: a cheat in any of them is caught"
    tenth = max(1, round(total / 10))
    miss = float(miss_probability(total, count, tenth))
    text = f"{count} of {total} segments replayed; a cheat in {tenth} of them is missed with p = {miss:.2f}"
    if tenth == 1:
        return text
    return f"{text}, in a single one with p = {float(miss_probability(total, count, 1)):.2f}"
