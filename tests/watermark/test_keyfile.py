"""Secret files: encrypted, bounded, never overwritten, and told apart: damaged, locked, or asking for too much."""

from __future__ import annotations

import hashlib
import json
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from pol.encoding import canonical_json, digest, to_hex
from pol.errors import CannotRun, ProofError, SpecError
from watermark.keyfile import CHECKSUM_DOMAIN, PASSPHRASE_VARIABLE, Cost, SecretFile, passphrase_from_environment

KIND = SecretFile("aiarena.test-secret/1", "test secret", 32)
SECRET, PUBLIC, CHEAP = bytes(range(32)), b"\1" * 32, Cost(n=2)


def words() -> str:
    return "correct horse"


def nobody_asked() -> str:
    raise AssertionError("a passphrase was asked for")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "secret.json"
    KIND.write(file, SECRET, PUBLIC, words, CHEAP)
    return file


def forged(path: Path, **changes: object) -> Path:
    """The file with other fields and a checksum that holds."""
    body = json.loads(path.read_bytes()) | changes
    del body["checksum"]
    path.write_bytes(canonical_json(body | {"checksum": to_hex(digest(CHECKSUM_DOMAIN, canonical_json(body)))}))
    return path


def test_what_was_sealed_comes_back(path: Path) -> None:
    assert KIND.read(path, words) == (SECRET, PUBLIC)


def test_the_file_is_for_its_owner_and_alone(path: Path) -> None:
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [other.name for other in path.parent.iterdir()] == [path.name]


def test_the_file_opens_by_the_book(path: Path) -> None:
    """scrypt from the standard library, and AES-256-GCM with the header as associated data."""
    body = json.loads(path.read_bytes())
    numbers, sealed = body["scrypt"], bytes.fromhex(body["sealed"][2:])
    salt = bytes.fromhex(numbers["salt"][2:])
    key = hashlib.scrypt(b"correct horse", salt=salt, n=numbers["n"], r=numbers["r"], p=numbers["p"], dklen=32)
    head = {name: body[name] for name in ("format", "public", "scrypt")}
    header = json.dumps(head, sort_keys=True, separators=(",", ":")).encode()
    assert AESGCM(key).decrypt(bytes(12), sealed, header) == SECRET


def test_two_files_of_one_secret_share_nothing(path: Path, tmp_path: Path) -> None:
    KIND.write(tmp_path / "other.json", SECRET, PUBLIC, words, CHEAP)
    mine, other = (json.loads(file.read_bytes()) for file in (path, tmp_path / "other.json"))
    assert mine["scrypt"]["salt"] != other["scrypt"]["salt"] and mine["sealed"] != other["sealed"]


def test_the_default_takes_128_mib() -> None:
    assert 128 * Cost().n * Cost().r == 128 << 20


def test_a_wrong_passphrase_is_told_and_no_finding(path: Path) -> None:
    with pytest.raises(CannotRun, match="wrong passphrase"):
        KIND.read(path, lambda: "correct horse ")


def test_composed_and_decomposed_accents_are_one_passphrase(tmp_path: Path) -> None:
    KIND.write(tmp_path / "key", SECRET, PUBLIC, lambda: "caf\u00e9", CHEAP)
    assert KIND.read(tmp_path / "key", lambda: "cafe\u0301") == (SECRET, PUBLIC)


@pytest.mark.parametrize("hopeless", ["", "\udcff"], ids=["empty", "not Unicode"])
def test_a_passphrase_that_protects_nothing_writes_nothing(tmp_path: Path, hopeless: str) -> None:
    with pytest.raises(CannotRun, match="passphrase"):
        KIND.write(tmp_path / "key", SECRET, PUBLIC, lambda: hopeless, CHEAP)
    assert not list(tmp_path.iterdir())


def test_a_secret_is_never_overwritten(path: Path) -> None:
    before = path.read_bytes()
    with pytest.raises(CannotRun, match="never overwritten"):
        KIND.write(path, bytes(32), PUBLIC, nobody_asked, CHEAP)
    assert path.read_bytes() == before


def test_a_file_that_appears_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "key"

    def slow() -> str:
        path.write_text("somebody else's")
        return "words"

    with pytest.raises(CannotRun, match="never overwritten"):
        KIND.write(path, SECRET, PUBLIC, slow, CHEAP)
    assert path.read_text() == "somebody else's" and list(tmp_path.iterdir()) == [path]


def test_nor_is_what_a_link_leads_to(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "target")
    with pytest.raises(CannotRun, match="never overwritten"):
        KIND.write(tmp_path / "link", SECRET, PUBLIC, words, CHEAP)
    assert not (tmp_path / "target").exists()


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(CannotRun, match="cannot write the test secret"):
        KIND.write(tmp_path / "no" / "key", SECRET, PUBLIC, words, CHEAP)


@pytest.mark.parametrize("name", ["missing", "."])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(CannotRun, match="give the file of a test secret"):
        KIND.read(tmp_path / name, nobody_asked)


@given(data=st.data())
def test_a_flipped_bit_is_told_as_damage(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("flipped") / "key"
    KIND.write(path, SECRET, PUBLIC, words, CHEAP)
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)
    with pytest.raises(ProofError):
        KIND.read(path, nobody_asked)


def test_a_checksum_made_anew_does_not_help_who_changes_the_header(path: Path) -> None:
    """The header is associated data: another public value, or a cheaper scrypt, does not open."""
    assert KIND.read(forged(path), words) == (SECRET, PUBLIC)  # the honest twin
    with pytest.raises(CannotRun, match="somebody changed the file"):
        KIND.read(forged(path, public=to_hex(bytes(32))), words)


@pytest.mark.parametrize(
    "cost",
    [
        {"n": 1 << 30}, {"n": 1 << 19}, {"n": 3}, {"n": 1}, {"n": 0}, {"n": 2**63 - 1}, {"r": 1 << 20}, {"r": 1},
        {"r": 0}, {"p": 1 << 20}, {"p": 5}, {"p": 0}, {"n": True}, {"n": "2"}, {"n": None}, {"salt": "0x00"}, {"q": 1},
    ],
    ids=str,
)  # fmt: skip
def test_a_hostile_file_costs_nothing(path: Path, cost: dict[str, object]) -> None:
    """What scrypt would cost is looked at before it runs, and before anybody is asked for a passphrase."""
    honest = json.loads(path.read_bytes())["scrypt"]
    with pytest.raises(ProofError):
        KIND.read(forged(path, scrypt=honest | cost), nobody_asked)


@pytest.mark.parametrize("n", [1 << 19, 0, 1, 12])
def test_a_writer_asks_for_no_more_than_readers_give(n: int) -> None:
    with pytest.raises(SpecError, match="scrypt"):
        Cost(n=n)


@pytest.mark.parametrize(
    "changes",
    [
        {"format": "aiarena.test-secret/2"},
        {"format": None},
        {"sealed": "0x" + "00" * 47},
        {"sealed": "0x" + "00" * 49},
        {"sealed": 1},
        {"public": "0x00"},
        {"more": 1},
    ],
    ids=str,
)
def test_other_files_are_refused(path: Path, changes: dict[str, object]) -> None:
    with pytest.raises(ProofError):
        KIND.read(forged(path, **changes), nobody_asked)


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b" " * 5000, b'{"format":"aiarena.test-secret/1"}'], ids=str)
def test_what_is_no_secret_file_is_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(ProofError):
        KIND.read(path, nobody_asked)


def test_the_environment_holds_a_passphrase_or_says_where_to_put_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PASSPHRASE_VARIABLE, "words")
    assert passphrase_from_environment() == "words"
    monkeypatch.delenv(PASSPHRASE_VARIABLE)
    with pytest.raises(CannotRun, match=PASSPHRASE_VARIABLE):
        passphrase_from_environment()
