"""The trainer's side: what to promise for a model, and putting the mark into it."""

from __future__ import annotations

import torch

from pol.errors import SpecError
from watermark.key import WatermarkKey
from watermark.parameters import MarkParameters
from watermark.weights.arrays import State
from watermark.weights.embed import embed_weights
from watermark.weights.layouts import LAYOUTS
from watermark.weights.parameters import WeightMark

LEAVES, MOST_IN_GROUP = 8, 32
FEWEST = {"mlp": 512, "convnet": 512, "transformer": 192, "lora": 512}
"""Leaves of a suggested mark, at least. A transformer pays for each in perplexity: it bears fewer, but deeper ones."""


def suggested_parameters(model: State, *, layout: str | None = None, base: State | None = None) -> MarkParameters:
    """Parameters that suit ``model``, for the spec: groups of 8 leaves, or fewer of more, over its carriers.

    ``layout`` names the architecture; without it, the first one that reads the model. ``base`` holds the tensors of the
    pinned base model of an adapter. Raises :class:`SpecError` if no architecture fits, with what each had against it.
    """
    against = []
    for name in [layout] if layout else LAYOUTS:
        try:
            carriers = LAYOUTS[name].suggested(model, base)
            groups = sum(carrier.groups for carrier in carriers)
            leaves = min(MOST_IN_GROUP, max(LEAVES, -(-FEWEST[name] // groups)))
            return MarkParameters(weights=WeightMark(name, carriers, leaves))
        except SpecError as error:
            against.append(f"{name}: {error}")
    raise SpecError("no mark can be put into this model. " + "; ".join(against))


def embed(theta_ref: State, key: WatermarkKey, beta: bytes, parameters: MarkParameters) -> dict[str, torch.Tensor]:
    """The marked model, a new state dict: ``theta_ref`` with one bit a leaf written into it at the least change.

    ``theta_ref`` is the trunk state that was anchored before ``beta`` was drawn, or a later one; key and beta stay the
    same for all submissions of a run. Raises :class:`SpecError` if the parameters do not fit the model, or the key has
    another number of leaves than they ask for. Channels besides the weights are trained in (:mod:`watermark.branch`).
    """
    if parameters.weights is None or parameters.trained_in:
        raise SpecError("this mark is not in the weights alone: train it in, with watermark.branch_replay.train_mark")
    if key.leaf_count != parameters.leaf_count:
        raise SpecError(f"the key has {key.leaf_count} leaves and the parameters ask for {parameters.leaf_count}")
    return embed_weights(theta_ref, key, beta, parameters.weights)
