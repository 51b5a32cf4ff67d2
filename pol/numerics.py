"""What a run computes with: its machine's own arithmetic, or the portable one that its spec promises."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

from pol.errors import CannotRun
from pol.machine import EXACT_RELEASES, release_of
from pol.portable.mode import exact
from pol.spec import TrainingSpec


def arithmetic(spec: TrainingSpec, *, fused: bool = True) -> AbstractContextManager[None]:
    """The context in which the program of ``spec`` builds, trains and is captured, by recorder and replay alike.

    ``fused`` is :func:`pol.exact`'s: exact numerics may use the compiled kernels.
    Raises :class:`CannotRun` where this machine cannot compute so; entering it may raise the same.
    """
    if not spec.exact:
        return nullcontext()
    if release_of(torch.__version__) not in EXACT_RELEASES:
        raise CannotRun(
            f"numerics {spec.numerics}: torch {torch.__version__} here may take models apart otherwise than torch "
            f"{', '.join(EXACT_RELEASES)} does; install that"
        )
    return exact(fused=fused)
