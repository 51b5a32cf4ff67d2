"""Transformers: the marked matrices are products of what a block reads from the residual stream and what it writes.

A block's attention carries W_O W_V (summed over its heads), its perceptron W_down W_up (summed over its hidden units),
each with the norm's gain in the columns; what is changed is W_O or W_down. These sums stay as they are when heads or
units are permuted, when a head's values go through any invertible map that its output undoes, when units are scaled,
split, or joined by others that do nothing or cancel each other, and when gains are folded elsewhere. So no heads have
to be matched. What is left is the basis of the stream (:mod:`watermark.weights.stream`), which the embeddings tell, and
the number of blocks: a block of theta_ref is looked for among all of the suspect's.

The sum alone does not withstand units that never fire, whose weights can be anything. So the units whose gate resembles
none of theta_ref's are left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from pol.errors import SpecError
from watermark.weights.arrays import Array, Float32s, State, float32_matrix
from watermark.weights.parameters import Carrier, spread_groups
from watermark.weights.stream import Stream, find_stream
from watermark.weights.transformer_blocks import Transformer, expanded, open_transformer

MAX_GROWTH: Final = 16
"""How many times theta_ref's width, blocks or units a suspect may have: it is somebody else's file."""

SAME_GATE: Final = (0.5, 0.25)
"""A unit fires like one of theta_ref's: least cosine of the gates, least share of its length along the other."""

SAME_BLOCK: Final = (0.3, 0.9)
"""A block has units of theta_ref's: least mean cosine of the gates, least share of that of the likeliest block."""

_SAMPLE: Final = 32
_GROUPS, _ROWS, _MARGIN = 24, 16, 5.0
"""Few bits of a wide margin, in the perceptrons alone. On a GPT of 4 blocks of width 128 a bit cost about ``4 + 1.2
margin^2`` millionths of the perplexity wherever it was, but those in perceptrons outlasted pruning more often
at the same margin, and a wide margin outlasts what many bits do not: nine weights in ten pruned."""


class TransformerLayout:
    """Products over the heads and over the hidden units of every block, in the basis of the residual stream."""

    def check(self, state: State, carriers: Sequence[Carrier], *, where: str) -> None:
        """See :class:`watermark.weights.layouts.Layout`."""
        model = open_transformer(state, where=where)
        model.check()
        for carrier in carriers:
            if carrier.tensor not in model.carriers:
                first = next(iter(model.carriers))
                raise SpecError(f"{where}: {carrier.tensor} does not write to the stream, as {first} does")
            carrier.check_room(model.width, where=where)

    def factors(self, state: State, tensor: str) -> tuple[Float32s, Float32s]:
        """See :class:`watermark.weights.layouts.Layout`."""
        model = open_transformer(state, where="theta")
        part, number = model.carriers[tensor]
        with np.errstate(over="ignore"):
            right = (_values(model, number) if part == "attention" else model.up(number)).astype(np.float32)
        if not np.isfinite(right).all():
            raise SpecError(f"theta: what {tensor} would be multiplied by does not fit into float32")
        return float32_matrix(state, tensor, where="theta"), right

    def read(
        self, suspect: State, theta_ref: State, tensors: Sequence[str], base: State | None = None
    ) -> Sequence[Array]:
        """See :class:`watermark.weights.layouts.Layout`."""
        ours, theirs = open_transformer(theta_ref, where="theta_ref"), open_transformer(suspect, where="the suspect")
        theirs.check()
        _check_growth(theirs, ours)
        stream = find_stream(theirs.embeddings(), ours.embeddings(), centred=ours.scheme.layer_norm)
        places = {tensor: ours.carriers[tensor] for tensor in tensors}
        found: dict[str, Array] = {}
        for part, read in (("attention", _read_attention), ("mlp", _read_mlp)):
            names = [tensor for tensor in tensors if places[tensor][0] == part]
            matrices = read(theirs, ours, stream, [places[name][1] for name in names])
            found.update(zip(names, matrices, strict=True))
        return [found[tensor] for tensor in tensors]

    def suggested(self, state: State, base: State | None = None) -> tuple[Carrier, ...]:
        """See :class:`watermark.weights.layouts.Layout`."""
        model = open_transformer(state, where="the model")
        model.check()
        shapes = [(tensor, model.width) for tensor, (part, _) in model.carriers.items() if part == "mlp"]
        return spread_groups(shapes, groups=_GROUPS, rows=_ROWS, margin=_MARGIN)


def _check_growth(theirs: Transformer, ours: Transformer) -> None:
    sizes = [
        (model.depth, model.width, max(max(model.units(number)) for number in range(model.depth)))
        for model in (theirs, ours)
    ]
    if any(their > MAX_GROWTH * our for their, our in zip(*sizes, strict=True)):
        found = f"{sizes[0]} in the suspect, {sizes[1]} in theta_ref"
        raise SpecError(f"blocks, width, most units: {found}; not comparable")


def _values(model: Transformer, number: int) -> Array:
    """The value rows for each column of theta_ref's ``attention_out``, [k, width].

    A state dict does not tell the size of its heads, which matters where queries share values. Training makes a head's
    output answer to its values, so the product is largest for the true size.
    """
    out, value = model.attention_out(number), model.value(number)
    sizes = model.head_sizes(number)
    products = (out @ expanded(value, out.shape[1], size) for size in sizes)
    sums = [float(np.square(product).sum()) for product in products] if len(sizes) > 1 else [1.0]
    return expanded(value, out.shape[1], sizes[int(np.argmax(sums))])


def _read_attention(theirs: Transformer, ours: Transformer, stream: Stream, blocks: Sequence[int]) -> list[Array]:
    """For each block of theta_ref the product of whichever block, and size of heads, of the suspect is most like it."""
    if not blocks:
        return []
    targets = _unit(np.array([(ours.attention_out(number) @ _values(ours, number)).ravel() for number in blocks]))
    best: list[tuple[float, Array]] = []
    for product in _products(theirs, stream):
        scores = (targets @ _unit(product.reshape(1, -1))[0]).tolist()
        best = best or [(score, product) for score in scores]
        best = [(score, product) if score > old[0] else old for score, old in zip(scores, best, strict=True)]
    return [product for _, product in best]


def _products(model: Transformer, stream: Stream) -> Iterator[Array]:
    for number in range(model.depth):
        out, value = stream.written(model.attention_out(number)), stream.read(model.value(number))
        for size in model.head_sizes(number):
            yield out @ expanded(value, out.shape[1], size)


def _read_mlp(theirs: Transformer, ours: Transformer, stream: Stream, blocks: Sequence[int]) -> list[Array]:
    """For each block of theta_ref the units that fire like its own, from whichever blocks of the suspect have them."""
    at_home = Stream(None, stream.centred)
    gates = [_gates(ours, number, at_home) for number in blocks]
    samples = [_unit(rows[:: -(-len(rows) // _SAMPLE), :-1]) for rows in gates]
    found: list[list[float]] = []
    for number in range(theirs.depth):
        here = _unit(_gates(theirs, number, stream)[:, :-1]).T
        found.append([float((sample @ here).max(axis=1).mean()) for sample in samples])
    return [
        _mlp_product(theirs, stream, reference, likeness)
        for reference, likeness in zip(gates, np.array(found).T, strict=True)
    ]


def _mlp_product(model: Transformer, stream: Stream, reference: Array, likeness: Array) -> Array:
    """The sum over all units like those of ``reference``; where there are none at all, over the likeliest block.

    ``likeness`` holds for each block of ``model`` the mean cosine of sampled gates of theta_ref's to their nearest.
    """
    best = int(np.argmax(likeness))
    places = np.flatnonzero(likeness >= max(SAME_BLOCK[0], SAME_BLOCK[1] * likeness[best])).tolist()
    live = {number: _alike(_gates(model, number, stream), reference) for number in places}
    if not any(mask.any() for mask in live.values()):
        live = {best: np.ones(model.units(best)[1], dtype=np.bool_)}
    product: Array = np.zeros((reference.shape[1] - 1,) * 2)
    for number, mask in live.items():
        product += stream.written(model.mlp_out(number)[:, mask]) @ stream.read(model.up(number)[mask])
    return product


def _gates(model: Transformer, number: int, stream: Stream) -> Array:
    gates = model.gates(number)
    return np.concatenate([stream.read(gates[:, :-1]), gates[:, -1:]], axis=1)


def _alike(gates: Array, reference: Array) -> npt.NDArray[np.bool_]:
    """Which rows of ``gates`` fire like some row of ``reference``, or exactly when it does not."""
    weights, bias = gates[:, :-1], gates[:, -1]
    cosines = _unit(weights) @ _unit(reference[:, :-1]).T
    nearest = np.argmax(np.abs(cosines), axis=1)
    cosine, match = cosines[np.arange(len(gates)), nearest], reference[nearest]
    along = np.abs(cosine) * np.linalg.norm(weights, axis=1)
    shift = np.abs(bias * np.sign(cosine) - match[:, -1])
    alike: npt.NDArray[np.bool_] = np.abs(cosine) > SAME_GATE[0]
    alike &= along > SAME_GATE[1] * np.linalg.norm(match[:, :-1], axis=1)
    # The norm of a gate is about the spread of what it sees: further off, the unit fires always or never.
    alike &= shift < np.linalg.norm(match, axis=1)
    return alike


def _unit(rows: Array) -> Array:
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: Array = rows / np.where(norms > 0, norms, 1.0)
    return unit
