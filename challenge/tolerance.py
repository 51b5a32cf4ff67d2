"""Tier T2: single steps compared on a machine of another class, within a tolerance that the verifier measures itself.

For the same step from the same state, honest replays under other settings of this machine (threads, vector width,
libraries) show how far apart honest arithmetic lies. A claimed end state may be that far off, times a margin, but never
further than a small share of the step's own movement: a step of nothing, or of something else, is no rounding.

A tolerance sees less than equal bits do, so it never convicts, and it only speaks of single steps: over several steps
rounding grows until it hides a lie.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from challenge.states import load_blob
from pol.errors import ProofError
from pol.machine import MachineClass
from pol.proof import Proof, states_of
from pol.replay import Job, ReplayedSpan, ReplayProcess, Span
from pol.state import Tensors
from pol.tensors import same_bits

MARGIN = 16.0
"""A claimed state may lie this many times as far out as honest replays here lie apart."""
ROUNDING = 4.0
"""Units in the last place by which every element may be off: small tensors may agree here by chance."""
CEILING = 0.01
"""No error may be more than this share of the step's movement; the cosine of the two updates is then above 0.9999."""
EXACT = ("rng/", "scaler/", "scalars", "pinned")
"""Tensors that are equal on any machine, besides all that do not hold floating-point numbers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One honest way to compute here: a number of threads, and what libraries read from the environment."""

    threads: int
    environment: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Deviation:
    """How far one tensor of a claimed end state lies from the replayed one; all numbers are Euclidean norms.

    ``spread`` is how far honest replays lie apart, ``movement`` how far the replayed step went. Where bits must be
    equal, movement and tolerance are 0 and the error is the number of elements that differ.
    """

    tensor: str
    error: float
    spread: float
    movement: float
    tolerance: float

    @property
    def ratio(self) -> float:
        """The error as a share of the tolerance; infinite if there is none, or if a number is not finite."""
        if not math.isfinite(self.error + self.spread + self.movement + self.tolerance):
            return math.inf
        if self.tolerance == 0:
            return math.inf if self.error else 0.0
        return self.error / self.tolerance


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What came of one step: the tensor that lies furthest out, or the ``problem`` that left nothing to compare."""

    segment: int
    worst: Deviation | None = None
    problem: str | None = None

    @property
    def accepted(self) -> bool:
        """Whether every tensor is within its tolerance; what is not finite never is."""
        return self.worst is not None and self.worst.ratio <= 1

    @property
    def text(self) -> str:
        """The numbers in words."""
        found = self.worst
        if found is None:
            return self.problem or "nothing was compared"
        if found.movement == found.tolerance == 0:
            return f"{found.tensor}: {found.error:g} elements differ, where all machines must agree"
        numbers = f"error {found.error:.2g}, tolerance {found.tolerance:.2g}, movement {found.movement:.2g}"
        vague = f"; honest replays here lie {found.spread:.2g} apart" if found.spread > CEILING * found.movement else ""
        return f"{found.tensor}: {numbers}{vague}"

    def to_json(self) -> dict[str, Any]:
        """The object in a verdict; numbers that are not finite are null."""
        row: dict[str, Any] = {"segment": self.segment, "accepted": self.accepted, "problem": self.problem}
        if self.worst:
            row["tensor"] = self.worst.tensor
            for name in ("error", "tolerance", "movement", "spread"):
                number = getattr(self.worst, name)
                row[name] = number if math.isfinite(number) else None
        return row


def settings(threads: int) -> list[Setting]:
    """The settings that are compared: the promised number of ``threads`` first, then one change each.

    Threads and the width of vectors change the order of sums, which is what another class of machine changes.
    """
    narrow = {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_CBWR": "COMPATIBLE"}
    medium = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_CBWR": "AVX2"}
    return [
        Setting(threads=threads, environment={}),
        Setting(threads=2 if threads == 1 else 1, environment={}),
        Setting(threads=threads, environment=narrow),
        Setting(threads=threads, environment=medium),
    ]


def compare_steps(
    job: Job, folder: Path, proof: Proof, segments: Sequence[int], initial: Tensors | None
) -> Iterator[Comparison]:
    """Replay the single-step ``segments`` from their claimed start states under every setting, and compare the ends.

    The states at both ends must be at hand: stored, opened, or ``initial``, if segment 0 is among them. Each setting
    has a process of its own; states are compared one step at a time. Raises what :func:`pol.replay.replay` raises.
    """
    machine = MachineClass.from_json(proof.spec.machine, where="spec.machine")
    with tempfile.TemporaryDirectory() as name:
        replayed = []
        for number, setting in enumerate(settings(machine.threads)):
            (Path(name) / str(number)).mkdir()
            spans = [_span(folder, proof, segment, Path(name) / str(number)) for segment in segments]
            # Replay reads nothing from the machine but its threads; the seed was drawn from the committed spec.
            changed = asdict(replace(machine, threads=setting.threads))
            own = replace(job, spec=replace(job.spec, machine=changed))
            with ReplayProcess(own, environment=setting.environment) as process:
                replayed.append([process.replay(span) for span in spans])
        for position, segment in enumerate(segments):
            yield _compare(folder, proof, segment, [spans[position] for spans in replayed], initial)


def deviations(start: Tensors, claimed: Tensors, replays: Sequence[Tensors]) -> list[Deviation]:
    """Every tensor of ``claimed`` against honest end states of the same step from ``start``; the first is the standard.

    A tensor that ``start`` lacks (an optimizer's, before the first step) moves from zero. Raises :class:`ProofError` if
    a replay has other tensors, dtypes or shapes than ``claimed``.
    """
    layout = {name: (value.dtype, value.shape) for name, value in claimed.items()}
    if any({name: (value.dtype, value.shape) for name, value in replay.items()} != layout for replay in replays):
        raise ProofError("the claimed state has other tensors than the program's")
    return [_deviation(name, start.get(name), claimed[name], [replay[name] for replay in replays]) for name in claimed]


def _deviation(
    name: str, start: torch.Tensor | None, claimed: torch.Tensor, replays: Sequence[torch.Tensor]
) -> Deviation:
    standard = replays[0]
    still = start is not None and all(same_bits(start, replay) for replay in replays)
    if name.startswith(EXACT) or not claimed.is_floating_point() or still:
        different = 0 if same_bits(claimed, standard) else max(1, int((claimed != standard).sum()))
        return Deviation(tensor=name, error=different, spread=0.0, movement=0.0, tolerance=0.0)
    apart = [_distance(one, other) for one, other in combinations(replays, 2)]
    spread = max(apart) if all(map(math.isfinite, apart)) else math.inf  # max() alone may skip a NaN
    movement = _distance(standard, torch.zeros_like(standard) if start is None else start)
    rounding = ROUNDING * torch.finfo(standard.dtype).eps * _distance(standard, torch.zeros_like(standard))
    return Deviation(
        tensor=name,
        error=_distance(claimed, standard),
        spread=spread,
        movement=movement,
        tolerance=min(max(MARGIN * spread, rounding), CEILING * movement),
    )


def _distance(one: torch.Tensor, other: torch.Tensor) -> float:
    return float(torch.linalg.vector_norm(one.double() - other.double()))


def _compare(
    folder: Path, proof: Proof, segment: int, spans: Sequence[ReplayedSpan], initial: Tensors | None
) -> Comparison:
    problem = _problem(proof, segment, spans[0])
    # A setting may build other initial weights, and then it did not take the same step.
    alike = [span for span in spans if _problem(proof, segment, span) is None]
    if problem or len(alike) < 2:
        return Comparison(segment=segment, problem=problem or "no other setting of this machine takes the same step")
    before, after = (proof.find_stored(step) for step in proof.spec.bounds(segment))
    start = load_blob(folder, before.cid) if before else initial
    assert start is not None and after is not None
    replays = [load_file(path) for span in alike for path in (span.span.emit or {}).values()]
    try:
        found = deviations(start, load_blob(folder, after.cid), replays)
    except ProofError as error:
        return Comparison(segment=segment, problem=str(error))
    return Comparison(segment=segment, worst=max(found, key=lambda deviation: deviation.ratio))


def _problem(proof: Proof, segment: int, result: ReplayedSpan) -> str | None:
    """Why one replay is not of the promised step, or None: batches and start state are bits on any machine."""
    if result.problem or not result.segments:
        return result.problem or "nothing was replayed"
    promised, (replayed,) = proof.segments[segment], result.segments
    if replayed.start_digest != promised.start_digest:
        return "it does not start where the transcript says"
    return "it was not trained on the committed batches" if replayed.batch_root != promised.batch_root else None


def _span(folder: Path, proof: Proof, segment: int, out: Path) -> Span:
    before = proof.find_stored(proof.spec.bounds(segment)[0])
    start = states_of(folder).path(before.cid) if before else None
    return Span(first=segment, last=segment, start=start, emit={segment: out / f"{segment}.safetensors"})
