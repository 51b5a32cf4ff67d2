"""Thieves alter a marked model: its mark is found at 2^-64, and none in an innocent model treated alike."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.watermark import digits, thief
from tests.watermark.conftest import BETA, OPENING_BEACON, Owner, block
from tests.watermark.digits import CARRIER, PASS, State
from watermark import DEFAULT_PARAMETERS, Claim, WatermarkKey, detect, embed, embed_group, opening_groups

Attack = Callable[[State], State]


def tuned(rate: float) -> Attack:
    return lambda state: digits.train(state, steps=5 * PASS, rate=rate, seed=77)


def everything(state: State) -> State:
    """Fine-tuned, half pruned, 100 % silent units added, permuted and scaled."""
    return thief.shuffled(thief.widened(thief.pruned(tuned(1e-3)(state), 0.5), "silent", 3), 4)


ATTACKS: dict[str, Attack] = {
    "copied": lambda state: state,
    "fine-tuned, 5 passes": tuned(1e-3),
    "fine-tuned, 5 passes, a tenth of the rate": tuned(1e-4),
    "fine-tuned, 5 passes, ten times the rate": tuned(1e-2),
    "permuted and scaled": lambda state: thief.shuffled(state, 4),
    "half pruned": lambda state: thief.pruned(state, 0.5),
    "70 % pruned, 4 bits": lambda state: thief.quantised(thief.pruned(state, 0.7), 4),
    "everything": everything,
}


@pytest.fixture(scope="module")
def innocent() -> State:
    return digits.train(digits.initial(31), steps=300, seed=31)


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_a_stolen_model_is_recognised_and_an_innocent_one_is_not(owner: Owner, innocent: State, attack: Attack) -> None:
    stolen = attack(owner.model)
    assert digits.accuracy(stolen) > 0.85  # still worth stealing
    found = detect(stolen, [owner.claim], suspects=32)[0]
    assert found.accepted
    assert found.log2_p_corrected <= -64
    assert detect(attack(innocent), [owner.claim])[0].log2_p > -20


def test_a_thief_who_adds_its_own_mark_does_not_erase_the_owners(owner: Owner) -> None:
    """Overwriting: both marks are there afterwards. Only the thief's model has both, the owner's has one."""
    key = WatermarkKey(b"the thief's secret, 32 bytes ...", 512)
    stolen = embed(owner.model, key, BETA, DEFAULT_PARAMETERS)
    groups = opening_groups(OPENING_BEACON, key.root, 64, 32)
    thiefs = Claim.make(key, BETA, DEFAULT_PARAMETERS, groups, owner.model)
    assert [evidence.accepted for evidence in detect(stolen, [owner.claim, thiefs])] == [True, True]
    assert [evidence.accepted for evidence in detect(owner.model, [owner.claim, thiefs])] == [True, False]


def test_flipping_what_was_opened_leaves_the_rest(owner: Owner) -> None:
    """A thief that knows the opened leaves turns all of their bits at the least change; the closed ones convict it."""
    opened = owner.claim.groups
    closed = [group for group in range(64) if group not in opened]
    erased = thief.copy(owner.model)
    weight = erased[CARRIER].numpy()
    for group in opened:
        rows, leaves = block(owner.parameters, group), owner.key.open(owner.parameters.indices([group]))
        weight[rows] = -embed_group(-weight[rows], leaves, BETA, owner.key.root, margin=0.05)
    assert digits.accuracy(erased) > 0.95
    assert detect(erased, [owner.claim])[0].matches == 0
    rest = Claim.make(owner.key, BETA, owner.parameters, closed, owner.theta_ref)
    assert detect(erased, [rest])[0].accepted
