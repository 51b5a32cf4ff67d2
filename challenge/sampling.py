"""Which segments are replayed, and what that sample can miss."""

from __future__ import annotations

import math
import secrets
from collections.abc import Sequence
from fractions import Fraction

DEFAULT_SEGMENTS = 8


def unpredictable_segments(count: int, total: int) -> list[int]:
    """``count`` distinct segments of ``total`` from the operating system's generator, ascending.

    For a verifier who decides alone; nobody else could know or choose them. A challenge on chain takes its segments
    from a later block instead (``chain.commitments.sampled_segments``).
    """
    return sorted(secrets.SystemRandom().sample(range(total), min(count, total)))


def miss_probability(total: int, sampled: int, forged: int) -> Fraction:
    """The exact probability that a uniform sample without replacement holds no forged segment.

    C(total - forged, sampled) / C(total, sampled), for 0 <= sampled, forged <= total.
    """
    return Fraction(math.comb(total - forged, sampled), math.comb(total, sampled))


def strength(sampled: Sequence[int], total: int) -> str:
    """One sentence that says what the sample is worth, for a cheat in a tenth of the segments and in one."""
    count = len(sampled)
    if count == total:
        return f"all {total} segments replayed: a cheat in any of them is caught"
    tenth = max(1, round(total / 10))
    miss = float(miss_probability(total, count, tenth))
    text = f"{count} of {total} segments replayed; a cheat in {tenth} of them is missed with p = {miss:.2f}"
    if tenth == 1:
        return text
    return f"{text}, in a single one with p = {float(miss_probability(total, count, 1)):.2f}"
