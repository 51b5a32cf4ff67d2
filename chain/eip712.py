"""EIP-712: what a trainer signs, encoded and signed by eth-account: a proof's manifest, and its watermark claim."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import eth_account
from eth_account.messages import SignableMessage, encode_typed_data
from eth_keys.exceptions import BadSignature as KeysBadSignature
from eth_utils.address import to_canonical_address
from eth_utils.crypto import keccak
from eth_utils.exceptions import ValidationError

from chain.errors import BadSignature

if TYPE_CHECKING:  # proofs are checked without web3, which takes a second to import
    from chain.signers import Signer

CURVE_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
SIGNATURE_BYTES = 65
DOMAIN_FIELDS = {"name": "string", "version": "string", "chainId": "uint256", "verifyingContract": "address"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Domain:
    """Where a signature is valid: the chain and the Arena contract (checksum or lower-case address)."""

    chain_id: int
    verifying_contract: str
    name: str = "AIArena"
    version: str = "1"


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestMessage:
    """What is signed under a proof: which run, and the digests that bind the whole proof (32 bytes each)."""

    PRIMARY_TYPE: ClassVar = "ProofManifest"
    FIELDS: ClassVar = {
        "taskId": "uint256",
        "trainer": "address",
        "specDigest": "bytes32",
        "transcriptDigest": "bytes32",
        "modelDigest": "bytes32",
        "manifestDigest": "bytes32",
    }

    task_id: int
    trainer: str
    spec_digest: bytes
    transcript_digest: bytes
    model_digest: bytes
    manifest_digest: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimMessage:
    """What is signed under a watermark claim: that this key, used so, is the trainer's own for this run."""

    PRIMARY_TYPE: ClassVar = "WatermarkClaim"
    FIELDS: ClassVar = {
        "trainer": "address",
        "taskId": "uint256",
        "specDigest": "bytes32",
        "keyRoot": "bytes32",
        "parametersDigest": "bytes32",
    }

    trainer: str
    task_id: int
    spec_digest: bytes
    key_root: bytes
    parameters_digest: bytes


Message: TypeAlias = ManifestMessage | ClaimMessage
"""The attributes stand in the order of ``FIELDS``."""


def full_message(domain: Domain, message: Message) -> dict[str, Any]:
    """The JSON of the message, as EIP-712 defines it for ``eth_signTypedData``: what a :class:`chain.signers.Signer`
    takes. Numbers are decimal strings and digests hex, which every signer reads exactly."""
    domain_values = {
        "name": domain.name,
        "version": domain.version,
        "chainId": str(domain.chain_id),
        "verifyingContract": domain.verifying_contract,
    }
    return {
        "types": {"EIP712Domain": _members(DOMAIN_FIELDS), message.PRIMARY_TYPE: _members(message.FIELDS)},
        "primaryType": message.PRIMARY_TYPE,
        "domain": domain_values,
        "message": {name: _text(value) for name, value in zip(message.FIELDS, astuple(message), strict=True)},
    }


def typed_data(domain: Domain, message: Message) -> SignableMessage:
    """The message as EIP-712 encodes it: ``header`` is the domain separator, ``body`` the struct's digest."""
    return encode_typed_data(full_message=full_message(domain, message))


def signing_digest(domain: Domain, message: Message) -> bytes:
    """The 32 bytes that are signed: ``keccak256(0x19 0x01 || domainSeparator || structHash)``."""
    signable = typed_data(domain, message)
    return keccak(b"\x19" + signable.version + signable.header + signable.body)


def sign(account: Signer, domain: Domain, message: Message) -> bytes:
    """The 65-byte signature ``r || s || v`` (low s, v 27 or 28) of ``account``; raises ``ValueError`` for another
    trainer's message."""
    if to_canonical_address(account.address) != to_canonical_address(message.trainer):
        raise ValueError(f"the message names trainer {message.trainer}, the account is {account.address}")
    return bytes(account.sign_typed_data(full_message=full_message(domain, message)).signature)


def recover(signature: bytes, domain: Domain, message: Message) -> str:
    """The checksum address that signed; the caller compares it with ``message.trainer``.

    Raises :class:`BadSignature` unless the signature has the one canonical form: 65 bytes, v 27 or 28, r and s in
    range, s in the lower half of the curve's order (else anyone could make a second signature from the first).
    """
    r, s, v = _canonical(signature)
    try:
        return str(eth_account.Account.recover_message(typed_data(domain, message), vrs=(v, r, s)))
    except (KeysBadSignature, ValidationError) as error:
        raise BadSignature(f"the signature of the {message.PRIMARY_TYPE} recovers no key: sign it again") from error


def _members(fields: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"name": name, "type": kind} for name, kind in fields.items()]


def _text(value: int | str | bytes) -> str:
    return "0x" + value.hex() if isinstance(value, bytes) else str(value)


def _canonical(signature: bytes) -> tuple[int, int, int]:
    if len(signature) != SIGNATURE_BYTES:
        raise BadSignature(f"a signature of {len(signature)} bytes, expected {SIGNATURE_BYTES}")
    r, s, v = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:64], "big"), signature[64]
    if v not in (27, 28):
        raise BadSignature(f"the signature ends in v={v}, expected 27 or 28")
    if not 0 < r < CURVE_ORDER or not 0 < s <= CURVE_ORDER // 2:
        raise BadSignature("the signature is not canonical (r or s out of range, or s in the upper half)")
    return r, s, v
