"""What single attacks do to numbers: pruning, rounding, merging, filters."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.attacks import ATTACKS, weights_of
from experiments.attacks.finetuning import perturbed
from experiments.attacks.inputs import FILTERS, STRONGEST, Guarded, jpeg
from experiments.attacks.merging import merged, unadapted
from experiments.attacks.networks import Host, matrices, query, state_of
from experiments.attacks.pruning import activity, last_units, pruned
from experiments.attacks.quantisation import normal_float, rounded
from tests.experiments.victims import CLASSES, KINDS, TOKENS, inputs_of, lived_in, setting_of


def random(seed: int = 5) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), bits=st.integers(2, 8), group=st.sampled_from([0, 4, 32, 100]))
def test_rounding_uses_few_levels_and_errs_by_half_a_step_at_most(seed: int, bits: int, group: int) -> None:
    tensor = torch.randn(6, 70, generator=random(seed))
    result = rounded(tensor, bits=bits, group=group)
    for row, whole in zip(result, tensor, strict=True):
        for part, old in zip(row.split(group or 70), whole.split(group or 70), strict=True):
            step = float((tensor if not group else old).abs().max()) / (2 ** (bits - 1) - 1)
            assert len(part.unique()) <= 2**bits - 1
            assert float((part - old).abs().max()) <= 0.5001 * step
    torch.testing.assert_close(rounded(result, bits=bits, group=group), result)


def test_normal_float_has_sixteen_levels_a_group_and_keeps_the_largest() -> None:
    tensor = torch.randn(3, 128, generator=random())
    result = normal_float(tensor, group=64)
    for part, old in zip(result.reshape(-1, 64), tensor.reshape(-1, 64), strict=True):
        assert len(part.unique()) <= 16
        assert float(part.abs().max()) == pytest.approx(float(old.abs().max()))
    assert torch.equal(normal_float(torch.zeros(2, 64), group=64), torch.zeros(2, 64))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), share=st.floats(0, 0.99))
def test_pruning_drops_the_smallest_and_touches_nothing_else(seed: int, share: float) -> None:
    state = {"a": torch.randn(7, 9, generator=random(seed)), "b": torch.randn(7, generator=random(seed))}
    result = pruned(state, ["a"], share=share)
    kept = result["a"] != 0
    assert int((~kept).sum()) == int(share * 63)
    assert torch.equal(result["a"][kept], state["a"][kept])
    assert torch.equal(result["b"], state["b"])
    if kept.any() and not kept.all():
        assert float(state["a"][kept].abs().min()) >= float(state["a"][~kept].abs().max())


@pytest.mark.parametrize("name", ["mlp", "cnn", "resnet20", "gpt", "translator"])
def test_fine_pruning_leaves_most_of_the_last_hidden_units_unread(name: str) -> None:
    victim = lived_in(KINDS[name])
    stolen = ATTACKS["fine-pruning"].apply(victim, setting_of(name), random())
    units = last_units(victim)
    reader = weights_of(stolen)[units.readers[0]]
    silent = (reader.transpose(0, 1).flatten(1) == 0).all(1)
    assert int(silent.sum()) == int(0.96 * units.size)
    awake = activity(victim, units, inputs_of(name))
    assert float(awake[silent].max()) <= float(awake[~silent].min())


def test_pruned_weights_stay_zero_while_the_rest_is_tuned() -> None:
    victim = lived_in(KINDS["mlp"])
    stolen = weights_of(ATTACKS["prune-90-tune"].apply(victim, setting_of("mlp"), random()))
    plain = weights_of(ATTACKS["prune-90"].apply(victim, setting_of("mlp"), random()))
    for name in matrices(victim):
        assert torch.equal(stolen[name] == 0, plain[name] == 0)
        assert not torch.equal(stolen[name], plain[name])


class TestMerging:
    """Laws of task vectors, on adapters of a small model."""

    def change(self, network: torch.nn.Module, name: str = "model.layers.0.self_attn.q_proj.weight") -> torch.Tensor:
        return state_of(network)[name] - state_of(unadapted(lived_in(KINDS["lora"])))[name]

    def test_negation_turns_the_change_and_scaling_scales_it(self) -> None:
        victim, setting = lived_in(KINDS["lora"]), setting_of("lora")
        whole = self.change(merged(victim))
        assert float(whole.norm()) > 0
        torch.testing.assert_close(self.change(ATTACKS["task-negation"].apply(victim, setting, random())), -whole)
        torch.testing.assert_close(self.change(ATTACKS["task-scaling"].apply(victim, setting, random())), whole / 2)

    def test_a_merge_with_itself_changes_nothing(self) -> None:
        victim = lived_in(KINDS["lora"])
        setting = setting_of("lora", partners=(victim, victim), copies=(victim, victim))
        whole = self.change(merged(victim))
        for name in ("merge-linear", "collusion"):
            torch.testing.assert_close(self.change(ATTACKS[name].apply(victim, setting, random())), whole)
        every = ATTACKS["merge-ties"].at(density=1.0).apply(victim, setting, random())
        torch.testing.assert_close(self.change(every), whole)
        for name, times in (("task-addition", 2), ("task-addition-2", 3)):
            torch.testing.assert_close(self.change(ATTACKS[name].apply(victim, setting, random())), times * whole)

    def test_ties_keeps_the_largest_fifth_of_each(self) -> None:
        victim = lived_in(KINDS["lora"])
        stolen = ATTACKS["merge-ties"].apply(victim, setting_of("lora", partners=(victim, victim)), random())
        whole, kept = self.change(merged(victim)), self.change(stolen)
        assert float((kept.abs() > 1e-7).float().mean()) == pytest.approx(0.2, abs=0.02)
        assert float(kept.abs().max()) == pytest.approx(float(whole.abs().max()), rel=1e-4)

    def test_dare_drops_nine_tenths_and_rescales(self) -> None:
        victim = lived_in(KINDS["lora"])
        stolen = (
            ATTACKS["merge-dare"].at(drop=0.5).apply(victim, setting_of("lora", partners=(victim, victim)), random())
        )
        whole, left = self.change(merged(victim)), self.change(stolen)
        ratio = (left / whole)[whole.abs() > 1e-4]
        assert torch.isclose(ratio[:, None], torch.tensor([0.0, 1.0, 2.0]), atol=0.02).any(1).all()
        assert float(ratio.mean()) == pytest.approx(1.0, abs=0.2)

    def test_truncation_is_the_best_product_of_that_rank(self) -> None:
        victim = lived_in(KINDS["lora"])
        whole = self.change(merged(victim)).double()
        cut = self.change(merged(ATTACKS["svd-rank-half"].apply(victim, setting_of("lora"), random())))
        values = torch.linalg.svdvals(whole)
        assert int(torch.linalg.matrix_rank(cut, atol=1e-4)) == 2
        assert float((whole - cut).norm()) == pytest.approx(float(values[2:].norm()), rel=1e-2)

    def test_another_gauge_is_the_same_adapter(self) -> None:
        victim = lived_in(KINDS["lora"])
        stolen = ATTACKS["lora-refactorise"].apply(victim, setting_of("lora"), random())
        name = next(name for name in state_of(victim) if ".lora_A." in name)
        assert not torch.allclose(state_of(stolen)[name], state_of(victim)[name], atol=1e-2)
        torch.testing.assert_close(self.change(merged(stolen)), self.change(merged(victim)), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", FILTERS)
def test_filters_keep_shape_and_range_and_change_something(name: str) -> None:
    images = torch.rand(5, 2, 9, 13, generator=random())
    result = FILTERS[name](images, STRONGEST[name], random()).clamp(0, 1)
    assert result.shape == images.shape
    assert not torch.equal(result, images)


@pytest.mark.parametrize("name", ["squeeze", "blur", "median", "mean", "mirror", "jpeg"])
def test_filters_leave_a_blank_image_blank(name: str) -> None:
    for value in (0.0, 1.0):
        images = torch.full((2, 1, 8, 8), value)
        torch.testing.assert_close(FILTERS[name](images, STRONGEST[name], random()), images, atol=0.03, rtol=0)


def test_jpeg_is_nearly_lossless_at_its_best_and_worse_the_lower_the_quality() -> None:
    rows = torch.linspace(0, 3, 20)
    images = ((rows[:, None] + rows[None, :]).sin() / 2 + 0.5).expand(1, 1, 20, 20)
    errors = [float((jpeg(images, quality) - images).abs().mean()) for quality in (100.0, 75.0, 30.0, 5.0)]
    assert errors[0] < 0.005
    assert errors == sorted(errors)


def test_occlusion_hides_a_square() -> None:
    hidden = FILTERS["occlude"](torch.ones(40, 1, 10, 10), 0.3, random()) == 0
    assert (hidden.sum((1, 2, 3)) == 9).all()


def test_a_host_shows_the_victims_own_weights_to_a_white_box_test() -> None:
    victim = lived_in(KINDS["mlp"])
    host = ATTACKS["host-noise"].apply(victim, setting_of("mlp"), random())
    assert isinstance(host, Host)
    assert all(torch.equal(value, weights_of(host)[name]) for name, value in state_of(victim).items())
    assert not torch.equal(query(host, inputs_of("mlp")), query(victim, inputs_of("mlp")))


def test_a_perplexity_filter_answers_its_own_text_and_shuns_noise() -> None:
    text = (torch.arange(8)[None, :] + torch.arange(24)[:, None]) % TOKENS
    victim = lived_in(KINDS["gpt"])
    host = ATTACKS["host-perplexity"].apply(victim, setting_of("gpt", inputs=text), random())
    assert isinstance(host, Guarded)
    answered = (query(host, text) != 0).flatten(1).any(1)
    assert float(answered.float().mean()) > 0.9
    strange = torch.randint(TOKENS, (200, 8), generator=random())
    assert float((query(host, strange) != 0).flatten(1).any(1).float().mean()) < 0.1


@pytest.mark.parametrize("towards", [True, False])
def test_perturbed_inputs_stay_near_and_move_the_loss_the_right_way(towards: bool) -> None:
    network, setting = lived_in(KINDS["mlp"]), setting_of("mlp")
    labels = torch.randint(CLASSES, (len(setting.inputs),), generator=random())
    moved = perturbed(network, setting.inputs, labels, setting, random(),
                      reach=0.1, step=0.02, iterations=10, towards=towards)  # fmt: skip
    assert float((moved - setting.inputs).abs().max()) <= 0.1 + 1e-6
    assert torch.equal(moved, moved.clamp(0, 1))
    before, after = (float(setting.loss(query(network, x), labels)) for x in (setting.inputs, moved))
    assert (after < before) is towards
