"""Sealed files: they open for the named jurors and the named case only, and show all jurors the same.

Held by a second implementation from the standards: X25519 in plain Python (RFC 7748, section 5), HKDF by HMAC (RFC
5869). AES-GCM is the library's in both.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, settings
from hypothesis import strategies as st

from pol.errors import CannotRun, ProofError, SpecError
from pol.spec import TaskRef
from watermark import WatermarkKey
from watermark.keyfile import Cost
from watermark.sealing import (
    CLAIM,
    MAX_HEADER_BYTES,
    MAX_JURORS,
    MAX_SEALED_BYTES,
    WHOLE_KEY,
    JurorKey,
    Occasion,
    Sealed,
    seal,
)

FIRST, SECOND, STRANGER = (JurorKey(bytes([n]) * 32) for n in (1, 2, 3))
JURORS = (FIRST.public, SECOND.public)
TASK = TaskRef(chain_id=31_337, arena=b"\7" * 20, task_id=4)
HERE = Occasion(contents=CLAIM, accuser=b"\5" * 20, task=TASK, case=9)
CONTENT = b"opened leaves"
PRIME = 2**255 - 19
BASE = (9).to_bytes(32, "little")
LOW_ORDER = [  # points whose shared secret is zero, whatever the other side's key (RFC 7748, section 6.1; Cr.yp.to)
    0, 1, PRIME - 1, PRIME, PRIME + 1,
    325606250916557431795983626356110631294008115727848805560023387167927233504,
    39382357235489614581723060781553021112529911719440698176882885853963445705823,
]  # fmt: skip


def opened(data: bytes, key: JurorKey, occasion: Occasion = HERE) -> bytes:
    return Sealed.parse(data, where="test").open(key, occasion)


# The second implementation


def x25519(private: bytes, public: bytes) -> bytes:
    """RFC 7748, section 5: the Montgomery ladder."""
    k = int.from_bytes(private, "little") & ~7 & ~(128 << 8 * 31) | 64 << 8 * 31
    u = int.from_bytes(public, "little") % 2**255
    x2, z2, x3, z3 = 1, 0, u, 1
    for bit in range(254, -1, -1):
        if k >> bit & 1:
            x2, z2, x3, z3 = x3, z3, x2, z2
        a, b, c, d = x2 + z2, x2 - z2, x3 + z3, x3 - z3
        aa, bb, da, cb = a * a, b * b, d * a, c * b
        e = aa - bb
        new = (aa * bb, e * (aa + 121665 * e), (da + cb) ** 2, u * (da - cb) ** 2)
        x2, z2, x3, z3 = (value % PRIME for value in new)
        if k >> bit & 1:
            x2, z2, x3, z3 = x3, z3, x2, z2
    return (x2 * pow(z2, PRIME - 2, PRIME) % PRIME).to_bytes(32, "little")


def hkdf(secret: bytes, salt: bytes, info: bytes, length: int) -> bytes:
    """RFC 5869 with SHA-256."""
    key, block, output = hmac.digest(salt, secret, "sha256"), b"", b""
    for number in range(1, -(-length // 32) + 1):
        block = hmac.digest(key, block + info + bytes([number]), "sha256")
        output += block
    return output[:length]


def unhex(text: str) -> bytes:
    return bytes.fromhex(text[2:])


def text_of(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def opened_by_hand(data: bytes, private: bytes) -> bytes:
    size = int.from_bytes(data[:8], "big")
    header, item = data[8 : 8 + size], json.loads(data[8 : 8 + size])
    wraps, public, ephemeral = item.pop("wraps"), x25519(private, BASE), unhex(item["ephemeral"])
    wrapping = hkdf(x25519(private, ephemeral), ephemeral + public, b"aiarena/sealed-wrap/v1", 32)
    wrap = unhex(wraps[item["jurors"].index(f"0x{public.hex()}")])
    content_key = AESGCM(wrapping).decrypt(bytes(12), wrap, text_of(item))
    assert hashlib.sha256(b"aiarena/sealed-content-key/v1" + content_key).digest() == unhex(item["content_key"])
    return AESGCM(content_key).decrypt(bytes(12), data[8 + size :], header)


def sealed_by_hand(
    to: Sequence[bytes], content_keys: Sequence[bytes], ciphertext: Callable[[bytes], bytes], **changes: object
) -> bytes:
    """A sealed file in which each juror may have a content key of its own; the header commits to the first."""
    ephemeral = bytes(range(32))
    public = x25519(ephemeral, BASE)
    head: dict[str, object] = {
        "format": "aiarena.sealed/1",
        "contents": "claim",
        "accuser": f"0x{'05' * 20}",
        "task": {"chain_id": 31_337, "arena": f"0x{'07' * 20}", "task_id": 4},
        "case": 9,
        "jurors": [f"0x{juror.hex()}" for juror in to],
        "ephemeral": f"0x{public.hex()}",
        "content_key": "0x" + hashlib.sha256(b"aiarena/sealed-content-key/v1" + content_keys[0]).hexdigest(),
        **changes,
    }
    wraps = []
    for juror, content_key in zip(to, content_keys, strict=True):
        wrapping = hkdf(x25519(ephemeral, juror), public + juror, b"aiarena/sealed-wrap/v1", 32)
        wraps.append("0x" + AESGCM(wrapping).encrypt(bytes(12), content_key, text_of(head)).hex())
    header = text_of(head | {"wraps": wraps})
    return len(header).to_bytes(8, "big") + header + ciphertext(header)


def plainly(content: bytes, content_key: bytes) -> Callable[[bytes], bytes]:
    return lambda header: AESGCM(content_key).encrypt(bytes(12), content, header)


def test_the_second_implementation_is_the_standards() -> None:
    alice = bytes.fromhex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a")
    bob = bytes.fromhex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb")
    assert x25519(alice, BASE).hex() == "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"
    assert x25519(bob, BASE).hex() == "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"
    shared = "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742"
    assert x25519(alice, x25519(bob, BASE)).hex() == x25519(bob, x25519(alice, BASE)).hex() == shared
    okm = "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"
    assert hkdf(b"\x0b" * 22, bytes(range(13)), bytes(range(0xF0, 0xFA)), 42).hex() == okm
    assert JurorKey(alice).public == x25519(alice, BASE)


@settings(max_examples=20)
@given(st.binary(max_size=300), st.integers(1, 4))
def test_both_implementations_open_what_the_other_sealed(content: bytes, count: int) -> None:
    keys = [JurorKey.generate() for _ in range(count)]
    data = seal(content, HERE, [key.public for key in keys])
    for key in keys:
        assert opened(data, key) == opened_by_hand(data, key.private) == content
    by_hand = sealed_by_hand([key.public for key in keys], [b"\4" * 32] * count, plainly(content, b"\4" * 32))
    assert opened(by_hand, keys[-1]) == content


def test_golden_sealed_file() -> None:
    """A file that the first version sealed opens in every later one."""
    golden = Sealed.read(Path(__file__).parent / "golden.sealed")
    assert golden.open(FIRST, HERE) == golden.open(SECOND, HERE) == CONTENT


# Who can read it, and where


def test_nothing_of_the_content_is_to_be_seen() -> None:
    data = seal(CONTENT, HERE, JURORS)
    assert CONTENT not in data and seal(CONTENT, HERE, JURORS) != data


def test_nobody_else_can_read_it() -> None:
    data = seal(CONTENT, HERE, JURORS)
    with pytest.raises(CannotRun, match="not sealed to juror key"):
        opened(data, STRANGER)
    assert opened(data, SECOND) == CONTENT, "the honest twin"


def test_a_stranger_who_writes_himself_into_the_header_cannot_read_it() -> None:
    data = seal(CONTENT, HERE, JURORS)
    with pytest.raises(ProofError, match="does not open"):
        opened(data.replace(FIRST.public.hex().encode(), STRANGER.public.hex().encode()), STRANGER)


ELSEWHERE = [
    replace(HERE, case=8),
    replace(HERE, case=None),
    replace(HERE, accuser=b"\6" * 20),
    replace(HERE, contents=WHOLE_KEY),
    replace(HERE, task=None),
    replace(HERE, task=replace(TASK, chain_id=1)),
    replace(HERE, task=replace(TASK, arena=bytes(20))),
    replace(HERE, task=replace(TASK, task_id=5)),
]


@pytest.mark.parametrize("elsewhere", ELSEWHERE, ids=str)
def test_it_is_worth_nothing_in_another_case(elsewhere: Occasion) -> None:
    """Neither as it is nor with another case written into the header: that is bound to the wrapped keys."""
    data = seal(CONTENT, HERE, JURORS)
    assert opened(data, FIRST) == CONTENT, "the honest twin"
    with pytest.raises(ProofError, match="sealed for case 9 in task 4"):
        opened(data, FIRST, elsewhere)
    size = int.from_bytes(data[:8], "big")
    header = text_of(json.loads(data[8 : 8 + size]) | elsewhere.to_json())
    rewritten = len(header).to_bytes(8, "big") + header + data[8 + size :]
    with pytest.raises(ProofError, match="does not open"):
        opened(rewritten, FIRST, elsewhere)


def test_another_files_content_does_not_fit_under_this_header() -> None:
    mine, other = (sealed_by_hand(JURORS, [b"\4" * 32] * 2, plainly(text, b"\4" * 32), case=case)
                   for text, case in ((CONTENT, 9), (b"others leaves", 8)))  # fmt: skip
    assert len(mine) == len(other)
    size = 8 + int.from_bytes(mine[:8], "big")
    with pytest.raises(ProofError, match="does not open"):
        opened(mine[:size] + other[size:], FIRST)


@given(st.data())
def test_a_flipped_bit_never_opens(data: st.DataObject) -> None:
    honest = seal(CONTENT, HERE, JURORS)
    broken = bytearray(honest)
    broken[data.draw(st.integers(0, len(broken) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    for key in (FIRST, SECOND):
        with pytest.raises((ProofError, CannotRun)):
            opened(bytes(broken), key)


# One ciphertext, two contents


def product(x: int, y: int) -> int:
    """In the field of GCM (NIST SP 800-38D, section 6.3): the first bit is the highest."""
    z = 0
    for bit in range(127, -1, -1):
        z ^= x if y >> bit & 1 else 0
        x = x >> 1 ^ (0xE1 << 120 if x & 1 else 0)
    return z


def power(x: int, exponent: int) -> int:
    result = 1 << 127
    for bit in bin(exponent)[2:]:
        result = product(result, result)
        result = product(result, x) if bit == "1" else result
    return result


def tag_parts(key: bytes, header: bytes, blocks: bytes) -> tuple[int, int]:
    """The hash key of GCM, and the tag of ``blocks`` under a zero nonce."""
    encryptor = Cipher(algorithms.AES(key), modes.ECB()).encryptor()
    hash_key, mask = (int.from_bytes(encryptor.update(b), "big") for b in (bytes(16), bytes(15) + b"\1"))
    padded = header + bytes(-len(header) % 16) + blocks + (8 * len(header)).to_bytes(8) + (8 * len(blocks)).to_bytes(8)
    value = 0
    for start in range(0, len(padded), 16):
        value = product(value ^ int.from_bytes(padded[start : start + 16], "big"), hash_key)
    return hash_key, value ^ mask


def two_faced(first: bytes, second: bytes, header: bytes) -> bytes:
    """A ciphertext whose tag holds under both keys: two blocks, of which the first makes the tags equal."""
    rest = b"the second block"
    (h1, t1), (h2, t2) = (tag_parts(key, header, bytes(16) + rest) for key in (first, second))
    block = product(t1 ^ t2, power(power(h1, 3) ^ power(h2, 3), 2**128 - 2))
    return block.to_bytes(16, "big") + rest + (t1 ^ product(block, power(h1, 3))).to_bytes(16, "big")


def test_two_jurors_cannot_be_shown_two_contents() -> None:
    """Invisible salamanders (Dodis, Grubbs, Ristenpart, Woodage, CRYPTO 2018): an accuser seals one file that is one
    claim to the first juror and another to the second."""
    keys = [b"\4" * 32, b"\5" * 32]
    data = sealed_by_hand(JURORS, keys, lambda header: two_faced(*keys, header))
    size = 8 + int.from_bytes(data[:8], "big")
    contents = [AESGCM(key).decrypt(bytes(12), data[size:], data[8:size]) for key in keys]
    assert contents[0] != contents[1], "GCM itself lets it pass"
    assert opened(data, FIRST) == contents[0]
    with pytest.raises(ProofError, match="not the one that the header commits to"):
        opened(data, SECOND)


# What is refused


@pytest.mark.parametrize("point", LOW_ORDER)
def test_points_of_low_order_are_refused(point: int) -> None:
    """The shared secret would be zero, and anybody could read what is sealed."""
    public = point.to_bytes(32, "little")
    assert x25519(FIRST.private, public) == bytes(32)
    with pytest.raises(SpecError, match="not the public key of a juror"):
        seal(CONTENT, HERE, [FIRST.public, public])
    data = sealed_by_hand([FIRST.public], [b"\4" * 32], plainly(CONTENT, b"\4" * 32), ephemeral=f"0x{public.hex()}")
    with pytest.raises(ProofError, match="low order"):
        opened(data, FIRST)


@pytest.mark.parametrize(
    "jurors", [[], [FIRST.public] * 2, [bytes([n]) * 32 for n in range(1, MAX_JURORS + 2)]], ids=len
)
def test_jurors_are_named_once_and_are_not_too_many(jurors: list[bytes]) -> None:
    with pytest.raises(SpecError, match="name 1 to 64"):
        seal(CONTENT, HERE, jurors)


def test_as_many_jurors_as_there_may_be_fit_into_the_header() -> None:
    keys = [JurorKey.generate() for _ in range(MAX_JURORS)]
    data = seal(CONTENT, replace(HERE, case=2**63 - 1), [key.public for key in keys])
    assert opened(data, keys[-1], replace(HERE, case=2**63 - 1)) == CONTENT


@pytest.mark.parametrize(
    "changes",
    [
        {"format": "aiarena.sealed/2"},
        {"contents": "secrets"},
        {"contents": ["claim"]},
        {"accuser": "0x00"},
        {"task": {}},
        {"task": []},
        {"case": -1},
        {"case": True},
        {"case": "9"},
        {"jurors": []},
        {"jurors": {}},
        {"jurors": [f"0x{FIRST.public.hex()}"] * 2},
        {"jurors": ["0x00"]},
        {"ephemeral": 0},
        {"content_key": None},
        {"more": 1},
    ],
    ids=str,
)
def test_other_headers_are_refused(changes: dict[str, object]) -> None:
    keys = [b"\4" * 32]
    assert opened(sealed_by_hand([FIRST.public], keys, plainly(CONTENT, keys[0])), FIRST) == CONTENT  # the honest twin
    with pytest.raises(ProofError, match="test"):
        Sealed.parse(sealed_by_hand([FIRST.public], keys, plainly(CONTENT, keys[0]), **changes), where="test")


@pytest.mark.parametrize("length", [0, 7, 8, 30, 200])
def test_a_file_cut_off_is_refused(length: int) -> None:
    with pytest.raises(ProofError, match="test"):
        Sealed.parse(seal(CONTENT, HERE, JURORS)[:length], where="test")


@pytest.mark.parametrize("size", [MAX_HEADER_BYTES + 1, 2**63, 2**64 - 1])
def test_a_header_that_says_it_is_long_is_refused(size: int) -> None:
    with pytest.raises(ProofError, match="longer than it may be"):
        Sealed.parse(size.to_bytes(8, "big") + bytes(2 * MAX_HEADER_BYTES), where="test")


def test_a_file_that_is_too_large_is_refused_unread(tmp_path: Path) -> None:
    with (tmp_path / "large").open("wb") as file:
        file.truncate(MAX_SEALED_BYTES + 1)
    with pytest.raises(ProofError, match="larger than the limit"):
        Sealed.read(tmp_path / "large")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(CannotRun, match="give a sealed file"):
            Sealed.read(path)


# Keys


def words() -> str:
    return "twelve plain words"


def test_a_juror_key_comes_back_from_its_file(tmp_path: Path) -> None:
    FIRST.save(tmp_path / "juror.json", words, cost=Cost(n=2))
    assert JurorKey.load(tmp_path / "juror.json", words) == FIRST
    assert f"0x{FIRST.public.hex()}".encode() in (tmp_path / "juror.json").read_bytes()


def test_a_watermark_key_is_no_juror_key(tmp_path: Path) -> None:
    WatermarkKey(bytes(32), 8).save(tmp_path / "key.json", words, cost=Cost(n=2))
    with pytest.raises(ProofError, match=r"not a juror key of format aiarena\.juror-key/1"):
        JurorKey.load(tmp_path / "key.json", words)


def test_a_whole_key_can_be_sealed(tmp_path: Path) -> None:
    """For marks that replay only with all of the key, which that spends."""
    key, occasion = WatermarkKey(bytes(range(32)), 8), replace(HERE, contents=WHOLE_KEY)
    data = seal(key.to_bytes(), occasion, JURORS)
    assert WatermarkKey.from_bytes(opened(data, FIRST, occasion), where="test") == key


def test_a_private_key_does_not_show_in_logs() -> None:
    assert repr(FIRST) == "JurorKey()"


def test_a_private_key_of_another_size_is_refused() -> None:
    with pytest.raises(SpecError, match="32 bytes"):
        JurorKey(bytes(31))
