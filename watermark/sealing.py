"""Sealed openings: bytes that only named jurors can read, for one case only.

The content is sealed once by AES-256-GCM under a random content key. That key is wrapped for each juror: X25519
(RFC 7748) of one ephemeral key with the juror's, HKDF-SHA256 (RFC 5869), AES-256-GCM. Every key here seals once, so
nonces are zero. What the file is for (whose contents, which task, which case) and who can read it is associated data of
all of them, so a sealed file is worth nothing in another case.

GCM does not commit to its key: one ciphertext can be made to decrypt to two contents under two keys, and then two
jurors would judge different claims. The header therefore holds a digest of the content key, which every juror checks.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from pol.encoding import Json, canonical_json, digest, fields, from_hex, integer, parse_canonical_json, to_hex, u64
from pol.errors import CannotRun, ProofError, SpecError
from pol.spec import ADDRESS_BYTES, TaskRef
from watermark.keyfile import (
    DEFAULT_COST,
    ONE_TIME_NONCE,
    TAG_BYTES,
    Cost,
    Passphrase,
    SecretFile,
    passphrase_from_environment,
)

SEALED_FORMAT: Final = "aiarena.sealed/1"
WRAP_INFO: Final = b"aiarena/sealed-wrap/v1"
CONTENT_KEY_DOMAIN: Final = "aiarena/sealed-content-key/v1"
KEY_BYTES: Final = 32
MAX_JURORS: Final = 64
MAX_HEADER_BYTES: Final = 1 << 16
MAX_SEALED_BYTES: Final = (1 << 30) + (1 << 26)
JUROR_FILE: Final = SecretFile("aiarena.juror-key/1", "juror key", KEY_BYTES)
CLAIM: Final = "claim"
WHOLE_KEY: Final = "key"
_HEAD: Final = frozenset({"format", "contents", "accuser", "task", "case", "jurors", "ephemeral", "content_key"})


@dataclass(frozen=True)
class JurorKey:
    """A juror's X25519 key pair. Accusers seal to :attr:`public`; ``private`` (32 bytes) stays with the juror."""

    private: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.private) != KEY_BYTES:
            raise SpecError(f"a juror key has {KEY_BYTES} bytes, not {len(self.private)}")

    @classmethod
    def generate(cls) -> JurorKey:
        """A fresh key from the system's CSPRNG."""
        return cls(secrets.token_bytes(KEY_BYTES))

    @property
    def public(self) -> bytes:
        """The public key (32 bytes), by which accusers name the juror."""
        return X25519PrivateKey.from_private_bytes(self.private).public_key().public_bytes_raw()

    def save(
        self, path: Path, passphrase: Passphrase = passphrase_from_environment, *, cost: Cost = DEFAULT_COST
    ) -> None:
        """Write the key to a new encrypted file, as :meth:`watermark.WatermarkKey.save` does."""
        JUROR_FILE.write(path, self.private, self.public, passphrase, cost)

    @classmethod
    def load(cls, path: Path, passphrase: Passphrase = passphrase_from_environment) -> JurorKey:
        """Read :meth:`save`'s file; errors as of :meth:`watermark.WatermarkKey.load`."""
        private, public = JUROR_FILE.read(path, passphrase)
        key = cls(private)
        if key.public != public:
            raise ProofError(f"{path}: the key in it is not the one with public key {to_hex(public)}")
        return key


@dataclass(frozen=True, slots=True, kw_only=True)
class Occasion:
    """What a sealed file is for: ``contents`` (a claim or a whole key) of ``accuser`` (20 bytes), in ``case``.

    ``task`` is None where there is none, ``case`` where none is open yet.
    """

    contents: str
    accuser: bytes
    task: TaskRef | None
    case: int | None

    def to_json(self) -> dict[str, Json]:
        """The fields of the header that say it."""
        return {
            "contents": self.contents,
            "accuser": to_hex(self.accuser),
            "task": self.task.to_json() if self.task else None,
            "case": self.case,
        }


def seal(content: bytes, occasion: Occasion, jurors: Sequence[bytes]) -> bytes:
    """``content`` for ``jurors`` (public keys) alone: ``u64(header size) || header || sealed content``.

    Raises :class:`SpecError` unless there are 1 to 64 jurors, each named once by a public key that works: a point of
    low order would make the shared secret known to all.
    """
    if not 1 <= len(jurors) <= MAX_JURORS or len(set(jurors)) != len(jurors):
        raise SpecError(f"{len(jurors)} jurors: name 1 to {MAX_JURORS} of them, each once")
    if len(content) > MAX_SEALED_BYTES - MAX_HEADER_BYTES - TAG_BYTES - 8:
        raise SpecError(f"{len(content)} bytes to seal: the limit is {MAX_SEALED_BYTES}, all included")
    ephemeral, content_key = JurorKey.generate(), secrets.token_bytes(KEY_BYTES)
    head: dict[str, Json] = {
        "format": SEALED_FORMAT,
        "jurors": [to_hex(juror) for juror in jurors],
        "ephemeral": to_hex(ephemeral.public),
        "content_key": to_hex(digest(CONTENT_KEY_DOMAIN, content_key)),
        **occasion.to_json(),
    }
    bound = canonical_json(head)
    wraps: list[Json] = []
    for juror in jurors:
        shared = _shared(ephemeral.private, juror)
        if shared is None:
            raise SpecError(f"{to_hex(juror)}: not the public key of a juror (its shared secrets are known to all)")
        wrapping = AESGCM(_wrapping_key(shared, ephemeral.public, juror))
        wraps.append(to_hex(wrapping.encrypt(ONE_TIME_NONCE, content_key, bound)))
    header = canonical_json(head | {"wraps": wraps})
    return u64(len(header)) + header + AESGCM(content_key).encrypt(ONE_TIME_NONCE, content, header)


@dataclass(frozen=True, slots=True)
class Sealed:
    """A sealed file, parsed but not opened. ``where`` names it in messages."""

    occasion: Occasion
    jurors: tuple[bytes, ...]
    where: str
    _ephemeral: bytes
    _content_key: bytes
    _wraps: tuple[bytes, ...]
    _bound: bytes
    _header: bytes
    _ciphertext: memoryview = field(repr=False)

    @classmethod
    def read(cls, path: Path) -> Sealed:
        """Parse a file; :class:`CannotRun` if it cannot be read, :class:`ProofError` if too large or malformed."""
        try:
            if not path.is_file():
                raise CannotRun(f"{path}: no such file; give a sealed file")
            if path.stat().st_size > MAX_SEALED_BYTES:
                raise ProofError(f"{path}: larger than the limit of {MAX_SEALED_BYTES} bytes")
            return cls.parse(path.read_bytes(), where=str(path))
        except OSError as error:
            raise CannotRun(f"{path}: cannot be read ({error.strerror})") from error

    @classmethod
    def parse(cls, data: bytes, *, where: str) -> Sealed:
        """Parse what :func:`seal` made; raises :class:`ProofError` for anything else."""
        length = int.from_bytes(data[:8], "big")
        if len(data) > MAX_SEALED_BYTES or length > MAX_HEADER_BYTES or len(data) < 8 + length + TAG_BYTES:
            raise ProofError(f"{where}: not a sealed file (it is cut off, or longer than it may be)")
        header = data[8 : 8 + length]
        item = fields(parse_canonical_json(header, where=where), set(_HEAD | {"wraps"}), where=where)
        if item["format"] != SEALED_FORMAT:
            raise ProofError(f"{where}: not a sealed file of format {SEALED_FORMAT}")
        jurors = _list(item["jurors"], KEY_BYTES, where=f"{where}: jurors")
        wraps = _list(item["wraps"], KEY_BYTES + TAG_BYTES, where=f"{where}: wraps")
        if not 1 <= len(jurors) == len(wraps) or len(set(jurors)) != len(jurors):
            raise ProofError(f"{where}: expected distinct jurors, and one wrapped key for each")
        return cls(
            occasion=_occasion(item, where),
            jurors=jurors,
            where=where,
            _ephemeral=from_hex(item["ephemeral"], where=f"{where}: ephemeral"),
            _content_key=from_hex(item["content_key"], where=f"{where}: content_key"),
            _wraps=wraps,
            _bound=canonical_json({name: item[name] for name in _HEAD}),
            _header=header,
            _ciphertext=memoryview(data)[8 + length :],
        )

    def open(self, key: JurorKey, occasion: Occasion) -> bytes:
        """The content, for the juror with ``key`` who judges ``occasion``.

        Raises :class:`CannotRun` if it is sealed to others only, and :class:`ProofError` if it is for another occasion
        or does not open: then the accuser must seal it again.
        """
        if occasion != self.occasion:
            raise ProofError(f"{self.where}: sealed for {_described(self.occasion)}, not for {_described(occasion)}")
        if key.public not in self.jurors:
            raise CannotRun(f"{self.where}: not sealed to juror key {to_hex(key.public)}; use the key it names")
        shared = _shared(key.private, self._ephemeral)
        if shared is None:
            raise ProofError(f"{self.where}: its ephemeral key is of low order, so anybody could read it")
        wrapping = AESGCM(_wrapping_key(shared, self._ephemeral, key.public))
        wrap = self._wraps[self.jurors.index(key.public)]
        content_key = self._decrypted(wrapping, wrap, self._bound)
        if digest(CONTENT_KEY_DOMAIN, content_key) != self._content_key:
            raise ProofError(f"{self.where}: this juror's content key is not the one that the header commits to")
        return self._decrypted(AESGCM(content_key), self._ciphertext, self._header)

    def _decrypted(self, cipher: AESGCM, data: bytes | memoryview, bound: bytes) -> bytes:
        try:
            return cipher.decrypt(ONE_TIME_NONCE, data, bound)
        except InvalidTag:
            raise ProofError(f"{self.where}: does not open; it was damaged, or the accuser sealed it wrongly") from None


def _shared(private: bytes, public: bytes) -> bytes | None:
    """The X25519 secret (32 bytes); None where it is zero, whatever the private key (RFC 7748, section 6.1)."""
    try:
        return X25519PrivateKey.from_private_bytes(private).exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError:
        return None


def _wrapping_key(shared: bytes, ephemeral: bytes, juror: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=ephemeral + juror, info=WRAP_INFO).derive(shared)


def _occasion(item: dict[str, Any], where: str) -> Occasion:
    if item["contents"] not in (CLAIM, WHOLE_KEY):
        raise ProofError(f"{where}: contents: expected {CLAIM!r} or {WHOLE_KEY!r}")
    return Occasion(
        contents=item["contents"],
        accuser=from_hex(item["accuser"], where=f"{where}: accuser", length=ADDRESS_BYTES),
        task=TaskRef.from_json(item["task"], where=f"{where}: task"),
        case=None if item["case"] is None else integer(item["case"], where=f"{where}: case"),
    )


def _described(occasion: Occasion) -> str:
    case = "no case" if occasion.case is None else f"case {occasion.case}"
    task = f"task {occasion.task.task_id} of {to_hex(occasion.task.arena)}" if occasion.task else "no task"
    return f"{case} in {task} (a {occasion.contents} of {to_hex(occasion.accuser)})"


def _list(value: Json, length: int, *, where: str) -> tuple[bytes, ...]:
    if not isinstance(value, list) or len(value) > MAX_JURORS:
        raise ProofError(f"{where}: expected a list of at most {MAX_JURORS} entries")
    return tuple(from_hex(entry, where=where, length=length) for entry in value)
