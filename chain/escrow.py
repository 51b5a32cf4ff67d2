"""Budgets and rewards: the RewardEscrow, which pays nobody before a task is closed. Amounts are wei."""

from __future__ import annotations

from chain.contract import ContractClient, Receipt
from chain.types import Budget, from_abi


class Escrow(ContractClient):
    """Client of the RewardEscrow contract."""

    def claim(self, task_id: int) -> Receipt:
        """Take the client's part as an operator: once, when closed, with no case pending against it."""
        return self.send("claim", task_id)

    def claim_delegated(self, task_id: int, operator: str) -> Receipt:
        """Take the client's part as a delegator of ``operator``, under the same conditions."""
        return self.send("claimDelegated", task_id, operator)

    def reclaim(self, task_id: int) -> Receipt:
        """Take what was never allotted back to the creator: once, when closed."""
        return self.send("reclaim", task_id)

    def claimable(self, task_id: int, operator: str) -> int:
        """What ``claim`` would pay now."""
        return int(self.call("claimable", task_id, operator))

    def claimable_delegated(self, task_id: int, operator: str, delegator: str) -> int:
        """What ``claim_delegated`` would pay now."""
        return int(self.call("claimableDelegated", task_id, operator, delegator))

    def allocated(self, task_id: int, operator: str) -> int:
        """Everything allotted to the operator and its delegators, before any claim."""
        return int(self.call("allocated", task_id, operator))

    def forfeited(self, task_id: int, trainer: str) -> bool:
        """Whether the trainer lost its reward for good."""
        return bool(self.call("forfeited", task_id, trainer))

    def budget_of(self, task_id: int) -> Budget:
        """The task's ledger."""
        return from_abi(Budget, self.call("budgetOf", task_id))
