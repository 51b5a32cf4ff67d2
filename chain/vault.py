"""Stakes and delegations: the StakeVault, which holds all principal. Amounts are wei."""

from __future__ import annotations

from dataclasses import dataclass

from chain.contract import ContractClient, Receipt
from chain.token import Token
from chain.types import Role, Stake, Stretch, from_abi

ALL = 2**256 - 1


@dataclass(frozen=True)
class Vault(ContractClient):
    """Client of the StakeVault contract. Calls that pay in approve exactly the amount first."""

    token: Token

    def stake(self, task_id: int, role: Role, amount: int, commission_bps: int = 0) -> Receipt:
        """Stake for a role, during registration, once a task. The commission is the operator's share of what its
        delegators' stake earns."""
        self.token.ensure_allowance(self.address, amount)
        return self.send("stake", task_id, role, amount, commission_bps)

    def delegate(self, task_id: int, operator: str, amount: int) -> Receipt:
        """Lend tokens to a staked operator, until submissions end; adds up, and counts from the next round."""
        self.token.ensure_allowance(self.address, amount)
        return self.send("delegate", task_id, operator, amount)

    def withdraw(self, task_id: int) -> Receipt:
        """Take the own stake back, less what was slashed, once the task is closed."""
        return self.send("withdraw", task_id)

    def undelegate(self, task_id: int, operator: str) -> Receipt:
        """Take a delegation back in full, once the task is closed."""
        return self.send("undelegate", task_id, operator)

    def role(self, task_id: int, account: str) -> Role:
        """The account's role in the task."""
        return Role(self.call("role", task_id, account))

    def operators(self, task_id: int, role: Role) -> tuple[str, ...]:
        """All operators of a role, in the order they staked: the order of every list of scores."""
        return tuple(self.call("operators", task_id, role))

    def totals(self, task_id: int, role: Role) -> tuple[int, int]:
        """Sum of the own stakes of a role, as staked, and how many operators it has."""
        own, count = self.call("totals", task_id, role)
        return own, count

    def stakes(self, task_id: int, role: Role, round_: int, *, first: int = 0, count: int = ALL) -> tuple[Stake, ...]:
        """The stakes of a role as they count in the round: ``count`` operators from the one numbered ``first``."""
        return tuple(from_abi(Stake, row) for row in self.call("stakesAt", task_id, role, round_, first, count))

    def own_stake(self, task_id: int, operator: str) -> int:
        """Own stake, as staked; 0 for an account without a role."""
        return self.range(task_id, operator)[1]

    def range(self, task_id: int, operator: str) -> tuple[int, int]:
        """The points ``(first, count)`` of its role's total that are the operator's own stake: what jurors are drawn
        by."""
        first, own = self.call("range", task_id, operator)
        return first, own

    def delegation_of(self, task_id: int, operator: str, delegator: str) -> int:
        """What one delegator lent to the operator, in all."""
        history = self.delegation_history(task_id, operator, delegator)
        return history[-1].amount if history else 0

    def delegation_history(self, task_id: int, operator: str, delegator: str) -> tuple[Stretch, ...]:
        """The same from its first stretch of rounds to its last."""
        rows = self.call("delegationHistory", task_id, operator, delegator)
        return tuple(from_abi(Stretch, row) for row in rows)

    def slashable(self, task_id: int, operator: str) -> int:
        """What a conviction would burn now; also the most a trainer can be allotted."""
        return int(self.call("slashable", task_id, operator))

    def slashed(self, task_id: int, operator: str) -> int:
        """What was burned of the operator's stake."""
        return int(self.call("slashed", task_id, operator))
