"""A mark that was trained in: with the whole key its branch replays to the bit, and everything else is rejected.

The replays are real, but each is done once: the forged models below are all compared with what one of them gives.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from challenge.branch import check_branch, reference_model
from challenge.claims import TiedClaim, write_claim
from challenge.cli import app
from challenge.executors import Executor
from challenge.sealed import read_sealed_claim, seal_claim
from challenge.segments import WRONG_KERNELS, Policy
from challenge.states import load_blob
from challenge.verdict import ExitCode, Outcome, Verdict
from challenge.verify import verify
from pol import Proof, Recorder, SeedSource, Submission, seal
from pol.cid import cid_of
from pol.data import Dataset
from pol.errors import ProofError, SpecError
from pol.order import DataOrder
from pol.program import load_program
from pol.replay import Job, ReplayedSpan, Span, replay
from pol.spec import EXACT, TrainingSpec, WatermarkPromise
from pol.state import Tensors, model_tensors, to_safetensors
from pol.tensors import tensors_digest
from tests.runs import SEED, record, small_spec
from watermark import Claim, MarkParameters, WatermarkKey, mlp_mark
from watermark.branch import MarkedProgram, Marking, train_branch
from watermark.branch_replay import branch_of, mark_run, marked_program
from watermark.keyfile import PASSPHRASE_VARIABLE
from watermark.sealing import JurorKey
from watermark.triggers import Images, TriggerMark

BETA = bytes(range(32))
SEGMENT, STEPS = 1, 12
PARAMETERS = MarkParameters(
    weights=mlp_mark("layers.1.weight", groups=8, rows=16, leaves=16, margin=2.0).weights,
    triggers=TriggerMark(Images(1, 8, 8), classes=10, groups=4, leaves=16),
    branch_steps=STEPS,
)
KEY = WatermarkKey(b"the owner's secret, 32 bytes ...", PARAMETERS.leaf_count)
VERA = JurorKey(b"\1" * 32)


class Remembering:
    """Replays in fresh processes, and answers from memory what it was asked before; maybe as another machine would."""

    def __init__(self) -> None:
        self.known: dict[str, tuple[list[ReplayedSpan], list[dict[int, bytes]]]] = {}
        self.processor: str | None = None

    def replay(self, job: Job, spans: Sequence[Span], on_segment: Any = None) -> list[ReplayedSpan]:
        """As :func:`pol.replay.replay`; states are told apart by their CIDs, wherever they lie."""
        asked = [(span.first, span.last, span.start and span.start.name) for span in spans]
        question = json.dumps([job.to_json(), asked])
        if question not in self.known:
            results = replay(job, spans)
            written = [{i: path for i, path in (span.emit or {}).items() if path.exists()} for span in spans]
            states = [{i: path.read_bytes() for i, path in files.items()} for files in written]
            self.known[question] = results, states
        answers = []
        for span, result, states in zip(spans, *self.known[question], strict=True):
            for index, data in states.items():
                span.emit[index].write_bytes(data)  # type: ignore[index]
            machine = replace(result.machine, processor=self.processor or result.machine.processor)
            answers.append(replace(result, span=span, machine=machine))
            for segment in result.segments if on_segment else ():
                on_segment(segment)
        return answers


@pytest.fixture(scope="module")
def replays() -> Remembering:
    return Remembering()


@pytest.fixture
def policy(replays: Remembering) -> Policy:
    replays.processor = None
    return Policy(segments=[0], executor=replays)


def recorded(dataset: Dataset, folder: Path, key: WatermarkKey, parameters: MarkParameters, **config: float) -> Path:
    """A recorded trunk of two segments, whose schedule leaves room for the branch."""
    promise = WatermarkPromise(key_root=key.root, parameters=parameters.to_json())
    spec = small_spec(dataset, steps=20, segment_length=10, width=256, batch_norm=False, **config)
    record(replace(spec, config=spec.config | {"steps": 400}, watermark=promise), dataset, folder)
    return folder


@pytest.fixture(scope="module")
def run(train_set: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return recorded(train_set, tmp_path_factory.mktemp("trained-in") / "run", KEY, PARAMETERS)


@pytest.fixture(scope="module")
def marked(run: Path) -> Tensors:
    """The honest trainer's model."""
    return mark_run(run, SEGMENT, KEY, BETA)


def reference(run: Path) -> Tensors:
    proof = Proof.read(run)
    return load_blob(run, proof.stored_at(proof.spec.bounds(SEGMENT)[1]).cid)


def branch(run: Path, dataset: Dataset, key: WatermarkKey, beta: bytes, steps: int) -> Tensors:
    """A branch with another mark or of another length than promised, in this process."""
    proof, trunk = Proof.read(run), reference(run)
    start = proof.spec.bounds(SEGMENT)[1]
    program = load_program(proof.spec.program, proof.spec.program_digest)
    state = program.build(proof.spec.config, proof.seed)
    state.restore(trunk, layout=trunk, seed=proof.seed, step=start)
    order = DataOrder(proof.seed, len(dataset), proof.spec.batch_size)
    batches = [dataset.batch(order.batch(step)) for step in range(start, start + steps)]
    marking = Marking(state, key, beta, PARAMETERS)
    train_branch(MarkedProgram(program, marking, end=start + steps), state, batches, proof.seed)
    return model_tensors(state.capture(proof.seed))


def submitted(run: Path, folder: Path, model: Tensors) -> Path:
    """A copy of the run with ``model`` submitted as its branch."""
    shutil.copytree(run, folder)
    blob = to_safetensors(model)
    submission = Submission(
        model_digest=tensors_digest(model), model_cid=cid_of(blob), reference_segment=SEGMENT, beta=BETA
    )
    seal(folder, submission, blob, None)
    return folder


def tied(
    run: Path,
    groups: Iterable[int] | None = None,
    key: WatermarkKey = KEY,
    parameters: MarkParameters = PARAMETERS,
) -> TiedClaim:
    """The trainer's own claim, with these groups opened (None: all)."""
    proof, opened = Proof.read(run), range(parameters.groups) if groups is None else groups
    claim = Claim.make(key, BETA, parameters, list(opened), model_tensors(reference(run)))
    return TiedClaim(claim, proof.spec, proof.segments[SEGMENT].end_digest)


def test_an_honest_branch_verifies(run: Path, marked: Tensors, policy: Policy, tmp_path: Path) -> None:
    verdict = verify(submitted(run, tmp_path / "proof", marked), policy, claims=[tied(run)])
    assert verdict.outcome is Outcome.VERIFIED, (verdict.findings, verdict.undecided)
    assert "12 steps with the whole key replay" in dict(verdict.checks)["branch"]
    (mark,) = verdict.watermarks
    assert mark["own"] and mark["found"]


def nudged(model: Tensors) -> Tensors:
    weight = model["layers.0.weight"].clone()
    weight[3, 7] = torch.nextafter(weight[3, 7], torch.tensor(2.0))
    return model | {"layers.0.weight": weight}


CHEATS: dict[str, Callable[[Path, Dataset, Tensors], Tensors]] = {
    "one weight by one unit": lambda run, data, model: nudged(model),
    "one step more": lambda run, data, model: branch(run, data, KEY, BETA, STEPS + 1),
    "one step less": lambda run, data, model: branch(run, data, KEY, BETA, STEPS - 1),
    "another beta": lambda run, data, model: branch(run, data, KEY, bytes(32), STEPS),
    "another key": lambda run, data, model: branch(run, data, WatermarkKey(bytes(32), KEY.leaf_count), BETA, STEPS),
    "the trunk, unmarked": lambda run, data, model: model_tensors(reference(run)),
}


def test_in_process_the_branch_is_the_same(run: Path, marked: Tensors, train_set: Dataset) -> None:
    """The honest twin of the cheats below, which are made in this process."""
    assert tensors_digest(branch(run, train_set, KEY, BETA, STEPS)) == tensors_digest(marked)


@pytest.mark.parametrize("cheat", CHEATS)
def test_any_other_model_is_rejected(
    run: Path, marked: Tensors, train_set: Dataset, policy: Policy, tmp_path: Path, cheat: str
) -> None:
    model = CHEATS[cheat](run, train_set, marked)
    verdict = verify(submitted(run, tmp_path / "proof", model), policy, claims=[tied(run)])
    assert verdict.exit_code is ExitCode.REPLAY_MISMATCH
    assert "12 steps with the promised mark do not replay" in verdict.findings[0].message


@pytest.mark.slow
def test_models_marked_while_the_run_goes_on_are_all_its_branches(
    train_set: Dataset, tmp_path: Path, policy: Policy
) -> None:
    """The first leaves the trunk in the middle, and training goes on without its mark; the proof shows both."""
    promise = WatermarkPromise(key_root=KEY.root, parameters=PARAMETERS.to_json())
    spec = small_spec(train_set, steps=40, segment_length=10, width=256, batch_norm=False)
    spec = replace(spec, config=spec.config | {"steps": 400}, watermark=promise)
    folder, middle = tmp_path / "proof", {}
    with Recorder(spec, folder, seed_source=SeedSource(kind="chosen", value=SEED)) as recorder:
        state = recorder.program.build(spec.config, recorder.seed)
        recorder.attach(model=state.model, optimizer=state.optimizer, scheduler=state.scheduler)
        for batch in recorder.batches(train_set):
            if recorder.state.step == 30:
                recorder.wait()
                middle |= mark_run(folder, SEGMENT, KEY, BETA)
            recorder.step(recorder.program.train_step(state, batch))
    marks = [(SEGMENT, middle), (3, mark_run(folder, 3, KEY, BETA))]
    blobs = [to_safetensors(model) for _, model in marks]
    first, last = (
        Submission(
            model_digest=tensors_digest(model), model_cid=cid_of(blob), reference_segment=segment, beta=BETA
        )
        for (segment, model), blob in zip(marks, blobs, strict=True)
    )  # fmt: skip
    seal(folder, last, blobs[1], None, earlier=[(first, blobs[0])])
    theta_ref = reference_model(folder, Proof.read(folder), first)
    own = Claim.make(KEY, BETA, PARAMETERS, range(PARAMETERS.groups), theta_ref)
    verdict = verify(
        folder, policy, claims=[TiedClaim(own, spec, Proof.read(folder).segments[SEGMENT].end_digest)]
    )  # fmt: skip
    assert verdict.outcome is Outcome.VERIFIED, (verdict.findings, verdict.undecided)
    branches = [text for check, text in verdict.checks if check == "branch"]
    assert len(branches) == 2 and all("bit for bit" in text for text in branches)
    assert [row["found"] for row in verdict.watermarks if row["own"]] == [True, True]


def test_on_another_class_of_machine_a_difference_convicts_nobody(
    run: Path, marked: Tensors, policy: Policy, replays: Remembering, tmp_path: Path
) -> None:
    replays.processor = "another"
    honest = verify(submitted(run, tmp_path / "honest", marked), policy, claims=[tied(run)])
    assert honest.outcome is Outcome.VERIFIED, "equal bits prove everything anywhere"
    verdict = verify(submitted(run, tmp_path / "nudged", nudged(marked)), policy, claims=[tied(run)])
    assert verdict.outcome is Outcome.INCONCLUSIVE and "another class" in verdict.undecided[0]


@pytest.mark.parametrize("groups", [None, range(PARAMETERS.groups - 1)], ids=["no claim", "a part of the key"])
def test_without_the_whole_key_it_stays_undecided(
    run: Path, marked: Tensors, policy: Policy, tmp_path: Path, groups: range | None
) -> None:
    claims = [] if groups is None else [tied(run, groups)]
    verdict = verify(submitted(run, tmp_path / "proof", nudged(marked)), policy, claims=claims)
    assert (verdict.outcome, verdict.findings) == (Outcome.INCONCLUSIVE, [])
    assert "the whole key" in verdict.undecided[0]


def test_the_order_of_the_groups_does_not_matter(run: Path, marked: Tensors, policy: Policy, tmp_path: Path) -> None:
    backwards = tied(run, reversed(range(PARAMETERS.groups)))
    verdict = verify(submitted(run, tmp_path / "proof", marked), policy, claims=[backwards])
    assert verdict.outcome is Outcome.VERIFIED


def test_a_branch_of_no_promised_length_stays_undecided(
    run: Path, marked: Tensors, policy: Policy, tmp_path: Path
) -> None:
    """As in specs from before the number of steps was promised."""
    folder = submitted(run, tmp_path / "proof", marked)
    proof = Proof.read(folder)
    promise = WatermarkPromise(key_root=KEY.root, parameters=replace(PARAMETERS, branch_steps=0).to_json())
    older, verdict = replace(proof, spec=replace(proof.spec, watermark=promise)), Verdict()
    assert older.submission
    check_branch(folder, older, older.submission, marked, reference(run), [tied(run)], policy, verdict)
    assert verdict.outcome is Outcome.INCONCLUSIVE and "number of steps was not promised" in verdict.undecided[0]


class WrongKernels:
    """An executor whose compiled kernels fail where torch's operators do not."""

    def __init__(self, spec: TrainingSpec, executor: Executor) -> None:
        self.spec, self.executor = spec, executor

    def replay(self, job: Job, spans: Sequence[Span], on_segment: Any = None) -> list[ReplayedSpan]:
        """As :func:`pol.replay.replay`, for the native run that it is."""
        results = self.executor.replay(replace(job, spec=self.spec, fused=True), spans)
        return [replace(result, problem="wrong kernels" if job.fused else None) for result in results]


@pytest.mark.parametrize("honest", [True, False])
def test_kernels_do_not_decide_an_exact_branch(
    run: Path, marked: Tensors, policy: Policy, tmp_path: Path, honest: bool
) -> None:
    folder = submitted(run, tmp_path / "proof", marked if honest else nudged(marked))
    proof, verdict = Proof.read(folder), Verdict()
    exact = replace(proof, spec=replace(proof.spec, numerics=EXACT))
    wrong = replace(policy, executor=WrongKernels(proof.spec, policy.executor))
    assert exact.submission
    check_branch(folder, exact, exact.submission, marked, reference(run), [tied(run)], wrong, verdict)
    assert verdict.exit_code is (ExitCode.VERIFIED if honest else ExitCode.REPLAY_MISMATCH)
    assert (WRONG_KERNELS in verdict.limits) is honest


def test_a_juror_is_shown_the_whole_key_sealed(run: Path, marked: Tensors, policy: Policy, tmp_path: Path) -> None:
    mine = tied(run)
    write_claim(tmp_path / "claim", mine.claim, mine.spec, reference(run))
    (tmp_path / "sealed").write_bytes(seal_claim(tmp_path / "claim", [VERA.public], case=1))
    shown = read_sealed_claim(tmp_path / "sealed", VERA, case=1)
    verdict = verify(submitted(run, tmp_path / "proof", marked), policy, claims=[shown])
    assert verdict.outcome is Outcome.VERIFIED


def test_a_payload_is_read_strictly_and_names_no_code(run: Path) -> None:
    proof = Proof.read(run)
    honest = branch_of(SEGMENT, KEY, BETA, PARAMETERS)
    program = load_program(proof.spec.program, proof.spec.program_digest)
    state = program.build(proof.spec.config, proof.seed)
    payload = honest.payload
    assert isinstance(payload, dict) and marked_program(program, state, 32, payload)  # the honest twin
    leaves = str(payload["leaves"])
    changes: list[Any] = [
        {"wrapper": "os:system"}, {"beta": "0x00"}, {"leaves": leaves[:-2]}, {"leaves": leaves + "00"},
        {"leaves": [leaves]}, {"parameters": {"wrapper": "os:system"}}, {"parameters": None},
        {"parameters": PARAMETERS.to_json() | {"program": "os:system"}},  # type: ignore[operator]
    ]  # fmt: skip
    for hostile in [None, [], {}, *(payload | change for change in changes)]:
        with pytest.raises(ProofError):
            marked_program(program, state, 32, hostile)


def test_a_trainer_who_promised_something_else_is_told(run: Path, honest_run: Path) -> None:
    with pytest.raises(SpecError, match="does not promise"):
        mark_run(honest_run, SEGMENT, KEY, BETA)
    with pytest.raises(SpecError, match="does not promise"):
        mark_run(run, SEGMENT, WatermarkKey(bytes(32), KEY.leaf_count), BETA)
    with pytest.raises(ProofError, match="no state is stored"):
        mark_run(run, 0, KEY, BETA)


ALONE = {
    "triggers": MarkParameters(triggers=replace(PARAMETERS.triggers, groups=8), branch_steps=80),
    "weights": MarkParameters(weights=PARAMETERS.weights, branch_steps=5),
}


@pytest.mark.slow
@pytest.mark.parametrize("channel", ALONE)
def test_one_channel_alone_is_trained_in_too(train_set: Dataset, tmp_path: Path, channel: str) -> None:
    parameters = ALONE[channel]
    key = WatermarkKey(bytes(32), parameters.leaf_count)
    run = recorded(train_set, tmp_path / "run", key, parameters, learning_rate=2e-3)
    marked = mark_run(run, SEGMENT, key, BETA)
    claims = [tied(run, key=key, parameters=parameters)]
    for model, code in ((marked, ExitCode.VERIFIED), (nudged(marked), ExitCode.REPLAY_MISMATCH)):
        verdict = verify(submitted(run, tmp_path / code.name, model), Policy(segments=[0]), claims=claims)
        assert verdict.exit_code is code, (verdict.findings, verdict.undecided)
        assert verdict.watermarks[0]["found"] and verdict.watermarks[0]["channel"] == channel


@pytest.mark.slow
def test_the_command_replays_a_sealed_key(
    run: Path, marked: Tensors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PASSPHRASE_VARIABLE, "twelve plain words")
    VERA.save(tmp_path / "juror.json")
    mine = tied(run)
    write_claim(tmp_path / "claim", mine.claim, mine.spec, reference(run))
    (tmp_path / "sealed").write_bytes(seal_claim(tmp_path / "claim", [VERA.public]))
    arguments = ["--claim", tmp_path / "sealed", "--juror-key", tmp_path / "juror.json", "--segments", "0,", "--json"]
    for model, code in ((marked, 0), (nudged(marked), 11)):
        proof = submitted(run, tmp_path / f"proof{code}", model)
        done = CliRunner().invoke(app, ["verify", str(proof), *map(str, arguments)])
        assert done.exit_code == code, done.output
