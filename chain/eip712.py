"""EIP-712: the trainer's signature under a proof's manifest.

``digest = keccak256(0x19 0x01 || domainSeparator || structHash)`` as the standard says. The one type signed here is
``ProofManifest``; the general functions are public so that the standard's own example checks them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from eth_abi.abi import encode
from eth_keys.datatypes import Signature
from eth_keys.exceptions import BadSignature as KeysBadSignature
from eth_typing import Hash32
from eth_utils.address import to_canonical_address
from eth_utils.crypto import keccak
from eth_utils.exceptions import ValidationError

from chain.accounts import Account
from chain.errors import BadSignature

DOMAIN_TYPE = "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
MANIFEST_TYPE = (
    "ProofManifest(uint256 taskId,address trainer,bytes32 specDigest,bytes32 transcriptDigest,"
    "bytes32 modelDigest,bytes32 manifestDigest)"
)
CURVE_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
SIGNATURE_BYTES = 65


@dataclass(frozen=True, slots=True, kw_only=True)
class Domain:
    """Where a signature is valid: the chain and the Arena contract (checksum or lower-case address)."""

    chain_id: int
    verifying_contract: str
    name: str = "AIArena"
    version: str = "1"

    def separator(self) -> bytes:
        """The domain separator (32 bytes)."""
        values = (keccak(text=self.name), keccak(text=self.version), self.chain_id, self.verifying_contract)
        return struct_digest(DOMAIN_TYPE, ("bytes32", "bytes32", "uint256", "address"), values)


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestMessage:
    """What the trainer signs: which run, and the digests that bind the whole proof (32 bytes each)."""

    task_id: int
    trainer: str
    spec_digest: bytes
    transcript_digest: bytes
    model_digest: bytes
    manifest_digest: bytes

    def struct_digest(self) -> bytes:
        """``hashStruct`` of the message (32 bytes)."""
        types = ("uint256", "address", "bytes32", "bytes32", "bytes32", "bytes32")
        digests = (self.spec_digest, self.transcript_digest, self.model_digest, self.manifest_digest)
        return struct_digest(MANIFEST_TYPE, types, (self.task_id, self.trainer, *digests))


def struct_digest(type_text: str, types: Sequence[str], values: Sequence[object]) -> bytes:
    """``keccak256(typeHash || encodeData)``: strings, bytes and nested structs are passed as their 32-byte digests."""
    for kind, value in zip(types, values, strict=True):
        if kind == "bytes32" and not (isinstance(value, bytes) and len(value) == 32):
            raise ValueError(f"{type_text.split('(', maxsplit=1)[0]}: a digest is not 32 bytes")
    return keccak(keccak(text=type_text) + encode(types, values))


def signing_digest(domain: Domain, struct: bytes) -> bytes:
    """The 32 bytes that are signed for a struct digest in a domain."""
    return keccak(b"\x19\x01" + domain.separator() + struct)


def sign_manifest(account: Account, domain: Domain, message: ManifestMessage) -> bytes:
    """The 65-byte signature ``r || s || v`` (low s, v 27 or 28) of ``account``; raises ``ValueError`` for another
    trainer's message."""
    if to_canonical_address(account.address) != to_canonical_address(message.trainer):
        raise ValueError(f"the message names trainer {message.trainer}, the account is {account.address}")
    signed = account.unsafe_sign_hash(Hash32(signing_digest(domain, message.struct_digest())))
    return bytes(signed.signature)


def recover_manifest(signature: bytes, domain: Domain, message: ManifestMessage) -> str:
    """The checksum address that signed; the caller compares it with ``message.trainer``.

    Raises :class:`BadSignature` unless the signature has the one canonical form: 65 bytes, v 27 or 28, r and s in
    range, s in the lower half of the curve's order (else anyone could make a second signature from the first).
    """
    r, s, v = _canonical(signature)
    try:
        key = Signature(vrs=(v - 27, r, s)).recover_public_key_from_msg_hash(
            signing_digest(domain, message.struct_digest())
        )
    except (KeysBadSignature, ValidationError) as error:
        raise BadSignature("the manifest's signature recovers no key: sign the manifest again") from error
    return str(key.to_checksum_address())


def _canonical(signature: bytes) -> tuple[int, int, int]:
    if len(signature) != SIGNATURE_BYTES:
        raise BadSignature(f"the manifest's signature has {len(signature)} bytes, expected {SIGNATURE_BYTES}")
    r, s, v = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:64], "big"), signature[64]
    if v not in (27, 28):
        raise BadSignature(f"the manifest's signature ends in v={v}, expected 27 or 28")
    if not 0 < r < CURVE_ORDER or not 0 < s <= CURVE_ORDER // 2:
        raise BadSignature("the manifest's signature is not canonical (r or s out of range, or s in the upper half)")
    return r, s, v
