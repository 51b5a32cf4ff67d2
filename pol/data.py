"""Data sets and their commitments: a Merkle root over samples, so that a single sample can be opened."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import overload

import numpy as np
import torch
from safetensors.torch import load, load_file, save

from pol.encoding import DIGEST_BYTES, digest, u64
from pol.errors import CannotRun, ProofError, SpecError
from pol.merkle import leaf_digest, merkle_root
from pol.tensors import little_endian_bytes, tensor_header

SAMPLE_DOMAIN = "aiarena/sample/v1"
BATCH_DOMAIN = "aiarena/batch/v1"
STEP_BATCH_DOMAIN = "aiarena/step-batch/v1"

Batch = tuple[torch.Tensor, ...]
"""One stacked tensor (b, ...) a field of the samples."""


class Leaves(Sequence[bytes]):
    """The Merkle leaves of a data set's samples, 32 bytes each, in one block of memory."""

    def __init__(self, leaves: Iterable[bytes]) -> None:
        self._bytes = b"".join(leaves)

    def __len__(self) -> int:
        return len(self._bytes) // DIGEST_BYTES

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> list[bytes]: ...
    def __getitem__(self, index: int | slice) -> bytes | list[bytes]:
        """The leaf at ``index``."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        start = range(len(self))[index] * DIGEST_BYTES
        return self._bytes[start : start + DIGEST_BYTES]


class Samples(ABC):
    """Committed map-style data. Sample i is a pure function of i: one tensor for each of ``fields``, on the CPU.

    The samples are read one at a time, so that they need not fit in memory; their leaves (32 bytes each) must.
    Augmentation does not belong here but in the program, whose generators are keyed by (seed, step).
    """

    fields: tuple[str, ...]

    @abstractmethod
    def __len__(self) -> int:
        """How many samples there are."""

    @abstractmethod
    def sample(self, index: int) -> tuple[torch.Tensor, ...]:
        """One tensor a field: sample ``index`` of ``range(len(self))``."""

    def columns(self, indices: Sequence[int]) -> Batch:
        """The samples at ``indices``, stacked; raises :class:`SpecError` if they do not stack."""
        rows = [self.sample(index) for index in indices]
        try:
            return tuple(torch.stack(column) for column in zip(*rows, strict=True))
        except (RuntimeError, ValueError) as error:
            raise SpecError(f"samples of different shapes cannot form a batch ({error}): pad or cut them") from error

    @cached_property
    def leaves(self) -> Leaves:
        """The Merkle leaf of every sample, in one pass over the data."""
        return Leaves(sample_leaf(self.fields, index, self.sample(index)) for index in range(len(self)))

    @cached_property
    def root(self) -> bytes:
        """The Merkle root over all samples (32 bytes): the dataset commitment."""
        return merkle_root(self.leaves)

    def batch(self, indices: Sequence[int]) -> Batch:
        """The samples at ``indices``, in order: a tensor (b, ...) a field.

        Every sample is compared with its leaf: :class:`CannotRun` if the source gives another one now than when the
        root was worked out.
        """
        columns = self.columns(indices)
        for index, *row in zip(indices, *columns, strict=True):
            if sample_leaf(self.fields, index, row) != self.leaves[index]:
                raise CannotRun(
                    f"sample {index} of the data set is not the one committed to: a source must give the same sample "
                    "every time (augment in the program instead), and its files must not change during a run"
                )
        return columns

    def batch_digest(self, indices: Sequence[int]) -> bytes:
        """The digest of one step's batch: its sample leaves in order (each binds its index and all its bytes)."""
        return digest(BATCH_DOMAIN, b"".join(self.leaves[index] for index in indices))


@dataclass(frozen=True, eq=False)
class Dataset(Samples):
    """Inputs of shape (n, ...) with labels (n, ...), as a rule integers (n,): in memory, or a mapped blob."""

    inputs: torch.Tensor
    labels: torch.Tensor
    fields = ("input", "label")

    def __post_init__(self) -> None:
        if len(self.inputs) != len(self.labels) or len(self.inputs) == 0:
            raise SpecError(f"{len(self.inputs)} inputs, {len(self.labels)} labels: they must match, not be empty")

    def __len__(self) -> int:
        return len(self.labels)

    def sample(self, index: int) -> tuple[torch.Tensor, ...]:
        """The input and the label at ``index``."""
        return self.inputs[index], self.labels[index]

    def columns(self, indices: Sequence[int]) -> Batch:
        """The rows at ``indices``."""
        rows = torch.as_tensor(indices)
        return self.inputs[rows], self.labels[rows]

    def to_bytes(self) -> bytes:
        """A safetensors blob with the tensors ``inputs`` and ``labels``."""
        return save({"inputs": self.inputs.contiguous(), "labels": self.labels.contiguous()})

    @classmethod
    def from_bytes(cls, data: bytes) -> Dataset:
        """Inverse of :meth:`to_bytes`; :class:`ProofError` on anything else."""
        return cls._parse(lambda: load(data))

    @classmethod
    def open(cls, path: Path) -> Dataset:
        """The blob at ``path``, mapped rather than read: pages are loaded as samples are used."""
        return cls._parse(lambda: load_file(path))

    @classmethod
    def _parse(cls, read: Callable[[], dict[str, torch.Tensor]]) -> Dataset:
        try:
            tensors = read()
            return cls(tensors["inputs"], tensors["labels"])
        except (KeyError, ValueError, SpecError, OSError, RuntimeError) as error:
            raise ProofError(f"not a dataset blob ({error})") from error
        except Exception as error:  # safetensors raises its own type, which it does not export for typing
            raise ProofError(f"not a safetensors blob ({error})") from error


def sample_leaf(fields: Sequence[str], index: int, sample: Sequence[torch.Tensor]) -> bytes:
    """The Merkle leaf of one sample: index, field names, dtypes, shapes and all bytes are bound."""
    pairs = list(zip(fields, sample, strict=True))
    leaf = hashlib.sha256(SAMPLE_DOMAIN.encode("ascii") + u64(index))
    leaf.update(b"".join(tensor_header(name, tensor) for name, tensor in pairs))
    for _, tensor in pairs:
        leaf.update(little_endian_bytes(tensor))
    return leaf.digest()


def batch_root(samples: Samples, batches: Sequence[Sequence[int]], first_step: int) -> bytes:
    """The Merkle root of a segment's batch digests; the leaf of a step binds its number."""
    leaves = [
        leaf_digest(STEP_BATCH_DOMAIN, first_step + offset, samples.batch_digest(indices))
        for offset, indices in enumerate(batches)
    ]
    return merkle_root(leaves)


DIGITS_SPLITS = {"train": (0, 1197), "submission-validation": (1197, 1497), "final-validation": (1497, 1797)}


def digits(split: str) -> Dataset:
    """scikit-learn's handwritten digits (1,797 real 8x8 images): inputs (n, 64) float32 in [0, 1], labels (n,) int64.

    The splits ``train``, ``submission-validation`` and ``final-validation`` cut one fixed shuffle of it.
    """
    from sklearn.datasets import load_digits

    if split not in DIGITS_SPLITS:
        raise SpecError(f"digits has no split {split!r}: use one of {', '.join(DIGITS_SPLITS)}")
    pixels, labels = load_digits(return_X_y=True)
    keys = [digest("aiarena/digits-split/v1", int(i).to_bytes(8, "big")) for i in range(len(labels))]
    start, end = DIGITS_SPLITS[split]
    rows = np.array(sorted(range(len(labels)), key=keys.__getitem__)[start:end])
    inputs = torch.from_numpy((pixels[rows] / 16.0).astype(np.float32))
    return Dataset(inputs, torch.from_numpy(labels[rows].astype(np.int64)))


BUILT_IN = {f"digits/{split}": split for split in DIGITS_SPLITS}


def built_in(name: str) -> Dataset:
    """A data set that ships with a dependency, by name; :class:`SpecError` lists the names."""
    if name not in BUILT_IN:
        raise SpecError(f"no built-in data set {name!r}: use one of {', '.join(BUILT_IN)}, or give a dataset file")
    return digits(BUILT_IN[name])


def built_in_with(root: bytes) -> Dataset | None:
    """The built-in data set with this root, whatever a spec calls it; None if there is none."""
    return next((data for data in map(built_in, BUILT_IN) if data.root == root), None)
