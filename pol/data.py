"""Data sets and their commitments: a Merkle root over samples, so that a single sample can be opened."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from safetensors.torch import load, save

from pol.encoding import digest
from pol.errors import ProofError, SpecError
from pol.merkle import leaf_digest, merkle_root
from pol.tensors import little_endian_bytes, tensor_header

SAMPLE_DOMAIN = "aiarena/sample/v1"
BATCH_DOMAIN = "aiarena/batch/v1"
STEP_BATCH_DOMAIN = "aiarena/step-batch/v1"

Batch = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True, eq=False)
class Dataset:
    """Labelled samples: ``inputs`` of shape (n, ...) and integer ``labels`` of shape (n,), both on the CPU."""

    inputs: torch.Tensor
    labels: torch.Tensor

    def __post_init__(self) -> None:
        if len(self.inputs) != len(self.labels) or len(self.inputs) == 0:
            raise SpecError(f"{len(self.inputs)} inputs, {len(self.labels)} labels: they must match, not be empty")

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def leaves(self) -> list[bytes]:
        """The Merkle leaf of every sample: index, dtypes, shapes, input bytes and label bytes are bound."""
        header = tensor_header("input", self.inputs[0]) + tensor_header("label", self.labels[0])
        return [
            leaf_digest(SAMPLE_DOMAIN, i, header + little_endian_bytes(x) + little_endian_bytes(y))
            for i, (x, y) in enumerate(zip(self.inputs, self.labels, strict=True))
        ]

    @cached_property
    def root(self) -> bytes:
        """The Merkle root over all samples (32 bytes): the dataset commitment."""
        return merkle_root(self.leaves)

    def batch(self, indices: Sequence[int]) -> Batch:
        """The samples at ``indices``, in order: inputs (b, ...) and labels (b,)."""
        rows = torch.as_tensor(indices)
        return self.inputs[rows], self.labels[rows]

    def batch_digest(self, indices: Sequence[int]) -> bytes:
        """The digest of one step's batch: its sample leaves in order (each binds its index and all its bytes)."""
        return digest(BATCH_DOMAIN, b"".join(self.leaves[index] for index in indices))

    def to_bytes(self) -> bytes:
        """A safetensors blob with the tensors ``inputs`` and ``labels``."""
        return save({"inputs": self.inputs.contiguous(), "labels": self.labels.contiguous()})

    @classmethod
    def from_bytes(cls, data: bytes) -> Dataset:
        """Inverse of :meth:`to_bytes`; :class:`ProofError` on anything else."""
        try:
            tensors = load(data)
            return cls(tensors["inputs"], tensors["labels"])
        except (KeyError, ValueError, SpecError, OSError, RuntimeError) as error:
            raise ProofError(f"not a dataset blob ({error})") from error
        except Exception as error:  # safetensors raises its own type, which it does not export for typing
            raise ProofError(f"not a safetensors blob ({error})") from error


def batch_root(dataset: Dataset, batches: Sequence[Sequence[int]], first_step: int) -> bytes:
    """The Merkle root of a segment's batch digests; the leaf of a step binds its number."""
    leaves = [
        leaf_digest(STEP_BATCH_DOMAIN, first_step + offset, dataset.batch_digest(indices))
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
