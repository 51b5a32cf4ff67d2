"""Invariant I22, restated: nobody rules the contracts, and what a task's terms are they stay."""

from __future__ import annotations

import re

import pytest

from chain.artifact import ALL_CONTRACTS, artifact

POWERS = re.compile(
    r"(?i:pause|owner|admin|upgrade|initiali|mint|grant|revoke|authority|proxy|implementation)|^set[A-Z]"
)


def powers(abi: list[dict[str, str]]) -> list[str]:
    """Functions that pause, own, upgrade, mint or set, by their names."""
    return [entry["name"] for entry in abi if entry["type"] == "function" and POWERS.search(entry["name"])]


@pytest.mark.parametrize("name", ALL_CONTRACTS)
def test_no_function_rules(name: str) -> None:
    assert not powers(artifact(name).abi)


@pytest.mark.parametrize("name", ["pause", "transferOwnership", "upgradeToAndCall", "mint", "setTerms", "grantRole"])
def test_the_scan_finds_what_would(name: str) -> None:
    assert powers([{"type": "function", "name": name}]) == [name]
