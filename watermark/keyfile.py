"""Secret files, encrypted at rest: scrypt makes a key of a passphrase, and AES-256-GCM seals the secret under it.

A file is canonical JSON: ``format``, ``public`` (what is known of the secret anyway), ``scrypt`` (n, r, p, salt),
``sealed`` and ``checksum``. Everything before ``sealed`` is its associated data. The salt is fresh, so every key seals
once, and the nonce is zero. The checksum is no defence: it tells a damaged file from a wrong passphrase.

A passphrase comes from a function, never from a command line, where other users of the machine could read it.
"""

from __future__ import annotations

import os
import secrets
import tempfile
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from pol.encoding import Json, canonical_json, digest, fields, from_hex, integer, parse_canonical_json, to_hex
from pol.errors import CannotRun, ProofError, SpecError

PASSPHRASE_VARIABLE: Final = "AIARENA_KEY_PASSPHRASE"
CHECKSUM_DOMAIN: Final = "aiarena/secret-file/v1"
ONE_TIME_NONCE: Final = bytes(12)
"""The nonce under a key that seals once."""
TAG_BYTES: Final = 16
MAX_N: Final = 1 << 18
BLOCK_FACTOR: Final = 8
MAX_P: Final = 4
_KEY_BYTES: Final = 32
_MAX_FILE: Final = 4096

Passphrase: TypeAlias = Callable[[], str]


def passphrase_from_environment() -> str:
    """The passphrase in ``AIARENA_KEY_PASSPHRASE``; raises :class:`CannotRun` if there is none."""
    words = os.environ.get(PASSPHRASE_VARIABLE)
    if not words:
        raise CannotRun(f"no passphrase: put it into the environment variable {PASSPHRASE_VARIABLE}")
    return words


@dataclass(frozen=True, slots=True)
class Cost:
    """What a guess costs (scrypt, RFC 7914): ``1024 * n`` bytes of memory, and ``p`` times their computation.

    The default takes 128 MiB and about half a second. Raises :class:`SpecError` for what no file may ask of its
    reader: n no power of two or above 2^18 (256 MiB), r other than 8, p above 4.
    """

    n: int = 1 << 17
    r: int = BLOCK_FACTOR
    p: int = 1

    def __post_init__(self) -> None:
        power_of_two = self.n > 1 and self.n & (self.n - 1) == 0
        if not power_of_two or self.n > MAX_N or self.r != BLOCK_FACTOR or not 1 <= self.p <= MAX_P:
            limits = f"n a power of two up to {MAX_N}, r = {BLOCK_FACTOR}, p from 1 to {MAX_P}"
            raise SpecError(f"scrypt with n = {self.n}, r = {self.r}, p = {self.p}: expected {limits}")


DEFAULT_COST: Final = Cost()


@dataclass(frozen=True, slots=True)
class SecretFile:
    """One kind of secret file: its format's name, what messages call the secret, and how many bytes that has."""

    format: str
    what: str
    size: int

    def write(self, path: Path, secret: bytes, public: bytes, passphrase: Passphrase, cost: Cost) -> None:
        """Seal ``secret`` into a new file of mode 0600, whole or not at all.

        ``public`` (32 bytes) stands beside it in the clear. Raises :class:`CannotRun` if the file exists already
        (secrets are never overwritten), cannot be written, or the passphrase is empty.
        """
        if path.exists() or path.is_symlink():
            raise CannotRun(f"{path}: exists already, and a {self.what} is never overwritten; choose another file")
        salt = secrets.token_bytes(_KEY_BYTES)
        head: dict[str, Json] = {
            "format": self.format,
            "public": to_hex(public),
            "scrypt": {"n": cost.n, "r": cost.r, "p": cost.p, "salt": to_hex(salt)},
        }
        cipher = AESGCM(_derive(passphrase, salt, cost))
        body = head | {"sealed": to_hex(cipher.encrypt(ONE_TIME_NONCE, secret, canonical_json(head)))}
        try:
            _create(path, canonical_json(body | {"checksum": _checksum(body)}))
        except OSError as error:
            reason = f"{error.strerror}; a {self.what} is never overwritten"
            raise CannotRun(f"{path}: cannot write the {self.what} ({reason})") from error

    def read(self, path: Path, passphrase: Passphrase) -> tuple[bytes, bytes]:
        """The secret and the public bytes of a file that :meth:`write` made.

        Raises :class:`CannotRun` if there is no such file or the passphrase is wrong, and :class:`ProofError` for a
        file of another format, a damaged one, and one whose scrypt would cost more than :class:`Cost` allows.
        """
        where = str(path)
        body = dict(fields(self._parsed(path), {"format", "public", "scrypt", "sealed", "checksum"}, where=where))
        if body["format"] != self.format:
            raise ProofError(f"{where}: not a {self.what} of format {self.format}")
        if body.pop("checksum") != _checksum(body):
            raise ProofError(f"{where}: damaged (its checksum does not hold); take your copy of the {self.what}")
        public = from_hex(body["public"], where=f"{where}: public")
        salt, cost = _scrypt(body["scrypt"], where=f"{where}: scrypt")
        sealed = from_hex(body.pop("sealed"), where=f"{where}: sealed", length=self.size + TAG_BYTES)
        try:
            cipher = AESGCM(_derive(passphrase, salt, cost))
            return cipher.decrypt(ONE_TIME_NONCE, sealed, canonical_json(body)), public
        except InvalidTag:
            reason = "wrong passphrase (or somebody changed the file, and its checksum too)"
            raise CannotRun(f"{where}: cannot open the {self.what}: {reason}") from None

    def _parsed(self, path: Path) -> Json:
        if not path.is_file():
            raise CannotRun(f"{path}: no such file; give the file of a {self.what}")
        try:
            with path.open("rb") as file:
                data = file.read(_MAX_FILE + 1)
        except OSError as error:
            raise CannotRun(f"{path}: cannot read the {self.what} ({error.strerror})") from error
        if len(data) > _MAX_FILE:
            raise ProofError(f"{path}: more than {_MAX_FILE} bytes, so no {self.what}")
        return parse_canonical_json(data, where=str(path))


def _create(path: Path, data: bytes) -> None:
    """A new file for its owner only, which appears when it is whole; ``OSError`` where another stands already."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".partial-") as file:  # of mode 0600
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
        os.link(file.name, path)  # unlike a rename, never takes another file's place


def _derive(passphrase: Passphrase, salt: bytes, cost: Cost) -> bytes:
    words = unicodedata.normalize("NFC", passphrase())
    if not words:
        raise CannotRun("the passphrase is empty, which protects nothing: choose some words")
    try:
        encoded = words.encode("utf-8")
    except UnicodeEncodeError:  # whose message would show the passphrase
        raise CannotRun("the passphrase is not Unicode text: choose another, or mend the terminal's locale") from None
    try:
        return Scrypt(salt=salt, length=_KEY_BYTES, n=cost.n, r=cost.r, p=cost.p).derive(encoded)
    except MemoryError as error:
        raise CannotRun(f"scrypt needs {128 * cost.n * cost.r >> 20} MiB of memory: free some") from error


def _scrypt(value: Json, *, where: str) -> tuple[bytes, Cost]:
    item = fields(value, {"n", "r", "p", "salt"}, where=where)
    try:
        cost = Cost(**{name: integer(item[name], where=f"{where}.{name}") for name in ("n", "r", "p")})
    except SpecError as error:
        raise ProofError(f"{where}: {error}") from error
    return from_hex(item["salt"], where=f"{where}.salt"), cost


def _checksum(body: Json) -> str:
    return to_hex(digest(CHECKSUM_DOMAIN, canonical_json(body)))
