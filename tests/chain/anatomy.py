"""What a transaction's gas goes into, by what a node says it touched."""

from dataclasses import dataclass

from tests.chain.node import Node

TRANSACTION, ZERO_BYTE, OTHER_BYTE = 21_000, 4, 16  # EIP-2028
CONTRACT, WORD = 2_600, 2_100  # touched for the first time in a transaction: EIP-2929
STORED, CHANGED = 20_000, 2_900  # beyond that, to make a word of zeros another, or another word another: EIP-2200


@dataclass(frozen=True, kw_only=True)
class Anatomy:
    """The gas ``used`` by a transaction, and what of it is known by counting.

    ``sent`` is what sending it costs, its calldata included (EIP-2028). ``contracts`` are those that it calls besides
    its own, ``words`` those of storage that it touches, ``stored`` the words of zeros and ``changed`` the other words
    that it overwrites.
    """

    used: int
    sent: int
    contracts: int
    words: int
    stored: int
    changed: int

    @property
    def executed(self):
        """What the contracts use, without sending."""
        return self.used - self.sent

    @property
    def rest(self):
        """What is left for everything else: computing, events, deploying code, less what is refunded."""
        counted = CONTRACT * self.contracts + WORD * self.words + STORED * self.stored + CHANGED * self.changed
        return self.executed - counted


class TracedNode(Node):
    """A node that takes the costliest transaction of each kind apart: ``anatomies``, by contract and function."""

    def __init__(self, anvil):
        self.anatomies = {}
        super().__init__(anvil)

    def _transact(self, message, label):
        receipt = super()._transact(message, label)
        used, known = int(receipt["gasUsed"], 16), self.anatomies.get(label)
        if label != "deploy" and (known is None or used > known.used):
            touched, changes = self._trace(receipt, diff=False), self._trace(receipt, diff=True)
            self.anatomies[label] = dissect(used, message, touched, changes)
        return receipt

    def _trace(self, receipt, *, diff):
        tracer = {"tracer": "prestateTracer", "tracerConfig": {"diffMode": diff}}
        return self.ask("debug_traceTransaction", receipt["transactionHash"], tracer)


def dissect(used, message, touched, changes):
    """The anatomy of a transaction that used so much gas, from its message and geth's prestateTracer: the accounts and
    words that it touched, as they were, and those that it changed, before and after."""
    data = bytes.fromhex(message["data"].removeprefix("0x"))
    before, after = _words(changes["pre"]), _words(changes["post"])
    fresh = {place for place in after if not before.get(place)}
    return Anatomy(
        used=used,
        sent=TRANSACTION + ZERO_BYTE * data.count(0) + OTHER_BYTE * (len(data) - data.count(0)),
        contracts=sum(len(state.get("code", "0x")) > 2 for who, state in touched.items() if who != message["to"]),
        words=len(_words(touched)),
        stored=len(fresh),
        changed=len((before.keys() | after.keys()) - fresh),
    )


def _words(accounts):
    """The words of storage of some accounts, by account and place."""
    return {
        (who, place): int(word, 16)
        for who, state in accounts.items()
        for place, word in state.get("storage", {}).items()
    }
