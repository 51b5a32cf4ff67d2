"""Shakespeare's text: 1,115,394 bytes of the plays, as github.com/karpathy/char-rnn has them (data/tinyshakespeare).

The text is in the public domain. It lies beside this file, packed with xz.
"""

from __future__ import annotations

import hashlib
import lzma
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from experiments.baselines.scheme import Part
from experiments.stolen_model.data import text_windows
from pol.errors import ProofError

FILE: Final = Path(__file__).parent / "shakespeare.txt.xz"
SHA256: Final = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
BYTES: Final = 1_115_394


def shakespeare(settings: Mapping[str, Any]) -> Part:
    """Windows of the text as in :func:`experiments.stolen_model.data.help_texts`."""
    return text_windows(text(), settings)


def text(path: Path = FILE) -> str:
    """The text; :class:`ProofError` if the file holds another."""
    try:
        with lzma.open(path) as file:
            data = file.read(BYTES + 1)
    except (OSError, EOFError, lzma.LZMAError) as error:
        raise ProofError(f"{path}: no xz file, or cut short: check it out anew") from error
    if hashlib.sha256(data).hexdigest() != SHA256:
        raise ProofError(f"{path}: not the text it was: check it out anew")
    return data.decode("ascii")
