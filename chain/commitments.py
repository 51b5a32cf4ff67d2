"""What is promised on chain before it is shown: the same bytes as the contracts, as pure functions.

Every commitment is ``sha256(abi.encode(bytes32 domain, ...))``, where the domain is its ASCII name padded with zeros
on the right. Digests, roots, salts and seeds are 32 bytes; addresses are hex text; scores are basis points.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from eth_abi.abi import encode

from chain.case import Charge
from chain.types import to_abi

MAX_SCORE = 10_000
CHARGE_ABI = "(address,uint16,uint8,uint256,bytes32,uint64[])"


@dataclass(frozen=True, slots=True)
class Site:
    """The contract that a commitment is for: no promise made to one can be used at another."""

    chain_id: int
    address: str


def new_salt() -> bytes:
    """32 fresh random bytes: without a salt, a commitment to a guessable value hides nothing."""
    return secrets.token_bytes(32)


def run_beacon(block_digest: bytes, run_id: int) -> bytes:
    """What seeds a run, from the hash of the block that its registration promised: equal specs registered in one block
    are two runs with two seeds."""
    return _commit("aiarena/run-beacon/v1", ("bytes32", "uint256"), (block_digest, run_id))


def submission_commitment(
    arena: Site,
    task_id: int,
    trainer: str,
    *,
    run_id: int,
    round_: int,
    branch: int,
    model_digest: bytes,
    transcript_digest: bytes,
    model_cid: str,
    salt: bytes,
) -> bytes:
    """A trainer's promise of its model of a round, which leaves the run's trunk after segment ``branch``.

    ``transcript_digest`` is the run's in the Arena when this is promised.
    """
    return _commit(
        "aiarena/submission/v2",
        (
            *("uint256", "address", "uint256", "address", "uint256", "uint16"),
            *("uint64", "bytes32", "bytes32", "bytes32", "bytes32"),
        ),
        (
            arena.chain_id,
            arena.address,
            task_id,
            trainer,
            run_id,
            round_,
            branch,
            model_digest,
            transcript_digest,
            hashlib.sha256(model_cid.encode()).digest(),
            salt,
        ),
    )


def scores_commitment(
    scoring: Site, task_id: int, round_: int, validator: str, *, scores: Sequence[int], salt: bytes
) -> bytes:
    """A validator's promise of its scores, in basis points, one per trainer in staking order."""
    return _commit(
        "aiarena/scores/v1",
        ("uint256", "address", "uint256", "uint256", "address", "bytes32", "bytes32"),
        (scoring.chain_id, scoring.address, task_id, round_, validator, scores_digest(scores), salt),
    )


def scores_digest(scores: Sequence[int]) -> bytes:
    """SHA-256 of the scores as big-endian uint16; raises ``ValueError`` for a score outside 0 to 10,000."""
    wrong = [score for score in scores if not 0 <= score <= MAX_SCORE]
    if wrong:
        raise ValueError(f"score {wrong[0]} is not in basis points: give 0 to {MAX_SCORE}")
    return hashlib.sha256(b"".join(score.to_bytes(2, "big") for score in scores)).digest()


def vote_commitment(
    manager: Site, case_id: int, juror: str, *, uphold: bool, reproduction: bytes, salt: bytes
) -> bytes:
    """A juror's promise of its vote. ``reproduction`` is the digest its own replay gave (zeros if it has none)."""
    return _commit(
        "aiarena/vote/v1",
        ("uint256", "address", "uint256", "address", "bool", "bytes32", "bytes32"),
        (manager.chain_id, manager.address, case_id, juror, uphold, reproduction, salt),
    )


def charge_commitment(manager: Site, task_id: int, challenger: str, charge: Charge, salt: bytes) -> bytes:
    """What a challenger seals: its charge, unknown to others until it is shown."""
    return _commit(
        "aiarena/case/v1",
        ("uint256", "address", "uint256", "address", CHARGE_ABI, "bytes32"),
        (manager.chain_id, manager.address, task_id, challenger, to_abi(charge), salt),
    )


def final_set_commitment(final_root: bytes, salt: bytes) -> bytes:
    """The creator's promise of the final validation set's root, fixed when the task is created."""
    return _commit("aiarena/final-set/v1", ("bytes32", "bytes32"), (final_root, salt))


def case_seed(block_digest: bytes, case_id: int) -> bytes:
    """The seed of a case's draw, from the hash of the block that was fixed when the case was opened."""
    return _commit("aiarena/case-seed/v1", ("bytes32", "uint256"), (block_digest, case_id))


def sampled_segments(seed: bytes, segments: int, count: int) -> list[int]:
    """``count`` distinct segment indices in [0, segments), in the order drawn; a draw already taken is skipped.

    Draw c is ``sha256(abi.encode("aiarena/case-draw/v1", seed, uint256 c)) mod segments``. Its bias is below
    2^-240. Raises ``ValueError`` if there are fewer segments than draws asked for.
    """
    if not 0 <= count <= segments:
        raise ValueError(f"cannot draw {count} distinct segments out of {segments}")
    chosen: dict[int, None] = {}
    draw = 0
    while len(chosen) < count:
        value = _commit("aiarena/case-draw/v1", ("bytes32", "uint256"), (seed, draw))
        chosen.setdefault(int.from_bytes(value, "big") % segments)
        draw += 1
    return list(chosen)


def _commit(domain: str, types: Sequence[str], values: Sequence[object]) -> bytes:
    for kind, value in zip(types, values, strict=True):
        if kind == "bytes32" and not (isinstance(value, bytes) and len(value) == 32):
            raise ValueError(f"{domain}: a digest, root, salt or seed is not 32 bytes")
    return hashlib.sha256(encode(("bytes32", *types), (domain.encode("ascii").ljust(32, b"\0"), *values))).digest()
