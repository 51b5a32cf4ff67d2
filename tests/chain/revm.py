"""The contracts without web3, on a fast EVM in the process (revm): for tests that play thousands of rounds."""

from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, lru_cache

import rlp
from eth_abi.abi import decode, encode
from eth_utils.abi import collapse_if_tuple
from eth_utils.crypto import keccak
from pyrevm import EVM, BlockEnv

from chain.artifact import CONTRACTS, artifact
from chain.commitments import Site

SUPPLY = 10**38
PURSE = 10**30


class Refused(Exception):
    """A contract refused a call; the message is what it returned."""


@dataclass(frozen=True)
class Function:
    """What a call to a function of a contract begins with, takes and gives."""

    selector: bytes
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Log:
    """A decoded event."""

    name: str
    args: dict[str, object]


def address(number):
    """The account of a test with this number; addresses are in lower case here, as they are decoded."""
    return f"0x{0xC0DE_0000 + number:040x}"


class Chain:
    """A chain with the six contracts, all tokens in account 0, and a clock that the test sets.

    Without web3, so that little time goes by outside the contracts. A subclass is an EVM: it says how code is deployed,
    how a message is sent and what it logged, and how its clock moves.
    """

    chain_id: int
    timestamp: int

    def deploy_all(self, codes=None):
        """Deploy the contracts, from an account that has sent nothing; ``codes`` are others than those shipped."""
        self.addresses = dict(zip(CONTRACTS, (_created(address(0), nonce) for nonce in range(6)), strict=True))
        token, vault, escrow, arena, scoring, manager = self.addresses.values()
        arguments = (
            (SUPPLY,),
            (token, arena, manager),
            (token, arena, scoring, manager, vault),
            (token, vault, escrow, scoring, manager, 1),
            (arena, vault, escrow),
            (token, arena, vault, escrow, scoring),
        )
        for name, values in zip(CONTRACTS, arguments, strict=True):
            code = bytes.fromhex((codes or {}).get(name, artifact(name).bytecode).removeprefix("0x"))
            assert self._deploy(code + encode(_constructor(name), values)) == self.addresses[name]
        self.addresses["TaskRules"] = self.call("Arena", "rules")

    def enroll(self, people):
        """Give accounts 1 to ``people`` tokens, and let the contracts take them."""
        for number in range(people + 1):
            if number:
                self.send(address(0), "ArenaToken", "transfer", address(number), PURSE)
            for contract in ("StakeVault", "Arena", "RewardEscrow"):
                self.send(address(number), "ArenaToken", "approve", self.addresses[contract], SUPPLY)

    def site(self, contract):
        """Where commitments to a contract are for."""
        return Site(self.chain_id, self.addresses[contract])

    def call(self, contract, name, *args):
        """The result of a view: a value, or a tuple of several."""
        return self._message(address(0), contract, name, args, static=True)

    def send(self, sender, contract, name, *args):
        """The result of a transaction of ``sender``, which is done; :class:`Refused` if it is not."""
        return self._message(sender, contract, name, args, static=False)

    def logs(self):
        """The events of the last transaction, of the contracts known here."""
        names = {place: name for name, place in self.addresses.items()}
        found = ((names.get(place.lower()), topics, data) for place, topics, data in self._raw_logs())
        return [_decoded(name, topics, data) for name, topics, data in found if name is not None]

    def _message(self, sender, contract, name, args, *, static):
        function = _functions(contract)[name]
        data = function.selector + encode(function.inputs, args)
        output = self._run(sender, self.addresses[contract], data, static, f"{contract}.{name}")
        if output is None:  # not asked for
            return None
        values = _values(function.outputs, bytes(output))
        return values[0] if len(values) == 1 else values


class Revm(Chain):
    """In this process, by revm. Everything is kept in one journal, where what was touched once stays warm: its gas
    figures are too low, and nothing here gives them."""

    chain_id = 1  # pyrevm's

    def __init__(self, *, number=10_000, timestamp=1_700_000_000, codes=None):
        self.evm = EVM(spec_id="CANCUN")
        self.number, self.timestamp = number, timestamp
        self._set_block()
        self.deploy_all(codes)

    def at(self, timestamp):
        """Move the clock; blocks follow."""
        assert timestamp >= self.timestamp
        self.timestamp = timestamp
        self.mine(1)

    def mine(self, blocks):
        """Move on by so many blocks, at the same time."""
        self.number += blocks
        self._set_block()

    @contextmanager
    def wound_back(self):
        """Undo afterwards whatever happens inside, the clock included."""
        checkpoint, clock = self.evm.snapshot(), (self.number, self.timestamp)
        try:
            yield
        finally:
            self.evm.revert(checkpoint)
            self.number, self.timestamp = clock
            self._set_block()

    def _deploy(self, code):
        return self.evm.deploy(address(0), code)

    def _run(self, sender, to, data, static, label):
        self.evm.reset_transient_storage()
        try:
            return self.evm.message_call(sender, to, calldata=data, is_static=static)
        except RuntimeError as error:
            raise Refused(f"{label}: {error}") from error

    def _raw_logs(self):
        return [(log.address, *log.data) for log in self.evm.result.logs]

    def _set_block(self):
        self.evm.set_block_env(BlockEnv(number=self.number, timestamp=self.timestamp, gas_limit=2**40))


def _created(deployer, nonce):
    return "0x" + keccak(rlp.encode([bytes.fromhex(deployer[2:]), nonce]))[12:].hex()


def _types(parameters):
    return tuple(collapse_if_tuple(parameter) for parameter in parameters)


def _constructor(contract):
    return next((_types(item["inputs"]) for item in artifact(contract).abi if item["type"] == "constructor"), ())


@lru_cache(4096)
def _values(types, output):
    """Decoded once, however often the same is asked."""
    return decode(types, output)


@cache
def _functions(contract):
    return {
        item["name"]: Function(
            selector=keccak(text=f"{item['name']}({','.join(_types(item['inputs']))})")[:4],
            inputs=_types(item["inputs"]),
            outputs=_types(item["outputs"]),
        )
        for item in artifact(contract).abi
        if item["type"] == "function"
    }


@cache
def _events(contract):
    items = (item for item in artifact(contract).abi if item["type"] == "event")
    return {keccak(text=f"{item['name']}({','.join(_types(item['inputs']))})"): item for item in items}


def _decoded(name, topics, data):
    event = _events(name)[topics[0]]
    indexed = [field for field in event["inputs"] if field["indexed"]]
    others = [field for field in event["inputs"] if not field["indexed"]]
    args = {field["name"]: decode(_types([field]), topic)[0] for field, topic in zip(indexed, topics[1:], strict=True)}
    args |= dict(zip((field["name"] for field in others), decode(_types(others), data), strict=True))
    return Log(event["name"], args)
