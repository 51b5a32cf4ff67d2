"""Two parties find the first operation that differs by a few questions, whoever lies and wherever."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pol.data import Dataset
from pol.encoding import digest
from pol.errors import ProofError
from pol.merkle import MerkleProof, merkle_root, root_from_proof
from pol.order import DataOrder
from pol.portable.dispute import Answer, Parting, opened, parting
from pol.portable.trace import Operation, first_difference
from tests.pol.portable.test_trace import trace_of
from tests.runs import SEED


def operation(number: int, output: str = "right") -> Operation:
    attributes, value = digest("the attributes of x", b""), digest("the outputs of x", output.encode())
    return Operation(f"operator {number}", attributes, (), (value,))


def root_of(operations: list[Operation]) -> bytes:
    return merkle_root(operation.leaf(index) for index, operation in enumerate(operations))


class Questions:
    """Answers for ``operations`` and counts how often."""

    def __init__(self, operations: list[Operation]) -> None:
        self.answer, self.count = opened(operations), 0

    def __call__(self, index: int) -> Answer:
        self.count += 1
        return self.answer(index)


def most_questions(count: int) -> int:
    return (count - 1).bit_length() + 1


@settings(max_examples=200)
@given(count=st.integers(1, 70), wrong=st.sets(st.integers(0, 69)), shorter=st.integers(0, 3), longer=st.integers(0, 3))
def test_the_first_difference_is_found_by_few_questions(count: int, wrong: set[int], shorter: int, longer: int) -> None:
    mine = [operation(number) for number in range(max(0, count - shorter))]
    theirs = [operation(number, "wrong" if number in wrong else "right") for number in range(count)]
    mine += [operation(count + number) for number in range(longer if not shorter else 0)]
    questions, expected = Questions(theirs), first_difference(mine, theirs)
    found = parting(mine, root_of(theirs), questions)
    assert questions.count <= most_questions(count)
    if found is None:
        assert expected is None
    else:
        assert found.index == expected
        assert found.theirs == (theirs[found.index] if found.index < count else None)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8, 64, 100])
def test_every_place_is_found_and_the_honest_twin_parts_nowhere(count: int) -> None:
    mine = [operation(number) for number in range(count)]
    questions = Questions(mine)
    assert parting(mine, root_of(mine), questions) is None and questions.count == 1
    for place in range(count):
        theirs = [*mine[:place], operation(place, "wrong"), *mine[place + 1 :]]
        questions = Questions(theirs)
        found = parting(mine, root_of(theirs), questions)
        assert found is not None and (found.index, found.theirs) == (place, theirs[place])
        assert questions.count <= most_questions(count)


FORGERIES: dict[str, Callable[[Answer], Answer]] = {
    "another operation": lambda answer: (operation(0, "wrong"), answer[1]),
    "another sibling": lambda answer: (
        answer[0], replace(answer[1], siblings=(bytes(32), *answer[1].siblings[1:])),
    ),
    "a sibling too few": lambda answer: (answer[0], replace(answer[1], siblings=answer[1].siblings[:-1])),
    "a sibling of another size": lambda answer: (answer[0], replace(answer[1], siblings=(b"", *answer[1].siblings))),
    "another count": lambda answer: (answer[0], replace(answer[1], count=answer[1].count + 1)),
    "another position": lambda answer: (answer[0], replace(answer[1], position=answer[1].position + 1)),
    "no proof": lambda answer: (answer[0], MerkleProof(answer[1].position, 1, ())),
}  # fmt: skip


@pytest.mark.parametrize("forgery", FORGERIES)
def test_an_answer_that_is_not_under_the_root_is_refused(forgery: str) -> None:
    mine = [operation(number) for number in range(11)]
    theirs = [*mine[:6], operation(6, "wrong"), *mine[7:]]
    answer = opened(theirs)

    def forged(index: int) -> Answer:
        return FORGERIES[forgery](answer(index))

    with pytest.raises(ProofError, match=r"Merkle proof|not under the root"):
        parting(mine, root_of(theirs), forged)
    honest = parting(mine, root_of(theirs), answer)
    assert honest is not None and honest.index == 6


def test_the_answer_to_another_question_is_refused() -> None:
    mine = [operation(number) for number in range(11)]
    theirs = [*mine[:6], operation(6, "wrong"), *mine[7:]]
    with pytest.raises(ProofError, match="not under the root"):
        parting(mine, root_of(theirs), lambda _: opened(theirs)(0))


def test_a_root_over_more_than_there_can_be_costs_nothing() -> None:
    """Somebody promises 2**60 operations, with made-up nodes: nothing of that size is ever worked out."""
    mine = [operation(number) for number in range(3)]
    proof = MerkleProof(0, 2**60, tuple(bytes([height]) * 32 for height in range(60)))
    root = root_from_proof(mine[0].leaf(0), proof)
    with pytest.raises(ProofError):
        parting(mine, root, lambda _: (mine[0], proof))


def test_a_step_taken_again_finds_the_operator_that_was_computed_wrongly(train_set: Dataset) -> None:
    """The trainer's commitment has one wrong output; who takes the step itself finds it, and the honest one nothing."""
    batch = train_set.batch(DataOrder(SEED, len(train_set), 32).batch(0))
    mine = trace_of(train_set, batch).operations
    place = next(i for i, operation in enumerate(mine) if operation.operator == "native_batch_norm_backward")
    wrong = replace(mine[place], outputs=(bytes(32), *mine[place].outputs[1:]))
    theirs = [*mine[:place], wrong, *mine[place + 1 :]]
    questions = Questions(theirs)
    found = parting(mine, root_of(theirs), questions)
    assert found == Parting(place, wrong, questions.answer(place)[1])
    assert (wrong.operator, wrong.inputs) == (mine[place].operator, mine[place].inputs)
    assert questions.count <= most_questions(len(mine))
    assert parting(mine, root_of(mine), opened(mine)) is None
