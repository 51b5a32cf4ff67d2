"""What a verifier brings to a watermark test: the task's own network, for channels that ask a model."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from pol.errors import SpecError
from pol.program import is_built_in, load_program
from pol.spec import TrainingSpec
from pol.state import TrainingState
from watermark.answers import Answers, answers_of
from watermark.detect import Court


def court_of(spec: TrainingSpec) -> Court:
    """The court for models of ``spec``'s task.

    Its network runs in this process, so only built-in programs have one: a trusted program runs in a confined process
    of its own, which nothing can be asked. Raises :class:`pol.errors.CannotRun` if the program needs what is not here.
    """
    if not is_built_in(spec.program_digest):
        return Court()
    program = load_program(spec.program, spec.program_digest)

    def network(state: Mapping[str, torch.Tensor]) -> Answers:
        return answers_of(_filled(program.build(spec.config, bytes(32)), state))

    return Court(network=network)


def _filled(built: TrainingState, state: Mapping[str, torch.Tensor]) -> nn.Module:
    """The built network with the tensors of ``state``; a pinned base stays as it was built."""
    model, own = built.model, built.model.state_dict()
    odd = (set(own) - set(built.pinned)) ^ set(state)
    if odd:
        raise SpecError(f"the model has not the tensors of the task's network: {sorted(map(str, odd))[:3]}")
    for name, tensor in state.items():
        if tensor.shape != own[name].shape or not bool(torch.isfinite(tensor).all()):
            raise SpecError(f"the model's {name} is not finite, or not of the shape of the task's network")
    model.load_state_dict({**own, **state})
    return model.eval().requires_grad_(False)
