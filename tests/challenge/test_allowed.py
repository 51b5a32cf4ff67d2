"""What a task lets a spec say: its terms, its lists of classes and base models, its bounds on configs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chain.terms import NO_DIGEST, Numerics, Work
from challenge.allowed import Objections, accepted_base, base_of, objections
from challenge.bounds import bounds_digest, check_bounds, outside
from challenge.task import TaskDescription
from pol import TrainingSpec
from pol.data import Dataset
from pol.encoding import Json, float_text
from pol.errors import CannotRun, ProofError, SpecError, Unreachable
from pol.machine import this_machine
from pol.merkle import MerkleProof, merkle_root, root_from_proof
from pol.spec import EXACT
from tests.runs import small_spec

HERE = this_machine(threads=1).digest
OTHERS = tuple(bytes([number]) * 32 for number in range(1, 6))
GPT, LLAMA = OTHERS[:2]


@pytest.fixture(scope="module")
def spec(train_set: Dataset) -> TrainingSpec:
    return small_spec(train_set)


def work_of(spec: TrainingSpec, **changes: object) -> Work:
    """The terms of a task that asks for ``spec`` on this class of machine."""
    work = Work(
        program_digest=spec.program_digest,
        train_root=spec.dataset_root,
        eval_root=bytes(32),
        final_set_commitment=bytes(32),
        classes_root=merkle_root([HERE]),
        numerics=Numerics.MACHINE,
        steps=spec.steps,
        segment_length=spec.segment_length,
    )
    return replace(work, **changes)


def described(**lists: object) -> Callable[[], TaskDescription]:
    whole = TaskDescription(
        program="p:q", config={}, batch_size=1, train_name="t", train_cid="c", evaluation_cid="e", **lists
    )  # fmt: skip
    return lambda: TaskDescription.from_bytes(whole.to_bytes())


def nobody() -> TaskDescription:
    raise CannotRun("nobody serves it")


class TestTerms:
    def test_what_the_task_asks_for_is_allowed_and_no_list_is_fetched(self, spec: TrainingSpec) -> None:
        def fetched() -> TaskDescription:
            raise AssertionError("no list is needed")

        assert objections(spec, work_of(spec), fetched) == Objections()
        free = replace(spec, dataset_root=bytes(32))
        assert objections(free, work_of(spec, train_root=NO_DIGEST), fetched) == Objections(), "the data are free"

    @pytest.mark.parametrize(
        ("change", "what"),
        [
            ({"program_digest": bytes(32)}, "program"), ({"dataset_root": bytes(32)}, "training data"),
            ({"steps": 30}, "number of steps"), ({"segment_length": 20}, "segment length"),
        ],
        ids=["program", "data", "steps", "length"],
    )  # fmt: skip
    def test_anything_else_is_forbidden(self, spec: TrainingSpec, change: dict[str, object], what: str) -> None:
        found = objections(replace(spec, **change), work_of(spec), nobody)
        assert found.forbidden == [f"the {what} is not the task's"] and not found.unknown

    def test_numerics_are_the_tasks(self, spec: TrainingSpec) -> None:
        """Who trains on the machine's arithmetic where all machines must agree could not be checked elsewhere."""
        exact = replace(spec, numerics=EXACT)
        native_work, exact_work = work_of(spec), work_of(spec, numerics=Numerics.EXACT, classes_root=NO_DIGEST)
        assert objections(exact, exact_work, nobody) == Objections() == objections(spec, native_work, nobody)
        for promised, work in ((spec, exact_work), (exact, native_work)):
            assert objections(promised, work, nobody).forbidden == ["the numerics is not the task's"]


class TestClasses:
    @given(st.sets(st.sampled_from(OTHERS), min_size=1), st.booleans(), st.randoms())
    def test_of_any_list_exactly_the_listed_are_accepted(
        self, spec: TrainingSpec, others: set[bytes], listed: bool, random: Random
    ) -> None:
        classes = [*others, *([HERE] if listed else [])]
        random.shuffle(classes)
        work = work_of(spec, classes_root=merkle_root(classes))
        found = objections(spec, work, described(machines=tuple(classes)))
        assert found.forbidden == ([] if listed else ["the machine class is not one the task accepts"])
        assert not found.unknown

    def test_a_list_that_is_not_served_or_not_the_bound_one_says_nothing(self, spec: TrainingSpec) -> None:
        work = work_of(spec, classes_root=merkle_root([*OTHERS, HERE]))
        for describe in (nobody, described(), described(machines=OTHERS), described(machines=(HERE, *OTHERS))):
            found = objections(spec, work, describe)
            assert not found.forbidden and "is open" in found.unknown[0]

    def test_a_store_that_is_silent_is_asked_again_later(self, spec: TrainingSpec) -> None:
        def silent() -> TaskDescription:
            raise Unreachable("later")

        with pytest.raises(Unreachable):
            objections(spec, work_of(spec, classes_root=merkle_root(OTHERS)), silent)


class TestBounds:
    def bounded(self, spec: TrainingSpec, **changes: Json) -> Objections:
        bounds: dict[str, Json] = {**spec.config, "width": [16, 32, 64], **changes}
        work = work_of(spec, config_bounds=bounds_digest(bounds))
        return objections(spec, work, described(bounds=bounds))

    def test_a_config_within_its_bounds_is_allowed(self, spec: TrainingSpec) -> None:
        rate: Json = {"from": float_text(1e-4), "to": float_text(1e-2)}
        assert self.bounded(spec, learning_rate=rate, hidden={"from": 2, "to": 2}) == Objections()

    @pytest.mark.parametrize(
        "change",
        [
            {"width": [16, 64]}, {"width": 33}, {"width": {"from": 33, "to": 99}}, {"batch_norm": 1},
            {"hidden": {"from": float_text(1.0), "to": float_text(3.0)}}, {"more": 1},
        ],
        ids=str,
    )  # fmt: skip
    def test_and_one_outside_is_not(self, spec: TrainingSpec, change: dict[str, Json]) -> None:
        found = self.bounded(spec, **change)
        assert len(found.forbidden) == 1 and found.forbidden[0].startswith(f"config: {next(iter(change))}")

    def test_bounds_that_are_not_served_or_others_say_nothing(self, spec: TrainingSpec) -> None:
        work = work_of(spec, config_bounds=bounds_digest(spec.config))
        for describe in (nobody, described(), described(bounds={**spec.config, "width": [32, 33]})):
            found = objections(spec, work, describe)
            assert not found.forbidden and "is open" in found.unknown[0]

    @given(st.integers(), st.integers(), st.integers())
    def test_a_range_holds_its_ends_and_what_lies_between(self, low: int, high: int, value: int) -> None:
        low, high = sorted((low % 2**40, high % 2**40))
        value = low + value % (2 * (high - low) + 2)
        bounds = check_bounds({"n": {"from": low, "to": high}}, where="test")
        assert (outside({"n": value}, bounds) == []) == (low <= value <= high)

    @given(*[st.floats(allow_nan=False, allow_infinity=False)] * 3)
    def test_of_floats_too(self, low: float, high: float, value: float) -> None:
        low, high = sorted((low, high))
        bounds = check_bounds({"n": {"from": float_text(low), "to": float_text(high)}}, where="test")
        assert (outside({"n": float_text(value)}, bounds) == []) == (low <= value <= high)
        assert outside({"n": "inf"}, bounds) and outside({"n": 0}, bounds) and outside({}, bounds)

    @pytest.mark.parametrize(
        "bound",
        [
            None, [], {}, {"from": 1}, {"from": 1, "to": 2, "step": 1}, {"from": 2, "to": 1}, {"from": True, "to": 2},
            {"from": 1, "to": float_text(2.0)}, {"from": "1", "to": "2"}, {"from": "nan", "to": "nan"},
        ],
        ids=str,
    )  # fmt: skip
    def test_what_bounds_nothing_is_refused(self, bound: Json) -> None:
        with pytest.raises(ProofError, match=r"test\.n"):
            check_bounds({"n": bound}, where="test")


class TestBases:
    def test_a_run_from_the_seed_where_no_base_is_accepted(self, spec: TrainingSpec) -> None:
        assert accepted_base(spec, work_of(spec), nobody).digest == NO_DIGEST == base_of(spec.config)
        pinned = replace(spec, config={**spec.config, "base_digest": "0x" + GPT.hex()})
        with pytest.raises(SpecError, match="start from their seed"):
            accepted_base(pinned, work_of(spec), nobody)

    @pytest.mark.parametrize("base", [GPT, LLAMA, NO_DIGEST])
    def test_a_listed_base_comes_with_its_path(self, spec: TrainingSpec, base: bytes) -> None:
        bases = (GPT, LLAMA, NO_DIGEST)
        config = {**spec.config, "base_digest": "0x" + base.hex()} if any(base) else spec.config
        work = work_of(spec, bases_root=merkle_root(bases))
        taken = accepted_base(replace(spec, config=config), work, described(bases=bases))
        assert taken.digest == base
        path = MerkleProof(taken.position, taken.count, taken.siblings)
        assert root_from_proof(base, path) == work.bases_root

    def test_any_other_is_refused_before_a_bond_is_paid(self, spec: TrainingSpec) -> None:
        work = work_of(spec, bases_root=merkle_root([GPT, LLAMA]))
        for config in (spec.config, {**spec.config, "base_digest": "0x" + OTHERS[3].hex()}):
            with pytest.raises(SpecError, match="not in the task's list"):
                accepted_base(replace(spec, config=config), work, described(bases=(GPT, LLAMA)))
        with pytest.raises(ProofError, match="not those that its terms bind"):
            accepted_base(spec, work, described(bases=(LLAMA, GPT)))

    def test_a_digest_that_is_none_is_malformed(self, spec: TrainingSpec) -> None:
        for text in ("", "0x12", 5, "0x" + "G" * 64):
            with pytest.raises(ProofError, match="base_digest"):
                base_of({**spec.config, "base_digest": text})


class TestDescription:
    def test_lists_come_back_as_they_were(self) -> None:
        lists = {"machines": OTHERS, "bases": (NO_DIGEST, GPT), "bounds": {"width": [1, 2]}}
        found = described(**lists)()
        assert (found.machines, found.bases, found.bounds) == tuple(lists.values())

    @pytest.mark.parametrize("change", [b'"machines":["0x12"]', b'"machines":{}', b'"bounds":5', b'"bases":[1,1]'])
    def test_anything_else_is_malformed(self, change: bytes) -> None:
        name = change.split(b":")[0]
        old = {b'"bounds"': name + b":null"}.get(name, name + b":[]")
        data = described()().to_bytes()
        assert old in data
        with pytest.raises(ProofError):
            TaskDescription.from_bytes(data.replace(old, change))
