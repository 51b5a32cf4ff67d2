"""The inside of a rehearsal: the process that trains, and writes down whatever a proof would not survive.

Troubles, by kind: ``failed`` (the program raised), ``nondeterministic`` (torch refused an operator), ``not-finite``,
``loss`` (train_step returned no number), ``device`` (built elsewhere than on the CPU), ``unbindable`` (a tensor or
hyper-parameter that has no canonical bytes), ``step-moved``, ``optimizer-steps``, ``restore`` (a kept state does not
fit a freshly built one), ``rebuilt`` (a second build is another) and ``shared`` (it has the first one's tensors).
"""

from __future__ import annotations

import inspect
import json
import math
import sys
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pol.census import census
from pol.data import Samples
from pol.encoding import from_hex
from pol.errors import PolError, ProofError
from pol.machine import make_deterministic
from pol.numerics import arithmetic
from pol.order import DataOrder
from pol.program import load_program
from pol.spec import TrainingSpec
from pol.state import Tensors, TrainingState, from_safetensors, safetensors_chunks
from pol.tensors import check_values, table_digest, tensor_header, tensor_table
from pol.tracer import OperatorTracer, line_in

_NO_DETERMINISTIC = "does not have a deterministic implementation"


class Stop(Exception):
    """The rehearsal cannot go on; its trouble was written."""


class Child:
    """One job; it leaves JSON lines in the files ``rows`` and ``trace`` of the job's folder."""

    def __init__(self, job: dict[str, Any], samples: Samples, spec: TrainingSpec) -> None:
        self.job, self.samples, self.spec = job, samples, spec
        self.seed = from_hex(job["seed"], where="job.seed")
        self.order = DataOrder(self.seed, spec.dataset_size, spec.batch_size)
        self.folder = Path(job["folder"])
        self.rows = (self.folder / "rows").open("w", encoding="utf-8")
        self.trace = (self.folder / "trace").open("w", encoding="utf-8")
        self.step = -1  # the one under way; -1 while a state is built
        self.optimizer_steps = 0
        self.told: set[str] = set()

    def run(self) -> None:
        """Build or restore, train, and write a row for everything worth one."""
        make_deterministic(self.job["threads"])
        torch.seed()  # as in every new process: what the interpreter was seeded with is not to be shared
        np.random.seed()
        self.program = load_program(
            self.spec.program, self.spec.program_digest, trusted=frozenset({self.spec.program_digest})
        )
        with arithmetic(self.spec):
            self._rehearse()

    def _rehearse(self) -> None:
        state = self._build()
        first: dict[str, str] = {}
        if self.job["start"]:
            self._restore(state)
        else:
            first = self._boundary(state, None)
        for step in range(state.step, self.job["steps"]):
            self._boundary(state, self._train(state, step))
        if self.job["rebuilt"]:
            self._build_again(state, first)

    def write(self, row: str, **values: Any) -> None:
        """Write one line."""
        self.rows.write(json.dumps({"row": row, **values}) + "\n")

    def trouble(self, kind: str, message: str, *, at: str | None = None, details: list[str] | None = None) -> None:
        """Write a trouble, once for each kind."""
        if kind not in self.told:
            self.told.add(kind)
            self.write("trouble", kind=kind, step=self.step, message=message, at=at, details=details or [])

    @cached_property
    def source(self) -> str:
        """The program's file, as its code objects name it."""
        return str(getattr(sys.modules.get(type(self.program).__module__), "__file__", ""))

    def _build(self) -> TrainingState:
        with self._program_runs("build"), self._traced(-1, None):
            state = self.program.build(self.spec.config, self.seed)
        kinds = {name: type(module).__name__ for name, module in state.model.named_modules()}
        bound = state.scheduler is not None and _needs_argument(state.scheduler.step)
        self.write("built", model=type(state.model).__name__, modules=kinds, loss_bound_schedule=bound)
        for name, tensor in state.model.state_dict().items():
            if tensor.device.type != "cpu":
                self.trouble("device", f"tensor {name} is built on {tensor.device}")
                raise Stop
        state.optimizer.register_step_post_hook(self._count)
        return state.to(self.job["device"])

    def _train(self, state: TrainingState, step: int) -> float:
        self.step, self.optimizer_steps = step, 0
        state.key_generators(self.seed)
        batch = tuple(value.to(self.job["device"]) for value in self.samples.batch(self.order.batch(step)))
        with self._program_runs("train_step"), self._traced(step, state):
            loss = self.program.train_step(state, batch)
        if not isinstance(loss, torch.Tensor) or loss.numel() != 1:
            self.trouble("loss", f"train_step returned {type(loss).__name__}, not a tensor with one element")
            raise Stop
        if not math.isfinite(float(loss)):
            self.trouble("not-finite", f"the loss is {float(loss)}")
            raise Stop
        if state.step != step:
            self.trouble("step-moved", f"train_step changed state.step from {step} to {state.step}")
        if state.scaler is None and self.optimizer_steps != 1:
            self.trouble("optimizer-steps", f"the optimizer stepped {self.optimizer_steps} times in one train_step")
        state.step = step + 1
        return float(loss)

    def _boundary(self, state: TrainingState, loss: float | None) -> dict[str, str]:
        """Write the state's digests; at the middle of an uninterrupted run keep it, too."""
        tensors = self._capture(state)
        digest, roots = _digests(tensors)
        loss_text = None if loss is None else loss.hex()
        self.write("boundary", step=state.step, digest=digest, tensors=roots, loss=loss_text)
        if state.step == self.job["middle"]:
            self.write("census", found=census(self.program, state))
            if not self.job["start"] and not self.job["confined"]:
                with (self.folder / "state").open("wb") as file:
                    file.writelines(safetensors_chunks(tensors))
        return roots

    def _capture(self, state: TrainingState) -> Tensors:
        try:
            tensors = state.capture(self.seed)
            for name, value in tensors.items():
                tensor_header(name, value)  # raises ProofError for what has no canonical bytes
        except Exception as error:
            self.trouble("unbindable", said(error))
            raise Stop from error
        try:
            check_values(tensors, where=f"state after {state.step} steps")
        except ProofError as error:
            self.trouble("not-finite", str(error))
            raise Stop from error
        return tensors

    def _restore(self, state: TrainingState) -> None:
        """As a replay does it: the layout is that of a state after one step, in the same process."""
        step, layout = self.job["middle"], self._build()
        self._train(layout, 0)
        tensors = from_safetensors(Path(self.job["start"]).read_bytes(), where="kept state")
        try:
            state.restore(tensors, layout=self._capture(layout), seed=self.seed, step=step)
        except Exception as error:
            self.step = step
            found = json.loads(bytes(tensors["scalars"].tolist()))
            details = [] if "scalars" not in str(error) else _differences(found, state.scalars(), "")
            self.trouble("restore", said(error), details=details)
            raise Stop from error
        self.write("census", found=census(self.program, state))

    def _build_again(self, state: TrainingState, first: dict[str, str]) -> None:
        """Two builds in one process must be equal and apart: the recorder compares with one of its own."""
        held = {tensor.untyped_storage().data_ptr(): name for name, tensor in state.model.state_dict().items()}
        self.step = -1
        again = self._build()
        for name, tensor in again.model.state_dict().items():
            if tensor.numel() and tensor.untyped_storage().data_ptr() in held:
                self.trouble("shared", f"tensor {name} of a second build is the first one's")
                raise Stop
        _, roots = _digests(self._capture(again))
        different = [name for name in first if roots.get(name) != first[name]]
        if different:
            self.trouble("rebuilt", f"{different[0]} of a second build is another than the first one's")

    def _count(self, *_: Any) -> None:
        self.optimizer_steps += 1

    @contextmanager
    def _traced(self, step: int, state: TrainingState | None) -> Iterator[None]:
        with ExitStack() as stack:
            if self.job["traced"] == step:
                stack.enter_context(OperatorTracer(self.trace, state, self.source))
            yield

    @contextmanager
    def _program_runs(self, what: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            kind = "nondeterministic" if _NO_DETERMINISTIC in str(error) else "failed"
            at = next(filter(None, (line_in(self.source, f) for f in _frames_of(error))), None)
            self.trouble(kind, f"{what}: {said(error)}", at=at)
            raise Stop from error


def _digests(tensors: Tensors) -> tuple[str, dict[str, str]]:
    """The digest of a state, and the beginning of each tensor's root by name."""
    table = tensor_table(tensors)
    names = sorted(tensors, key=lambda name: name.encode("utf-8"))  # the table's order
    return table_digest(table).hex(), {name: root.hex()[:16] for name, (_, root) in zip(names, table, strict=True)}


def _frames_of(error: BaseException) -> Iterator[Any]:
    """The frames an error went through, the innermost first."""
    yield from (frame for frame, _ in reversed(list(traceback.walk_tb(error.__traceback__))))


def said(error: BaseException) -> str:
    """What an error says, with its type unless it is one of ours."""
    text = str(error) if isinstance(error, PolError) else f"{type(error).__name__}: {error}"
    return text[:500]


def _needs_argument(function: Any) -> bool:
    parameters = inspect.signature(function).parameters.values()
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return any(parameter.default is parameter.empty and parameter.kind in kinds for parameter in parameters)


def _differences(found: Any, planned: Any, where: str) -> list[str]:
    """What differs between two JSON values, as ``path: found, planned``."""
    if isinstance(found, dict) and isinstance(planned, dict) and found.keys() == planned.keys() != {"float"}:
        return [line for key in found for line in _differences(found[key], planned[key], f"{where}.{key}".strip("."))]
    if isinstance(found, list) and isinstance(planned, list) and len(found) == len(planned):
        pairs = enumerate(zip(found, planned, strict=True))
        return [line for index, (a, b) in pairs for line in _differences(a, b, f"{where}.{index}")]
    return [] if found == planned else [f"{where}: {_number(found)} in the run, {_number(planned)} by the program"]


def _number(value: Any) -> str:
    return str(float.fromhex(value["float"])) if isinstance(value, dict) and "float" in value else str(value)[:60]
