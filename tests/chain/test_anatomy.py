"""What transactions' gas is said to go into is what the rules of the chain say of them."""

import pytest

from chain.anvil import Anvil
from tests.chain.anatomy import CHANGED, CONTRACT, STORED, WORD, Anatomy, TracedNode
from tests.chain.anvil import require_anvil
from tests.chain.revm import SUPPLY, address

TRANSFER = "ArenaToken.transfer"


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    require_anvil()
    with Anvil(tmp_path_factory.mktemp("node") / "state.json", accounts=0) as anvil:
        yield TracedNode(anvil)


pytestmark = pytest.mark.node


def test_a_transfer_writes_two_balances(node):
    node.anatomies.clear()
    node.send(address(0), "ArenaToken", "transfer", address(7), 1)
    first = node.anatomies.pop(TRANSFER)
    node.send(address(0), "ArenaToken", "transfer", address(7), 1)
    second = node.anatomies[TRANSFER]
    assert (first.contracts, first.words, first.stored, first.changed) == (0, 2, 1, 1)
    assert (second.contracts, second.words, second.stored, second.changed) == (0, 2, 0, 2)
    assert first.used - second.used == STORED - CHANGED
    assert (first.sent, first.rest) == (second.sent, second.rest)


def test_what_is_emptied_is_changed(node):
    node.send(address(0), "ArenaToken", "approve", address(8), SUPPLY)
    node.anatomies.clear()
    node.send(address(0), "ArenaToken", "approve", address(8), 0)
    assert (node.anatomies["ArenaToken.approve"].stored, node.anatomies["ArenaToken.approve"].changed) == (0, 1)


def test_the_costliest_of_a_kind_is_kept(node):
    node.anatomies.clear()
    for who in (9, 9, 9):
        node.send(address(0), "ArenaToken", "transfer", address(who), 1)
    assert node.anatomies[TRANSFER].stored == 1
    assert node.anatomies[TRANSFER].used == max(node.gas[TRANSFER])


def test_parts_add_up():
    part = Anatomy(used=100_000, sent=22_000, contracts=2, words=4, stored=1, changed=3)
    assert part.executed == 78_000
    assert part.rest == 78_000 - 2 * CONTRACT - 4 * WORD - STORED - 3 * CHANGED
