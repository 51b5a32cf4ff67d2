"""PyPI's ``watermark`` (an IPython extension) installs the same top-level package: notice it and say so plainly.

Two accidents are possible in one environment. Its files may lie between ours (our ``__init__`` still runs), or its
``__init__`` may have replaced ours (then only our other modules can speak). Both are found from here.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

PROJECT = "aiarena"
FOREIGN_FILES = ("magic.py", "version.py", "watermark.py")
_ADVICE = "run `pip uninstall watermark`, then install aiarena again"


def warn_if_mixed(folder: Path) -> None:
    """Warn if files of PyPI's ``watermark`` lie in ``folder``, where this package lives."""
    found = [name for name in FOREIGN_FILES if (folder / name).exists()]
    if found:
        message = f"PyPI's `watermark` (an IPython extension) has put {', '.join(found)} into {folder}"
        warnings.warn(f"{message}, where aiarena's package of the same name lives: {_ADVICE}", stacklevel=3)


def require_ours() -> None:
    """Raise ``ImportError`` if the package called ``watermark`` in this process is not ours."""
    package = sys.modules.get("watermark")
    if getattr(package, "PROJECT", None) != PROJECT:
        path = getattr(package, "__file__", "unknown")
        raise ImportError(f"`watermark` is not aiarena's package but PyPI's IPython extension ({path}): {_ADVICE}")
