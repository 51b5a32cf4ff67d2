"""Tier T1: a run with exact numerics verifies on any class of machine, and a lie in it is convicted there.

The other class is real as far as this processor has one: no vectors, narrow libraries, and two threads instead of one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from challenge.doctor import examine
from challenge.segments import WRONG_KERNELS, Policy
from challenge.verdict import ExitCode, Outcome, Tier, Verdict
from challenge.verify import verify
from pol import Proof, Recorder, SeedSource, TrainingSpec, exact
from pol.data import Dataset
from pol.errors import CannotRun, RecordingError
from pol.machine import EXACT_RELEASES, MachineClass, this_machine
from pol.numerics import arithmetic
from pol.portable import compiled, trial
from pol.proof import MANIFEST, TRANSCRIPT
from pol.rehearsal import Interpreters, Rehearsal
from pol.replay import Job, OnSegment, ReplayedSpan, ReplayProcess, Span
from pol.replay_program import ProgramFailed, program_runs
from pol.spec import EXACT
from pol.state import TrainingState
from tests.challenge.clerk import Clerk
from tests.runs import SEED, Cheat, record, small_spec

CHEATED = 5


class Elsewhere:
    """An executor on a machine of another class."""

    def replay(self, job: Job, spans: Sequence[Span], on_segment: OnSegment | None = None) -> list[ReplayedSpan]:
        """As :func:`pol.replay.replay`."""
        narrow = {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_CBWR": "COMPATIBLE"}
        spec = replace(job.spec, machine=job.spec.machine | {"threads": 2})
        with ReplayProcess(replace(job, spec=spec), environment=narrow) as process:
            return [process.replay(span, on_segment) for span in spans]


def spec_of(train_set: Dataset, **changes: object) -> TrainingSpec:
    return replace(small_spec(train_set, steps=12, segment_length=4), **({"numerics": EXACT} | changes))


def flip_a_label(step: int, state: TrainingState, batch: list[torch.Tensor]) -> None:
    if step == CHEATED:
        batch[1][0] = (batch[1][0] + 1) % 10


@pytest.fixture(scope="module")
def exact_run(train_set: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Recorded honestly. Read only."""
    folder = tmp_path_factory.mktemp("exact") / "proof"
    record(spec_of(train_set), train_set, folder)
    return folder


def judged_elsewhere(folder: Path, spec: TrainingSpec, train_set: Dataset, cheat: Cheat | None = None) -> Verdict:
    record(spec, train_set, folder, cheat)
    return verify(folder, Policy(segments=None, executor=Elsewhere()))


def test_a_lie_is_convicted_on_another_class(tmp_path: Path, train_set: Dataset) -> None:
    verdict = judged_elsewhere(tmp_path / "proof", spec_of(train_set), train_set, flip_a_label)
    assert (verdict.exit_code, verdict.tier) == (ExitCode.REPLAY_MISMATCH, Tier.EXACT)
    assert [finding.segment for finding in verdict.findings] == [CHEATED // 4]
    assert ("initial state", "built from config and seed, as committed") in verdict.checks
    assert ("replay", "2 of 3 replayed segments match bit for bit") in verdict.checks, "the honest twin"
    assert not verdict.undecided


@pytest.mark.slow
def test_an_honest_run_verifies_on_another_class(tmp_path: Path, train_set: Dataset) -> None:
    verdict = judged_elsewhere(tmp_path / "proof", spec_of(train_set), train_set)
    assert (verdict.outcome, verdict.tier) == (Outcome.VERIFIED, Tier.EXACT), verdict.to_json()
    assert verdict.to_json()["tier"] == "T1"


@pytest.mark.slow
def test_the_same_run_with_native_numerics_does_not(tmp_path: Path, train_set: Dataset) -> None:
    verdict = judged_elsewhere(tmp_path / "proof", spec_of(train_set, numerics="native"), train_set)
    assert (verdict.outcome, verdict.tier) == (Outcome.INCONCLUSIVE, Tier.BITS)


def judged_by(folder: Path, wrong: Sequence[int] = (), **machine: str) -> Verdict:
    clerk = Clerk(folder, wrong=wrong)
    clerk.machine = replace(this_machine(), **machine)
    return verify(folder, Policy(segments=None, executor=clerk))


@pytest.mark.parametrize("machine", [{"capability": "another", "blas": "none"}, {"torch": f"{EXACT_RELEASES[0]}+cu9"}])
def test_what_does_not_decide_bits_is_no_excuse(exact_run: Path, machine: dict[str, str]) -> None:
    assert judged_by(exact_run, **machine).outcome is Outcome.VERIFIED
    assert judged_by(exact_run, [1], **machine).exit_code is ExitCode.REPLAY_MISMATCH


class WrongKernels(Clerk):
    """An executor whose compiled kernels get a segment wrong that torch's operators get right."""

    def replay(self, job: Job, spans: Sequence[Span], on_segment: Any = None) -> list[ReplayedSpan]:
        """As :func:`pol.replay.replay`."""
        self.wrong = [1] if job.fused else []
        return super().replay(job, spans, on_segment)


def test_torchs_operators_decide_where_kernels_differ(exact_run: Path) -> None:
    verdict = verify(exact_run, Policy(segments=None, executor=WrongKernels(exact_run)))
    assert verdict.outcome is Outcome.VERIFIED and WRONG_KERNELS in verdict.limits
    assert WRONG_KERNELS not in judged_by(exact_run).limits
    assert WRONG_KERNELS not in judged_by(exact_run, [1]).limits, "both say so"


@pytest.mark.parametrize("machine", [{"torch": "2.6.0+cpu"}, {"device": "cuda"}])
def test_another_release_of_torch_or_a_gpu_convicts_nobody(exact_run: Path, machine: dict[str, str]) -> None:
    assert judged_by(exact_run, **machine).outcome is Outcome.VERIFIED
    verdict = judged_by(exact_run, [1], **machine)
    assert verdict.exit_code is ExitCode.INCONCLUSIVE and "decided by a CPU" in verdict.undecided[0]


@pytest.mark.parametrize("claimed", [{"torch": "99.0"}, {"device": "cuda"}, {"processor": "nobody's", "threads": 7}])
def test_a_trainer_cannot_hide_behind_the_machine_it_claims(claimed: dict[str, object]) -> None:
    """A task with exact numerics need not list classes of machine, so anything can be claimed."""
    here = replace(this_machine(), torch=f"{EXACT_RELEASES[0]}+cpu")
    theirs = MachineClass.from_json(replace(here, **claimed).to_json(), where="spec.machine")
    assert here.differences(theirs) and not here.differences(theirs, exact=True)


def test_another_release_of_torch_does_not_run_at_all(train_set: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "__version__", "2.6.0+cpu")
    with pytest.raises(CannotRun, match=r"torch 2\.6\.0.*install"):
        arithmetic(spec_of(train_set))


def test_single_steps_are_not_compared_within_a_tolerance(tmp_path: Path, train_set: Dataset) -> None:
    record(replace(spec_of(train_set), steps=3, segment_length=1), train_set, tmp_path / "proof")
    verdict = judged_by(tmp_path / "proof", [2], torch="2.6.0")
    assert (verdict.exit_code, verdict.tier) == (ExitCode.INCONCLUSIVE, Tier.EXACT)
    assert not verdict.comparisons


def test_an_interrupted_run_resumes_to_the_same_proof(tmp_path: Path, train_set: Dataset, exact_run: Path) -> None:
    def stop_here(step: int, *_: object) -> None:
        if step == CHEATED:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        record(spec_of(train_set), train_set, tmp_path / "proof", stop_here)
    record(spec_of(train_set), train_set, tmp_path / "proof")
    for name in (MANIFEST, TRANSCRIPT):
        assert (tmp_path / "proof" / name).read_bytes() == (exact_run / name).read_bytes()


def test_a_model_that_was_built_outside_is_refused(tmp_path: Path, train_set: Dataset) -> None:
    spec, source = spec_of(train_set), SeedSource(kind="chosen", value=SEED)
    recorder = Recorder(spec, tmp_path / "proof", seed_source=source)
    outside = recorder.program.build(spec.config, recorder.seed)
    with pytest.raises(RecordingError, match="attach: model/"), recorder:
        recorder.attach(model=outside.model, optimizer=outside.optimizer, scheduler=outside.scheduler)


def test_a_recorder_leaves_nothing_behind(exact_run: Path) -> None:
    assert Proof.read(exact_run).spec.exact
    torch.special.bessel_j0(torch.ones(1))  # outside, every operator runs


def test_a_refused_operator_is_no_malformed_spec() -> None:
    """Another device or release of torch may reach other operators: it must not make a trainer guilty there."""
    with exact(), pytest.raises(ProgramFailed, match="bessel_j0"), program_runs():
        torch.special.bessel_j0(torch.ones(1))


@pytest.mark.slow
def test_the_doctor_tries_other_threads(train_set: Dataset) -> None:
    rehearsal = Rehearsal(spec=spec_of(train_set), seed=SEED, data=None, steps=4, threads=1, middle=2)
    with Interpreters() as interpreters:
        found = examine(rehearsal, interpreters)
    assert not found.complaints and not found.notes
    assert ("exact", "with 2 threads instead of 1 the bits are the same") in found.checks


@pytest.fixture
def wrong_kernels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine whose kernels pass their trial and compute the first layer of the small run wrongly, by one bit."""
    right, wrong = "(float)*from;\n", "(float)*from * (rows == 32 && length == 64 ? 1 + 0x1p-23f : 1);\n"
    build = compiled._compile

    def forget() -> None:
        compiled.built.cache_clear()
        trial.passed.cache_clear()

    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    with monkeypatch.context() as planting:
        planting.setattr(compiled, "_compile", lambda source, *rest: build(source.replace(right, wrong, 1), *rest))
        assert compiled.library("grid", compiled.CONTRACTION["grid"])
    forget()
    assert trial.passed() is not None
    yield
    forget()


needs_compiler = pytest.mark.skipif(compiled.built() is None, reason="no C compiler here")


@needs_compiler
def test_wrong_kernels_are_noticed_before_training_begins(
    tmp_path: Path, train_set: Dataset, wrong_kernels: None
) -> None:
    with pytest.raises(RecordingError, match=r"step 0: .*compiled kernels .* compute this model wrongly"):
        record(spec_of(train_set), train_set, tmp_path / "proof")


@pytest.mark.slow
@needs_compiler
@pytest.mark.parametrize("cheat", [None, flip_a_label], ids=["honest", "cheat"])
def test_wrong_kernels_accuse_nobody_and_excuse_nobody(
    tmp_path: Path, train_set: Dataset, exact_run: Path, request: pytest.FixtureRequest, cheat: Cheat | None
) -> None:
    folder = exact_run
    if cheat:
        folder = tmp_path / "proof"
        record(spec_of(train_set), train_set, folder, cheat)
    request.getfixturevalue("wrong_kernels")
    verdict = verify(folder, Policy(segments=None))
    assert WRONG_KERNELS in verdict.limits
    assert verdict.exit_code is (ExitCode.REPLAY_MISMATCH if cheat else ExitCode.VERIFIED), verdict.to_json()
