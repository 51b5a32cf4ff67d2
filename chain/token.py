"""The test token: balances, transfers, allowances. Amounts are wei (10^18 to the token)."""

from __future__ import annotations

from chain.contract import ContractClient, Receipt


class Token(ContractClient):
    """Client of the ArenaToken contract."""

    def balance_of(self, account: str) -> int:
        """What ``account`` holds."""
        return int(self.call("balanceOf", account))

    def total_supply(self) -> int:
        """All tokens that exist; burning is the only change."""
        return int(self.call("totalSupply"))

    def allowance(self, owner: str, spender: str) -> int:
        """What ``spender`` may still take from ``owner``."""
        return int(self.call("allowance", owner, spender))

    def transfer(self, to: str, amount: int) -> Receipt:
        """Send tokens from the client's account."""
        return self.send("transfer", to, amount)

    def approve(self, spender: str, amount: int) -> Receipt:
        """Let ``spender`` take up to ``amount`` from the client's account (replaces the former allowance)."""
        return self.send("approve", spender, amount)

    def ensure_allowance(self, spender: str, amount: int) -> None:
        """Approve exactly ``amount`` unless ``spender`` may already take that much."""
        if self.allowance(self.connection.sender(), spender) < amount:
            self.approve(spender, amount)
