"""Base models that a config pins by digest: read from a folder on this machine, and never downloaded."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load
from torch import nn

from pol.encoding import Json, digest, to_hex
from pol.errors import CannotRun
from pol.tensors import tensors_digest

VARIABLE = "AIARENA_MODELS"
ARCHITECTURE_DOMAIN = "aiarena/model-architecture/v1"
ARCHITECTURE = "config.json"


def models_folder() -> Path:
    """Where base models are kept: ``$AIARENA_MODELS``, or ``~/.cache/aiarena/models``."""
    return Path(os.environ.get(VARIABLE) or Path.home() / ".cache" / "aiarena" / "models")


def pins(name: str) -> dict[str, Json]:
    """What a config says of the base model in folder ``name`` here: ``base`` and its two digests."""
    architecture, tensors = _read(name)
    return {
        "base": name,
        "base_digest": to_hex(tensors_digest(tensors)),
        "architecture_digest": to_hex(digest(ARCHITECTURE_DOMAIN, architecture)),
    }


def causal_lm(name: str, base_digest: bytes, architecture_digest: bytes) -> nn.Module:
    """The causal language model in folder ``name``, of the transformers library.

    The folder holds ``config.json`` and safetensors. ``architecture_digest`` is of the first, ``base_digest`` is
    :func:`pol.tensors.tensors_digest` of the tensors; what was hashed is what is used. Raises :class:`CannotRun` if the
    folder, the library or a base with these digests is not here.
    """
    architecture, tensors = _read(name)
    found = (tensors_digest(tensors), digest(ARCHITECTURE_DOMAIN, architecture))
    for what, here, wanted in zip(("tensors", "config.json"), found, (base_digest, architecture_digest), strict=True):
        if here != wanted:
            raise CannotRun(
                f"base model {name}: its {what} here have digest {to_hex(here)}, the config pins {to_hex(wanted)}; "
                f"get the base that the task names into {models_folder() / name}"
            )
    return _assembled(name, architecture, tensors)


def _read(name: str) -> tuple[bytes, dict[str, torch.Tensor]]:
    folder = models_folder() / name
    try:
        architecture = (folder / ARCHITECTURE).read_bytes()
        tensors: dict[str, torch.Tensor] = {}
        for path in sorted(folder.glob("*.safetensors")):
            tensors |= load(path.read_bytes())
    except Exception as error:  # safetensors raises its own type, which it does not export for typing
        raise CannotRun(
            f"base model {name} is not to be had from {folder} ({error}): put its config.json and safetensors there, "
            f"or set {VARIABLE}"
        ) from error
    if not tensors:
        raise CannotRun(f"base model {name}: no safetensors in {folder}; nothing else is read, and nothing downloaded")
    return architecture, tensors


def _assembled(name: str, architecture: bytes, tensors: dict[str, torch.Tensor]) -> nn.Module:
    try:
        from transformers import AutoConfig
        from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING
    except ImportError as error:
        raise CannotRun("fine-tuning a base model needs the extra 'hf': pip install 'aiarena[hf]'") from error
    try:
        config = AutoConfig.for_model(**json.loads(architecture))
        kind: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
        with _quiet():
            # Eager attention: the only one that every model has and that is deterministic on every device.
            model, report = kind.from_pretrained(
                None, config=config, state_dict=tensors, attn_implementation="eager", output_loading_info=True
            )
    except Exception as error:
        raise CannotRun(f"base model {name} cannot be built here: {type(error).__name__}: {error}") from error
    wrong = {reason: sorted(map(str, found)) for reason, found in report.items() if found}
    if wrong:
        raise CannotRun(f"base model {name}: its tensors are not those of its config.json: {str(wrong)[:300]}")
    return model  # type: ignore[no-any-return]


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers from drawing a progress bar."""
    from transformers import utils

    logging: Any = utils.logging
    shown, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if shown:
            logging.enable_progress_bar()
