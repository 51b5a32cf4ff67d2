"""The trainer's side: what to promise for a model, and putting the mark into it."""

from __future__ import annotations

import torch

from pol.errors import SpecError
from watermark.key import WatermarkKey
from watermark.parameters import MarkParameters
from watermark.weights.arrays import State
from watermark.weights.embed import embed_weights, moved_too_far
from watermark.weights.layouts import LAYOUTS
from watermark.weights.parameters import WeightMark

LEAVES, MOST_IN_GROUP = 8, {"mlp": 32, "convnet": 32, "transformer": 32, "lora": 8}
"""Leaves of a group. An adapter's way is its lora_B itself, so more would move it too far however long it trains."""
FEWEST = {"mlp": 512, "convnet": 512, "transformer": 192, "lora": 512}
"""Leaves of a suggested mark, if there is room. A transformer pays in perplexity: it bears fewer, but deeper ones."""
USEFUL = 96
"""With fewer leaves, few could be lost before 2^-64 is out of reach."""


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
            leaves = min(MOST_IN_GROUP[name], max(LEAVES, -(-FEWEST[name] // groups)))
            if groups * leaves < USEFUL:
                raise SpecError(f"there is room for {groups * leaves} bits, and a mark takes {USEFUL}")
            return MarkParameters(weights=WeightMark(name, carriers, leaves))
        except SpecError as error:
            against.append(f"{name}: {error}")
    raise SpecError("no mark can be put into this model. " + "; ".join(against))


def embed(
    theta_ref: State, key: WatermarkKey, beta: bytes, parameters: MarkParameters, *, theta_0: State | None = None
) -> dict[str, torch.Tensor]:
    """The marked model, a new state dict: ``theta_ref`` with one bit a leaf written into it at the least change.

    ``theta_ref`` is the trunk state that was anchored before ``beta`` was drawn, or a later one; key and beta stay the
    same for all submissions of a run. With ``theta_0``, the run's initial state, a mark is refused that moves a tensor
    further than a verifier lets closed groups move it (:data:`watermark.weights.embed.MAX_EMBED_CHANGE`), as
    :func:`watermark.mark_run` always does. Raises :class:`SpecError` for this, for parameters that do not fit the model
    and for a key with another number of leaves. Channels besides the weights are trained in (:mod:`watermark.branch`).
    """
    if parameters.weights is None or parameters.trained_in:
        raise SpecError("this mark is not in the weights alone: train it in on a branch, with watermark.mark_run")
    if key.leaf_count != parameters.leaf_count:
        raise SpecError(f"the key has {key.leaf_count} leaves and the parameters ask for {parameters.leaf_count}")
    model = embed_weights(theta_ref, key, beta, parameters.weights)
    if theta_0 is not None and (far := moved_too_far(theta_0, theta_ref, model, parameters.weights)):
        raise SpecError(
            f"this mark is too strong for so short a training: {far[0]}; without the whole key, verifiers would leave "
            "the model undecided. Train longer, or promise fewer groups or a smaller margin; this run's model can be "
            "submitted unmarked"
        )
    return model
