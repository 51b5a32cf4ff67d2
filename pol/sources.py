"""Where samples come from besides memory: any map-style data set, Hugging Face ``datasets``, mapped token files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from pol.data import Dataset, Samples, built_in, built_in_with
from pol.errors import CannotRun, ProofError, SpecError
from pol.spec import TrainingSpec

TOKEN_DTYPES = {"uint8": "<u1", "uint16": "<u2", "uint32": "<u4", "int32": "<i4", "int64": "<i8"}


class MapStyle(Protocol):
    """What is used of a torch map-style data set."""

    def __len__(self) -> int:
        """How many samples there are."""
        ...

    def __getitem__(self, index: int, /) -> Any:
        """A tensor, a tuple of tensors and numbers, or a mapping of them."""
        ...


class MapSamples(Samples):
    """A map-style data set (``torch.utils.data.Dataset``) whose items are tuples, or mappings by field.

    Numbers and arrays become tensors. Items must not be random: a sample read twice must be the same.
    """

    def __init__(self, source: MapStyle, fields: Sequence[str]) -> None:
        self.source = source
        self.fields = tuple(fields)

    def __len__(self) -> int:
        return len(self.source)

    def sample(self, index: int) -> tuple[torch.Tensor, ...]:
        """Item ``index`` as one tensor a field; :class:`SpecError` if it has other fields."""
        item = self.source[index]
        if isinstance(item, Mapping):
            row = [item.get(name) for name in self.fields]
        else:
            row = list(item) if isinstance(item, tuple | list) else [item]
        if len(row) != len(self.fields) or any(value is None for value in row):
            raise SpecError(f"sample {index} does not have the fields {', '.join(self.fields)}")
        return tuple(torch.as_tensor(value) for value in row)


class ArrowSamples(MapSamples):
    """Columns of a Hugging Face data set (``datasets.Dataset``), read row by row from its mapped Arrow files."""

    def __init__(self, dataset: Any, columns: Sequence[str]) -> None:
        super().__init__(dataset.with_format("numpy", columns=list(columns)), columns)

    def sample(self, index: int) -> tuple[torch.Tensor, ...]:
        """Row ``index``."""
        return super().sample(int(index))

    @classmethod
    def open(cls, folder: Path, columns: Sequence[str]) -> ArrowSamples:
        """A data set that ``Dataset.save_to_disk`` wrote; :class:`CannotRun` if it is not there or not readable."""
        try:
            import datasets
        except ImportError as error:
            raise CannotRun("reading Arrow data needs the extra 'hf': pip install 'aiarena[hf]'") from error
        try:
            return cls(datasets.Dataset.load_from_disk(str(folder)), columns)
        except (OSError, ValueError, KeyError) as error:
            raise CannotRun(f"{folder}: no Arrow data set with columns {', '.join(columns)} ({error})") from error


class TokenFile(Samples):
    """A file of token numbers and nothing else (little-endian), cut into windows; mapped, never read whole.

    Sample i is int64 (length + 1,): tokens [i * length, (i + 1) * length], so that inputs and targets overlap by all
    but one.
    """

    fields = ("tokens",)

    def __init__(self, path: Path, *, dtype: str, length: int) -> None:
        if dtype not in TOKEN_DTYPES or length < 1:
            raise SpecError(f"tokens are one of {', '.join(TOKEN_DTYPES)}, in windows of at least 1, not {dtype!r}")
        try:
            self.tokens = np.memmap(path, dtype=TOKEN_DTYPES[dtype], mode="r")
        except (OSError, ValueError) as error:
            raise CannotRun(f"{path}: not a file of {dtype} tokens ({error})") from error
        self.length = length
        if len(self.tokens) <= length:
            raise SpecError(f"{path}: {len(self.tokens)} tokens give no window of {length} and one more")

    def __len__(self) -> int:
        return (len(self.tokens) - 1) // self.length

    def sample(self, index: int) -> tuple[torch.Tensor, ...]:
        """Window ``index``."""
        start = range(len(self))[index] * self.length
        return (torch.from_numpy(self.tokens[start : start + self.length + 1].astype(np.int64)),)


def open_data(name: str, path: Path | None) -> Samples:
    """The data set that a spec calls ``name``, from ``path`` (None: a built-in one).

    ``tokens/<dtype>/<length>/<label>`` is a token file, ``arrow/<column>,<column>/<label>`` a folder of Arrow files,
    any other name a dataset blob. Raises :class:`CannotRun`, :class:`SpecError` or :class:`ProofError`.
    """
    if path is None:
        return built_in(name)
    kind, *rest = name.split("/")
    if kind == "tokens" and len(rest) == 3 and rest[1].isdecimal():
        return TokenFile(path, dtype=rest[0], length=int(rest[1]))
    if kind == "arrow" and len(rest) == 2:
        return ArrowSamples.open(path, rest[0].split(","))
    return Dataset.open(path)


def committed_samples(spec: TrainingSpec, path: Path | None) -> Samples:
    """The data set of ``spec``: what lies at ``path``, or the built-in one with its root, whatever the spec calls it.

    Raises :class:`CannotRun` if that is not here or another one is, :class:`ProofError` if the spec has its size wrong.
    """
    try:  # which data set is here is this machine's affair
        named = None if path else built_in_with(spec.dataset_root)
        samples = named or open_data(spec.dataset, path)
        root = samples.root
    except (ProofError, SpecError, OSError) as error:
        raise CannotRun(f"the data set {spec.dataset!r} is not to be had here: {error}") from error
    if root != spec.dataset_root:
        raise CannotRun(f"the data set {spec.dataset!r} here is not the committed one; pass the right one")
    if len(samples) != spec.dataset_size:
        raise ProofError(f"spec: dataset_size is {spec.dataset_size}, the data set has {len(samples)} samples")
    return samples
