"""The demo's story on a node of its own: it ends as on the embedded chain, and the chain can be asked afterwards."""

from __future__ import annotations

from pathlib import Path

import pytest

from chain.anvil import Anvil
from chain.case import CaseVerdict
from chain.client import ArenaClient
from chain.deployment import Deployment
from chain.devnet import GENESIS_TIME
from challenge.demo.setting import DEPLOYMENT, PEOPLE
from challenge.demo.story import play
from challenge.segments import Policy
from challenge.verify import verify
from tests.chain.anvil import require_anvil

pytestmark = [pytest.mark.slow, pytest.mark.node]


def test_it_ends_as_on_the_embedded_chain_and_the_anchors_can_be_checked_later(tmp_path: Path) -> None:
    require_anvil()
    lines: list[str] = []
    runs, node = tmp_path / "runs", Anvil(tmp_path / "chain.json", accounts=len(PEOPLE), genesis_time=GENESIS_TIME)
    with node:
        there = play(runs, lines.append, node)
    assert there.cases == {"mallory": CaseVerdict.UPHELD, "alice": CaseVerdict.REJECTED}
    with node:
        reader = ArenaClient(node.web3, Deployment.load(runs / DEPLOYMENT))
        verdict = verify(runs / "alice", Policy(segments=[0]), chain=reader)
    assert verdict.anchors_checked and int(verdict.exit_code) == 0, verdict.findings
