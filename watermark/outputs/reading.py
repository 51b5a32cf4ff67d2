"""Reading a payload out of a suspect's outputs: how many bits of a claim are there.

The judge runs the suspect and theta_ref on the same inputs and the public extractor on what they give. The inputs are
the judge's, drawn by the beacon that opens the leaves (:func:`probe_indices`): an accuser who knew the bits and chose
the inputs would choose those on which an innocent happens to agree with him
(tests/watermark/outputs/test_forbidden_shortcuts.py shows it).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import torch

from pol.encoding import digest, u64
from pol.errors import SpecError
from watermark.bits import mark_bit
from watermark.key import Leaf, LeafOpening
from watermark.outputs.extractor import Pixels, compared, public_extractor, soft_values_of
from watermark.outputs.fit import Predict, outputs_of
from watermark.outputs.parameters import OutputMark

PROBE_DOMAIN: Final = "aiarena/watermark-probe/v1"


def probe_indices(beacon: bytes, key_root: bytes, samples: int, count: int) -> tuple[int, ...]:
    """The ``count`` distinct samples out of ``samples`` on which a claim is judged, in the order drawn.

    Draw c = 0, 1, ... is SHA256("aiarena/watermark-probe/v1" || beacon || key_root || u64(c)) mod samples, and repeats
    are skipped. Raises :class:`SpecError` if there are fewer samples than are asked for.
    """
    if not 0 < count <= samples:
        raise SpecError(f"cannot judge outputs for {count} of {samples} samples: use a data set with more of them")
    drawn: dict[int, None] = {}
    draw = 0
    while len(drawn) < count:
        drawn[int.from_bytes(digest(PROBE_DOMAIN, beacon, key_root, u64(draw)), "big") % samples] = None
        draw += 1
    return tuple(drawn)


def output_matches(
    suspect: Predict,
    theta_ref: Predict,
    inputs: torch.Tensor,
    leaves: Sequence[Leaf | LeafOpening],
    beta: bytes,
    key_root: bytes,
    mark: OutputMark,
) -> int:
    """How many of the leaves' bits the suspect's outputs for ``inputs`` [mark.images, ...] agree with.

    ``suspect`` and ``theta_ref`` turn a batch of inputs into images [n, c, h, w]. Under the null hypothesis (a suspect
    made without knowledge of the bits, and inputs and theta_ref fixed without it) this is Bin(leaves, 1/2), as long as
    no two leaves have one seed. Raises :class:`SpecError` if the inputs are not as many as ``mark`` says, or if the
    suspect's outputs are not finite images of the shape of theta_ref's.
    """
    values = read_outputs(suspect, theta_ref, inputs, [leaf.seed for leaf in leaves], mark)
    return agreeing(values, leaves, beta, key_root)


def agreeing(values: torch.Tensor, leaves: Sequence[Leaf | LeafOpening], beta: bytes, key_root: bytes) -> int:
    """How many of the leaves' bits have the sign of what was read for them, ``values`` [leaves]."""
    bits = (mark_bit(beta, key_root, leaf.index, leaf.seed) for leaf in leaves)
    # A comparison with NaN is False, and so is one with a tie: both are misses.
    return sum(bit * value > 0 for bit, value in zip(bits, values.tolist(), strict=True))


def read_outputs(
    suspect: Predict, theta_ref: Predict, inputs: torch.Tensor, seeds: Sequence[bytes], mark: OutputMark
) -> torch.Tensor:
    """What the public extractor reads for each seed, float64 [seeds]; no bit, beacon or key root comes in here.

    Raises :class:`SpecError` as :func:`output_matches` does.
    """
    return soft_values_of(seen_outputs(suspect, theta_ref, inputs, mark), seeds)


def seen_outputs(
    suspect: Predict, theta_ref: Predict, inputs: torch.Tensor, mark: OutputMark
) -> Iterator[tuple[Pixels, torch.Tensor]]:
    """What the public extractor sees in the suspect's outputs, before any leaf is opened.

    A list of it serves any number of keys, at 56 bytes a pixel: :func:`watermark.outputs.extractor.soft_values_of`.
    Raises :class:`SpecError` as :func:`output_matches` does.
    """
    if len(inputs) != mark.images:
        raise SpecError(f"{len(inputs)} inputs to judge outputs by, and the parameters ask for {mark.images}")
    reference = outputs_of(theta_ref, inputs, where="theta_ref")
    images = outputs_of(suspect, inputs, where="the suspect")
    if images.shape != reference.shape:
        shapes = f"{tuple(images.shape[1:])} in the suspect, {tuple(reference.shape[1:])} in theta_ref"
        raise SpecError(f"output images of {shapes}; not comparable")
    return compared(images, reference, public_extractor())
