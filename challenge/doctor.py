"""Why a run of a program could not be replayed: the program trains twice in fresh processes, and once from the middle.

The judgement of :func:`examine` rests on causes, not on reading the source: what is different between the processes is
changed one thing at a time, and the step that differs is followed operator by operator.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any

from challenge.advice import ADVICE, CUDA_ERRORS, Reason
from challenge.traces import compare_traces, is_uninitialised, operators
from pol.errors import CannotRun
from pol.rehearsal import TRAINER, VERIFIER, Boundary, Circumstances, Interpreters, Rehearsal, Rehearsed, Trouble

ATTEMPTS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where in a step: ``step`` counts from 0 (None: while the state is built), ``module`` is a qualified name."""

    step: int | None = None
    phase: str | None = None
    module: str | None = None
    kind: str | None = None
    parameter: str | None = None
    operator: str | None = None
    other: str | None = None
    at: str | None = None

    def text(self, model: str) -> str:
        """The place in words; ``model`` is the name of the model's class."""
        named = f"{self.module} ({self.kind}) of {model}" if self.module else model
        where = {
            "forward": f"forward of {named}",
            "backward": f"backward of {named}" if self.module is not None else "backward, outside every module",
            "optimizer": f"optimizer{f', parameter {self.parameter}' if self.parameter else ''}",
            "step": "train_step itself, outside every module",
            "build": "building the state",
        }.get(self.phase or "", "")
        operator = self.operator or "no operator"
        operator = f"{operator} in one run, {self.other} in the other" if self.other else operator
        step = "" if self.step is None else f"step {self.step}"
        return ", ".join(filter(None, [step, where, operator if self.phase else "", self.at and f"at {self.at}"]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Complaint:
    """One reason why an honest proof would break, where it shows, and what to change."""

    reason: Reason
    message: str
    place: Place
    details: list[str] = field(default_factory=list)

    @property
    def advice(self) -> str:
        """What to change."""
        return ADVICE[self.reason]

    def to_json(self) -> dict[str, Any]:
        """The object in the ``--json`` output."""
        row = {"reason": self.reason.value, "message": self.message, "advice": self.advice, "details": self.details}
        return row | asdict(self.place)


@dataclass(slots=True, kw_only=True)
class Examination:
    """Everything that was looked at and found; healthy if there is no complaint. Notes are no complaints."""

    model: str = ""
    complaints: list[Complaint] = field(default_factory=list)
    checks: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """The one object that ``--json`` prints."""
        return {
            "format": "aiarena.examination/1",
            "healthy": not self.complaints,
            "model": self.model,
            "complaints": [complaint.to_json() for complaint in self.complaints],
            "checks": [{"check": check, "result": result} for check, result in self.checks],
            "notes": list(self.notes),
        }


def examine(rehearsal: Rehearsal, interpreters: Interpreters) -> Examination:
    """Examine the program that ``rehearsal`` names; :class:`CannotRun` if it does not run at all.

    What is complained of first can hide what would come next, so a mended program should be examined again.
    """
    return _Doctor(rehearsal, interpreters).examine()


class _Doctor:
    def __init__(self, rehearsal: Rehearsal, interpreters: Interpreters) -> None:
        self.rehearsal, self.interpreters = rehearsal, interpreters
        self.found = Examination()

    def examine(self) -> Examination:
        mine = self._run(TRAINER, rebuilt=True)
        theirs = self._run(VERIFIER)
        self.found.model = mine.model
        self._same_failure(mine, theirs)
        self._troubles(mine, built_alike=_first_difference(mine, theirs) != 0)
        if self._agree_twice(mine, theirs) and mine.state.exists():
            self._agree_restored(mine)
            if self.rehearsal.device == "cpu":
                self._other_threads(mine)
                if not self.rehearsal.spec.exact:
                    self._other_devices()
        return self.found

    def _run(self, circumstances: Circumstances, **changes: Any) -> Rehearsed:
        return self.interpreters.rehearse(circumstances, replace(self.rehearsal, **changes))

    def _complain(self, reason: Reason, message: str, place: Place, details: list[str] | None = None) -> None:
        self.found.complaints.append(Complaint(reason=reason, message=message, place=place, details=details or []))

    def _same_failure(self, mine: Rehearsed, theirs: Rehearsed) -> None:
        """A program that always raises cannot be examined; one that raises in one process only is a finding."""
        one, other = mine.trouble("failed"), theirs.trouble("failed")
        if one and other:
            raise CannotRun(f"the program fails {_at(one)}: {one.message}")
        if one or other:
            trouble = one or other
            assert trouble
            circumstances = "your" if one else "a verifier's"
            message = f"the program fails in {circumstances} process only: {trouble.message}"
            self._complain(Reason.ENVIRONMENT, message, _place_of(trouble))

    def _troubles(self, mine: Rehearsed, *, built_alike: bool) -> None:
        for trouble in mine.troubles:
            if trouble.kind == "unbindable" and mine.loss_bound_schedule:
                message = f"the schedule's step() wants the loss, and its state cannot be bound ({trouble.message})"
                self._complain(Reason.SCHEDULE, message, _place_of(trouble))
            elif trouble.kind == "not-finite":
                self._not_finite(trouble)
            elif trouble.kind == "nondeterministic":
                row = next((row for row in operators(self._traced(trouble.step).trace) if "raised" in row), {})
                self._complain(Reason.OPERATOR, trouble.message, self._place(trouble.step, row, mine))
            elif trouble.kind in _TROUBLES and (built_alike or trouble.kind != "rebuilt"):
                self._complain(_TROUBLES[trouble.kind], trouble.message, _place_of(trouble))

    def _traced(self, step: int) -> Rehearsed:
        return self._run(TRAINER, traced=step, steps=step + 1)

    def _not_finite(self, trouble: Trouble) -> None:
        """The operator that made the first NaN or infinity; if that was memory nobody wrote, where it came from."""
        traced = self._traced(trouble.step)
        blank: dict[str, Any] | None = None
        for row in operators(traced.trace):
            blank = row if is_uninitialised(row) else blank
            if row.get("fault") == "nan" and row["inherited"] and blank:
                message = f"{trouble.message}: memory is read that nobody wrote, which training fills with NaN"
                self._complain(Reason.UNINITIALISED, message, self._place(trouble.step, blank, traced))
                return
            if "fault" in row and (row["fault"] == "nan" or not row["inherited"]):
                self._complain(Reason.NOT_FINITE, trouble.message, self._place(trouble.step, row, traced))
                return
        self._complain(Reason.NOT_FINITE, trouble.message, _place_of(trouble))

    # The same run twice

    def _agree_twice(self, mine: Rehearsed, theirs: Rehearsed) -> bool:
        first = _first_difference(mine, theirs)
        steps = max(mine.boundaries, default=0)
        if first is None:
            self.found.checks.append(("twice", f"{steps} steps give the same bits in two fresh processes"))
            return mine.trouble("failed") is None and theirs.trouble("failed") is None
        self.found.checks.append(("twice", f"DIFFERENT from {_step_text(first)} on, in two fresh processes"))
        self._compare_traces(mine, theirs, first)
        return False

    def _compare_traces(self, mine: Rehearsed, theirs: Rehearsed, first: int) -> None:
        difference = None
        for _ in range(ATTEMPTS):
            traces = [self._run(who, traced=first - 1, steps=max(first, 1)) for who in (TRAINER, VERIFIER)]
            now = _first_difference(*traces)
            if now == first:
                difference = compare_traces(traces[0].trace, traces[1].trace)
                break
            first = first if now is None else now
        tensor = _first_tensor(mine, theirs, first)
        if difference is None:
            message = f"{tensor} differs, but in {ATTEMPTS} further tries not there: it happens now and then"
            self._complain(Reason.OUTSIDE, message, Place(step=first - 1 if first else None))
            return
        reproducible = _agree(traces[0], mine) and _agree(traces[1], theirs)
        reason = (self._culprit(mine, first) if reproducible else None) or difference.reason()
        place = self._place(first - 1, difference.row, mine, difference.other)
        self._complain(reason, f"{tensor} differs; {difference.text()}", place, difference.sources)

    def _culprit(self, mine: Rehearsed, first: int) -> Reason | None:
        """Which of the circumstances decides, found by changing one at a time; None if none of them does."""

        def agrees(**changes: Any) -> bool:
            return _agree(self._run(replace(TRAINER, **changes), steps=max(first, 1)), mine)

        if not agrees(process=1):
            return None
        if not agrees(hash_seed=VERIFIER.hash_seed):
            return Reason.HASH_ORDER
        return Reason.ENVIRONMENT if agrees(memory=VERIFIER.memory) else Reason.UNINITIALISED

    # The same run from its middle

    def _agree_restored(self, mine: Rehearsed) -> None:
        theirs = self._run(VERIFIER, start=mine.state)
        middle = self.rehearsal.middle
        known = {(trouble.kind, trouble.step) for trouble in mine.troubles}
        refused = next((trouble for trouble in theirs.troubles if (trouble.kind, trouble.step) not in known), None)
        first = _first_difference(mine, theirs)
        if refused is None and first is None:
            text = f"a run restored after step {middle - 1} into a fresh process ends in the same state"
            self.found.checks.append(("restored", text))
            return
        self.found.checks.append(("restored", f"DIFFERENT when restored after step {middle - 1}"))
        if refused is not None and first is None:
            self._refused(refused, mine)
            return
        assert first is not None
        left = [
            f"{name}: {mine.census.get(name, 'nothing')} in the run, {theirs.census.get(name, 'nothing')} restored"
            for name in sorted({*mine.census, *theirs.census})
            if mine.census.get(name) != theirs.census.get(name)
        ]
        whole = self._traced(first - 1)
        restored = self._run(VERIFIER, start=mine.state, traced=first - 1, steps=first)
        difference = compare_traces(whole.trace, restored.trace)
        reason = _reason_left(left)
        message = f"{_first_tensor(mine, theirs, first)} differs from the uninterrupted run's"
        if difference is None:
            self._complain(reason, message, Place(step=first - 1), left)
            return
        if difference.row.get("generator"):
            reason = Reason.GENERATOR
        place = self._place(first - 1, difference.row, mine, difference.other)
        self._complain(reason, f"{message}; {difference.text()}", place, left)

    def _refused(self, trouble: Trouble, mine: Rehearsed) -> None:
        reason = Reason.RESTORE
        if mine.loss_bound_schedule or trouble.details:
            reason = Reason.SCHEDULE
        elif "other tensors than" in trouble.message or "another dtype or shape" in trouble.message:
            reason = Reason.LAYOUT
        elif "single memory location" in trouble.message:
            reason = Reason.ALIASING
        self._complain(reason, trouble.message, _place_of(trouble), trouble.details)

    # What is no complaint

    def _other_threads(self, mine: Rehearsed) -> None:
        threads = self.rehearsal.threads
        other = 2 if threads == 1 else 1
        first = _first_difference(mine, self._run(TRAINER, threads=other))
        result = f"differ from {_step_text(first)} on" if first is not None else "are the same"
        said = f"with {other} thread{'s' * (other > 1)} instead of {threads} the bits {result}"
        if not self.rehearsal.spec.exact:
            self.found.notes.append(f"{said}; this breaks no proof, because the class of machine binds the number")
            return
        self.found.checks.append(("exact", said))
        if first is not None:
            self._complain(Reason.OUTSIDE, f"{said}, and exact numerics promise the same on any machine", Place())

    def _other_devices(self) -> None:
        traced = self._traced(0)
        names: dict[str, dict[str, Any]] = {}
        for row in operators(traced.trace):
            names.setdefault(row["op"].split(".")[1], row)
        for name in sorted(names.keys() & CUDA_ERRORS.keys()):
            place = self._place(0, names[name], traced).text(traced.model)
            said = f"{name} {CUDA_ERRORS[name]}".strip()
            self.found.notes.append(f"torch has no deterministic {said} on CUDA: {place}")

    def _place(self, step: int, row: dict[str, Any], run: Rehearsed, other: str | None = None) -> Place:
        module = row.get("module")
        return Place(
            step=None if step < 0 else step,
            phase=row.get("phase"),
            module=module,
            kind=run.modules.get(module or "", module) if module is not None else None,
            parameter=row.get("parameter"),
            operator=row.get("op"),
            other=other,
            at=row.get("at"),
        )


_TROUBLES = {
    "device": Reason.DEVICE, "unbindable": Reason.UNBINDABLE, "loss": Reason.LOSS, "step-moved": Reason.STEP_MOVED,
    "optimizer-steps": Reason.OPTIMIZER_STEPS, "rebuilt": Reason.BUILD, "shared": Reason.BUILD,
}  # fmt: skip


def _place_of(trouble: Trouble) -> Place:
    return Place(step=None if trouble.step < 0 else trouble.step, at=trouble.at)


def _at(trouble: Trouble) -> str:
    where = "while its state is built" if trouble.step < 0 else f"at step {trouble.step}"
    return f"{where} ({trouble.at})" if trouble.at else where


def _first_difference(mine: Rehearsed, theirs: Rehearsed) -> int | None:
    """The first boundary both reached that differs; its step is the one before it."""
    shared = sorted(mine.boundaries.keys() & theirs.boundaries.keys())
    return next((step for step in shared if mine.boundaries[step] != theirs.boundaries[step]), None)


def _agree(mine: Rehearsed, theirs: Rehearsed) -> bool:
    return _first_difference(mine, theirs) is None


def _first_tensor(mine: Rehearsed, theirs: Rehearsed, step: int) -> str:
    one, other = (run.boundaries.get(step, Boundary("", {}, None)).tensors for run in (mine, theirs))
    different = sorted(name for name in {*one, *other} if one.get(name) != other.get(name))
    return different[0] if different else "the loss"


def _reason_left(left: list[str]) -> Reason:
    """What kind of thing was left behind, the most telling first."""
    if any(line.startswith("gradient of") for line in left):
        return Reason.GRADIENTS
    if any("a generator (" in line for line in left):
        return Reason.GENERATOR
    return Reason.ALIASING if any("shared with" in line for line in left) else Reason.HIDDEN_STATE


def _step_text(boundary: int) -> str:
    return f"step {boundary - 1}" if boundary else "the initial state"
