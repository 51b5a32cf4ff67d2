"""Every model that a run submits is a branch of its trunk, and what keeps its trainer from a model that is none."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from chain.anchoring import SubmittedModel
from chain.types import Beacon
from challenge.arena.models import Models
from challenge.arena.session import NotYet
from challenge.arena.submit import alone
from challenge.segments import Policy
from challenge.verdict import ExitCode, Outcome
from challenge.verify import verify
from pol import Proof, Submission, seal
from pol.data import Dataset
from pol.errors import SpecError
from pol.journal import JOURNAL
from pol.spec import WatermarkPromise
from pol.state import Tensors, to_safetensors
from pol.store import LocalStore
from tests.runs import record, small_spec, submitted, trunk_model
from watermark import MarkParameters, WatermarkKey, mark_run, mlp_mark

LIGHT = mlp_mark("layers.1.weight", groups=4, rows=16, leaves=16, margin=0.5)
HEAVY = mlp_mark("layers.1.weight", groups=16, rows=16, leaves=16, margin=3.0)


def noisy(model: Tensors) -> Tensors:
    return model | {"layers.0.bias": model["layers.0.bias"] + 1e-6}


@pytest.mark.parametrize(
    ("first", "outcome"), [(lambda model: model, Outcome.VERIFIED), (noisy, Outcome.REJECTED)], ids=["honest", "noisy"]
)
def test_an_earlier_model_is_a_branch_like_the_last(
    honest_run: Path, tmp_path: Path, first: Callable[[Tensors], Tensors], outcome: Outcome
) -> None:
    folder = Path(shutil.copytree(honest_run, tmp_path / "proof"))
    seal(folder, *submitted(trunk_model(folder, 3), 3), None, earlier=[submitted(first(trunk_model(folder, 1)), 1)])
    verdict = verify(folder, Policy(segments=1))
    assert verdict.outcome is outcome and {1, 3} <= set(verdict.segments), "what a model comes from is replayed"
    assert {finding.code for finding in verdict.findings} <= {ExitCode.REPLAY_MISMATCH}


class Desk:
    """What :class:`Models` asks of a session and of its chain; ``anchored`` are the references that it anchored."""

    def __init__(self, shown: tuple[SubmittedModel, ...] = ()) -> None:
        self.anchored: list[Any] = []
        self.shown, self.mark = shown, Beacon(7, bytes(range(32)))
        self.client = SimpleNamespace(arena=self)
        self.promises = SimpleNamespace(lent=nullcontext)
        self.web3, self.now, self.signer = SimpleNamespace(eth=self), 150, object()

    def run(self, _: int) -> Any:
        digest = b"\1" * 32 if self.shown or self.anchored else bytes(32)
        return SimpleNamespace(reference_digest=digest, reference_segment=1, mark=self.mark, submissions=self.shown)

    def anchor_reference(self, _: int, opening: Any) -> None:
        self.anchored.append(opening.segment.index)

    def current_round(self, _: int) -> int:
        return 2

    def task_config(self, _: int) -> Any:
        return SimpleNamespace(clock=SimpleNamespace(rounds=3))

    def round_times(self, _: int, round_: int) -> Any:
        return SimpleNamespace(scores_from=100 * round_ + 10)

    def get_block(self, _: str) -> Any:
        return {"timestamp": self.now}


def models_of(
    dataset: Dataset, folder: Path, parameters: MarkParameters, monkeypatch: pytest.MonkeyPatch, **config: float
) -> Callable[[Desk], Models]:
    """The models of a run of four segments, still in its journal; it keeps states 1 and 3."""
    monkeypatch.setenv("AIARENA_KEY_PASSPHRASE", "a passphrase of the tests")
    monkeypatch.setattr("challenge.arena.models.read_run", lambda client, number: client.arena.run(number))
    key = WatermarkKey(b"the owner's secret, 32 bytes ...", parameters.leaf_count)
    key.save(folder / "watermark.key")
    spec = small_spec(dataset, width=256, batch_norm=False, **config)
    spec = replace(spec, watermark=WatermarkPromise(key_root=key.root, parameters=parameters.to_json()))
    record(spec, dataset, folder / "proof")
    (folder / "proof" / JOURNAL).touch()
    kept = SimpleNamespace(
        proof=folder / "proof", key=folder / "watermark.key", data=folder / "none", spec=spec, number=1, task=1,
        models=LocalStore(folder / "models", suffix=".safetensors"),
    )  # fmt: skip
    store = LocalStore(folder / "store")
    return lambda desk: Models(desk, kept, store)  # type: ignore[arg-type]


def next_model(
    dataset: Dataset, folder: Path, parameters: MarkParameters, monkeypatch: pytest.MonkeyPatch, *, unmarked: bool
) -> Callable[[Desk], Submission]:
    """What the trainer of such a run submits next."""
    models = models_of(dataset, folder, parameters, monkeypatch)
    return lambda desk: models(desk).next(0, unmarked)[0]


def in_round_1(model: Tensors, segment: int) -> SubmittedModel:
    """The model as it was shown in the first round."""
    mark, _ = submitted(model, segment)
    return SubmittedModel(
        round=1, order=1, commitment=bytes(32), struck=False, branch=segment, model_digest=mark.model_digest,
        model_cid=mark.model_cid,
    )  # fmt: skip


def ended(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run reached its end; its models are there, and it can be sealed."""
    (folder / "proof" / JOURNAL).unlink()
    for segment in (1, 3):
        LocalStore(folder / "models", suffix=".safetensors").put(to_safetensors(trunk_model(folder / "proof", segment)))
    monkeypatch.setattr("challenge.arena.models.sign_proof", lambda proof, signer: bytes(65))


@pytest.mark.parametrize("unmarked", [False, True])
def test_theta_ref_is_not_named_where_the_trunk_does_not_bear_the_mark(
    train_set: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unmarked: bool
) -> None:
    """It is named once, and all models of the run would have to bear it."""
    desk, submit = Desk(), next_model(train_set, tmp_path, HEAVY, monkeypatch, unmarked=unmarked)
    if unmarked:
        assert submit(desk).reference_segment == 3
    else:
        with pytest.raises(SpecError, match="too strong for so short a training"):
            submit(desk)
    assert desk.anchored == [3] * unmarked


@pytest.mark.parametrize("unmarked", [False, True])
def test_no_model_is_marked_where_an_earlier_one_was_not(
    train_set: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unmarked: bool
) -> None:
    """The trainer's own claim is tried on all of them."""
    submit = next_model(train_set, tmp_path, LIGHT, monkeypatch, unmarked=unmarked)
    shown = in_round_1(trunk_model(tmp_path / "proof", 1), 1)
    if unmarked:
        assert submit(Desk((shown,))).reference_segment == 3
    else:
        with pytest.raises(SpecError, match="all models of a run have its mark"):
            submit(Desk((shown,)))


@pytest.mark.parametrize("rate", [1e-3, 0.3])
def test_a_trainer_is_told_when_copies_of_its_late_model_go_unnoticed(
    train_set: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], rate: float
) -> None:
    """Training that turned the rows away from theta_ref, and training that did not."""
    models = models_of(train_set, tmp_path, LIGHT, monkeypatch, learning_rate=rate, weight_decay=rate)
    marked = mark_run(tmp_path / "proof", 1, WatermarkKey.load(tmp_path / "watermark.key"), bytes(range(32)))
    models(Desk((in_round_1(marked, 1),))).next(0, unmarked=False)
    assert ("will not be noticed" in capsys.readouterr().err) == (rate == 0.3)


def test_a_model_that_was_shown_is_sealed_where_it_was_shown(
    train_set: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trunk stands still, and a later branch has the same model: the chain holds the first."""
    models = models_of(train_set, tmp_path, LIGHT, monkeypatch, learning_rate=2.0**-40, weight_decay=0.0)
    monkeypatch.setattr(
        "challenge.arena.models.Models._trunk", lambda self, proof, segment: trunk_model(self.kept.proof, 1)
    )
    ended(tmp_path, monkeypatch)
    shown = in_round_1(trunk_model(tmp_path / "proof", 1), 1)
    model, before = models(Desk((shown,))).next(0, unmarked=True)
    assert (model.reference_segment, before) == (1, 1)
    sealed = Proof.read(tmp_path / "proof").submissions
    assert [(mark.reference_segment, mark.model_digest) for mark in sealed] == [(1, shown.model_digest)]


@pytest.mark.parametrize(("now", "before"), [(105, 1), (150, None)])
def test_a_promise_that_was_not_shown_in_its_time_is_made_again(
    train_set: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, now: int, before: int | None
) -> None:
    models = models_of(train_set, tmp_path, LIGHT, monkeypatch)
    ended(tmp_path, monkeypatch)
    mark, _ = submitted(trunk_model(tmp_path / "proof", 3), 3)
    promise = {"model_digest": mark.model_digest.hex(), "branch": 3, "model_cid": mark.model_cid}
    monkeypatch.setattr("challenge.arena.models.promised", lambda *_: (promise, bytes(32)))
    desk = Desk(
        (replace(in_round_1(trunk_model(tmp_path / "proof", 3), 3), branch=None, model_digest=None, model_cid=None),)
    )
    desk.now = now
    model, found = models(desk).next(0, unmarked=True)
    assert (model.reference_segment, found) == (3, before)


@pytest.mark.parametrize("now", [105, 150])
def test_nothing_is_sealed_while_another_machines_promise_may_be_shown(
    train_set: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, now: int
) -> None:
    """A proof without a model that is shown later loses every case."""
    models = models_of(train_set, tmp_path, LIGHT, monkeypatch)
    ended(tmp_path, monkeypatch)
    monkeypatch.setattr("challenge.arena.models.promised", lambda *_: None)
    shown = in_round_1(trunk_model(tmp_path / "proof", 1), 1)
    desk = Desk((replace(shown, branch=None, model_digest=None, model_cid=None),))
    desk.now = now
    if now == 105:
        with pytest.raises(NotYet, match="in another machine's journal"):
            models(desk).next(0, unmarked=True)
        desk.shown = (shown,)  # there, in its time
    model, _ = models(desk).next(0, unmarked=True)
    assert model.reference_segment == 3
    earlier = [mark.reference_segment for mark in Proof.read(tmp_path / "proof").earlier]
    assert earlier == [1] * (now == 105)


def test_what_is_shown_while_the_last_model_is_made_is_sealed_too(
    train_set: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Making it may take an hour, in which another machine promises and shows one."""
    models = models_of(train_set, tmp_path, LIGHT, monkeypatch)
    ended(tmp_path, monkeypatch)
    desk, make = Desk(), Models._made

    def made(*args: Any) -> Submission:
        desk.shown = (in_round_1(trunk_model(tmp_path / "proof", 1), 1),)
        return make(*args)

    monkeypatch.setattr(Models, "_made", made)
    assert models(desk).next(0, unmarked=True)[0].reference_segment == 3
    assert [mark.reference_segment for mark in Proof.read(tmp_path / "proof").submissions] == [1, 3]


def test_one_command_at_a_time_submits_from_a_folder(tmp_path: Path) -> None:
    """While one makes its model, another would seal a proof that does not have it."""
    with alone(tmp_path), pytest.raises(NotYet, match="another `arena submit commit`"), alone(tmp_path):
        pass
    with alone(tmp_path):
        pass
