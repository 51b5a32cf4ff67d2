"""Budgets and rewards: the RewardEscrow, which pays nobody before a task is closed. Amounts are wei."""

from __future__ import annotations

from dataclasses import dataclass

from chain.contract import ContractClient, Receipt
from chain.token import Token
from chain.types import Budget, from_abi


@dataclass(frozen=True)
class Escrow(ContractClient):
    """Client of the RewardEscrow contract. Calls that pay in approve exactly the amount first."""

    token: Token

    def sponsor(self, task_id: int, round_: int, amount: int) -> Receipt:
        """Add to the reward of a round, before its settlement may begin."""
        self.token.ensure_allowance(self.address, amount)
        return self.send("sponsor", task_id, round_, amount)

    def claim(self, task_id: int) -> Receipt:
        """Take the client's part as an operator: once, when closed, with no case pending against it."""
        return self.send("claim", task_id)

    def claim_delegated(self, task_id: int, operator: str) -> Receipt:
        """Take the client's part as a delegator of ``operator``, under the same conditions."""
        return self.send("claimDelegated", task_id, operator)

    def reclaim(self, task_id: int) -> Receipt:
        """Take what was never allotted of the budget back to the creator, and its deposit if it opened the final set:
        once, when closed."""
        return self.send("reclaim", task_id)

    def burn_deposit(self, task_id: int) -> Receipt:
        """Burn the deposit of a creator whose final set was not attested, when closed."""
        return self.send("burnDeposit", task_id)

    def claimable(self, task_id: int, operator: str) -> int:
        """What ``claim`` would pay now."""
        return int(self.call("claimable", task_id, operator))

    def claimable_delegated(self, task_id: int, operator: str, delegator: str) -> int:
        """What ``claim_delegated`` would pay now."""
        return int(self.call("claimableDelegated", task_id, operator, delegator))

    def allocated(self, task_id: int, operator: str) -> int:
        """Everything allotted to the operator and its delegators, of all rounds, before any claim."""
        return int(self.call("allocated", task_id, operator))

    def forfeited(self, task_id: int, trainer: str) -> bool:
        """Whether the trainer lost its reward for good."""
        return bool(self.call("forfeited", task_id, trainer))

    def sponsored(self, task_id: int, round_: int) -> int:
        """What sponsors added to the reward of a round."""
        return int(self.call("sponsored", task_id, round_))

    def budget_of(self, task_id: int) -> Budget:
        """The task's ledger."""
        return from_abi(Budget, self.call("budgetOf", task_id))
