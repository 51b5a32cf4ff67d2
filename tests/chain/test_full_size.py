"""The largest tasks of the mechanism's testnet, played whole on a real node: every transaction fits.

153 trainers with 172 validators, and 110 with 456, from staking to claims, compared with the reference model to the
wei.
"""

import pytest
from mpmath import mp

from chain.anvil import Anvil
from chain.terms import Aggregator
from tests.chain.anvil import require_anvil
from tests.chain.courtplay import CourtPlay
from tests.chain.node import TRANSACTION_CAP, Node
from tests.chain.rounds import Play, Sizes

CHUNK = 64


@pytest.mark.slow
@pytest.mark.node
@pytest.mark.parametrize(
    ("trainers", "validators", "aggregator"),
    [(153, 172, Aggregator.MEAN), (110, 456, Aggregator.MEDIAN)],
    ids=["153 x 172, mean", "110 x 456, median"],
)
def test_the_largest_tasks_are_settled_through(tmp_path, trainers, validators, aggregator):
    require_anvil()
    sizes = Sizes(trainers, validators, rounds=1, window=20_000, chunk=CHUNK, diligent=True, aggregator=aggregator)
    with Anvil(tmp_path / "state.json", accounts=0) as anvil, mp.workdps(50):
        node = Node(anvil)
        node.enroll(sizes.people)
        Play(node, 1, sizes).play()
        assert len(node.gas["Scoring.revealScores"]) == 2 * validators
        assert max(used for kind in node.gas.values() for used in kind) <= TRANSACTION_CAP


@pytest.mark.slow
@pytest.mark.node
def test_cases_about_the_longest_runs_are_settled_through(tmp_path):
    require_anvil()
    with Anvil(tmp_path / "state.json", accounts=0) as anvil:
        node = Node(anvil)
        CourtPlay(node, sampled=8).play()
        assert {"ChallengeManager.respond", "ChallengeManager.openLeaves", "StakeVault.undelegate"} <= set(node.gas)
        assert max(used for kind in node.gas.values() for used in kind) <= TRANSACTION_CAP
