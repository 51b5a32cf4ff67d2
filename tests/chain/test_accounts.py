"""Keys: read strictly, stored encrypted, never printed."""

import stat

import pytest

from chain.accounts import (
    account_from_env,
    account_from_key,
    account_from_keystore,
    dev_account,
    parse_address,
    save_keystore,
)
from chain.errors import BadKey

# Hardhat's and Anvil's public first development key: the address is known from elsewhere.
KEY = "ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80"
ADDRESS = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"


@pytest.mark.parametrize("text", [KEY, "0x" + KEY, f"  0x{KEY}\n"])
def test_from_key(text):
    assert account_from_key(text).address == ADDRESS


@pytest.mark.parametrize("text", ["", "0x", KEY[:-2], KEY + "00", "zz" * 32, "00" * 32, "ff" * 32])
def test_a_bad_key_is_refused_without_being_repeated(text):
    with pytest.raises(BadKey) as caught:
        account_from_key(text)
    assert not text or text not in str(caught.value)


def test_from_env(monkeypatch):
    monkeypatch.setenv("ARENA_KEY", KEY)
    assert account_from_env().address == ADDRESS
    monkeypatch.delenv("ARENA_KEY")
    with pytest.raises(BadKey, match="ARENA_KEY"):
        account_from_env()


def test_keystore_round_trip(tmp_path, monkeypatch):
    # The default key derivation takes a second by design; the test's file need not withstand anyone.
    monkeypatch.setenv("ETH_ACCOUNT_KDF", "pbkdf2")
    path = tmp_path / "key.json"
    save_keystore(dev_account(0), path, "secret")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert dev_account(0).key.hex() not in path.read_text()
    assert account_from_keystore(path, "secret").address == dev_account(0).address
    with pytest.raises(BadKey, match="wrong password"):
        account_from_keystore(path, "wrong")
    with pytest.raises(BadKey, match="another file"):
        save_keystore(dev_account(1), path, "secret")


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"version": 1}'])
def test_a_broken_keystore_is_refused(tmp_path, content):
    path = tmp_path / "key.json"
    path.write_text(content)
    with pytest.raises(BadKey):
        account_from_keystore(path, "secret")


def test_a_missing_keystore_is_refused(tmp_path):
    with pytest.raises(BadKey, match="cannot read"):
        account_from_keystore(tmp_path / "none.json", "secret")


@pytest.mark.parametrize("text", [ADDRESS, ADDRESS.lower(), "0x" + ADDRESS[2:].upper()])
def test_an_address_is_read_with_its_capitals(text):
    assert parse_address(text) == ADDRESS


@pytest.mark.parametrize(
    "text", ["", "0x", ADDRESS[2:], ADDRESS[:-1], ADDRESS + "0", "0x" + ADDRESS[2:].swapcase(), "0x" + "g" * 40]
)
def test_what_is_no_address_is_refused(text):
    with pytest.raises(ValueError):
        parse_address(text)


def test_dev_accounts_are_fixed():
    assert dev_account(0).address == dev_account(0).address
    assert len({dev_account(index).address for index in range(16)}) == 16
