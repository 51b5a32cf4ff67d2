"""Where the hidden units of a network are: what writes them, what reads them, and what may be done to them unseen.

Read from a state dict's names and shapes, for the networks of ``pol.programs`` and Llama-type models. The thief's own
reading: it shares no code with the alignment that it tries to mislead.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from experiments.attacks.networks import State
from pol.errors import SpecError


@dataclass(frozen=True, slots=True)
class Writer:
    """What computes units: ``tensors`` (first axis: units), then the batch norm ``norm``, if any.

    ``scales`` is false where the units may not be scaled, as behind a GELU or a gate's SiLU.
    """

    tensors: tuple[str, ...]
    norm: str | None = None
    scales: bool = True


@dataclass(frozen=True, slots=True)
class Units:
    """``size`` hidden units: their writers, and the tensors whose second axis reads them.

    A residual ``stream`` has several writers, which add up. ``inside`` is the number of a narrower stream whose units
    a shortcut puts into the middle of these. ``rectified`` is true if a negative unit reads as zero.
    """

    size: int
    writers: tuple[Writer, ...]
    readers: tuple[str, ...]
    stream: bool = False
    inside: int | None = None
    rectified: bool = True


def hidden_units(state: State) -> tuple[Units, ...]:
    """All groups of hidden units of a known network, narrower streams before wider ones; else :class:`SpecError`."""
    for name, read in (
        ("layers.0.weight", _mlp), ("features.3.residual.0.weight", _resnet), ("features.3.0.weight", _cnn),
        ("blocks.0.mlp_out.weight", _gpt), ("blocks.0.residual.0.weight", _translator),
    ):  # fmt: skip
        if name in state:
            return tuple(read(state))
    if found := tuple(_llama(state)):
        return found
    raise SpecError(f"a network of unknown structure: {sorted(state)[:3]} ...")


def _units(state: State, writer: Writer, readers: tuple[str, ...], *, rectified: bool = True) -> Units:
    return Units(len(state[writer.tensors[0]]), (writer,), readers, rectified=rectified)


def _mlp(state: State) -> Iterator[Units]:
    depth = sum(1 for name in state if re.fullmatch(r"layers\.\d+\.weight", name))
    for layer in range(depth - 1):
        norm = f"norms.{layer}" if f"norms.{layer}.weight" in state else None
        tensors = (f"layers.{layer}.weight", f"layers.{layer}.bias")
        yield _units(state, Writer(tensors, norm), (f"layers.{layer + 1}.weight",))


def _cnn(state: State) -> Iterator[Units]:
    convolutions = [("features.0", "features.1"), ("features.3.0", "features.3.1"), ("features.4.0", "features.4.1")]
    readers = ["features.3.0.weight", "features.4.0.weight", "head.weight"]
    for (convolution, norm), reader in zip(convolutions, readers, strict=True):
        yield _units(state, Writer((f"{convolution}.weight",), norm), (reader,))


def _resnet(state: State) -> Iterator[Units]:
    blocks = [f"features.{i}.residual" for i in range(3, 12)]
    writers: list[list[Writer]] = [[Writer(("features.0.weight",), "features.1")]]
    readers: list[list[str]] = [[]]
    for block in blocks:
        readers[-1].append(f"{block}.0.weight")
        if state[f"{block}.0.weight"].shape[1] < len(state[f"{block}.3.weight"]):
            writers.append([])
            readers.append([])
        writers[-1].append(Writer((f"{block}.3.weight",), f"{block}.4"))
    readers[-1].append("head.weight")
    for stage, (writing, reading) in enumerate(zip(writers, readers, strict=True)):
        size = len(state[writing[0].tensors[0]])
        yield Units(size, tuple(writing), tuple(reading), stream=True, inside=stage - 1 if stage else None)
    yield from (_inner(state, block) for block in blocks)


def _translator(state: State) -> Iterator[Units]:
    blocks = [f"blocks.{i}.residual" for i in range(sum(1 for name in state if name.endswith(".residual.0.weight")))]
    writers = [
        Writer(("head.weight", "head.bias")),
        *(Writer((f"{block}.3.weight",), f"{block}.4") for block in blocks),
    ]
    readers = (*(f"{block}.0.weight" for block in blocks), "tail.weight")
    yield Units(len(state["head.weight"]), tuple(writers), readers, stream=True, rectified=False)
    yield from (_inner(state, block) for block in blocks)


def _inner(state: State, block: str) -> Units:
    return _units(state, Writer((f"{block}.0.weight",), f"{block}.1"), (f"{block}.3.weight",))


def _gpt(state: State) -> Iterator[Units]:
    for block in range(sum(1 for name in state if name.endswith(".mlp_out.weight"))):
        writer = Writer((f"blocks.{block}.mlp.weight", f"blocks.{block}.mlp.bias"), scales=False)
        yield _units(state, writer, (f"blocks.{block}.mlp_out.weight",), rectified=False)


def _llama(state: State) -> Iterator[Units]:
    for name in state:
        if found := re.fullmatch(r"(.*\.mlp)\.down_proj\.weight", name):
            prefix = found.group(1)
            writers = (Writer((f"{prefix}.gate_proj.weight",), scales=False), Writer((f"{prefix}.up_proj.weight",)))
            yield Units(state[name].shape[1], writers, (name,), rectified=False)
