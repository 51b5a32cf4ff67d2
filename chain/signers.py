"""Who signs: an account of this process, or a signer outside of it that keeps the key and asks its owner.

The signer outside is Clef, or anything that speaks its external API (geth.ethereum.org/docs/tools/clef/apis). It is
also how hardware wallets are used: see docs/adr/0009-hardware-wallets.md.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import eth_account
from eth_account.datastructures import SignedMessage, SignedTransaction
from eth_account.messages import encode_typed_data
from eth_account.typed_transactions.typed_transaction import TypedTransaction
from eth_keys.exceptions import BadSignature as KeysBadSignature
from eth_typing import URI, ChecksumAddress
from eth_utils.crypto import keccak
from eth_utils.exceptions import ValidationError
from hexbytes import HexBytes
from rlp.exceptions import RLPException
from web3 import HTTPProvider, Web3
from web3.types import RPCEndpoint

from chain.accounts import account_from_env, account_from_keystore, dev_account, parse_address
from chain.errors import BadKey, NetworkUnavailable, SigningRefused
from chain.reverts import SILENCE, why_silent

ANSWER_S = 300.0  # a person looks at the request first
MALFORMED = (ValueError, TypeError, KeyError, IndexError, ValidationError, RLPException, KeysBadSignature)


class Signer(Protocol):
    """Signs for one account. eth-account's accounts are signers.

    ``sign_transaction`` takes a complete transaction as web3 builds it; ``sign_typed_data`` takes what EIP-712 calls
    the JSON of the message, :func:`chain.eip712.full_message`.
    """

    @property
    def address(self) -> ChecksumAddress:
        """Whose signatures these are."""

    def sign_transaction(self, transaction: Any, /) -> SignedTransaction:
        """The transaction, signed as it is."""

    def sign_typed_data(self, *, full_message: dict[str, Any]) -> SignedMessage:
        """The signature of the message."""


class ExternalSigner:
    """The account ``address`` in the signer that listens at ``url`` (http or https; ``ValueError`` for anything else).

    What comes back is checked: it must be what was asked, signed by that account, whatever its owner changed on the
    way. Raises :class:`SigningRefused` if it is not, or if the owner declines, and :class:`NetworkUnavailable` if
    nobody answers within five minutes.
    """

    def __init__(self, url: str, address: str) -> None:
        if not url.startswith(("http://", "https://")):
            raise ValueError("a signer's address begins with http(s)://")
        self.address = Web3.to_checksum_address(address)
        # Nothing is asked twice by itself: a person would have to approve it twice.
        self._provider = HTTPProvider(URI(url), {"timeout": ANSWER_S}, exception_retry_configuration=None)

    def sign_transaction(self, transaction: Mapping[str, Any], /) -> SignedTransaction:
        """Ask for the signature of an EIP-1559 transaction: ``account_signTransaction``."""
        unsigned = {name: value for name, value in transaction.items() if name != "from"}
        answer = self._ask("account_signTransaction", self._request(unsigned))
        try:
            raw = HexBytes(answer["raw"])
            signed = TypedTransaction.from_bytes(raw)
            same = signed.hash() == TypedTransaction.from_dict(unsigned).hash()
            signer = eth_account.Account.recover_transaction(raw)
        except MALFORMED as error:
            raise SigningRefused("the signer answered with something that is no signed transaction") from error
        if not same or signer != self.address:
            raise SigningRefused(
                f"the signer signed another transaction than it was asked to, or not as {self.address}: approve it "
                "unchanged, gas and fees included"
            )
        v, r, s = signed.vrs()
        return SignedTransaction(raw_transaction=raw, hash=HexBytes(keccak(raw)), r=r, s=s, v=v)

    def sign_typed_data(self, *, full_message: dict[str, Any]) -> SignedMessage:
        """Ask for the signature of an EIP-712 message: ``account_signTypedData``."""
        answer = self._ask("account_signTypedData", self.address, full_message)
        signable = encode_typed_data(full_message=full_message)
        try:
            signature = HexBytes(answer)
            signer = eth_account.Account.recover_message(signable, signature=signature)
        except MALFORMED as error:
            raise SigningRefused("the signer answered with something that is no signature") from error
        if signer != self.address:
            raise SigningRefused(f"the signer signed another message than it was asked to, or not as {self.address}")
        digest = keccak(b"\x19" + signable.version + signable.header + signable.body)
        r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:64], "big")
        return SignedMessage(message_hash=HexBytes(digest), r=r, s=s, v=signature[64], signature=signature)

    def _request(self, unsigned: Mapping[str, Any]) -> dict[str, str]:
        """The transaction as Clef reads it: numbers in hex, no ``to`` where a contract is created."""
        numbers = ("chainId", "nonce", "gas", "maxFeePerGas", "maxPriorityFeePerGas", "value")
        missing = [name for name in numbers if name not in unsigned]
        if missing:
            raise SigningRefused(f"only EIP-1559 transactions go to the signer, and this one has no {missing[0]}")
        request = {name: hex(unsigned[name]) for name in numbers}
        request |= {"from": self.address, "input": HexBytes(unsigned["data"]).to_0x_hex()}
        return request | ({"to": str(unsigned["to"])} if unsigned.get("to") else {})

    def _ask(self, method: str, *params: Any) -> Any:
        try:
            answer = self._provider.make_request(RPCEndpoint(method), list(params))
        except SILENCE as error:
            message = f"the signer did not answer ({why_silent(error)}): start it, look at it, and check its address"
            raise NetworkUnavailable(message) from None
        if not isinstance(answer, Mapping) or "result" not in answer:
            reason = answer.get("error") if isinstance(answer, Mapping) else None
            said = reason.get("message") if isinstance(reason, Mapping) else None
            raise SigningRefused(f"the signer refused ({str(said)[:200]}): approve the request there, or ask why")
        return answer["result"]


def find_signer(text: str, password: Callable[[], str]) -> Signer:
    """The signer that a user names.

    ``env:NAME`` is a private key in that environment variable, ``clef:ADDRESS@URL`` an account of an external signer,
    ``dev:3`` a development account whose key everybody knows, and anything else the path of an encrypted keystore,
    for which ``password`` is asked. Raises :class:`BadKey`.
    """
    if text.startswith("env:"):
        return account_from_env(text.removeprefix("env:"))
    if found := re.fullmatch(r"dev:(\d{1,4})", text):
        return dev_account(int(found[1]))
    if text.startswith("clef:"):
        address, _, url = text.removeprefix("clef:").partition("@")
        try:
            return ExternalSigner(url, parse_address(address))
        except ValueError as error:
            raise BadKey(f"give clef:ADDRESS@URL with Clef's http(s) address; {address[:60]}: {error}") from error
    path = Path(text)
    if not path.is_file():
        raise BadKey(f"there is no keystore {text[:200]}: give its path, env:NAME, clef:ADDRESS@URL or dev:NUMBER")
    return account_from_keystore(path, password())
