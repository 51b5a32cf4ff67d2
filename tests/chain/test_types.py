"""Python forms of the contracts' structs: same fields, same order; openings; exact token amounts."""

import re
from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chain.artifact import ALL_CONTRACTS, artifact
from chain.case import Case, CaseVerdict, Charge, Ground, Stage, Tally
from chain.emission import Fund
from chain.errors import ChainError
from chain.terms import Clock, Court, Pay, PhaseTimes, RoundTimes, TaskConfig, Work
from chain.types import (
    BaseModel,
    Beacon,
    Budget,
    ChainAnchor,
    Enlisted,
    Phase,
    Progress,
    Result,
    Role,
    Run,
    Stake,
    Stretch,
    Submission,
    from_abi,
    open_segment,
    to_abi,
    tokens,
)
from pol.merkle import root_from_proof
from pol.transcript import Anchor, segment_tree
from tests.chain.play import Proof

STRUCTS = {
    "Anchor": ChainAnchor,
    **{
        struct.__name__: struct
        for struct in (
            *(TaskConfig, Clock, Work, Pay, Court, RoundTimes, PhaseTimes, Beacon, Run, Submission, BaseModel, Stake),
            *(Stretch, Result, Progress, Budget, Enlisted, Case, Charge, Tally, Fund),
        )
    },
}
SENT_ONLY = {"Opening", "Segment", "LeafRange", "MarkChannel", "BlockOpening"}
"""Structs that nothing returns: their Python forms are made by hand."""


def structs_in_the_abi():
    found = {}

    def visit(component):
        if component.get("internalType", "").startswith("struct "):
            name = component["internalType"].removeprefix("struct ").split("[")[0].split(".")[-1]
            found[name] = component["components"]
        for part in component.get("components", []):
            visit(part)

    for contract in ALL_CONTRACTS:
        for item in artifact(contract).abi:
            for component in [*item.get("inputs", []), *item.get("outputs", [])]:
                visit(component)
    return found


@pytest.mark.parametrize("name", STRUCTS)
def test_fields_are_those_of_the_struct(name):
    in_solidity = [re.sub(r"[A-Z]", lambda m: "_" + m[0].lower(), part["name"]) for part in structs_in_the_abi()[name]]
    in_python = [field.name.rstrip("_") for field in fields(STRUCTS[name])]
    renamed = {"block_number": "block"}
    assert in_python == [renamed.get(part, part) for part in in_solidity]


def test_every_struct_of_the_abi_is_covered():
    assert set(structs_in_the_abi()) == {*STRUCTS, *SENT_ONLY}


def test_nested_structs_and_enums_become_python_values():
    none, charge = (0, bytes(32)), ["0xa", 2, 1, 7, b"\1" * 32, [5, 3]]
    case = from_abi(
        Case,
        [
            1,
            "0xb",
            60,
            4,
            2,
            0,
            True,
            False,
            False,
            0,
            90,
            b"\2" * 32,
            3,
            charge,
            (9, b"\3" * 32),
            none,
            (1, 2, 0, True),
        ],
    )
    assert case.seed == Beacon(9, b"\3" * 32)
    assert case.seed.latched
    assert case.verdict is CaseVerdict.UPHELD
    assert case.stage is Stage.VOTING
    assert case.charge == Charge(
        trainer="0xa", round=2, ground=Ground.WATERMARK, claim=7, evidence_digest=b"\1" * 32, named=(5, 3)
    )
    assert case.tally == Tally(1, 2, 0, True)


def recorded(world, parts):
    """A made-up run and its anchors, off chain."""
    proof = Proof("someone", world.terms())
    first = 0
    for count in parts:
        root = segment_tree(proof.segments[first : first + count]).root
        proof.anchors.append(Anchor(first=first, count=count, root=root, block=0, tx=bytes(32)))
        first += count
    return proof


@pytest.mark.parametrize("parts", [(4,), (1, 3), (1, 1, 2)])
def test_an_opening_leads_to_its_anchor(world, parts):
    proof = recorded(world, parts)
    for index in range(4):
        opening = proof.open(index)
        anchor = proof.anchors[opening.anchor_index]
        assert anchor.first <= index < anchor.first + anchor.count
        assert root_from_proof(opening.segment.leaf(), opening.proof) == anchor.root


def test_a_segment_outside_the_anchors_cannot_be_opened(world):
    proof = recorded(world, (1, 2))
    with pytest.raises(ChainError, match="not anchored"):
        open_segment(proof.segments, proof.anchors, 3)


def test_terms_survive_the_abi(world):
    config = world.terms()
    assert from_abi(TaskConfig, to_abi(config)) == config
    assert (config.work.segments, config.budget, config.cost) == (4, tokens(5_000), tokens(5_100))


@given(st.integers(0, 10**30))
def test_tokens_are_exact(wei):
    assert tokens(f"{wei // 10**18}.{wei % 10**18:018d}") == wei


def test_a_nineteenth_decimal_is_refused():
    with pytest.raises(ValueError, match="18 decimals"):
        tokens("0.0000000000000000001")


def test_roles_and_phases_are_numbered_as_in_solidity():
    assert [role.value for role in Role] == [0, 1, 2]
    assert [phase.value for phase in Phase] == [0, 1, 2, 3, 4]
