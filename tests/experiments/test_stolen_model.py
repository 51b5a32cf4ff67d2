"""The runner of the stolen-model experiment: data that do not overlap, results that survive a kill, honest numbers."""

from __future__ import annotations

import gzip
import json
import struct
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from experiments.attacks import ATTACKS
from experiments.stolen_model import page
from experiments.stolen_model.analysis import EXTRACTION, Row, auc, found_share, null_of, roc
from experiments.stolen_model.bench import Bench, attack_of
from experiments.stolen_model.channels import Triggers
from experiments.stolen_model.data import fashion, parse_idx, photographs, split
from experiments.stolen_model.plan import Cell, Plan
from experiments.stolen_model.store import Results, digest_of
from pol.errors import CannotRun, PolError, ProofError

DIGITS = {"source": "digits", "owner": 650, "attacker": 650, "test": 497}
scores = st.lists(st.floats(-100, 100), min_size=1, max_size=20)


def rows(part: torch.Tensor) -> set[bytes]:
    return {row.numpy().tobytes() for row in part}


def test_the_parts_of_the_data_are_disjoint_and_differ_between_seeds() -> None:
    first, second = split(DIGITS, 1), split(DIGITS, 2)
    parts = [rows(part.inputs) for part in (first.owner, first.attacker, first.test)]
    everything = set().union(*parts)
    assert len(everything) == sum(map(len, parts)) == 1797
    assert rows(second.owner.inputs) != parts[0]
    assert rows(split(DIGITS, 1).owner.inputs) == parts[0]


def test_more_samples_than_there_are_is_told_plainly() -> None:
    with pytest.raises(CannotRun, match="1797 samples"):
        split(DIGITS | {"test": 498}, 1)


def test_photographs_are_noisy_inputs_and_clean_targets() -> None:
    part = photographs({"size": 32, "noise": 0.1})
    assert part.inputs.shape == part.targets.shape
    assert 0 < float((part.inputs - part.targets).square().mean()) < 0.011


def idx(sizes: tuple[int, ...], values: bytes) -> bytes:
    return bytes([0, 0, 8, len(sizes)]) + struct.pack(f">{len(sizes)}I", *sizes) + values


@given(st.lists(st.integers(0, 5), min_size=1, max_size=4).map(tuple), st.randoms())
def test_idx_files_are_read_back(sizes: tuple[int, ...], random: Random) -> None:
    values = random.randbytes(int(np.prod(sizes)))
    array = parse_idx(idx(sizes, values), where="here")
    assert array.shape == sizes
    assert array.tobytes() == values


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00\x00\x08",
        b"\x00\x00\x0d\x01" + struct.pack(">I", 0),
        idx((2,), b"\x01"),
        idx((2,), b"\x01\x02\x03"),
        idx((2**32 - 1, 2**32 - 1, 2**32 - 1), b""),
        idx((2,), b"\x01\x02")[:6],
        bytes([0, 0, 8, 200]) + bytes(100),
    ],
)
def test_what_is_no_idx_file_is_refused(data: bytes) -> None:
    with pytest.raises(ProofError, match="here"):
        parse_idx(data, where="here")


def test_a_missing_or_other_data_set_is_told_plainly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIARENA_DATA", str(tmp_path))
    with pytest.raises(CannotRun, match="AIARENA_DATA"):
        fashion({})
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(b"something else")
    with pytest.raises(ProofError, match="not a gzip file"):
        fashion({})
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(b"something else"))
    with pytest.raises(ProofError, match="not what the authors"):
        fashion({})


def record(cell: str, digest: str = "d") -> dict[str, object]:
    return {"cell": cell, "digest": digest}


def test_results_survive_a_kill_in_the_middle_of_a_line(tmp_path: Path) -> None:
    path = tmp_path / "results" / "w.jsonl"
    results = Results(path)
    for cell in ("a", "b"):
        results.add(record(cell))
    whole = path.read_bytes()
    line = whole.splitlines(keepends=True)[1]
    for cut in range(1, len(line)):  # any byte of the last line
        path.write_bytes(whole[: -len(line)] + line[:cut])
        again = Results(path)
        assert again.has("a", "d")
        again.add(record("c"))
        assert {"a", "c"} <= set(Results(path).records)


def test_results_of_other_settings_or_failed_ones_are_run_again(tmp_path: Path) -> None:
    results = Results(tmp_path / "w.jsonl")
    results.add(record("a"))
    results.add(record("b") | {"failed": "RuntimeError: out of memory"})
    assert results.has("a", "d")
    assert not results.has("a", "other")
    assert not results.has("b", "d")
    results.add(record("a", "other"))
    results.tidy({"a": "other"})
    assert [json.loads(line) for line in results.path.read_text().splitlines()] == [record("a", "other")]


def test_every_cell_has_a_name_of_its_own_and_a_digest_that_follows_the_settings() -> None:
    plan = Plan.read()
    for workload in plan.workloads.values():
        cells = list(plan.cells(workload))
        assert len({cell.name for cell in cells}) == len(cells)
        other = replace(plan, workloads={workload.name: replace(workload, version=workload.version + 1)})
        assert all(plan.digest(cell) != other.digest(cell) for cell in cells)
        attacked = {cell.what for cell in cells if cell.mark == "ours"}
        fitting = {name for name, attack in ATTACKS.items() if attack.applies(workload.kind)}
        assert set(workload.attacks or fitting) <= fitting & attacked


def test_a_composed_attack_is_out_of_date_when_a_part_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = Plan.read()
    cells = [Cell("digits-mlp", "ours", 1, what) for what in ("everything-gently", "others-everything-gently", "int8")]
    before = [plan.digest(cell) for cell in cells]
    monkeypatch.setitem(ATTACKS, "int4", ATTACKS["int4"].at(bits=5))
    assert [plan.digest(cell) == old for cell, old in zip(cells, before, strict=True)] == [False, False, True]


def test_what_was_taught_is_extracted_also_when_it_was_modified_later() -> None:
    def row(what: str, found: bool) -> Row:
        return Row("ours", 1, what, {"readings": {"weights": {"found": found, "score": 1.0}}})

    rows = [row("released", True), row("int4", False), row("int8@bits=2", False), row("sok-0", False)]
    rows += [row("distil", True), row("innocent-0", False)]
    assert [one.family == EXTRACTION for one in rows] == [False, False, False, True, True, False]
    assert found_share(rows, "weights") == 0.5
    assert found_share(rows, "weights", family=EXTRACTION) == 0.5


def test_there_are_as_many_pairs_of_keys_and_innocents_as_asked_for() -> None:
    plan = Plan.read()
    for workload in plan.workloads.values():
        tested: dict[str, int] = {}
        for cell in plan.cells(workload):
            if plan.keys(cell):
                channel = cell.what.rpartition("-")[0] if cell.what.startswith("null-") else cell.what
                tested[channel] = tested.get(channel, 0) + plan.keys(cell)
        channels = {*workload.channels, *workload.nulls}
        assert {f"null-{channel}" for channel in channels} == {name for name in tested if name.startswith("null-")}
        assert ("others-everything-gently" in tested) == ("weights" in channels)
        assert all(pairs >= plan.pairs >= 10_000 for pairs in tested.values())


def test_seeds_for_tuning_are_not_the_reported_ones() -> None:
    assert not set(Plan.read().seeds) & set(Plan.read(tuning=True).seeds)
    assert not set(Plan.read().seeds) & set(Plan.read(quick=True).seeds)


def test_goals_and_curves_name_attacks_that_there_are() -> None:
    plan = Plan.read()
    for name, curve in plan.curves.items():
        for parameter, values in curve.items():
            for value in values:
                assert attack_of(f"{name}@{parameter}={value}").run[parameter] == value
    for goal in plan.goals:
        assert set(goal["attacks"]) <= set(ATTACKS), goal["text"]


def test_a_goal_is_met_only_where_everything_was_run() -> None:
    plan = Plan.read()
    rows = page.rows_found(plan, plan.workloads["digits-mlp"])
    whole, part = ("".join(page.judged_goals(plan, {"digits-mlp": some})) for some in (rows, rows[:-1]))
    assert whole.count("| met") == part.count("| not finished") > 0 == part.count("| met")
    assert whole.count("missed by") == part.count("missed by"), "what was missed is missed already"


def test_a_channel_that_is_not_embedded_is_not_passed_over() -> None:
    plan = Plan.read()
    told = "".join(page.judged_goals(plan, {"text-gpt": [], "photo-denoiser": []}))
    assert told.count("| text-gpt | triggers: distillation on the training distribution") == 1
    assert told.count("not measured") == 1, "outputs are for images alone, triggers for what answers with a label"


def test_a_student_is_asked_about_inputs_that_are_no_triggers(tmp_path: Path) -> None:
    plan = Plan.read(quick=True)
    bench = Bench(plan.workloads["digits-mlp"], "ours", 7, tmp_path, "settings")
    channel = bench.channels["triggers"]
    assert isinstance(channel, Triggers)
    fields = channel.fields(bench.owner, 300)
    assert len(rows(fields)) == 300
    assert fields.shape[1:] == bench.split.owner.inputs.shape[1:]
    assert not rows(fields) & rows(channel.inputs(bench.owner))
    found = bench.imitation()["imitation"]
    alone, _, both, _ = found.values()
    assert both["agreement"]["inputs like triggers"] > alone["agreement"]["inputs like triggers"]
    assert alone["reading"]["trials"] == channel.leaves


def test_an_unknown_parameter_is_refused() -> None:
    with pytest.raises((PolError, KeyError)):
        attack_of("prune-50@colour=1")


@given(scores, scores)
def test_auc_is_fair(left: list[float], right: list[float]) -> None:
    assert auc(left, right) + auc(right, left) == pytest.approx(1.0)
    assert auc(left, left) == pytest.approx(0.5)
    assert auc([value + 300 for value in left], right) == 1.0


@given(scores, scores)
def test_the_area_under_the_curve_is_the_auc(stolen: list[float], independent: list[float]) -> None:
    x, y = roc(stolen, independent)
    area = sum((b - a) * (top + low) / 2 for a, b, low, top in zip(x, x[1:], y, y[1:], strict=False))
    assert area == pytest.approx(auc(stolen, independent))


@pytest.mark.parametrize("chance", [Fraction(1, 2), Fraction(1, 10)])
def test_coin_flips_pass_as_innocent_and_a_lean_does_not(chance: Fraction) -> None:
    dice = np.random.default_rng(1)
    fair = null_of(dice.binomial(256, float(chance), 10_000), np.full(10_000, 256), chance)
    assert fair.ks > 1e-3
    assert fair.below == 0
    lean = null_of(dice.binomial(256, float(chance) + 0.02, 10_000), np.full(10_000, 256), chance)
    assert lean.ks < 1e-6


def test_digests_do_not_depend_on_the_order_of_keys() -> None:
    assert digest_of({"a": 1, "b": (2,)}) == digest_of({"b": [2], "a": 1})


def test_a_page_can_be_written_from_no_results_at_all(tmp_path: Path) -> None:
    plan = replace(Plan.read(quick=True), results=tmp_path / "none", page=tmp_path / "page.md", plots=tmp_path)
    page.write(plan)
    assert "not run yet" in plan.page.read_text()


def test_results_of_other_settings_are_not_on_the_page(tmp_path: Path) -> None:
    plan = replace(Plan.read(quick=True), results=tmp_path, page=tmp_path / "page.md", plots=tmp_path)
    (workload,) = plan.workloads.values()
    cell = next(iter(plan.cells(workload)))
    for digest, count in (("another", 0), (plan.digest(cell), 1)):
        Results(tmp_path / f"{workload.name}.jsonl").add(record(cell.name, digest) | {"failed": "RuntimeError"})
        page.write(plan)
        assert f"| {workload.name} | {count} of " in plan.page.read_text()
