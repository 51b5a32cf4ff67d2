"""LoRA adapters: read by their product alone, found after merging, and innocents match by coin flips."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, kstest

from pol.errors import SpecError
from pol.programs.base_model import VARIABLE
from tests.watermark.test_null import every_match
from tests.watermark.weights import adapters as thief
from tests.watermark.weights.adapters import ALPHA, PREFIX, State, World
from watermark import Claim, Evidence, LeafOpening, MarkParameters, WatermarkKey, detect, embed
from watermark.detect import read
from watermark.weights import merged
from watermark.weights.arrays import Array
from watermark.weights.layouts.lora import MARGIN, LoRALayout
from watermark.weights.merged import added
from watermark.weights.parameters import Carrier, WeightMark

BETA = bytes(range(32))
LAYOUT = LoRALayout()
SCALE = ALPHA / 8
ONE = "model.layers.0.mlp.up_proj"


@dataclass(frozen=True)
class Owner:
    """Adapters before and after the mark, on a base that everybody has, and the claim that accuses with them."""

    world: World
    theta_0: State
    theta_ref: State
    model: State
    claim: Claim

    @property
    def merged(self) -> State:
        return thief.plus(self.world.base, thief.deltas(self.model, SCALE))

    def matches(self, suspect: State) -> int:
        return detect(suspect, [self.claim])[0].matches


def make_owner(world: World, steps: int, rows: int = 32, leaves: int = 2) -> Owner:
    theta_0, theta_ref = world.adapters(1, 0), world.adapters(1, steps)
    heights = {name: len(tensor) for name, tensor in theta_0.items() if ".lora_B." in name}
    carriers = tuple(Carrier(name, height // rows, rows, MARGIN) for name, height in heights.items())
    mark = WeightMark("lora", carriers, leaves)
    parameters = MarkParameters(mark)
    key = WatermarkKey(b"the owner's secret, 32 bytes ...", parameters.leaf_count)
    claim = Claim.make(key, BETA, parameters, range(parameters.groups), theta_ref)
    claim = dataclasses.replace(claim, base=world.base, theta_0=theta_0)
    return Owner(world, theta_0, theta_ref, embed(theta_ref, key, BETA, parameters), claim)


@pytest.fixture(scope="module")
def owner(tmp_path_factory: pytest.TempPathFactory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, "")
        yield make_owner(thief.make_world(tmp_path_factory.mktemp("models"), steps=80), steps=80)


@pytest.fixture(scope="module")
def innocents(owner: Owner) -> list[State]:
    """Adapters for the same base and text, trained from other seeds."""
    models = [owner.world.adapters(seed, 25) for seed in (11, 12)]
    assert max(owner.world.loss(model) for model in models) < 0.8 * owner.world.loss(owner.theta_0)
    return models


def pair(seed: int, rank: int = 3, outputs: int = 20, inputs: int = 30) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(outputs, rank, generator=generator), torch.randn(rank, inputs, generator=generator)


def state(left: torch.Tensor, right: torch.Tensor, form: str = f"{PREFIX}{ONE}.lora_{{}}.default.weight") -> State:
    return {form.format("A"): right, form.format("B"): left}


def read_one(suspect: State, theta_ref: State, base: State | None = None) -> Array:
    (matrix,) = LAYOUT.read(suspect, theta_ref, [f"{PREFIX}{ONE}.lora_B.default.weight"], base)
    return matrix


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 6), st.floats(0.1, 10))
def test_an_adapter_is_read_by_its_product_alone(seed: int, extra: int, scale: float) -> None:
    """Re-factored, of another rank, scaled, renamed, merged: one matrix up to the scale, theta_ref's own B."""
    left, right = pair(seed)
    mix = torch.linalg.qr(torch.randn(3 + extra, 3, generator=torch.Generator().manual_seed(seed))).Q
    weight = torch.randn(20, 30, generator=torch.Generator().manual_seed(seed + 1))
    others = [
        state(left @ mix.T, mix @ right),
        state(scale * left, right / scale, f"{ONE}.lora_{{}}.weight"),
        state(scale * left, right, f"{PREFIX}{ONE}.lora_{{}}.stolen.weight"),
    ]
    reference = state(left, right)
    for other in others:
        found = read_one(other, reference)
        np.testing.assert_allclose(found / np.linalg.norm(found), left / left.norm(), atol=1e-5)
    found = read_one({f"{ONE}.weight": weight + left @ right / 50}, reference, {f"{ONE}.weight": weight})
    assert np.corrcoef(found.ravel(), left.numpy().ravel())[0, 1] > 0.95  # rows and columns lose their own direction


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**31), st.booleans(), st.floats(0, 1))
def test_units_are_put_back_into_the_bases_order_and_scale(seed: int, columns: bool, spread: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    base = torch.randn(24, 64, generator=generator).double()
    change = 0.05 * torch.randn(24, 64, generator=generator).double()
    np.testing.assert_allclose(added((base + change).numpy(), base.numpy()), change.numpy(), atol=1e-12)
    order = torch.randperm(24, generator=generator)
    scale = torch.exp(spread * torch.randn(24, generator=generator)) * torch.randn(24, generator=generator).sign()
    moved = (base + change)[order] * scale[order, None]
    wider = torch.cat([moved, moved[:5] / 7, torch.zeros(4, 64)]).numpy()
    for here in (moved.numpy(), wider):
        found = added(here.T, base.numpy().T).T if columns else added(here, base.numpy())
        assert np.corrcoef(found.ravel(), change.numpy().ravel())[0, 1] > 0.95


def test_units_that_are_missing_count_as_unchanged() -> None:
    base = np.random.default_rng(0).normal(size=(24, 64))
    found = added(1.01 * base[:20] + 0.1 * np.random.default_rng(1).normal(size=(20, 64)), base)
    assert found[:20].std() > 0.05 and found[20:].std() < 0.3 * found[:20].std()


def test_a_mark_changes_its_tensors_alone_and_costs_little(owner: Owner) -> None:
    changed = {name for name in owner.model if not torch.equal(owner.model[name], owner.theta_ref[name])}
    assert changed == set(owner.claim.parameters.weights.tensors)
    change = {name: owner.model[name] - owner.theta_ref[name] for name in changed}
    way = {name: owner.theta_ref[name] - owner.theta_0[name] for name in changed}
    assert length(change) < 0.4 * length(way)  # two bits in 256 entries; the suggested mark has a quarter as many
    before, after = owner.world.loss(owner.theta_ref), owner.world.loss(owner.model)
    assert after < 1.02 * before


def length(tensors: State) -> float:
    return sum(float(tensor.square().sum()) for tensor in tensors.values()) ** 0.5


ATTACKS = {
    "nothing": (0.99, lambda o: o.model),
    "re-factored": (0.99, lambda o: thief.rebuilt(o.model, thief.truncated(8))),
    "half of the factors pruned": (0.99, lambda o: thief.pruned(o.model, 0.5)),
    "half the rank": (0.85, lambda o: thief.rebuilt(o.model, thief.truncated(4))),
    "merged": (0.99, lambda o: o.merged),
    "merged, bf16": (0.99, lambda o: {name: tensor.bfloat16() for name, tensor in o.merged.items()}),
    "merged, int8": (0.99, lambda o: thief.quantised(o.merged, 8)),
    "merged, int4": (0.99, lambda o: thief.quantised(o.merged, 4)),
    "merged, int3": (0.95, lambda o: thief.quantised(o.merged, 3)),
    "merged, half of the weights pruned": (0.9, lambda o: thief.pruned(o.merged, 0.5)),
    "merged at half its scale": (0.97, lambda o: thief.plus(o.world.base, thief.deltas(o.model, SCALE / 2))),
}
"""Least share of bits that agree, and what the thief does. This base is narrow: wider ones keep more."""


@pytest.mark.parametrize("attack", ATTACKS)
def test_the_mark_survives(owner: Owner, attack: str) -> None:
    least, change = ATTACKS[attack]
    evidence = detect(change(owner), [owner.claim])[0]
    assert evidence.accepted
    assert evidence.matches >= least * evidence.trials


def test_other_adapters_on_top_hide_nothing(owner: Owner, innocents: list[State]) -> None:
    foreign, own = [thief.deltas(other, SCALE) for other in innocents], thief.deltas(owner.model, SCALE)
    on_top = thief.plus(owner.world.base, own, *foreign)
    for model in (on_top, thief.quantised(on_top, 4), thief.plus(owner.world.base, thief.ties([own, *foreign]))):
        assert detect(model, [owner.claim])[0].accepted
    assert detect(thief.plus(owner.world.base, thief.ties(foreign)), [owner.claim])[0].log2_p > -20


def test_training_on_keeps_the_mark(owner: Owner) -> None:
    later = owner.world.adapters(7, 25, start=owner.model)
    assert owner.matches(later) >= 0.97 * len(owner.claim.expected)


@pytest.mark.slow
def test_a_wider_base_keeps_more_and_needs_no_base_to_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Width 256: 384 bits, 8 in 1,024 entries of B. Blind, the base's own weights are noise, and yet it is found."""
    monkeypatch.setenv(VARIABLE, "")
    wide = make_owner(thief.make_world(tmp_path, steps=60, width=256, layers=3), steps=60, rows=128, leaves=8)
    trials = len(wide.claim.expected)
    for bits, least in ((4, 0.99), (3, 0.98)):
        assert wide.matches(thief.quantised(wide.merged, bits)) >= least * trials
    assert wide.matches(thief.pruned(wide.merged, 0.5)) >= 0.97 * trials
    assert wide.matches(thief.rebuilt(wide.model, thief.truncated(4))) >= 0.9 * trials
    blind = dataclasses.replace(wide.claim, base=None)
    assert detect(thief.quantised(wide.merged, 4), [blind])[0].accepted
    assert detect(thief.quantised(wide.world.base, 4), [blind])[0].log2_p > -20


def test_subtracting_the_adapter_flips_every_bit(owner: Owner) -> None:
    assert owner.matches(thief.plus(owner.world.base, thief.deltas(owner.model, -SCALE))) <= 2


def test_a_disguised_llama_is_the_same_function_and_carries_the_mark(owner: Owner, innocents: list[State]) -> None:
    """Heads and hidden units permuted, scaled and flipped, gains folded, the residual stream rotated; then int4."""
    disguised = thief.disguised(owner.merged, 5)
    tokens = torch.randint(128, (2, 20), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(logits(owner, disguised, tokens), logits(owner, owner.merged, tokens), rtol=0, atol=2e-3)
    trials = len(owner.claim.expected)
    assert owner.matches(disguised) >= 0.97 * trials
    assert detect(thief.quantised(disguised, 4), [owner.claim])[0].accepted
    innocent = thief.plus(owner.world.base, thief.deltas(innocents[0], SCALE))
    assert detect(thief.disguised(innocent, 5), [owner.claim])[0].log2_p > -20


def logits(owner: Owner, weights: State, tokens: torch.Tensor) -> torch.Tensor:
    from pol.encoding import from_hex
    from pol.programs.base_model import causal_lm

    pins = owner.world.config()
    model = causal_lm(pins["base"], *(from_hex(pins[f"{part}_digest"], where="") for part in ("base", "architecture")))
    model.load_state_dict(weights)
    with torch.no_grad():
        return model(input_ids=tokens).logits


def test_innocent_adapters_match_by_coin_flips(owner: Owner, innocents: list[State]) -> None:
    """1,000 keys on adapters trained on the same base and text from other seeds, as they are and merged to int4."""
    carriers = owner.claim.parameters.weights.carriers
    parameters = MarkParameters(WeightMark("lora", carriers, 1))
    plain = dataclasses.replace(owner.claim, parameters=parameters, groups=tuple(range(parameters.groups)))
    matrices = []
    for innocent in innocents:
        quantised = thief.quantised(thief.plus(owner.world.base, thief.deltas(innocent, SCALE)), 4)
        matrices += [[reading.found for reading in read(model, plain)] for model in (innocent, quantised)]
    keys = [WatermarkKey(number.to_bytes(32, "big"), parameters.leaf_count) for number in range(1000)]
    counts = [
        every_match(matrices[number % 4], key.leaves, plain.beta, key.root, parameters.weights)
        for number, key in enumerate(keys)
    ]
    trials, dice = parameters.leaf_count, np.random.default_rng(0).random(len(counts))
    assert min(Evidence(count, trials).log2_p for count in counts) > -20
    p_values = binom.sf(counts, trials, 0.5) + dice * binom.pmf(counts, trials, 0.5)
    assert kstest(p_values, "uniform").pvalue > 1e-3
    for model in (owner.theta_ref, owner.theta_0, owner.world.base):
        assert detect(model, [owner.claim])[0].log2_p > -20
    assert detect(owner.model, [owner.claim])[0].accepted  # the honest twin


def opened(claim: Claim, key: WatermarkKey) -> Claim:
    leaves = tuple(LeafOpening(leaf.index, leaf.seed, leaf.salt, ()) for leaf in key.leaves)
    return dataclasses.replace(claim, key_root=key.root, leaves=leaves)


def test_suggested_groups_go_where_there_is_room() -> None:
    """By the size of B: 64 groups among few modules, one a module among many, none where bits cost much or in heads."""
    few = {"q_proj": 1536, "v_proj": 512, "k_proj": 96}
    model = {name: tensor for module, height in few.items() for name, tensor in adapter(module, height).items()}
    carriers = {carrier.tensor.split(".")[0]: carrier for carrier in LAYOUT.suggested(model)}
    assert {module: carrier.groups for module, carrier in carriers.items()} == {"q_proj": 3, "v_proj": 1}
    LAYOUT.check(model, list(carriers.values()), where="the model")
    many = {name: tensor for n in range(100) for name, tensor in adapter(f"layers.{n}.q_proj", 576).items()}
    assert [carrier.groups for carrier in LAYOUT.suggested(many)] == [1] * 100
    mixed = adapter("layers.0.self_attn.q_proj", 1536) | adapter("layers.0.mlp.up_proj", 1536)
    assert [carrier.tensor for carrier in LAYOUT.suggested(mixed)] == ["layers.0.mlp.up_proj.lora_B.weight"]
    with pytest.raises(SpecError, match="entries for a group"):
        LAYOUT.suggested(adapter("q_proj", 64))


def adapter(module: str, height: int) -> State:
    left, right = pair(1, rank=8, outputs=height)
    return state(torch.zeros_like(left), right, f"{module}.lora_{{}}.weight")


LEFT, RIGHT = pair(0)
REFERENCE = state(LEFT, RIGHT)
WEIGHT = {f"{ONE}.weight": torch.randn(20, 30, generator=torch.Generator().manual_seed(2))}
NAN = {name: torch.full_like(tensor, float("nan")) for name, tensor in REFERENCE.items()}


@pytest.mark.parametrize(
    ("suspect", "message"),
    [
        ({}, "none of the adapted modules"), ({"other.weight": LEFT}, "none of the adapted modules"),
        (state(*pair(0, inputs=31)), "not comparable"), (state(LEFT, pair(0, rank=4)[1]), "does not fit"),
        (NAN, "not finite"), (state(LEFT[0], RIGHT), "not a matrix"), ({f"{ONE}.lora_B.weight": LEFT}, "missing"),
        (state(LEFT.int(), RIGHT), "not floating point"), (REFERENCE | WEIGHT, "merge it first"),
        (REFERENCE | state(LEFT, RIGHT, f"{ONE}.lora_{{}}.weight"), "more than once"),
        ({f"{ONE}.weight": torch.zeros(3, 4)}, "cannot be compared"), ({f"{ONE}.weight": torch.zeros(0, 30)}, "matrix"),
    ],
    ids=str,
)  # fmt: skip
def test_suspects_that_cannot_be_compared_are_refused(suspect: State, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        read_one(suspect, REFERENCE, WEIGHT)
    assert read_one(REFERENCE, REFERENCE, WEIGHT).shape == (20, 3)


def test_hostile_weights_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    huge = read_one(state(1e300 * LEFT.double(), 1e300 * RIGHT.double()), REFERENCE)
    assert not np.isfinite(huge).all()
    assert not read_one({f"{ONE}.weight": torch.zeros(20, 30)}, REFERENCE, WEIGHT).any()
    monkeypatch.setattr(merged, "MAX_PAIRS", 20 * 30)
    with pytest.raises(SpecError, match="too many"):
        read_one({f"{ONE}.weight": torch.randn(40, 30)}, REFERENCE, WEIGHT)


@pytest.mark.parametrize(
    ("model", "carrier", "message"),
    [
        (REFERENCE, f"{PREFIX}{ONE}.lora_A.default.weight", "not a lora_B"), (REFERENCE, "a", "not a lora_B"),
        (REFERENCE | WEIGHT, "a", "unexpected tensor"), ({}, "a", "no adapters"), (NAN, "a", "not finite"),
        (state(LEFT, RIGHT[:1].repeat(3, 1)), "a", "depend on each other"),
        (REFERENCE, f"{PREFIX}{ONE}.lora_B.default.weight", "20 rows"),
    ],
    ids=str,
)  # fmt: skip
def test_models_that_cannot_carry_a_mark_are_refused(model: State, carrier: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        LAYOUT.check(model, [Carrier(carrier, 2, 11, 0.1)], where="theta_ref")
    LAYOUT.check(REFERENCE, [Carrier(f"{PREFIX}{ONE}.lora_B.default.weight", 2, 10, 0.1)], where="theta_ref")
