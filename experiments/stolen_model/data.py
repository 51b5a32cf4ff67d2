"""The data of every workload: the owner's part, the attacker's disjoint part, and the test part.

Nothing is downloaded. scikit-learn's digits and photographs and Python's own help texts are always there; Fashion-MNIST
(Xiao et al. 2017) is read from the four files of its authors, in the folder named by AIARENA_DATA or where Debian's
package dataset-fashion-mnist puts them.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import struct
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch.nn import functional

from experiments.baselines.scheme import Part
from pol.errors import CannotRun, ProofError
from pol.programs.base_model import models_folder

FASHION_FOLDER: Final = "/usr/share/datasets/fashion-mnist"
FASHION_SHA256: Final = {  # of what is in the files: however they were packed, against mix-ups
    "train-images-idx3-ubyte.gz": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte.gz": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte.gz": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte.gz": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
IDX_BYTES: Final = 0x08
MAX_GZ_BYTES: Final = 1 << 26
MAX_IDX_BYTES: Final = 1 << 28


@dataclass(frozen=True, eq=False)
class Split:
    """Three parts without a common sample."""

    owner: Part
    attacker: Part
    test: Part


def split(settings: Mapping[str, Any], seed: int) -> Split:
    """The data ``settings["source"]`` in parts of the sizes that ``settings`` names, shuffled by ``seed``.

    Raises :class:`CannotRun` where the data is not on this machine.
    """
    everything = SOURCES[settings["source"]](settings)
    sizes = [settings["owner"], settings["attacker"], settings["test"]]
    if sum(sizes) > len(everything):
        raise CannotRun(f"{settings['source']} has {len(everything)} samples; config.toml asks for {sum(sizes)}")
    order = torch.randperm(len(everything), generator=torch.Generator().manual_seed(seed))[: sum(sizes)]
    parts = torch.split(order, sizes)
    return Split(*(Part(everything.inputs[rows], everything.targets[rows]) for rows in parts))


def digits(settings: Mapping[str, Any]) -> Part:
    """scikit-learn's 1,797 digits, [n, 64] in [0, 1]."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    return Part(torch.tensor(images / 16, dtype=torch.float32), torch.tensor(labels))


def fashion(settings: Mapping[str, Any]) -> Part:
    """Fashion-MNIST's 70,000 images, [n, 1, size, size] in [0, 1], ``size`` 28 or, with squares of pixels averaged, 14.

    Its own two halves are joined and split anew.
    """
    folder = Path(os.environ.get("AIARENA_DATA", FASHION_FOLDER))
    files = {name: _idx(folder / name, sha256) for name, sha256 in FASHION_SHA256.items()}
    images, labels = ([array for name, array in files.items() if kind in name] for kind in ("images", "labels"))
    pixels = torch.from_numpy(np.concatenate(images)[:, None])
    smaller = functional.avg_pool2d(pixels.float() / 255, 28 // settings["size"])
    return Part(smaller, torch.from_numpy(np.concatenate(labels)).long())


def help_texts(settings: Mapping[str, Any]) -> Part:
    """Python's help texts (``pydoc_data``, about 0.7 MB of English), as :func:`text_windows`."""
    from pydoc_data.topics import topics

    return text_windows("\n".join(topics[name] for name in sorted(topics)), settings)


def text_windows(text: str, settings: Mapping[str, Any]) -> Part:
    """Windows of ``context`` bytes of ``text``, side by side, and what follows each byte, int64 [n, context].

    With ``tokenizer``, the name of a base model's folder, tokens of that model in place of bytes.
    """
    if "tokenizer" in settings:
        tokens = np.array(_tokens(text, settings["tokenizer"]), dtype=np.int64)
    else:
        tokens = np.frombuffer(text.encode(), np.uint8).astype(np.int64)
    context: int = settings["context"]
    count = (len(tokens) - 1) // context
    windows = torch.from_numpy(np.stack([tokens[i * context : (i + 1) * context + 1] for i in range(count)]))
    return Part(windows[:, :-1].contiguous(), windows[:, 1:].contiguous())


def photographs(settings: Mapping[str, Any]) -> Part:
    """Grey patches [n, 1, size, size] of scikit-learn's two photographs, and their noisy versions as inputs."""
    from sklearn.datasets import load_sample_images

    size: int = settings["size"]
    grey = [np.asarray(image, dtype=np.float32).mean(axis=2) / 255 for image in load_sample_images().images]
    patches = [
        image[top : top + size, left : left + size]
        for image in grey
        for top in range(0, image.shape[0] - size + 1, size)
        for left in range(0, image.shape[1] - size + 1, size)
    ]
    clean = torch.from_numpy(np.stack(patches))[:, None]
    clean = torch.cat([clean, clean.flip(3)])
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    return Part((clean + settings["noise"] * noise).clamp(0, 1), clean)


SOURCES: Final[dict[str, Callable[[Mapping[str, Any]], Part]]] = {
    "digits": digits,
    "fashion-mnist": fashion,
    "help-texts": help_texts,
    "photographs": photographs,
}


def _tokens(text: str, model: str) -> list[int]:
    path = models_folder() / model / "tokenizer.json"
    try:
        from tokenizers import Tokenizer

        ids: list[int] = Tokenizer.from_file(str(path)).encode(text).ids
    except Exception as error:  # the library raises a bare Exception for a missing file
        advice = "put the base model's files into a folder of its name in the one that AIARENA_MODELS names"
        raise CannotRun(f"the tokenizer.json of {model} is not on this machine: {advice}") from error
    return ids


def _idx(path: Path, sha256: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """An IDX file of bytes, gzipped: the array it holds. Raises :class:`CannotRun` or :class:`ProofError`."""
    try:
        if path.stat().st_size > MAX_GZ_BYTES:
            raise ProofError(f"{path}: larger than any file of this data set")
        packed = path.read_bytes()
    except OSError as error:
        advice = "install Debian's dataset-fashion-mnist, or name the folder of its four files in AIARENA_DATA"
        raise CannotRun(f"{path}: Fashion-MNIST is not on this machine ({error.strerror}): {advice}") from error
    try:
        with gzip.open(io.BytesIO(packed)) as file:
            data = file.read(MAX_IDX_BYTES)
    except (OSError, EOFError, zlib.error) as error:
        raise ProofError(f"{path}: not a gzip file, or cut short") from error
    if hashlib.sha256(data).hexdigest() != sha256:
        raise ProofError(f"{path}: not what the authors of Fashion-MNIST published")
    return parse_idx(data, where=str(path))


def parse_idx(data: bytes, *, where: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """The array in the bytes of an IDX file (two zeros, type, rank, sizes, values); :class:`ProofError` otherwise."""
    if len(data) < 4 or data[:3] != bytes([0, 0, IDX_BYTES]):
        raise ProofError(f"{where}: not an IDX file of bytes")
    rank = data[3]
    if not 0 < rank <= 4 or len(data) < 4 + 4 * rank:
        raise ProofError(f"{where}: an IDX file of rank {rank}, cut short or not one of ours")
    sizes = struct.unpack(f">{rank}I", data[4 : 4 + 4 * rank])
    values = np.frombuffer(data, np.uint8, offset=4 + 4 * rank)
    if len(values) != int(np.prod(sizes, dtype=object)):
        raise ProofError(f"{where}: {len(values)} values for the sizes {sizes}")
    return values.reshape(sizes)
