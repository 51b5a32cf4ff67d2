"""Data from anywhere: committed sample by sample, read lazily, the same for any number of workers."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save

from pol import Recorder, SeedSource, TrainingSpec
from pol.data import Dataset, Samples
from pol.errors import CannotRun, ProofError, SpecError
from pol.loader import step_loader
from pol.order import DataOrder
from pol.proof import TRANSCRIPT
from pol.sources import ArrowSamples, MapSamples, open_data
from tests.runs import SEED, small_spec


class Squares(torch.utils.data.Dataset):
    """A map-style data set that counts how often it is read."""

    def __init__(self) -> None:
        self.reads = 0

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> dict[str, object]:
        self.reads += 1
        return {"label": index, "input": torch.full((3,), float(index) ** 2)}


def tokens(path: Path, count: int = 101) -> Path:
    np.arange(count, dtype="<u2").tofile(path)
    return path


def test_a_map_style_data_set_commits_as_the_same_tensors_do() -> None:
    squares = MapSamples(Squares(), ["input", "label"])
    inputs = torch.stack([torch.full((3,), float(i) ** 2) for i in range(12)])
    assert squares.root == Dataset(inputs, torch.arange(12)).root
    one, other = squares.batch([3, 1])
    assert one.tolist() == [[9.0] * 3, [1.0] * 3] and other.tolist() == [3, 1]


def test_field_names_and_order_are_bound() -> None:
    roots = {MapSamples(Squares(), fields).root for fields in (["input", "label"], ["label", "input"], ["input"])}
    assert len(roots) == 3


def test_a_source_that_answers_twice_differently_is_noticed() -> None:
    class Augmented(Squares):
        def __getitem__(self, index: int) -> dict[str, object]:
            return {"input": torch.randn(3), "label": index}

    samples = MapSamples(Augmented(), ["input", "label"])
    assert samples.root
    with pytest.raises(CannotRun, match="sample 4 of the data set"):
        samples.batch([4])


def test_missing_fields_and_ragged_samples_are_refused() -> None:
    with pytest.raises(SpecError, match="fields"):
        MapSamples(Squares(), ["input", "target"]).sample(0)
    ragged = MapSamples([torch.zeros(n + 1) for n in range(3)], ["input"])
    assert ragged.root
    with pytest.raises(SpecError, match="different shapes"):
        ragged.batch([0, 1])


def test_arrow_columns(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    rows = {"text": ["a"] * 5, "x": [[float(i), 1.0] for i in range(5)], "y": list(range(5))}
    datasets.Dataset.from_dict(rows).save_to_disk(str(tmp_path / "arrow"))
    samples = open_data("arrow/x,y/rows", tmp_path / "arrow")
    assert isinstance(samples, ArrowSamples) and samples.fields == ("x", "y")
    x, y = samples.batch([4, 0])
    assert x.tolist() == [[4.0, 1.0], [0.0, 1.0]] and y.tolist() == [4, 0]
    assert samples.root == ArrowSamples(datasets.Dataset.from_dict(rows), ["x", "y"]).root
    for folder in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(CannotRun, match="no Arrow data set"):
            open_data("arrow/x,y/rows", folder)


def test_token_windows_overlap_by_one(tmp_path: Path) -> None:
    samples = open_data("tokens/uint16/10/numbers", tokens(tmp_path / "t.bin"))
    assert len(samples) == 10
    (batch,) = samples.batch([0, 9])
    assert batch.dtype is torch.int64
    assert batch.tolist() == [list(range(11)), list(range(90, 101))]


@pytest.mark.parametrize("name", ["tokens/float32/10/x", "tokens/uint16/0/x", "tokens/uint16/101/x"])
def test_token_files_that_give_no_window_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(SpecError):
        open_data(name, tokens(tmp_path / "t.bin"))


def test_files_that_are_no_data_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "pickle").write_bytes(b"\x80\x04N.")
    with pytest.raises(CannotRun):
        open_data("tokens/uint16/4/x", tmp_path / "empty")
    with pytest.raises(ProofError):
        open_data("mine", tmp_path / "pickle")
    with pytest.raises(SpecError, match="built-in"):
        open_data("mine", None)


def test_a_blob_is_mapped(tmp_path: Path, train_set: Dataset) -> None:
    (tmp_path / "d").write_bytes(train_set.to_bytes())
    assert open_data("mine", tmp_path / "d").root == train_set.root


def test_data_larger_than_memory(tmp_path: Path) -> None:
    """Committing and reading 2 GiB in a process that may have 1 GiB more than its imports took."""
    path = tmp_path / "big.bin"
    with path.open("wb") as file:
        file.truncate(2 * 2**30)
    script = f"""
import resource, torch
from pathlib import Path
from pol.sources import open_data
torch.zeros(10).sum()
samples = open_data("tokens/int64/262144/zeros", Path({str(path)!r}))
used = int(open("/proc/self/statm").read().split()[5]) * resource.getpagesize()  # private data, not the mapping
resource.setrlimit(resource.RLIMIT_DATA, (used + 2**29, used + 2**29))
assert len(samples.leaves) == 1023 and samples.batch([1022])[0].shape == (1, 262145)
"""
    env = {"PYTHONPATH": str(Path(__file__).resolve().parents[2]), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", script], check=True, env=env)
    assert resource  # the limit is the child's


def batches(samples: Samples, workers: int) -> list[tuple[torch.Tensor, ...]]:
    order = DataOrder(SEED, len(samples), 4)
    return [tuple(batch) for batch in step_loader(samples, order, 2, 9, workers=workers)]


@pytest.mark.parametrize("workers", [1, 4])
def test_any_number_of_workers_reads_the_same(workers: int) -> None:
    samples = MapSamples(Squares(), ["input", "label"])
    for mine, theirs in zip(batches(samples, workers), batches(samples, 0), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True))


def test_starting_a_loader_draws_nothing() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    batches(MapSamples(Squares(), ["input", "label"]), 1)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("workers", [1, 4])
def test_a_run_is_the_same_for_any_number_of_workers(
    tmp_path: Path, honest_run: Path, train_set: Dataset, workers: int
) -> None:
    spec: TrainingSpec = small_spec(train_set)
    with Recorder(spec, tmp_path / "proof", seed_source=SeedSource(kind="chosen", value=SEED)) as recorder:
        state = recorder.program.build(spec.config, recorder.seed)
        recorder.attach(model=state.model, optimizer=state.optimizer, scheduler=state.scheduler)
        for batch in recorder.batches(train_set, workers=workers):
            recorder.step(recorder.program.train_step(state, batch))
    assert (tmp_path / "proof" / TRANSCRIPT).read_bytes() == (honest_run / TRANSCRIPT).read_bytes()


def test_a_blob_of_the_librarys_is_ours(train_set: Dataset) -> None:
    blob = save({"inputs": train_set.inputs, "labels": train_set.labels})
    assert Dataset.from_bytes(blob).root == train_set.root
