"""An Ethereum chain inside this process: py-evm through eth-tester, behind web3.py. For tests and the demo.

Every transaction mines one block, and time stands still between blocks: a block is stamped one second after the one
before it, unless the chain is told to move. Nothing depends on the wall clock or on randomness, so the same calls
give the same chain, block hashes (and thus beacons) included. Its beacons are therefore predictable: development
only.
"""

from __future__ import annotations

import ast
import hashlib
from typing import TYPE_CHECKING, Any, Protocol

from eth_abi.abi import encode
from eth_utils.exceptions import ValidationError
from web3 import EthereumTesterProvider, Web3
from web3.exceptions import ContractPanicError
from web3.types import RPCEndpoint, RPCError, RPCResponse

from chain.accounts import Account, dev_account
from chain.errors import ChainError, MissingExtra

if TYPE_CHECKING:
    from eth_tester import EthereumTester

GENESIS_TIME = 1_800_000_000
BALANCE_WEI = 10_000 * 10**18
GAS_ESTIMATE = 2**24 * 4 // 5  # with the client's margin, the most that one transaction may use on Ethereum (EIP-7825)
REVERTED, IMPOSSIBLE = 3, -32_000
MIX_DOMAIN = b"aiarena/devnet-mix/v1"


class DevChain(Protocol):
    """A development chain: :class:`EmbeddedChain`, or :class:`chain.anvil.Anvil` with a process of its own."""

    web3: Web3
    accounts: tuple[Account, ...]

    def now(self) -> int:
        """The timestamp of the latest block (seconds since 1970)."""

    def mine(self, blocks: int = 1) -> None:
        """Mine empty blocks, until a transaction can refer to one that is ``blocks`` ahead."""

    def advance_to(self, timestamp: int) -> None:
        """Move the clock ahead, so that what is sent next is executed at ``timestamp`` or soon after."""


class EmbeddedChain:
    """The chain, its funded accounts and its clock.

    ``web3`` is connected to it. ``accounts`` are :func:`chain.accounts.dev_account` 0, 1, ..., each with 10,000 ether
    for gas; they sign locally, so eth-tester sees raw signed transactions only. Times are seconds since 1970.

    Raises :class:`MissingExtra` where eth-tester or py-evm is not installed.
    """

    def __init__(self, accounts: int = 16, *, genesis_time: int = GENESIS_TIME) -> None:
        self.accounts: tuple[Account, ...] = tuple(dev_account(index) for index in range(accounts))
        self._tester = _tester([account.address for account in self.accounts], genesis_time)
        self.web3 = Web3(_Provider(self._tester))

    def now(self) -> int:
        """The timestamp of the latest block: what a view at ``latest`` sees."""
        return int(self.web3.eth.get_block("latest")["timestamp"])

    def block(self) -> int:
        """The number of the latest block."""
        return int(self.web3.eth.block_number)

    def mine(self, blocks: int = 1) -> None:
        """Mine ``blocks`` empty blocks, one second apart."""
        self._tester.mine_blocks(blocks)

    def advance(self, seconds: int) -> None:
        """Mine one block ``seconds`` (at least 1) after the latest one."""
        self.advance_to(self.now() + seconds)

    def advance_to(self, timestamp: int) -> None:
        """Mine one block stamped exactly ``timestamp``, which must lie ahead.

        Views at ``latest`` then see ``timestamp``; the next transaction is executed at ``timestamp + 1``. To execute
        a transaction at exactly t, call ``advance_to(t - 1)``.
        """
        now = self.now()
        if timestamp <= now:
            raise ChainError(f"the embedded chain is already at {now}: it cannot move to {timestamp}")
        # eth-tester stamps the block it mines one second before the time it is asked to travel to.
        self._tester.time_travel(timestamp + 1)


class _Provider(EthereumTesterProvider):
    """eth-tester behind the manners of a real node.

    A refused call answers with the error data, and an impossible one with a message, as geth does, so that one decoder
    serves every chain (eth-tester raises Python exceptions, the data as a printed byte string). An estimate runs the
    call once, in the block that the transaction will be in, and answers with a constant: gas costs nothing here, and
    eth-tester's search for the exact limit takes several runs.
    """

    def make_request(self, method: RPCEndpoint, params: Any) -> RPCResponse:
        from eth_tester.exceptions import TransactionFailed

        try:
            if method != "eth_estimateGas":
                return super().make_request(method, params)
            super().make_request(RPCEndpoint("eth_call"), [params[0], "pending"])
            return {"jsonrpc": "2.0", "id": 1, "result": GAS_ESTIMATE}
        except TransactionFailed as error:
            return _failure(REVERTED, "execution reverted", _revert_data(str(error.args[0])))
        except ContractPanicError as error:
            return _failure(REVERTED, "execution reverted", str(error.data))
        except ValidationError as error:
            return _failure(IMPOSSIBLE, str(error))


def _failure(code: int, message: str, data: str = "") -> RPCResponse:
    error: RPCError = {"code": code, "message": message}
    if data:
        error["data"] = data
    return {"jsonrpc": "2.0", "id": 1, "error": error}


def _revert_data(message: str) -> str:
    """The error data in hex, from the text of eth-tester's ``TransactionFailed``: a printed byte string, or the
    message of a ``require``."""
    reason = message.removeprefix("execution reverted: ")
    if reason.startswith(("b'", 'b"')):
        return "0x" + bytes(ast.literal_eval(reason)).hex()
    return "0x08c379a0" + encode(("string",), (reason,)).hex()


def _tester(addresses: list[str], genesis_time: int) -> EthereumTester:
    try:
        from eth_tester import EthereumTester, PyEVMBackend
        from eth_tester.exceptions import BackendDistributionNotFound
    except ImportError as error:
        raise _missing() from error

    class Backend(PyEVMBackend):  # type: ignore[misc]
        """eth-tester's backend, with a mix digest that follows from the block number instead of the system's RNG."""

        def mine_blocks(self, num_blocks: int = 1, coinbase: bytes = bytes(20)) -> tuple[bytes, ...]:
            return tuple(self._mine(coinbase) for _ in range(num_blocks))

        def _mine(self, coinbase: bytes) -> bytes:
            number = self.chain.get_block().number
            mix = hashlib.sha256(MIX_DOMAIN + number.to_bytes(8, "big")).digest()
            return bytes(self.chain.mine_block(coinbase=coinbase, mix_hash=mix).hash)

    # eth-tester makes the sender of a mere call afford its gas, and takes its own first account where none is named.
    funded = [*PyEVMBackend.generate_genesis_state(num_accounts=1), *(bytes.fromhex(text[2:]) for text in addresses)]
    state: dict[bytes, dict[str, Any]] = {
        address: {"balance": BALANCE_WEI, "nonce": 0, "code": b"", "storage": {}} for address in funded
    }
    parameters = PyEVMBackend.generate_genesis_params({"timestamp": genesis_time})
    try:
        return EthereumTester(Backend(genesis_parameters=parameters, genesis_state=state))
    except BackendDistributionNotFound as error:
        raise _missing() from error


def _missing() -> MissingExtra:
    return MissingExtra("the embedded chain needs eth-tester and py-evm: pip install 'aiarena[demo]'")
