"""Whether an audit deters: what a sample detects, what it costs, and whether honesty pays. Exact, torch-free.

The trainer of a run that costs C is paid R and stakes S. One that forges a share f of the segments saves f * C and
gains V besides (the value of a lie in the model, 0 if it is only lazy); it loses R and S if it is caught. With P(f)
the probability of that, honesty is the best choice if, and only if, for every f > 0::

    P(f) * (S + R) >= f * C + V
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from challenge.inspect import replay_starts
from challenge.sampling import miss_probability, needed_sample, replayed_segments
from pol.errors import SpecError
from pol.proof import Proof

PLAN_FORMAT = "aiarena.plan/1"
MAX_BITS = 2**24
TARGETS = (Fraction(95, 100), Fraction(99, 100), Fraction(999, 1000))


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """An audit: ``challengers`` who each draw ``sampled`` of ``segments`` for themselves, with probability ``audit``.

    ``forged`` segments of a cheat are looked at beside the worst case. ``stake`` (S), ``reward`` (R), ``cost`` (C) and
    ``lie`` (V) are amounts in one unit of the caller's choice. Raises :class:`SpecError` for numbers out of range.
    """

    segments: int
    sampled: int
    forged: int
    stake: Fraction = Fraction(0)
    reward: Fraction = Fraction(1)
    cost: Fraction = Fraction(1)
    lie: Fraction = Fraction(0)
    audit: Fraction = Fraction(1)
    challengers: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.segments <= 2**16:
            raise SpecError(f"{self.segments} segments: a run has 1 to 65536")
        for name, value in (("sample", self.sampled), ("cheat", self.forged)):
            if not 1 <= value <= self.segments:
                raise SpecError(f"a {name} of {value} segments: give 1 to {self.segments}")
        if not 0 <= self.audit <= 1 or not 1 <= self.challengers <= 2**16:
            raise SpecError("the audit probability must be in [0, 1], the number of challengers 1 to 65536")
        if min(self.stake, self.reward, self.cost, self.lie) < 0:
            raise SpecError("stake, reward, cost and the value of a lie cannot be negative")

    def detection(self, forged: int) -> Fraction:
        """The probability that a cheat in ``forged`` segments is caught: audited at all, and hit by a challenger."""
        miss = miss_probability(self.segments, self.sampled, forged)
        if miss.denominator.bit_length() * self.challengers > MAX_BITS:
            raise SpecError(f"{self.challengers} challengers of {self.sampled} segments: too many to count exactly")
        return self.audit * (1 - miss**self.challengers)

    def gain(self, forged: int) -> Fraction:
        """What a cheat in ``forged`` segments brings if nobody notices: f * C + V."""
        return Fraction(forged, self.segments) * self.cost + self.lie

    def break_even(self, forged: int) -> Fraction | None:
        """The S + R from which a cheat in ``forged`` segments does not pay any more; None: nothing is enough."""
        gain, detection = self.gain(forged), self.detection(forged)
        if detection == 0:
            return None if gain else Fraction(0)
        return gain / detection

    def needed_stake(self, forged: int) -> Fraction | None:
        """The least stake with which a cheat in ``forged`` segments does not pay; None if no stake is enough."""
        needed = self.break_even(forged)
        return None if needed is None else max(Fraction(0), needed - self.reward)

    @property
    def worst(self) -> int:
        """The number of forged segments that is hardest to deter: 1, or all.

        The gain is linear in the number, and the detection concave with P(0) = 0, so their quotient has no maximum in
        between.
        """
        one, all_ = self.break_even(1), self.break_even(self.segments)
        return 1 if all_ is not None and (one is None or one > all_) else self.segments

    @property
    def honesty_pays(self) -> bool:
        """Whether no cheat at all beats honest training, whatever its size."""
        needed = self.needed_stake(self.worst)
        return needed is not None and self.stake >= needed

    def to_json(self, starts: Sequence[int] | None = None) -> dict[str, Any]:
        """The one object that ``--json`` prints. Numbers are floats of the exact values; null: no stake is enough.

        With ``starts``, the segments before which a proof has a state at hand, it holds what a challenger replays.
        """
        worst, drawn = self.worst, Fraction(self.sampled, self.segments)
        mean, most = replayed_segments(starts or range(self.segments), self.segments, self.sampled)
        return {
            "format": PLAN_FORMAT,
            "segments": self.segments,
            "sampled": self.sampled,
            "challengers": self.challengers,
            "audit": float(self.audit),
            "stake": float(self.stake),
            "reward": float(self.reward),
            "cost": float(self.cost),
            "lie": float(self.lie),
            "cheat": self._case(self.forged),
            "one_segment": self._case(1),
            "worst": self._case(worst),
            "needed_samples": {
                f"{float(target):g}": needed_sample(self.segments, self.forged, target) for target in TARGETS
            },
            "drawn_share": float(drawn),
            "drawn_share_of_all": float(self.audit * self.challengers * drawn),
            "replayed_segments": {"opened": starts is None, "mean": float(mean), "most": most},
            "honesty_pays": self.honesty_pays,
            "minimal_stake": _float(self.needed_stake(worst)),
        }

    def _case(self, forged: int) -> dict[str, Any]:
        return {
            "forged": forged,
            "share": float(Fraction(forged, self.segments)),
            "detection": float(self.detection(forged)),
            "expected_loss": float(self.detection(forged) * (self.stake + self.reward)),
            "gain": float(self.gain(forged)),
            "needed_stake": _float(self.needed_stake(forged)),
        }


def read_starts(folder: Path) -> tuple[list[int], int]:
    """The segments before which the proof in ``folder`` has a state at hand, and how many segments it has."""
    proof = Proof.read(folder)
    return replay_starts(proof), proof.segment_count


def lines(found: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """:meth:`Plan.to_json` for people: a label of at most 13 characters, and a line of text."""
    total, one, worst, replays = (found[key] for key in ("segments", "one_segment", "worst", "replayed_segments"))
    yield "draw", f"{found['sampled']} of {total} segments by {_challengers(found)}"
    for case in (found["cheat"], one):
        yield "cheat", f"in {case['forged']} of {total} segments: caught with p = {case['detection']:.4g}"
    samples = (f"{count} ({float(target):.4g})" for target, count in found["needed_samples"].items())
    yield "sample", f"needed to catch the first of these by one draw with p: {', '.join(samples)}"
    share, mean, most = found["drawn_share"], replays["mean"] / total, replays["most"] / total
    ends = "the first and the last" if replays["opened"] else "the first, the last and those between stored states"
    yield (
        "cost",
        f"{share:.2%} of training a challenger; with {ends}: {mean:.2%}, at most {most:.2%}",
    )
    pays = "pays" if found["honesty_pays"] else "DOES NOT PAY"
    yield (
        "honesty",
        f"{pays}; at worst (f = {worst['share']:.4g}) a cheat gains f C + V = {worst['gain']:.4g} and loses "
        f"P (S + R) = {worst['expected_loss']:.4g}",
    )
    yield "stake", f"against every cheat: {_stake(worst)}; against a lie in one segment: {_stake(one)}"
    yield (
        "note",
        "segments are drawn by the verifier or by a later block, never by the prover, who has promised them all",
    )


def _challengers(found: dict[str, Any]) -> str:
    number = "one challenger" if found["challengers"] == 1 else f"each of {found['challengers']} challengers"
    return number if found["audit"] == 1 else f"{number}, with probability {found['audit']:g}"


def _stake(case: dict[str, Any]) -> str:
    return "none is enough" if case["needed_stake"] is None else f"at least {case['needed_stake']:.6g}"


def _float(value: Fraction | None) -> float | None:
    return None if value is None else float(value)
