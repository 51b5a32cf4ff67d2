"""The seed of a run, and everything drawn from it. Nothing random is left for the trainer to choose."""

from __future__ import annotations

from pol.encoding import digest, u64, u256

RUN_SEED_DOMAIN = "aiarena/run-seed/v1"
DRAW_DOMAIN = "aiarena/seed-draw/v1"


def run_seed(*, chain_id: int, arena: bytes, task_id: int, trainer: bytes, spec_digest: bytes, beacon: bytes) -> bytes:
    """The 32-byte seed of a registered run: it exists only once the beacon after the registration is known.

    ``arena`` and ``trainer`` are 20-byte addresses, ``spec_digest`` and ``beacon`` 32 bytes (docs/spec section 4).
    """
    return digest(RUN_SEED_DOMAIN, u256(chain_id), arena, u256(task_id), trainer, spec_digest, beacon)


def draw(seed: bytes, purpose: str, counter: int = 0) -> int:
    """A 63-bit non-negative integer for ``purpose`` (at most 32 ASCII characters) and ``counter``, from ``seed``."""
    label = purpose.encode("ascii").ljust(32, b"\0")
    if len(label) != 32:
        raise ValueError(f"purpose {purpose!r} is longer than 32 characters")
    return int.from_bytes(digest(DRAW_DOMAIN, seed, label, u64(counter))[:8], "big") >> 1
