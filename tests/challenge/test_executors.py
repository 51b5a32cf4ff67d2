"""Every executor gives what one replay process gives, and lives through the loss of workers."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Event, Timer
from typing import Any

import pytest

from challenge.executors import ProcessPool, RayExecutor, parse_executor, pool, schedule
from challenge.executors import cluster as ray_cluster
from pol import Proof
from pol.data import Dataset, digits
from pol.errors import CannotRun, ProofError, SpecError
from pol.machine import this_machine
from pol.program import program_digest
from pol.proof import states_of
from pol.replay import Job, ReplayedSegment, ReplayedSpan, ReplayProcess, Span, WorkerLost, replay

SLOWED = """
import time
from pathlib import Path
from pol.programs.classifier import ImageClassifier

class Program(ImageClassifier):
    def train_step(self, state, batch):
        while Path({flag!r}).exists():
            time.sleep(0.05)
        return super().train_step(state, batch)
"""


def spans(proof: Proof, folder: Path, out: Path) -> list[Span]:
    """A start state alone, a stored state, a wrong one (which is a problem), the whole run."""
    stored = states_of(folder).path(proof.states[0].cid)
    return [
        Span(first=0, last=-1, emit={-1: out / "initial"}),
        Span(first=2, last=2, start=stored, emit={2: out / "second"}),
        Span(first=1, last=1, start=stored),
        Span(first=0, last=3),
    ]


def outcome(results: list[ReplayedSpan], out: Path) -> tuple[Any, ...]:
    rows = [(r.span.first, r.segments, r.problem, r.malformed, r.machine, r.notes) for r in results]
    return rows, (out / "initial").read_bytes(), (out / "second").read_bytes()


@pytest.fixture(scope="module")
def expected(honest_run: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, ...]:
    proof, out = Proof.read(honest_run), tmp_path_factory.mktemp("expected")
    found = outcome(replay(Job(spec=proof.spec, seed=proof.seed), spans(proof, honest_run, out)), out)
    *_, whole = found[0]
    assert [s.end_digest for s in whole[1]] == [s.end_digest for s in proof.segments], "the honest twin"
    assert found[0][2][2], "a state of another step is a problem"
    return found


@pytest.mark.parametrize("workers", [1, 2])
def test_any_number_of_processes_gives_the_same(
    honest_run: Path, tmp_path: Path, expected: tuple[Any, ...], workers: int
) -> None:
    proof, heard = Proof.read(honest_run), []
    found = ProcessPool(workers).replay(
        Job(spec=proof.spec, seed=proof.seed),
        spans(proof, honest_run, tmp_path),
        on_segment=lambda s: heard.append(s.index),
    )
    assert outcome(found, tmp_path) == expected
    assert sorted(heard) == [0, 1, 2, 2, 3]


def test_a_killed_worker_is_replaced(honest_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    proof, started, heard = Proof.read(honest_run), [], []

    class Noted(ReplayProcess):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            started.append(self.pid)

    def kill_the_first(segment: ReplayedSegment) -> None:
        heard.append(segment.index)
        if len(heard) == 1:
            os.kill(started[0], signal.SIGKILL)

    monkeypatch.setattr(pool, "ReplayProcess", Noted)
    (found,) = ProcessPool(1).replay(
        Job(spec=proof.spec, seed=proof.seed), [Span(first=0, last=3)], on_segment=kill_the_first
    )
    assert [s.end_digest for s in found.segments] == [s.end_digest for s in proof.segments]
    assert len(started) == 2, "the first worker was lost"
    assert heard == [0, 1, 2, 3], "a segment replayed again is not told again"


class FakeSeat:
    """Replays without replaying; ``lose`` says how often each span (by its first segment) loses its worker."""

    def __init__(self, lose: dict[int, int], opened: list[FakeSeat]) -> None:
        self.lose, self.closed = lose, Event()
        opened.append(self)

    def replay(self, span: Span, on_segment: Any) -> ReplayedSpan:
        segments = [
            ReplayedSegment(index=i, start_digest=b"", end_digest=b"", batch_root=b"")
            for i in range(span.first, span.last + 1)
        ]
        on_segment(segments[0])
        if self.lose.get(span.first, 0) > 0:
            self.lose[span.first] -= 1
            raise WorkerLost("killed")
        return ReplayedSpan(span, segments, machine=this_machine())

    def close(self) -> None:
        self.closed.set()


@pytest.mark.parametrize("seats", [1, 2, 7])
def test_lost_workers_change_nothing_but_who_works(seats: int) -> None:
    opened: list[FakeSeat] = []
    todo = [Span(first=i, last=i + 1) for i in range(5)]
    found = schedule.run(todo, [partial(FakeSeat, {1: 2, 4: 1}, opened)] * seats)
    assert [result.span for result in found] == todo
    assert all(seat.closed.is_set() for seat in opened)


@pytest.mark.parametrize("seats", [1, 2])
def test_a_span_that_kills_every_worker_ends(seats: int) -> None:
    opened: list[FakeSeat] = []
    lose = {0: 10**9}
    with pytest.raises(CannotRun, match="segments 0 to 0 lost 3 workers, the last one so: killed"):
        schedule.run([Span(first=i, last=i) for i in range(3)], [partial(FakeSeat, lose, opened)] * seats)
    assert lose[0] == 10**9 - schedule.ATTEMPTS
    assert all(seat.closed.is_set() for seat in opened)


def test_an_error_ends_the_other_seats() -> None:
    opened: list[FakeSeat] = []

    class Waits(FakeSeat):
        def replay(self, span: Span, on_segment: Any) -> ReplayedSpan:
            if span.first == 0:
                raise ProofError("malformed")
            assert self.closed.wait(60), "nobody closed the other seat"
            raise WorkerLost("closed")

    with pytest.raises(ProofError, match="malformed"):
        schedule.run([Span(first=i, last=i) for i in range(4)], [partial(Waits, {}, opened)] * 2)


@pytest.mark.parametrize("rooms", [0, 1, 2])
def test_a_seat_without_room_leaves_its_work_to_others(rooms: int) -> None:
    class Crowded(FakeSeat):
        def replay(self, span: Span, on_segment: Any) -> ReplayedSpan:
            if opened.index(self) >= rooms:
                raise schedule.NoRoom("no node was free")
            return super().replay(span, on_segment)

    opened: list[FakeSeat] = []
    todo = [Span(first=i, last=i) for i in range(6)]
    openers = [partial(Crowded, {}, opened)] * 3
    if rooms:
        assert [result.span for result in schedule.run(todo, openers)] == todo
    else:
        with pytest.raises(schedule.NoRoom, match="no node was free"):
            schedule.run(todo, openers)


def test_a_wrong_data_set_is_the_same_error_everywhere(honest_run: Path, tmp_path: Path) -> None:
    proof = Proof.read(honest_run)
    (tmp_path / "wrong").write_bytes(digits("submission-validation").to_bytes())
    with pytest.raises(CannotRun, match="not the committed one"):
        ProcessPool(2).replay(
            Job(spec=proof.spec, seed=proof.seed, dataset=tmp_path / "wrong"), [Span(first=0, last=0)] * 2
        )


@pytest.mark.parametrize(
    ("device", "visible", "workers", "expected"),
    [
        ("cpu", "", 3, [None] * 3),
        ("cuda", "", 5, ["0", "1"]),
        ("cuda", "3,1", 2, ["3", "1"]),
        ("cuda", "", 1, ["0"]),
        ("cuda:1", "", 4, [None]),
    ],
)
def test_every_replay_has_a_gpu_to_itself(
    monkeypatch: pytest.MonkeyPatch, device: str, visible: str, workers: int, expected: list[str | None]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    found = pool.environments(device, workers)
    assert [own.get("CUDA_VISIBLE_DEVICES") for own in found] == expected


def test_the_command_line_names_executors() -> None:
    kinds = {"process": ProcessPool, "pool:4": ProcessPool, "ray": RayExecutor, "ray://head:10001": RayExecutor}
    for text, kind in kinds.items():
        assert isinstance(parse_executor(text), kind)
    assert parse_executor("pool:4").workers == 4  # type: ignore[attr-defined]
    for text in ("", "pool", "pool:0", "pool:x", "pool:9999", "ray:", "ray://", "ray://host", "ray://a b:1", "thread"):
        with pytest.raises(SpecError, match="use process"):
            parse_executor(text)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A Ray cluster of two nodes, one processor each, to which this process is connected."""
    pytest.importorskip("ray")
    import ray
    from ray.cluster_utils import Cluster

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    nodes.add_node(num_cpus=1)
    ray.init(address=nodes.address, log_to_driver=False, logging_level="ERROR")
    yield nodes
    ray.shutdown()
    nodes.shutdown()


def test_ray_gives_the_same(cluster: Any, honest_run: Path, tmp_path: Path, expected: tuple[Any, ...]) -> None:
    proof, heard = Proof.read(honest_run), []
    found = RayExecutor().replay(
        Job(spec=proof.spec, seed=proof.seed),
        spans(proof, honest_run, tmp_path),
        on_segment=lambda s: heard.append(s.index),
    )
    assert outcome(found, tmp_path) == expected
    assert sorted(heard) == [0, 1, 2, 2, 3]
    assert sys.modules["ray"].is_initialized(), "the connection was not this executor's to close"


def test_ray_workers_of_another_version_are_refused(
    cluster: Any, honest_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proof = Proof.read(honest_run)
    monkeypatch.setattr(ray_cluster, "package_digest", lambda: "another")
    with pytest.raises(CannotRun, match="another version"):
        RayExecutor().replay(Job(spec=proof.spec, seed=proof.seed), [Span(first=0, last=0)])


def test_errors_cross_the_cluster_as_they_are(cluster: Any, honest_run: Path) -> None:
    proof = Proof.read(honest_run)
    with pytest.raises(ProofError, match="dataset_size"):
        RayExecutor().replay(Job(spec=replace(proof.spec, dataset_size=999), seed=proof.seed), [Span(first=0, last=0)])
    with pytest.raises(CannotRun, match="no GPU"):
        RayExecutor().replay(Job(spec=proof.spec, seed=proof.seed, device="cuda"), [Span(first=0, last=0)])


@pytest.mark.slow
def test_a_dead_node_loses_nothing_and_programs_travel(
    cluster: Any, honest_run: Path, tmp_path: Path, train_set: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The program waits while the flag is there, so the node dies in the middle of a span. Last, for it stays dead."""
    import ray

    flag, data, doomed = tmp_path / "flag", tmp_path / "data", cluster.worker_nodes.copy().pop()
    flag.touch()
    data.write_bytes(train_set.to_bytes())
    (tmp_path / "slowed.py").write_text(SLOWED.format(flag=str(flag)))
    monkeypatch.syspath_prepend(str(tmp_path))
    proof, digest = Proof.read(honest_run), program_digest("slowed:Program")
    spec = replace(proof.spec, program="slowed:Program", program_digest=digest)
    killed = []

    def kill() -> None:
        cluster.remove_node(doomed, allow_graceful=False)
        flag.unlink()

    class Watched(ray_cluster.RaySeat):
        def replay(self, span: Span, on_segment: Any) -> ReplayedSpan:
            here = ray.get(self._actor.__ray_call__.remote(lambda _: ray.get_runtime_context().get_node_id()))
            if here == doomed.node_id and not killed:
                killed.append(span)
                Timer(0.5, kill).start()
            return super().replay(span, on_segment)

    monkeypatch.setattr(ray_cluster, "RaySeat", Watched)
    todo = [Span(first=0, last=1), Span(first=0, last=0)]
    found = RayExecutor().replay(Job(spec=spec, seed=proof.seed, dataset=data, trusted=frozenset({digest})), todo)
    promised = [segment.end_digest for segment in proof.segments]
    for _ in range(60):  # Ray takes its time to notice
        alive = [node for node in ray.nodes() if node["Alive"]]
        if len(alive) == 1:
            break
        time.sleep(1)
    assert killed and len(alive) == 1
    assert [[s.end_digest for s in result.segments] for result in found] == [promised[:2], promised[:1]]
