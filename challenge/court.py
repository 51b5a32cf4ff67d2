"""What a verifier brings to a watermark test: the task's own network, and inputs, for channels that ask a model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from pol.errors import CannotRun, SpecError
from pol.program import is_built_in, load_program
from pol.programs.config import parse
from pol.programs.image_to_image import ImageToImage, ImageToImageConfig
from pol.programs.images import as_images
from pol.sources import committed_samples
from pol.spec import TrainingSpec
from pol.state import TrainingState
from watermark.answers import Answers, answers_of
from watermark.detect import Court, Probes
from watermark.outputs import OutputMark, probe_indices


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


def probes_of(spec: TrainingSpec, dataset: Path | None, beacon: bytes) -> Probes | None:
    """Samples of ``spec``'s data set, at ``dataset`` (None: a built-in one), that ``beacon`` draws to judge outputs by.

    None unless the program turns images into images, and the data set is at hand. ``beacon`` is one that no accuser
    chose: the task's, or the verifier's own.
    """
    if not is_built_in(spec.program_digest):
        return None
    if not isinstance(load_program(spec.program, spec.program_digest), ImageToImage):
        return None
    try:
        samples = committed_samples(spec, dataset)
    except CannotRun:
        return None
    config = parse(ImageToImageConfig, spec.config)

    def probes(key_root: bytes, mark: OutputMark) -> torch.Tensor:
        inputs, *_ = samples.batch(probe_indices(beacon, key_root, len(samples), mark.images))
        return as_images(inputs, config.inputs, config.height, config.width)

    return probes


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
