"""An executor that replays nothing, for tests of what is asked of one and of what is made of its answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pol import Proof
from pol.machine import this_machine
from pol.numerics import arithmetic
from pol.program import load_program
from pol.replay import Job, ReplayedSegment, ReplayedSpan, Span
from pol.state import to_safetensors


class Clerk:
    """Gives back what the transcript in ``folder`` promises, with ``wrong`` end digests.

    ``elsewhere``: it says that it runs on another class of machine. ``problem`` befalls the last span.
    """

    def __init__(
        self,
        folder: Path,
        *,
        wrong: Sequence[int] = (),
        notes: tuple[str, ...] = (),
        elsewhere: bool = False,
        problem: str | None = None,
    ) -> None:
        self.proof, self.wrong, self.notes, self.problem = Proof.read(folder), wrong, notes, problem
        self.machine = replace(this_machine(), capability="another") if elsewhere else this_machine()
        self.spans: list[Span] = []
        self.job: Job | None = None

    def replay(self, job: Job, spans: Sequence[Span], on_segment: Any = None) -> list[ReplayedSpan]:
        """As :func:`pol.replay.replay`."""
        self.spans, self.job = [span for span in spans if not span.emit], job
        for span in (span for span in spans if span.emit):
            with arithmetic(job.spec):
                state = load_program(job.spec.program, job.spec.program_digest).build(job.spec.config, job.seed)
            span.emit[-1].write_bytes(to_safetensors(state.capture(job.seed)))
        results = [self._replayed(span, on_segment) for span in spans]
        if self.problem:
            results[-1].problem, results[-1].segments = self.problem, []
        return results

    def _replayed(self, span: Span, on_segment: Any) -> ReplayedSpan:
        promised = [self.proof.segments[index] for index in range(span.first, span.last + 1)]
        found = [
            ReplayedSegment(
                index=s.index, start_digest=s.start_digest, batch_root=s.batch_root,
                end_digest=bytes(32) if s.index in self.wrong else s.end_digest,
            )
            for s in promised
        ]  # fmt: skip
        for segment in found if on_segment else []:
            on_segment(segment)
        return ReplayedSpan(span, found, machine=self.machine, notes=self.notes)
