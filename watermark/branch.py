"""The embed segment of marks that are trained in: the trunk's next steps, with the marks' losses added to the task's.

A branch starts from theta_ref's whole training state and takes further steps of the program: the committed batches of
those steps, the committed generators, nothing left to choose. Before each step of the optimizer the gradients of the
marks' losses are added. So the branch is a pure function of the trunk, the key and beta, and whoever is shown the whole
key (sealed: it spends the key) replays it like any other segment.

:class:`MarkedProgram` is a program to that end: it trains like the one inside it, and marks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import nn

from pol.data import Batch, Samples
from pol.encoding import Json
from pol.errors import SpecError
from pol.program import Program
from pol.state import TrainingState
from watermark.answers import answers_of
from watermark.key import WholeKey
from watermark.outputs.embed import OutputLoss
from watermark.parameters import MarkParameters
from watermark.triggers.parameters import FULL
from watermark.triggers.reading import Triggers
from watermark.triggers.train import NOISE, label_loss, shaken
from watermark.weights.embed import embed_weights
from watermark.weights.loss import MarkLoss

Push = Callable[[nn.Module, Batch], torch.Tensor]


class Marking:
    """The losses of a key's mark on models that branch off ``theta_ref``, a training state.

    What the state pins (an adapter's base model) is no part of the model that is marked. Raises :class:`SpecError` if
    the parameters do not fit the model, or the key has another number of leaves.
    """

    def __init__(self, theta_ref: TrainingState, key: WholeKey, beta: bytes, parameters: MarkParameters) -> None:
        if key.leaf_count != parameters.leaf_count:
            raise SpecError(f"the key has {key.leaf_count} leaves and the parameters ask for {parameters.leaf_count}")
        self._key, self._beta, self._parameters = key, beta, parameters
        self._pinned = theta_ref.pinned
        self._losses: list[Push] = []
        if parameters.weights:
            loss = MarkLoss(self._own(theta_ref.model), key, beta, parameters.weights)
            self._losses.append(lambda model, _: loss(dict(model.named_parameters())))
        if parameters.triggers:
            self._losses.append(self._trigger_loss())
        if parameters.outputs:
            self._losses.append(self._output_loss(theta_ref.model))
        self._inputs: torch.Tensor | None = None
        self._pushing = False

    @contextmanager
    def watching(self, model: nn.Module) -> Iterator[None]:
        """Within the block, a step of the program, note what it gives its model: a mark in outputs is trained in on it.

        The last call counts. One that gives anything but one tensor is none.
        """
        self._inputs = None
        if not self._parameters.outputs:
            yield
            return

        def see(_: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
            alone = len(given) == 1 and not named and isinstance(given[0], torch.Tensor)
            if not self._pushing:
                self._inputs = given[0].detach() if alone else None

        hook = model.register_forward_pre_hook(see, with_kwargs=True)
        try:
            yield
        finally:
            hook.remove()

    def push(self, model: nn.Module, batch: Batch) -> None:
        """Add the gradients of the marks' losses to those of ``model``.

        Labels are learnt in evaluation mode at weights shaken by noise. Outputs are learnt in the program's mode, on
        the inputs that were seen (:meth:`watching`): with the statistics of batch norms held, each step of the program
        would move these, and undo what was learnt.
        """
        learned = (parameter for parameter in model.parameters() if parameter.requires_grad)
        mode = nullcontext() if self._parameters.outputs else evaluating(model)
        self._pushing = True
        with shaken(learned, NOISE if self._parameters.triggers else 0.0), mode:
            for loss in self._losses:
                loss(model, batch).backward()  # type: ignore[no-untyped-call]
        self._pushing = False

    def finish(self, model: nn.Module) -> None:
        """At the end of the branch: lift the bits in the weights that are still short of their margins."""
        if mark := self._parameters.weights:
            marked = embed_weights(self._own(model), self._key, self._beta, mark)
            model.load_state_dict(model.state_dict() | marked)

    def _own(self, model: nn.Module) -> dict[str, torch.Tensor]:
        return {name: value for name, value in model.state_dict().items() if name not in self._pinned}

    def _leaves(self, channel: str) -> Any:
        own = self._parameters.leaves_of(channel)
        return self._key.leaves[own.start : own.stop]

    def _trigger_loss(self) -> Push:
        mark = self._parameters.triggers
        assert mark is not None
        triggers = Triggers.make(self._leaves("triggers"), self._beta, self._key.root, mark)

        def loss(model: nn.Module, batch: Batch) -> torch.Tensor:
            some = triggers.part(torch.randperm(len(triggers.labels))[: len(batch[0])])
            return mark.percent / FULL * label_loss(answers_of(model), some)

        return loss

    def _output_loss(self, theta_ref: nn.Module) -> Push:
        mark = self._parameters.outputs
        assert mark is not None
        outputs = OutputLoss(theta_ref, self._leaves("outputs"), self._beta, self._key.root, mark)

        def loss(model: nn.Module, _: Batch) -> torch.Tensor:
            if self._inputs is None:
                raise SpecError("the program did not call its model with one tensor in this step: no outputs to mark")
            return outputs(model, self._inputs)

        return loss


class MarkedProgram:
    """A program that trains like ``program`` and marks: what a branch runs, and what its replay runs.

    The step before ``end`` is the branch's last one, and finishes the mark.
    """

    def __init__(self, program: Program, marking: Marking, end: int) -> None:
        self.program, self.marking, self.end = program, marking, end

    def build(self, config: Mapping[str, Json], seed: bytes) -> TrainingState:
        """The program's own initial state."""
        return self.program.build(config, seed)

    def train_step(self, state: TrainingState, batch: Batch) -> torch.Tensor:
        """The program's step, with the marks' gradients added right before its optimizer steps."""
        hook = state.optimizer.register_step_pre_hook(lambda *_: self.marking.push(state.model, batch))
        try:
            with self.marking.watching(state.model):
                loss = self.program.train_step(state, batch)
        finally:
            hook.remove()
        if state.step + 1 == self.end:
            self.marking.finish(state.model)
        return loss

    def evaluate(self, model: Mapping[str, torch.Tensor], config: Mapping[str, Json], samples: Samples) -> float:
        """The program's own score."""
        return self.program.evaluate(model, config, samples)  # type: ignore[arg-type]


def train_branch(program: MarkedProgram, state: TrainingState, batches: Iterable[Batch], seed: bytes) -> None:
    """Take one step a batch from ``state`` (theta_ref's, restored): with the last one, ``state.model`` is marked.

    ``batches`` are the committed ones of the steps from ``state.step`` to the program's end, ``seed`` is the run's.
    :func:`watermark.mark_run` does all of it for a recorded run.
    """
    for batch in batches:
        state.key_generators(seed)
        program.train_step(state, batch)
        state.step += 1


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The model in evaluation mode within the block: no dropout, and batch norm with its running statistics."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
