"""The contracts on a real node, which signs for everybody: for tests and measurements of gas."""

import time
from collections import defaultdict

from tests.chain.revm import Chain, Refused, address

TRANSACTION_CAP = 2**24
"""The most gas that one transaction may use (EIP-7825): each is sent with it, and fails if it needs more."""
GIVING = ("Arena.createTask", "Arena.registerRun", "ChallengeManager.sealCase")  # whose results a play needs


class Node(Chain):
    """The contracts on anvil. ``gas`` has what each transaction used, by contract and function."""

    def __init__(self, anvil):
        self.ask, self.now = anvil.ask, anvil.now
        self.chain_id = anvil.web3.eth.chain_id
        self.ask("anvil_autoImpersonateAccount", True)
        self.gas = defaultdict(list)
        self.deploy_all()

    @property
    def timestamp(self):
        return self.now()

    def at(self, timestamp):
        self.ask("evm_setNextBlockTimestamp", timestamp)
        self.mine(1)

    def mine(self, blocks):
        self.ask("anvil_mine", hex(blocks))

    def enroll(self, people):
        for number in range(1, people + 1):
            self.ask("anvil_setBalance", address(number), hex(10**24))
        super().enroll(people)

    def _deploy(self, code):
        self.ask("anvil_setBalance", address(0), hex(10**24))
        return self._transact({"from": address(0), "data": "0x" + code.hex()}, "deploy")["contractAddress"]

    def _run(self, sender, to, data, static, label):
        message = {"from": sender, "to": to, "data": "0x" + data.hex()}
        wanted = static or label in GIVING
        output = bytes.fromhex(self.ask("eth_call", message, "latest")[2:]) if wanted else None
        if not static:
            self._transact(message, label)
        return output

    def _transact(self, message, label):
        digest = self.ask("eth_sendTransaction", {**message, "gas": hex(TRANSACTION_CAP)})
        while (receipt := self.ask("eth_getTransactionReceipt", digest)) is None:
            time.sleep(0.001)
        if int(receipt["status"], 16) != 1:
            raise Refused(f"{label}: refused, or out of gas")
        self.gas[label].append(int(receipt["gasUsed"], 16))
        self._logs = receipt["logs"]
        return receipt

    def _raw_logs(self):
        return [
            (log["address"], [bytes.fromhex(topic[2:]) for topic in log["topics"]], bytes.fromhex(log["data"][2:]))
            for log in self._logs
        ]
