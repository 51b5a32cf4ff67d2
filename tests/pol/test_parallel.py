"""Logical ranks: one process and one process a rank reach the same bits, in the program and under torch's own DDP."""

from __future__ import annotations

import json
import multiprocessing
import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as processes
from torch import nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from pol import Proof, Recorder, SeedSource, exact, parallel
from pol.data import Batch
from pol.errors import CannotRun, SpecError
from pol.machine import make_deterministic
from pol.programs.convnet import augmented
from pol.programs.images import as_images
from pol.proof import MANIFEST, TRANSCRIPT
from pol.replay import Job, Span, replay
from pol.spec import EXACT, NATIVE
from pol.state import TrainingState
from pol.tensors import tensors_digest
from tests.pol.programs import Case, case
from tests.runs import SEED

STEPS = 3
PROGRAMS = ["convnet/cnn", "convnet/resnet20", "language/fp16"]


def convnet_loss(model: nn.Module, config: object, batch: Batch) -> torch.Tensor:
    inputs, labels = batch
    return functional.cross_entropy(model(augmented(as_images(inputs, 1, 8, 8), config)), labels)


def own_step(state: TrainingState, model: DistributedDataParallel, batch: Batch) -> torch.Tensor:
    """The step of ConvNetClassifier, written out by a user who has torch's DDP around the model."""
    loss = convnet_loss(model.train(), state.model.config, parallel.local_shard(batch))
    loss.backward()
    state.optimizer.step()
    state.scheduler.step()
    state.optimizer.zero_grad()
    return loss.detach()


def record(chosen: Case, out: Path, *, own: bool = False, crash_after: int = 0, numerics: str = NATIVE) -> None:
    """Record a run of four steps; with ``own`` by the user's own step. Rank 0 alone has the seed and the folder."""
    alone = parallel.rank() == 0
    source = SeedSource(kind="chosen", value=SEED) if alone else None
    with Recorder(
        replace(chosen.spec(4, 1), numerics=numerics), out if alone else Path("/nowhere"), seed_source=source
    ) as recorder:
        state = chosen.build()
        recorder.attach(model=state.model, optimizer=state.optimizer, scheduler=state.scheduler)
        model = None
        if own:
            model = DistributedDataParallel(state.model, bucket_cap_mb=0.001)
            parallel.average_in_order(model)
        for batch in recorder.batches(chosen.samples):
            recorder.step(own_step(state, model, batch) if model else chosen.program.train_step(state, batch))
            if recorder.state.step == crash_after:
                raise ConnectionError("unplugged")


def out_of_order() -> list[str]:
    """Why exact numerics refuse to add up in an order of the library's own: called for, and by torch's DDP."""
    refusals = []
    model = DistributedDataParallel(nn.Linear(1, 1))
    with exact():
        loss = model(torch.ones(2, 1)).sum()
        for call in (lambda: dist.all_reduce(torch.ones(3)), loss.backward):
            try:
                call()
            except SpecError as error:
                refusals.append(str(error))
    return refusals


def draw_afterwards(ranks: int) -> float:
    """What a program draws after the parallel part of its step."""
    torch.manual_seed(5)
    parallel.backward(nn.Linear(1, 1), (torch.zeros(6, 1),), ranks, lambda _: torch.rand(()))
    return float(torch.rand(()))


def digest(state: TrainingState) -> str:
    return tensors_digest(state.capture(SEED)).hex()


def compute(rank: int, ranks: int, folder: str) -> None:
    """What one process of a group does: every program, its own loop, and what goes wrong; written down as JSON."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    make_deterministic(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=ranks)
    found: dict[str, str | list[str]] = {}
    for name in PROGRAMS:
        chosen = case(name).but(ranks=ranks)
        found[name] = digest(chosen.train(chosen.build(), STEPS))
    with parallel.alone():
        chosen = case("convnet/cnn").but(ranks=ranks)
        found["alone"] = digest(chosen.train(chosen.build(), STEPS))
    record(chosen, Path(folder) / "program")
    record(chosen, Path(folder) / "own", own=True)
    with suppress(ConnectionError):
        record(chosen, Path(folder) / "resumed", own=True, crash_after=3)
    record(chosen, Path(folder) / "resumed", own=True)
    record(chosen, Path(folder) / "exact", numerics=EXACT)
    record(chosen, Path(folder) / "own, exact", own=True, numerics=EXACT)
    found["out of order"] = out_of_order()
    found["shared"] = parallel.shared(b"rank 0" if rank == 0 else b"not rank 0").decode()
    found["drawn"] = draw_afterwards(ranks)
    try:
        case("convnet/cnn").but(ranks=ranks + 1).digest(1)
    except CannotRun as error:
        found["refused"] = str(error)
    dist.barrier()  # nobody leaves while others still ask
    dist.destroy_process_group()
    (Path(folder) / f"{rank}.json").write_text(json.dumps(found))


@pytest.fixture(scope="module", params=[2, 3])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a group of 2, and of 3, processes left behind."""
    out = tmp_path_factory.mktemp(f"group-of-{request.param}")
    multiprocessing.set_forkserver_preload(["tests.pol.programs", "torch._dynamo"])  # imported once for all
    processes.start_processes(compute, (request.param, str(out)), nprocs=request.param, start_method="forkserver")
    return out


@pytest.fixture
def group(folder: Path) -> list[dict[str, str]]:
    """What each process wrote down."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]


@pytest.mark.parametrize("name", PROGRAMS)
def test_one_process_and_one_a_rank_reach_the_same_state(group: list[dict[str, str]], name: str) -> None:
    chosen, plain = case(name).but(ranks=len(group)), case(name)
    here = digest(chosen.train(chosen.build(), STEPS))
    assert [found[name] for found in group] == [here] * len(group)
    assert digest(plain.train(plain.build(), STEPS)) != here, "the number of ranks made no difference to begin with"


def test_a_process_of_a_group_can_compute_all_ranks_alone(group: list[dict[str, str]]) -> None:
    assert [found["alone"] for found in group] == [found["convnet/cnn"] for found in group]


@pytest.mark.parametrize("loop", ["program", "own", "resumed", "exact", "own, exact"])
def test_a_run_recorded_on_all_ranks_is_the_run_of_one_process(
    folder: Path, group: list[dict[str, str]], tmp_path: Path, loop: str
) -> None:
    chosen = case("convnet/cnn").but(ranks=len(group))
    record(chosen, tmp_path / "proof", numerics=EXACT if "exact" in loop else NATIVE)
    for name in (MANIFEST, TRANSCRIPT):
        assert (folder / loop / name).read_bytes() == (tmp_path / "proof" / name).read_bytes()


@pytest.mark.parametrize("folder", [2], indirect=True)
def test_a_run_recorded_on_all_ranks_replays_in_a_single_process(folder: Path) -> None:
    proof = Proof.read(folder / "own")
    (result,) = replay(Job(spec=proof.spec, seed=proof.seed), [Span(first=0, last=3)])
    assert [segment.end_digest for segment in result.segments] == [segment.end_digest for segment in proof.segments]


def test_exact_numerics_refuse_a_sum_in_another_order_and_say_what_to_use(group: list[dict[str, list[str]]]) -> None:
    for found in group:
        assert len(found["out of order"]) == 2
        assert all("c10d::allreduce_" in why and "use pol.parallel" in why for why in found["out of order"])


def test_what_is_drawn_after_the_shards_is_the_same_everywhere(group: list[dict[str, str]]) -> None:
    assert {found["drawn"] for found in group} == {draw_afterwards(len(group))}


def test_rank_0_speaks_for_all(group: list[dict[str, str]]) -> None:
    assert {found["shared"] for found in group} == {"rank 0"}


def test_another_number_of_processes_is_refused(group: list[dict[str, str]]) -> None:
    assert all(f"this group has {len(group)} processes" in found["refused"] for found in group)


def test_gradients_are_added_in_the_order_of_the_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen, terms, take = case("convnet/cnn").but(ranks=3, weight_decay=0.0), [], parallel._take_gradients

    def kept(model: nn.Module) -> list[torch.Tensor]:
        values = take(model)
        terms.append([value.clone() for value in values])
        return values

    monkeypatch.setattr(parallel, "_take_gradients", kept)
    state = chosen.train(chosen.build(), 1)
    momenta = [state.optimizer.state[parameter]["momentum_buffer"] for parameter in state.model.parameters()]
    in_order = [((a + b) + c) / 3 for a, b, c in zip(*terms, strict=True)]
    backwards = [((c + b) + a) / 3 for a, b, c in zip(*terms, strict=True)]
    assert all(torch.equal(mine, other) for mine, other in zip(momenta, in_order, strict=True))
    assert not all(torch.equal(mine, other) for mine, other in zip(momenta, backwards, strict=True))


def test_one_rank_draws_what_a_run_without_ranks_draws() -> None:
    drawn: list[torch.Tensor] = []

    def run(shard: Batch) -> torch.Tensor:
        drawn.append(torch.rand(2))
        return torch.tensor(0.0)

    model, batch = nn.Linear(1, 1), (torch.zeros(6, 1),)
    for ranks in (1, 2, 3):
        torch.manual_seed(7)
        parallel.backward(model, batch, ranks, run)
    torch.manual_seed(7)
    plain = torch.rand(2)
    one, two, three = drawn[:1], drawn[1:3], drawn[3:]
    assert all(torch.equal(draws[0], plain) for draws in (one, two, three))
    assert torch.equal(two[1], three[1]) and len({tuple(draw.tolist()) for draw in three}) == 3


def test_the_buffers_are_those_of_rank_0() -> None:
    model, before = nn.BatchNorm1d(2), []
    batch = (torch.randn(6, 2, generator=torch.Generator().manual_seed(0)),)

    def run(shard: Batch) -> torch.Tensor:
        before.append(int(model.num_batches_tracked))
        model(shard[0]).sum().backward()
        return torch.tensor(0.0)

    parallel.backward(model, batch, 3, run)
    twin = nn.BatchNorm1d(2)
    twin(parallel.shard(batch, 0, 3)[0])
    assert before == [0, 0, 0], "a rank must not see what another one did"
    assert torch.equal(model.running_mean, twin.running_mean) and int(model.num_batches_tracked) == 1


def test_a_parameter_without_a_gradient_counts_as_zeros() -> None:
    model = nn.ModuleDict({"used": nn.Linear(1, 1), "sometimes": nn.Linear(1, 1), "never": nn.Linear(1, 1)})

    def run(shard: Batch) -> torch.Tensor:
        value = model["used"](shard[0])
        if float(shard[0][0]) == 0:
            value = value + model["sometimes"](shard[0] + 1)
        value.sum().backward()
        return value.detach().sum()

    parallel.backward(model, (torch.tensor([[0.0], [1.0]]),), 2, run)
    assert float(model["sometimes"].weight.grad) == 0.5 and float(model["never"].weight.grad) == 0


def test_a_batch_that_does_not_divide_is_refused() -> None:
    with pytest.raises(SpecError, match="12 samples does not divide among 5 ranks"):
        case("convnet/cnn").but(ranks=5).digest(1)
