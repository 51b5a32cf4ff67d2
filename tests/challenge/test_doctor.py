"""The doctor finds nothing in a healthy program, and in a sick one the step, the module, the operator and the reason.

The programs share interpreters, which never train themselves: each rehearsal is a fork of one in which no program was
ever loaded.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner, Result

from challenge.advice import ADVICE, Reason
from challenge.cli import app
from challenge.doctor import Examination, examine
from challenge.traces import compare_traces, operators
from pol import TrainingSpec
from pol.data import Dataset
from pol.errors import CannotRun
from pol.machine import this_machine
from pol.program import program_digest
from pol.rehearsal import TRAINER, VERIFIER, Interpreters, Rehearsal
from tests.challenge.sick_programs import CASES, HEALTHY, MIDDLE, STEPS, Case


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the programs are written, and their data is."""
    folder = tmp_path_factory.mktemp("ward")
    torch.manual_seed(0)
    samples = Dataset(torch.randn(64, 8), torch.randint(4, (64,)))
    (folder / "data").write_bytes(samples.to_bytes())
    return folder


@pytest.fixture(scope="module")
def interpreters(folder: Path) -> Iterator[Interpreters]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder))
        patch.setenv("DOCTOR_TEST_SCALE", "3")
        patch.syspath_prepend(str(folder))
        with Interpreters() as interpreters:
            yield interpreters


@pytest.fixture
def rehearsal(folder: Path) -> Callable[[str], Rehearsal]:
    def prepare(source: str) -> Rehearsal:
        (folder / "sick.py").write_text(source)
        samples = Dataset.open(folder / "data")
        spec = TrainingSpec(
            program="sick:Program", program_digest=program_digest("sick:Program"), config={}, dataset="tiny",
            dataset_root=samples.root, dataset_size=len(samples), batch_size=8, steps=STEPS, segment_length=5,
            machine=this_machine(threads=1).to_json(), trainer=bytes(20),
        )  # fmt: skip
        return Rehearsal(spec=spec, seed=bytes(32), data=folder / "data", steps=STEPS, threads=1, middle=MIDDLE)

    return prepare


@pytest.fixture
def examined(interpreters: Interpreters, rehearsal: Callable[[str], Rehearsal]) -> Callable[[str], Examination]:
    return lambda source: examine(rehearsal(source), interpreters)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_sick_program_is_diagnosed(examined: Callable[[str], Examination], case: Case) -> None:
    (complaint, *_) = examined(case.source(case.sick)).complaints
    place = complaint.place
    assert (complaint.reason, place.step) == (case.reason, case.step), complaint
    assert (place.phase, place.module, place.parameter) == (case.phase, case.module, case.parameter), complaint
    assert case.operator in (None, place.operator), complaint
    assert any(case.detail in line for line in complaint.details) or not case.detail, complaint


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_its_twin_is_healthy(examined: Callable[[str], Examination], case: Case) -> None:
    found = examined(case.source(case.twin))
    assert not found.complaints, found.complaints
    assert [check for check, _ in found.checks] == ["twice", "restored"]


def test_every_reason_has_advice_and_a_case() -> None:
    assert set(ADVICE) == set(Reason) == {case.reason for case in CASES.values()}


def test_tracing_changes_no_bit_and_names_every_module(
    interpreters: Interpreters, rehearsal: Callable[[str], Rehearsal]
) -> None:
    plain = rehearsal(HEALTHY)
    whole, traced = (interpreters.rehearse(TRAINER, replace(plain, traced=step)) for step in (None, 4))
    assert whole.boundaries == traced.boundaries and len(whole.boundaries) == STEPS + 1
    assert whole.trace.read_bytes() == b""
    rows = list(operators(traced.trace))
    named = {(row["phase"], row["module"], row["parameter"]) for row in rows}
    for layer in ("layers.0", "layers.1.linear", "layers.2"):
        weight = f"{layer}.weight"
        assert {("forward", layer, None), ("backward", layer, weight), ("optimizer", layer, weight)} <= named
        assert any(row["module"] == layer and row["op"] == "aten.addmm.default" for row in rows)
        assert any(
            row["module"] == layer and row["op"] == "aten.mm.default" and row["phase"] == "backward" for row in rows
        )
    assert ("forward", "", None) in named and ("step", None, None) in named  # relu and the loss are in no layer


def test_a_trace_differs_from_another_where_the_step_does(
    interpreters: Interpreters, rehearsal: Callable[[str], Rehearsal]
) -> None:
    one = interpreters.rehearse(TRAINER, replace(rehearsal(HEALTHY), traced=0, steps=1))
    again = interpreters.rehearse(VERIFIER, replace(rehearsal(HEALTHY), traced=0, steps=1))
    other = interpreters.rehearse(VERIFIER, replace(rehearsal(HEALTHY.replace("torch.relu", "torch.tanh")), traced=0))
    assert compare_traces(one.trace, again.trace) is None
    difference = compare_traces(one.trace, other.trace)
    assert difference and difference.changed == "op"
    assert (difference.row["op"], difference.other) == ("aten.relu.default", "aten.tanh.default")


def test_a_program_may_print_and_read_without_harm(examined: Callable[[str], Examination]) -> None:
    noisy = "import sys; print('{}', flush=True); sys.stdin.read(1)\n        inputs, labels = batch"
    assert not examined(HEALTHY.replace("inputs, labels = batch", noisy)).complaints


def test_what_happens_once_is_said_to_be_so(examined: Callable[[str], Examination], folder: Path) -> None:
    once = f"if state.step == 2 and not os.path.exists('{folder}/mark'): open('{folder}/mark', 'w'); loss = loss * 2"
    (complaint,) = examined(HEALTHY.replace("loss.backward()", f"{once}\n        loss.backward()")).complaints
    assert complaint.reason is Reason.OUTSIDE and complaint.place.step == 2
    assert "now and then" in complaint.message


def test_an_overflow_after_the_middle_is_no_trouble_of_the_restart(examined: Callable[[str], Examination]) -> None:
    late = f"if state.step == {STEPS - 1}: loss = loss / 0\n        loss.backward()"
    (complaint,) = examined(HEALTHY.replace("loss.backward()", late)).complaints
    assert (complaint.reason, complaint.place.step) == (Reason.NOT_FINITE, STEPS - 1)
    assert complaint.place.operator == "aten.div.Tensor"


def test_notes_tell_what_another_machine_would_do(examined: Callable[[str], Examination]) -> None:
    found = examined(HEALTHY.replace("return self.linear(value)", "return self.linear(value).cumsum(1)"))
    assert not found.complaints
    threads, cuda = found.notes
    assert "with 2 threads instead of 1" in threads
    assert "no deterministic cumsum (of floats) on CUDA: step 0, forward of layers.1 (Middle) of Net" in cuda


@pytest.mark.parametrize(
    "line", ["raise KeyError('no such thing')", "raise SystemExit", "open('/nowhere')", "os._exit(3)"]
)
def test_a_program_that_does_not_run_cannot_be_examined(examined: Callable[[str], Examination], line: str) -> None:
    with pytest.raises(CannotRun, match=r"step 0 \(sick.py:|SystemExit|process died"):
        examined(HEALTHY.replace("loss.backward()", line))
    assert not examined(HEALTHY).complaints, "the interpreters survive it"


@pytest.fixture
def command(interpreters: Interpreters, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """The command, with the interpreters that all tests share."""
    monkeypatch.setattr("pol.rehearsal.Interpreters", lambda: nullcontext(interpreters))
    return lambda *arguments: CliRunner().invoke(app, ["doctor", *arguments])


def test_the_command_finds_nothing_in_a_built_in_program(command: Callable[..., Result]) -> None:
    done = command("examples/run.toml", "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert done.stdout.count("\n") == 1 and found["healthy"] and found["steps"] == 20 and found["model"] == "MLP"
    assert [row["check"] for row in found["checks"]] == ["twice", "restored"]


def test_the_command_names_step_module_operator_and_remedy(command: Callable[..., Result], folder: Path) -> None:
    case = CASES["a counter in a module"]
    (folder / "ill.py").write_text(case.source(case.sick))
    data = ["--dataset", "tiny", "--data", str(folder / "data"), "--batch-size", "8"]
    done = command("ill:Program", *data, "--steps", "6")
    assert done.exit_code == 20, done.output
    said = " ".join(done.stderr.split())
    assert "hidden-state: step 3, forward of layers.1 (Middle) of Net, aten.div.Tensor, at ill.py:" in said
    assert "model.layers.1.calls: 3 in the run, 0 restored" in said
    assert ADVICE[Reason.HIDDEN_STATE] in said
    assert done.stdout == ""
    found = json.loads(command("ill:Program", *data, "--json").stdout)
    (complaint,) = found["complaints"]
    assert found["exit_code"] == 20 and not found["healthy"]
    assert (complaint["step"], complaint["module"], complaint["operator"]) == (10, "layers.1", "aten.div.Tensor")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["nothing.toml"], 1),
        (["nowhere:Program"], 1),
        (["examples/run.toml", "--device", "cuda:7"], 1),
        (["examples/run.toml", "--set", "width=3"], 2),
        (["nowhere:Program", "--set", "width"], 2),
        (["examples/run.toml", "--steps", "1"], 2),
    ],
)
def test_the_command_says_when_it_cannot_run(command: Callable[..., Result], arguments: list[str], code: int) -> None:
    done = command(*arguments)
    assert done.exit_code == code and "Traceback" not in done.output and done.stdout == ""
