"""What holds of every built-in program: a pure function of config and seed, restorable anywhere, able to learn."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pol import Proof, Recorder, SeedSource
from pol.data import Dataset, digits
from pol.encoding import to_hex
from pol.errors import CannotRun, ProofError, SpecError
from pol.machine import make_deterministic
from pol.program import BUILT_IN, config_from
from pol.programs.base_model import VARIABLE, models_folder
from pol.programs.convnet import ConvNetClassifier, ConvNetConfig, augmented
from pol.programs.language import warmup_cosine
from pol.proof import states_of
from pol.replay import Job, Span, replay
from pol.state import model_tensors
from pol.tensors import tensors_digest
from tests.pol.programs import BATCH, IMAGE, LICENCE, NAMES, Case, case, tiny_base
from tests.runs import SEED

KINDS = ["convnet/cnn", "language/fp32", "image-to-image/l2", "lora/tiny-llama"]


@pytest.fixture(scope="module", autouse=True)
def base(tmp_path_factory: pytest.TempPathFactory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, "")
        tiny_base(tmp_path_factory.mktemp("models"))
        yield


@pytest.fixture(params=NAMES)
def any_case(request: pytest.FixtureRequest) -> Case:
    return case(request.param)


def test_the_initial_state_follows_from_config_and_seed(any_case: Case) -> None:
    torch.manual_seed(1)
    first = tensors_digest(any_case.build().capture(SEED))
    torch.manual_seed(2)
    assert tensors_digest(any_case.build().capture(SEED)) == first
    other = any_case.program.build(any_case.config, bytes(32))
    other_model = tensors_digest(model_tensors(other.capture(SEED)))
    assert other_model != tensors_digest(model_tensors(any_case.build().capture(SEED)))


@pytest.mark.parametrize(("threads", "name"), [*((1, name) for name in NAMES), *((2, name) for name in KINDS)])
def test_a_run_broken_in_the_middle_goes_on_bit_for_bit(name: str, threads: int) -> None:
    make_deterministic(threads)
    chosen = case(name)
    whole = chosen.train(chosen.build(), 4)
    middle = chosen.train(chosen.build(), 2).capture(SEED)
    resumed = chosen.build()
    resumed.restore(middle, layout=chosen.train(chosen.build(), 1).capture(SEED), seed=SEED, step=2)
    chosen.train(resumed, 4)
    assert tensors_digest(resumed.capture(SEED)) == tensors_digest(whole.capture(SEED)) != tensors_digest(middle)


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler")  # torch's, about a step that fp16 skips
@pytest.mark.parametrize("name", ["language/fp16", "lora/tiny-llama"])
def test_a_recorded_run_replays_from_its_middle(name: str, tmp_path: Path) -> None:
    chosen = case(name)
    with Recorder(chosen.spec(4, 1), tmp_path / "proof", seed_source=SeedSource(kind="chosen", value=SEED)) as recorder:
        state = chosen.build()
        parts = {"scaler": state.scaler, "ema": state.ema, "scheduler": state.scheduler}
        recorder.attach(model=state.model, optimizer=state.optimizer, **parts)
        for batch in recorder.batches(chosen.samples):
            recorder.step(chosen.program.train_step(state, batch))
    proof = Proof.read(tmp_path / "proof")
    assert [stored.step for stored in proof.states] == [2, 4]
    middle = Span(first=2, last=3, start=states_of(tmp_path / "proof").path(proof.states[0].cid))
    (result,) = replay(Job(spec=proof.spec, seed=proof.seed, dataset=LICENCE), [middle])
    assert [row.end_digest for row in result.segments] == [row.end_digest for row in proof.segments[2:]]


@pytest.mark.parametrize("name", KINDS)
def test_training_raises_the_score(name: str) -> None:
    chosen = case(name)
    state, scores = chosen.build(), []
    held_out = digits("submission-validation") if name == "convnet/cnn" else chosen.samples
    for steps in (0, 40):
        tensors = model_tensors(chosen.train(state, steps).capture(SEED))
        scores.append(chosen.program.evaluate(tensors, chosen.config, held_out))
    before, after = scores
    assert chosen.program.evaluate(tensors, chosen.config, held_out) == after, "scoring must not draw"
    assert 0 <= before < after <= 1
    if name != "lora/tiny-llama":  # a random base has little to adapt
        assert after > 1.5 * before


def test_models_that_do_not_fit_are_refused(any_case: Case) -> None:
    with pytest.raises(SpecError, match="does not fit"):
        any_case.program.evaluate({"w": torch.zeros(1)}, any_case.config, any_case.samples)


@pytest.mark.parametrize(
    "change",
    [
        {"learning_rate": -1.0}, {"learning_rate": 99.0}, {"learning_rate": 1}, {"learning_rate": True}, {"steps": 0},
        {"steps": 2**63}, {"steps": "40"}, {"steps": True}, {"extra": 1},
    ],
    ids=str,
)  # fmt: skip
def test_impossible_configurations_are_refused(any_case: Case, change: dict) -> None:
    with pytest.raises(SpecError, match=f"config.*{next(iter(change))}"):
        any_case.but(**change).build()
    missing = {name: value for name, value in any_case.config.items() if name not in change}
    if missing != any_case.config:
        with pytest.raises(SpecError, match="missing"):
            any_case.program.build(missing, SEED)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("convnet/cnn", {"network": "vgg"}, "one of cnn, resnet20"), ("convnet/cnn", {"network": 1}, "network"),
        ("convnet/cnn", {"flip": 1}, "true or false"), ("convnet/cnn", {"crop": -1}, "crop"),
        ("convnet/cnn", {"filters": 10**9}, "filters"), ("convnet/cnn", {"ranks": 0}, "ranks"),
        ("language/fp32", {"heads": 3}, "divide"), ("language/fp32", {"precision": "int4"}, "precision"),
        ("language/fp32", {"ema": 1.0}, "ema"), ("image-to-image/l1", {"loss": "ssim"}, "one of l1, l2"),
        ("lora/tiny-llama", {"targets": []}, "targets"), ("lora/tiny-llama", {"targets": ["a", "a"]}, "targets"),
        ("lora/tiny-llama", {"targets": "q_proj"}, "targets"), ("lora/tiny-llama", {"targets": [1]}, "targets"),
        ("lora/tiny-llama", {"targets": ["nowhere"]}, "nowhere"), ("lora/tiny-llama", {"base": "../up"}, "base"),
        ("lora/tiny-llama", {"base_digest": "0x12"}, "base_digest"),
    ],
    ids=str,
)  # fmt: skip
def test_what_a_program_alone_forbids_is_refused(name: str, change: dict, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        case(name).but(**change).build()


def test_floats_are_only_read_in_their_hashed_form() -> None:
    chosen = case("convnet/cnn")
    for text in ("0.001", "nan", "inf", "0x1p+99999", "", None, []):
        with pytest.raises(SpecError, match="learning_rate"):
            chosen.program.build(chosen.config | {"learning_rate": text}, SEED)


def test_samples_that_are_not_the_configs_are_refused() -> None:
    with pytest.raises(SpecError, match="9 x 8 pixels"):
        case("convnet/cnn").but(height=9).digest(1)
    with pytest.raises(SpecError, match="18 tokens"):
        case("language/fp32").but(context=17).digest(1)
    with pytest.raises(SpecError, match="5 equal"):
        case("language/fp32").but(micro_batches=5).digest(1)


def test_resnet20_has_the_papers_size() -> None:
    config = config_from(IMAGE | {"network": "resnet20", "channels": 3, "height": 32, "width": 32, "filters": 16})
    model = ConvNetClassifier().build(config, SEED).model
    assert sum(parameter.numel() for parameter in model.parameters()) == 269_722


def test_bytes_are_scaled_to_the_same_images() -> None:
    chosen, floats = case("convnet/cnn"), digits("train")
    pixels = (floats.inputs * 16).round().to(torch.uint8)
    bytes_, images = Dataset(pixels, floats.labels), Dataset((pixels / 255).reshape(-1, 1, 8, 8), floats.labels)
    digests = {Case(chosen.name, chosen.config, samples).digest(2) for samples in (bytes_, images)}
    assert len(digests) == 1


def test_augmentation_shifts_and_mirrors_and_is_drawn_from_the_steps_key() -> None:
    config = ConvNetConfig(**(IMAGE | {"network": "cnn", "height": 3, "width": 4}))
    image = torch.arange(1.0, 13).reshape(1, 1, 3, 4)
    padded = torch.nn.functional.pad(image, (1, 1, 1, 1))
    shifts = [padded[:, :, row : row + 3, column : column + 4] for row in range(3) for column in range(3)]
    allowed = {tuple(found.flatten().tolist()) for shift in shifts for found in (shift, shift.flip(3))}
    torch.manual_seed(3)
    drawn = augmented(image.repeat(300, 1, 1, 1), config)
    assert {tuple(found.flatten().tolist()) for found in drawn} == allowed and len(allowed) == 18
    torch.manual_seed(3)
    assert torch.equal(augmented(image.repeat(300, 1, 1, 1), config), drawn)
    still = ConvNetConfig(**(IMAGE | {"network": "cnn", "height": 3, "width": 4, "crop": 0, "flip": False}))
    assert torch.equal(augmented(image, still), image)


def test_micro_batches_accumulate_to_the_same_gradient() -> None:
    moments = []
    for count in (1, 2):
        chosen = case("language/fp32").but(dropout=0.0, clip=0.0, micro_batches=count)
        slots = chosen.train(chosen.build(), 1).optimizer.state.values()
        moments.append(torch.cat([row["exp_avg"].flatten() for row in slots]))  # Adam's step forgets the scale
    assert torch.allclose(*moments, rtol=1e-3, atol=1e-7) and moments[0].abs().max() > 1e-3


def test_the_gradient_is_clipped() -> None:
    chosen = case("language/fp32").but(clip=2.0**-30, weight_decay=0.0, ema=0.0)
    clipped, free = chosen.train(chosen.build(), 1), chosen.but(clip=0.0).train(chosen.but(clip=0.0).build(), 1)
    norms = [sum(float(row["exp_avg"].norm()) for row in run.optimizer.state.values()) for run in (clipped, free)]
    assert norms[0] < 1e-8 < norms[1]


def test_averaged_weights_follow_the_model() -> None:
    chosen = case("language/fp32").but(ema=0.5)
    state = chosen.build()
    weight = [chosen.train(state, step).model.tokens.weight.detach().clone() for step in (1, 2, 3)]
    expected = (weight[0] * 0.5 + weight[1] * 0.5) * 0.5 + weight[2] * 0.5
    assert torch.equal(state.ema.module.tokens.weight, expected)
    assert case("language/fp32").but(ema=0.0).build().ema is None


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler")  # torch's, about the skipped step
def test_a_step_whose_scaled_gradient_overflows_is_skipped_and_still_restores() -> None:
    chosen = case("language/fp16")
    state = chosen.build()
    before = state.model.tokens.weight.detach().clone()
    state.scaler.load_state_dict(state.scaler.state_dict() | {"scale": 2.0**127})
    chosen.train(state, 1)
    assert torch.equal(state.model.tokens.weight, before) and state.scaler.get_scale() == 2.0**126
    skipped = state.capture(SEED)
    state.scaler.update(2.0**16)
    chosen.train(state, 3)
    assert not torch.equal(state.model.tokens.weight, before)
    resumed = chosen.build()
    resumed.restore(state.capture(SEED), layout=skipped, seed=SEED, step=3)
    assert resumed.scaler.state_dict() == state.scaler.state_dict()
    assert resumed.scaler.get_scale() == 2.0**16 and resumed.scaler.state_dict()["_growth_tracker"] == 2


def test_the_schedule_warms_up_and_ends_at_a_tenth() -> None:
    share = warmup_cosine(4, 20)
    assert [share(step) for step in range(5)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert share(12) == pytest.approx(0.55) and share(20) == share(99) == pytest.approx(0.1)
    assert warmup_cosine(0, 1)(0) == 1


def test_a_state_binds_the_pinned_base_without_storing_it() -> None:
    chosen = case("lora/tiny-llama")
    state = chosen.train(chosen.build(), 1)
    tensors = state.capture(SEED)
    assert all("lora_" in name for name in model_tensors(tensors))
    assert sum(value.numel() for name, value in tensors.items() if name.startswith("model/")) < 1000
    with torch.no_grad():
        state.model.get_parameter(sorted(state.pinned)[0]).data[0, 0] += 2**-20
    changed = state.capture(SEED)
    assert [name for name in tensors if not torch.equal(tensors[name], changed[name])] == ["pinned"]
    with pytest.raises(ProofError, match="pinned"):
        chosen.build().restore(changed, layout=tensors, seed=SEED, step=1)


def test_another_base_or_none_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = case("lora/tiny-llama")
    for field in ("base_digest", "architecture_digest"):
        with pytest.raises(CannotRun, match="digest"):
            chosen.program.build(chosen.config | {field: to_hex(bytes(32))}, SEED)
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    with pytest.raises(CannotRun, match="not to be had"):
        chosen.build()
    (tmp_path / "tiny-llama").mkdir()
    (tmp_path / "tiny-llama" / "config.json").write_text("{}")
    with pytest.raises(CannotRun, match="nothing downloaded"):
        chosen.build()
    (tmp_path / "tiny-llama" / "model.safetensors").write_bytes(b"junk")
    with pytest.raises(CannotRun, match="not to be had"):
        chosen.build()


@pytest.mark.parametrize(
    ("architecture", "message"),
    [(b"junk", "be built"), (b"[]", "be built"), (b'{"model_type":"none"}', "be built"), (None, "norm")],
)
def test_a_base_that_does_not_fit_its_architecture_is_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, architecture: bytes | None, message: str
) -> None:
    source, target = models_folder() / "tiny-llama", tmp_path / "tiny-llama"
    target.mkdir()
    tensors = load_file(source / "model.safetensors")
    del tensors["model.norm.weight"]
    save_file(tensors, target / "model.safetensors")
    (target / "config.json").write_bytes(architecture or (source / "config.json").read_bytes())
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    with pytest.raises(CannotRun, match=message):
        case("lora/tiny-llama").build()


def test_a_base_is_read_from_disk_alone_and_nothing_is_printed(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    case("lora/tiny-llama").build()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("library", ["transformers", "peft"])
def test_a_missing_library_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch, library: str) -> None:
    chosen = case("lora/tiny-llama")
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(CannotRun, match=r"aiarena\[hf\]"):
        chosen.build()


def test_a_submitted_model_may_not_bring_a_base_of_its_own() -> None:
    chosen = case("lora/tiny-llama")
    state = chosen.build()
    adapters = model_tensors(state.capture(SEED))
    assert chosen.program.evaluate(adapters, chosen.config, chosen.samples) > 0
    with pytest.raises(SpecError, match="pinned base"):
        chosen.program.evaluate(dict(state.model.state_dict()), chosen.config, chosen.samples)


def test_every_built_in_program_is_under_test_here_or_beside() -> None:
    assert {case(name).name for name in NAMES} | {"pol.programs.classifier:ImageClassifier"} == BUILT_IN
    assert all(len(case(name).samples) >= BATCH for name in NAMES)
