"""From a suspect's tensors to its outputs: the built-in image-to-image network."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from pol.errors import SpecError
from pol.programs.image_to_image import ImageToImageConfig, Translator

MAX_BLOCKS = 64
_KIND = "no network of the image-to-image program"


def translator(state: Mapping[str, torch.Tensor], *, where: str) -> Translator:
    """The network of ``state``, in evaluation mode, its size read from the tensors.

    Raises :class:`SpecError` naming ``where`` if the tensors make no such network or are not finite.
    """
    head, tail = state.get("head.weight"), state.get("tail.weight")
    if head is None or tail is None or head.dim() != 4 or tail.dim() != 4:
        raise SpecError(f"{where}: {_KIND} (head.weight or tail.weight is missing or no convolution)")
    for name, tensor in state.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise SpecError(f"{where}: {name} holds values that are not finite")
    blocks = sum(name.endswith(".residual.0.weight") for name in state)
    if blocks > MAX_BLOCKS:
        raise SpecError(f"{where}: {_KIND} ({blocks} blocks, more than the limit of {MAX_BLOCKS})")
    config = ImageToImageConfig(
        inputs=head.shape[1], outputs=tail.shape[0], height=1, width=1, filters=head.shape[0], blocks=blocks,
        loss="l2", steps=1, learning_rate=1.0, weight_decay=0.0,
    )  # fmt: skip
    with torch.device("meta"):  # a hostile head may promise a network far larger than its tensors
        network = Translator(config)
    try:
        network.load_state_dict({name: _single(tensor) for name, tensor in state.items()}, assign=True)
    except RuntimeError as error:
        raise SpecError(f"{where}: {_KIND} ({error})") from error
    return network.eval().requires_grad_(False)


def _single(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().to("cpu", torch.float32) if tensor.is_floating_point() else tensor.detach().cpu()
