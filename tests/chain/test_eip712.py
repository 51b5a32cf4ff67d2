"""EIP-712: an encoding written out here and held by the standard's own example, and no second form of a signature."""

from dataclasses import replace

import pytest
from eth_abi.abi import encode
from eth_keys.datatypes import PrivateKey
from eth_utils.crypto import keccak
from hypothesis import given, settings
from hypothesis import strategies as st

from chain.accounts import dev_account
from chain.eip712 import CURVE_ORDER, ClaimMessage, Domain, ManifestMessage, recover, sign, signing_digest, typed_data
from chain.errors import BadSignature

TRAINER = dev_account(0)
DOMAIN = Domain(chain_id=31_337, verifying_contract=dev_account(9).address)
digests = st.binary(min_size=32, max_size=32)
messages = st.builds(
    ManifestMessage,
    task_id=st.integers(0, 2**256 - 1),
    trainer=st.just(TRAINER.address),
    spec_digest=digests,
    transcript_digest=digests,
    model_digest=digests,
    manifest_digest=digests,
)
MESSAGE = ManifestMessage(
    task_id=7,
    trainer=TRAINER.address,
    spec_digest=b"\1" * 32,
    transcript_digest=b"\2" * 32,
    model_digest=b"\3" * 32,
    manifest_digest=b"\4" * 32,
)
claims = st.builds(
    ClaimMessage,
    trainer=st.just(TRAINER.address),
    task_id=st.integers(0, 2**256 - 1),
    spec_digest=digests,
    key_root=digests,
    parameters_digest=digests,
)
CLAIM = ClaimMessage(
    trainer=TRAINER.address,
    task_id=7,
    spec_digest=b"\1" * 32,
    key_root=b"\2" * 32,
    parameters_digest=b"\3" * 32,
)


DOMAIN_TYPE = "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
MANIFEST_TYPE = (
    "ProofManifest(uint256 taskId,address trainer,bytes32 specDigest,bytes32 transcriptDigest,"
    "bytes32 modelDigest,bytes32 manifestDigest)"
)


CLAIM_TYPE = (
    "WatermarkClaim(address trainer,uint256 taskId,bytes32 specDigest,bytes32 keyRoot,bytes32 parametersDigest)"
)


def struct_digest(type_text, types, values):
    """keccak256(typeHash || encodeData); strings and nested structs are passed as their digests."""
    return keccak(keccak(text=type_text) + encode(types, values))


def separator(domain):
    values = (keccak(text=domain.name), keccak(text=domain.version), domain.chain_id, domain.verifying_contract)
    return struct_digest(DOMAIN_TYPE, ("bytes32", "bytes32", "uint256", "address"), values)


def manifest_digest(message):
    types = ("uint256", "address", "bytes32", "bytes32", "bytes32", "bytes32")
    digests = (message.spec_digest, message.transcript_digest, message.model_digest, message.manifest_digest)
    return struct_digest(MANIFEST_TYPE, types, (message.task_id, message.trainer, *digests))


def claim_digest(message):
    digests = (message.spec_digest, message.key_root, message.parameters_digest)
    types = ("address", "uint256", "bytes32", "bytes32", "bytes32")
    return struct_digest(CLAIM_TYPE, types, (message.trainer, message.task_id, *digests))


def test_the_standards_mail_example():
    domain = Domain(name="Ether Mail", chain_id=1, verifying_contract="0xCcCCccccCCCCcCCCCCCcCcCccCcCCCcCcccccccC")
    person = "Person(string name,address wallet)"

    def someone(name, wallet):
        return struct_digest(person, ("bytes32", "address"), (keccak(text=name), wallet))

    mail = struct_digest(
        f"Mail(Person from,Person to,string contents){person}",
        ("bytes32", "bytes32", "bytes32"),
        (
            someone("Cow", "0xCD2a3d9F938E13CD947Ec05AbC7FE734Df8DD826"),
            someone("Bob", "0xbBbBBBBbbBBBbbbBbbBbbbbBBbBbbbbBbBbbBBbB"),
            keccak(text="Hello, Bob!"),
        ),
    )
    digest = keccak(b"\x19\x01" + separator(domain) + mail)
    assert separator(domain).hex() == "f2cee375fa42b42143804025fc449deafd50cc031ca257e0b194a650a912090f"
    assert mail.hex() == "c52c0ee5d84264471806290a3f2c4cecfc5490626bf912d01f240d7a274b371e"
    assert digest.hex() == "be609aee343fb3c4b28e1df9e632fca64fcfaede20f02e86244efddf30957bd2"
    signature = PrivateKey(keccak(text="cow")).sign_msg_hash(digest)
    assert (signature.v + 27, f"{signature.r:x}", f"{signature.s:064x}") == (
        28,
        "4355c47d63924e8a72e509b65029052eb6c299d53a04e167c5775fd466751c9d",
        "07299936d304c153f6443dfa05f40ff007d72911b6f72307f996231605b91562",
    )


@settings(max_examples=20)
@given(st.one_of(messages, claims))
def test_a_message_is_encoded_as_the_standard_says(message):
    struct = claim_digest(message) if isinstance(message, ClaimMessage) else manifest_digest(message)
    signable = typed_data(DOMAIN, message)
    assert signable.header == separator(DOMAIN)
    assert signable.body == struct
    digest = keccak(b"\x19\x01" + separator(DOMAIN) + struct)
    assert signing_digest(DOMAIN, message) == digest
    v, r, s = PrivateKey(TRAINER.key).sign_msg_hash(digest).vrs
    assert sign(TRAINER, DOMAIN, message) == r.to_bytes(32, "big") + s.to_bytes(32, "big") + bytes([v + 27])


@pytest.mark.parametrize("message", [MESSAGE, CLAIM], ids=["manifest", "claim"])
def test_recovers_the_trainer(message):
    assert recover(sign(TRAINER, DOMAIN, message), DOMAIN, message) == TRAINER.address


def test_a_signature_under_one_message_is_none_under_another():
    for signed, shown in ((MESSAGE, CLAIM), (CLAIM, MESSAGE), (CLAIM, replace(CLAIM, key_root=bytes(32)))):
        assert recover(sign(TRAINER, DOMAIN, signed), DOMAIN, shown) != TRAINER.address


@pytest.mark.parametrize(
    "other",
    [
        Domain(chain_id=1, verifying_contract=DOMAIN.verifying_contract),
        Domain(chain_id=DOMAIN.chain_id, verifying_contract=dev_account(8).address),
    ],
    ids=["other chain", "other arena"],
)
def test_a_signature_is_worth_nothing_elsewhere(other):
    assert recover(sign(TRAINER, DOMAIN, MESSAGE), other, MESSAGE) != TRAINER.address


def test_nobody_signs_for_another_trainer():
    with pytest.raises(ValueError, match="names trainer"):
        sign(dev_account(1), DOMAIN, MESSAGE)


def twisted(change):
    signature = sign(TRAINER, DOMAIN, MESSAGE)
    r, s, v = signature[:32], int.from_bytes(signature[32:64], "big"), signature[64]
    return change(r, s, v)


@pytest.mark.parametrize(
    "change",
    [
        # The classic second signature: the same key, the same message, other bytes.
        lambda r, s, v: r + (CURVE_ORDER - s).to_bytes(32, "big") + bytes([55 - v]),
        lambda r, s, v: r + s.to_bytes(32, "big") + bytes([v - 27]),
        lambda r, s, v: r + s.to_bytes(32, "big") + bytes([29]),
        lambda r, s, v: r + s.to_bytes(32, "big"),
        lambda r, s, v: r + s.to_bytes(32, "big") + bytes([v, 0]),
        lambda r, s, v: bytes(32) + s.to_bytes(32, "big") + bytes([v]),
        lambda r, s, v: r + bytes(32) + bytes([v]),
        lambda r, s, v: CURVE_ORDER.to_bytes(32, "big") + s.to_bytes(32, "big") + bytes([v]),
        lambda r, s, v: b"",
    ],
    ids=["high s", "v 0/1", "v 29", "no v", "66 bytes", "r zero", "s zero", "r too large", "empty"],
)
def test_refuses_what_is_not_canonical(change):
    with pytest.raises(BadSignature):
        recover(twisted(change), DOMAIN, MESSAGE)


def test_a_point_that_is_not_on_the_curve_is_a_bad_signature():
    # x = 5 has no point on secp256k1: 5^3 + 7 is not a square there.
    forged = (5).to_bytes(32, "big") + (1).to_bytes(32, "big") + bytes([27])
    with pytest.raises(BadSignature):
        recover(forged, DOMAIN, MESSAGE)
