"""Raw results: one line of JSON a cell, beside the config, and a cache of trained models that is not kept.

A results file has one writer. Lines are appended and flushed, so a run that is killed loses at most the line it was
writing, and the torn line is dropped when the file is read again. Models are written under another name first and then
renamed, so that there is never half of one.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import torch
from safetensors.torch import load_file, save_file
from torch import nn

Record: TypeAlias = dict[str, Any]


def digest_of(value: Any) -> str:
    """The first 16 hex digits of the SHA-256 of ``value`` as sorted JSON: which settings a result belongs to."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=list).encode()).hexdigest()[:16]


class Results:
    """The records of one workload, by the name of their cell."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.records: dict[str, Record] = {}
        if path.exists():
            for line in path.read_text().splitlines():
                try:
                    record = json.loads(line)
                except json.JSONDecodeError:  # torn by a kill: that cell is run again
                    continue
                self.records[record["cell"]] = record

    def has(self, cell: str, digest: str) -> bool:
        """Whether the cell has been run with these settings, without failing."""
        record = self.records.get(cell, {})
        return record.get("digest") == digest and "failed" not in record

    def add(self, record: Record) -> None:
        """Append one record."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.records[record["cell"]] = record
        torn = self.path.exists() and self.path.read_bytes()[-1:] not in (b"", b"\n")
        with self.path.open("a") as file:
            file.write("\n" * torn + json.dumps(record, allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def tidy(self, wanted: Mapping[str, str]) -> None:
        """Keep the records of the cells in ``wanted`` (name to digest) alone, sorted, one line each."""
        kept = {cell: record for cell, record in sorted(self.records.items()) if wanted.get(cell) == record["digest"]}
        if kept:
            _replace(self.path, "".join(json.dumps(record, allow_nan=False) + "\n" for record in kept.values()))
            self.records = kept


def cached(path: Path, network: Callable[[], nn.Module], make: Callable[[], nn.Module]) -> nn.Module:
    """The model in ``path``, loaded into ``network()``; made and written there if there is none yet."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(f".{os.getpid()}")
        save_file(_trained(make()), unfinished)
        unfinished.replace(path)
    with torch.random.fork_rng(devices=[]):
        model = network()
    if set(tensors := load_file(path)) != set(_trained(model)):
        raise ValueError(f"{path}: not a model of this architecture; delete it")
    model.load_state_dict(tensors, strict=False)  # the rest is a base model's, which is frozen
    return model.eval()


def _trained(model: nn.Module) -> dict[str, torch.Tensor]:
    """The tensors that training changes: all but frozen parameters."""
    frozen = {name for name, value in model.named_parameters(remove_duplicate=False) if not value.requires_grad}
    return {name: tensor.contiguous() for name, tensor in model.state_dict().items() if name not in frozen}


def _replace(path: Path, text: str) -> None:
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_text(text)
    unfinished.replace(path)
