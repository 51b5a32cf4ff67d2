"""Stakes and delegations: the StakeVault, which holds all principal. Amounts are wei."""

from __future__ import annotations

from dataclasses import dataclass

from chain.contract import ContractClient, Receipt
from chain.token import Token
from chain.types import Role, Stake, from_abi


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
        """Lend tokens to a staked operator, during registration; adds up."""
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

    def own_stake(self, task_id: int, operator: str) -> int:
        """Own stake, as staked."""
        return int(self.call("ownStake", task_id, operator))

    def delegated_stake(self, task_id: int, operator: str) -> int:
        """All that was lent to the operator."""
        return int(self.call("delegatedStake", task_id, operator))

    def delegation_of(self, task_id: int, operator: str, delegator: str) -> int:
        """What one delegator lent to the operator."""
        return int(self.call("delegationOf", task_id, operator, delegator))

    def commission_bps(self, task_id: int, operator: str) -> int:
        """The operator's commission, in parts of 10,000."""
        return int(self.call("commissionBps", task_id, operator))

    def operators(self, task_id: int, role: Role) -> tuple[str, ...]:
        """All operators of a role, in the order they staked: the order of every list of scores."""
        return tuple(self.call("operators", task_id, role))

    def stakes(self, task_id: int, role: Role) -> tuple[Stake, ...]:
        """The same operators with their stakes."""
        return tuple(from_abi(Stake, row) for row in self.call("stakes", task_id, role))

    def slashable(self, task_id: int, operator: str) -> int:
        """What a conviction would burn now; also the most a trainer can be allotted."""
        return int(self.call("slashable", task_id, operator))

    def slashed(self, task_id: int, operator: str) -> int:
        """What was burned of the operator's stake."""
        return int(self.call("slashed", task_id, operator))
