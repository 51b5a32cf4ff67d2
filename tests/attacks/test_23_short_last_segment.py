"""Case 23: a last segment of one step, and boundaries that are off by one.

Source: found in the published code of Jia et al. 2021, whose ``sequence[step:]`` takes whatever is left as a last
segment: a prover who picks the number of steps gets a tail of one step, which is the cheapest place to lie (case 19
lands on stolen weights in it), and a verifier that draws the longest or the largest segments hardly ever looks there.

Here steps and segment length are promised in the spec, before the seed is known, and every boundary follows from them.
A tail may be short, since steps need not divide; but a verifier that draws for itself always replays the last segment
and the first, whatever else it draws, and one missing or misplaced step is another transcript than the promised one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from challenge.sampling import with_ends
from challenge.segments import Policy
from challenge.verdict import ExitCode
from pol import Proof
from pol.data import Dataset
from pol.errors import ProofError
from pol.spec import TrainingSpec
from pol.state import Tensors, TrainingState
from pol.transcript import Segment, check_shape
from tests.attacks.forging import copied, edit_proof, trained_states, write_forgery
from tests.attacks.judging import judged, rejected
from tests.runs import record, small_spec

STEPS, LENGTH, TAIL = 31, 3, 10
"""Ten segments of three steps, and one of a single step."""


@pytest.fixture(scope="module")
def spec(train_set: Dataset) -> TrainingSpec:
    return small_spec(train_set, steps=STEPS, segment_length=LENGTH)


@pytest.fixture(scope="module")
def honest(spec: TrainingSpec, train_set: Dataset) -> list[Tensors]:
    return trained_states(spec, train_set)


def test_a_lie_in_a_tail_of_one_step_is_always_found(
    spec: TrainingSpec, honest: list[Tensors], train_set: Dataset, tmp_path: Path
) -> None:
    """One segment of eleven is drawn, and it is nearly always another one: the tail is replayed all the same."""
    forged = {name: value.clone() for name, value in honest[-1].items()}
    forged["model/layers.2.bias"] += 0.5
    folder = write_forgery(tmp_path / "proof", spec, train_set, [*honest[:-1], forged])
    for _ in range(3):
        verdict = judged(folder, Policy(segments=1))
        assert rejected(verdict, ExitCode.REPLAY_MISMATCH, "does not replay to the promised state") == {TAIL}
        assert {0, TAIL} <= set(verdict.segments)


def test_ten_steps_in_the_place_of_the_last_one(
    spec: TrainingSpec, honest: list[Tensors], train_set: Dataset, tmp_path: Path
) -> None:
    """Undeclared training in the tail."""

    def train_on(step: int, state: TrainingState, batch: list[torch.Tensor]) -> None:
        for _ in range(9 if step == STEPS - 1 else 0):
            torch.nn.functional.cross_entropy(state.model(batch[0]), batch[1]).backward()
            state.optimizer.step()
            state.optimizer.zero_grad()

    cheated = trained_states(spec, train_set, cheat=train_on)
    folder = write_forgery(tmp_path / "proof", spec, train_set, [*honest[:-1], cheated[-1]])
    verdict = judged(folder, Policy(segments=[TAIL]))
    assert rejected(verdict, ExitCode.REPLAY_MISMATCH, "does not replay to the promised state") == {TAIL}


@pytest.mark.parametrize("total", [1, 2, 3, 50, 65_536])
def test_both_ends_are_in_every_draw(total: int) -> None:
    for drawn in ([], [total // 2], [0], [total - 1]):
        sample = with_ends(drawn, total)
        assert {0, total - 1} <= set(sample) and sample == sorted(set(sample))


@pytest.mark.parametrize("count", [1, 5, 11])
def test_a_policy_of_any_size_looks_at_the_tail(
    spec: TrainingSpec, honest: list[Tensors], train_set: Dataset, tmp_path: Path, count: int
) -> None:
    folder = write_forgery(tmp_path / "proof", spec, train_set, honest)
    verdict = judged(folder, Policy(segments=count))
    assert verdict.exit_code is ExitCode.VERIFIED, "the honest twin: the same tail, trained"
    assert {0, TAIL} <= set(verdict.segments) and len(verdict.segments) >= count


def one_step_less(proof: Proof) -> Proof:
    """The run ends at a boundary, and the promised tail is gone."""
    return replace(proof, segments=proof.segments[:-1], states=proof.states[:-1])


def shifted(segments: tuple[Segment, ...], by: int) -> tuple[Segment, ...]:
    moved = [replace(s, start_step=s.start_step + by, end_step=s.end_step + by) for s in segments[1:]]
    return (replace(segments[0], end_step=segments[0].end_step + by), *moved)


def boundaries_moved(proof: Proof) -> Proof:
    return replace(proof, segments=shifted(proof.segments, 1))


def tail_swallowed(proof: Proof) -> Proof:
    """The last two segments told as one."""
    *others, before, tail = proof.segments
    joined = replace(before, end_step=tail.end_step, end_digest=tail.end_digest)
    return replace(proof, segments=(*others, joined))


def tail_split(proof: Proof) -> Proof:
    """A promised segment told as two: shorter ones are cheaper to lie in."""
    *others, before, tail = proof.segments
    half = replace(before, end_step=before.end_step - 1)
    rest = replace(tail, start_step=before.end_step - 1, start_digest=half.end_digest)
    return replace(proof, segments=(*others, half, rest))


def overlapping(proof: Proof) -> Proof:
    *others, tail = proof.segments
    return replace(proof, segments=(*others, replace(tail, start_step=tail.start_step - 1)))


def empty_tail(proof: Proof) -> Proof:
    """A segment of no steps at all, whose two ends are one state."""
    last = proof.segments[-1]
    empty = replace(last, index=last.index + 1, start_step=STEPS, end_step=STEPS, start_digest=last.end_digest)
    return replace(proof, segments=(*proof.segments, empty))


@pytest.mark.parametrize(
    "change", [one_step_less, boundaries_moved, tail_swallowed, tail_split, overlapping, empty_tail],
    ids=lambda change: change.__name__,
)  # fmt: skip
def test_no_other_boundaries_than_the_promised_ones(
    spec: TrainingSpec, honest: list[Tensors], train_set: Dataset, tmp_path: Path, change: Callable[[Proof], Proof]
) -> None:
    folder = write_forgery(tmp_path / "proof", spec, train_set, honest)
    with_one_anchor = Proof.read(folder)
    forged = change(with_one_anchor)
    anchors = (replace(forged.anchors[0], count=len(forged.segments)),)
    replace(forged, anchors=anchors).write(folder)
    verdict = judged(folder)
    assert verdict.exit_code is ExitCode.MALFORMED and not verdict.segments


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5, 6, 7])
@pytest.mark.parametrize("length", [1, 2, 3, 7, 9])
def test_boundaries_follow_from_steps_and_length(train_set: Dataset, steps: int, length: int) -> None:
    """Every step is in one segment and one only, and no other cut into segments is read."""
    spec = small_spec(train_set, steps=steps, segment_length=length)
    bounds = [spec.bounds(index) for index in range(spec.segments)]
    assert [step for start, end in bounds for step in range(start, end)] == list(range(steps))
    segments = [
        Segment(
            index=index, start_step=start, end_step=end, start_digest=bytes(32), end_digest=bytes(32),
            batch_root=bytes(32),
        )
        for index, (start, end) in enumerate(bounds)
    ]  # fmt: skip
    check_shape(segments, steps=steps, segment_length=length)
    for other in (steps - 1, steps + 1, steps + length):
        if other > 0:
            with pytest.raises(ProofError):
                check_shape(segments, steps=other, segment_length=length)


def test_steps_cannot_be_chosen_afterwards(honest_run: Path, tmp_path: Path) -> None:
    """Another number of steps is another spec, and another spec another transcript (and another seed, on a chain)."""
    folder = copied(honest_run, tmp_path / "proof")
    before = Proof.read(folder)
    with pytest.raises(ProofError):
        edit_proof(folder, lambda proof: replace(proof, spec=replace(proof.spec, steps=39)))
        Proof.read(folder)
    assert replace(before, spec=replace(before.spec, steps=39)).transcript_digest != before.transcript_digest


def test_the_recorder_makes_the_same_tail(tmp_path: Path, train_set: Dataset) -> None:
    """The honest twin: steps that do not divide are recorded, kept and verified."""
    spec = small_spec(train_set, steps=13, segment_length=4)
    record(spec, train_set, tmp_path / "proof")
    proof = Proof.read(tmp_path / "proof")
    assert [segment.end_step for segment in proof.segments] == [4, 8, 12, 13]
    assert judged(tmp_path / "proof").exit_code is ExitCode.VERIFIED
