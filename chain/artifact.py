"""The compiled contracts that ship with the package (chain/artifacts), so that nobody needs a compiler to run."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

CONTRACTS = ("ArenaToken", "StakeVault", "RewardEscrow", "Arena", "Scoring", "ChallengeManager")
"""The six that belong together, in the order they are deployed."""
PARTS = ("TaskRules", "CaseRules")
"""What the Arena and the ChallengeManager deploy themselves."""
ALL_CONTRACTS = (*CONTRACTS, *PARTS, "Emission")
"""Everything that has an artifact."""


@dataclass(frozen=True, slots=True)
class Artifact:
    """A compiled contract: its ABI and its creation code (hex)."""

    name: str
    abi: list[Any]
    bytecode: str


@cache
def artifact(name: str) -> Artifact:
    """The shipped artifact of one of :data:`ALL_CONTRACTS`."""
    content = json.loads(files("chain.artifacts").joinpath(f"{name}.json").read_text("utf-8"))
    return Artifact(name=content["contract"], abi=content["abi"], bytecode=content["bytecode"])
