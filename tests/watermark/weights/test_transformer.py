"""Marks in transformers: what leaves the function as it is leaves the mark as it is, and innocents are coin flips."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, kstest
from torch import nn
from torch.nn import functional

from pol.errors import SpecError
from tests.watermark.test_null import every_match
from tests.watermark.weights import transformer_thief as thief
from tests.watermark.weights.transformer_thief import Attack, Body, State
from watermark import Evidence, LeafOpening, WatermarkKey, suggested_parameters
from watermark.weights.arrays import Array
from watermark.weights.embed import embed_weights
from watermark.weights.layouts.transformer import TransformerLayout
from watermark.weights.parameters import Carrier, WeightMark
from watermark.weights.reading import count_matches, read_weights
from watermark.weights.stream import find_stream
from watermark.weights.transformer_blocks import expanded, open_transformer

BETA = bytes(range(32))
LICENCE = Path(__file__).parents[3] / "LICENSE"
LAYOUT = TransformerLayout()


def windows(seed: int, count: int) -> torch.Tensor:
    """Windows of the licence, as ASCII codes [count, context + 1]."""
    text = torch.tensor(list(LICENCE.read_bytes()))
    starts = torch.randint(len(text) - thief.CONTEXT - 1, (count,), generator=torch.Generator().manual_seed(seed))
    return text[starts[:, None] + torch.arange(thief.CONTEXT + 1)]


def train(network: nn.Module, logits: Callable[[torch.Tensor], torch.Tensor], *, steps: int, seed: int) -> State:
    network.train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    for batch in windows(seed, 16 * steps).split(16):
        optimizer.zero_grad()
        functional.cross_entropy(logits(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten()).backward()
        optimizer.step()
    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}


def trained_gpt(seed: int, *, steps: int = 100) -> State:
    torch.manual_seed(seed)
    shapes = thief.GPT(thief.language(width=64, layers=2)).state_dict()
    network = thief.gpt(shapes)
    return train(network, network, steps=steps, seed=seed)


def trained_llama(seed: int, *, steps: int = 100) -> State:
    """Two blocks; four heads of 16, two of which share their values."""
    torch.manual_seed(seed)
    network = thief.new_llama(width=64, hidden=160, layers=2, heads=4, kv_heads=2)
    return train(network, lambda tokens: network(tokens).logits, steps=steps, seed=seed)


@dataclass(frozen=True)
class Family:
    """One family of models: an owner's, an innocent's, and how a thief takes one apart."""

    theta_ref: State
    innocent: State
    marked: State
    mark: WeightMark
    key: WatermarkKey
    apart: Callable[[State], Body]
    together: Callable[[Body], State]
    logits: Callable[[State, torch.Tensor], torch.Tensor]

    def attacked(self, state: State, attack: Attack, seed: int = 5) -> State:
        body = self.apart(state)
        attack(body, torch.Generator().manual_seed(seed))
        return self.together(body)

    def matches(self, suspect: State) -> int:
        readings = read_weights(suspect, self.theta_ref, self.mark)
        return count_matches(readings, leaves_of(self.key), BETA, self.key.root, self.mark).matches


def matches(matrices: Sequence[Array], key: WatermarkKey, mark: WeightMark) -> int:
    return every_match(matrices, key.leaves, BETA, key.root, mark)


def leaves_of(key: WatermarkKey) -> list[LeafOpening]:
    return [LeafOpening(leaf.index, leaf.seed, leaf.salt, ()) for leaf in key.leaves]


def family(theta_ref: State, innocent: State, secret: bytes, *rest: Callable[..., object]) -> Family:
    everywhere = open_transformer(theta_ref, where="theta").carriers
    mark = WeightMark("transformer", tuple(Carrier(tensor, 8, 8, 1.5) for tensor in everywhere), leaves=4)
    key = WatermarkKey(secret, mark.leaf_count)
    marked = embed_weights(theta_ref, key, BETA, mark)
    return Family(theta_ref, innocent, marked, mark, key, *rest)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def gpt() -> Family:
    def logits(state: State, tokens: torch.Tensor) -> torch.Tensor:
        return thief.gpt(state)(tokens)

    return family(
        trained_gpt(1),
        trained_gpt(2, steps=60),
        bytes(31) + b"G",
        thief.of_gpt,
        thief.to_gpt,
        logits,
    )


@pytest.fixture(scope="module")
def llama() -> Family:
    def logits(state: State, tokens: torch.Tensor) -> torch.Tensor:
        return thief.llama(state)(tokens).logits  # type: ignore[no-any-return]

    return family(
        trained_llama(1),
        trained_llama(2, steps=60),
        bytes(31) + b"L",
        thief.of_llama,
        thief.to_llama,
        logits,
    )


@pytest.fixture(scope="module", params=["gpt", "llama"])
def either(request: pytest.FixtureRequest) -> Family:
    return request.getfixturevalue(request.param)  # type: ignore[no-any-return]


DUMMIES = {f"as many {kind} units again": thief.widened(kind) for kind in ("silent", "clique", "split", "dead")}
BOTH: dict[str, Attack] = {
    "hidden units moved": thief.units_moved,
    "heads moved and mapped": thief.heads_moved,
    "gains moved": thief.gains_moved,
    "channels permuted": thief.channels_permuted,
    "idle blocks": thief.idle_blocks,
} | DUMMIES
GPT_ONLY: dict[str, Attack] = {
    "means moved": thief.means_moved,
    "everything": thief.everything(
        thief.widened("split"), thief.widened("dead"), thief.units_moved, thief.heads_moved, thief.means_moved,
        thief.gains_moved, thief.channels_permuted, thief.idle_blocks,
    ),
}  # fmt: skip
LLAMA_ONLY: dict[str, Attack] = {
    "split behind the gates": thief.split_behind_gates,
    "every head its own values": thief.heads_ungrouped,
    "channels rotated": thief.channels_rotated,
    "everything": thief.everything(
        thief.widened("clique"), thief.widened("dead"), thief.split_behind_gates, thief.units_moved, thief.heads_moved,
        thief.heads_ungrouped, thief.gains_moved, thief.channels_rotated, thief.idle_blocks,
    ),
}  # fmt: skip


def assert_harmless(model: Family, attack: Attack) -> None:
    """The function is what it was, every bit is read, and an innocent model treated alike stays innocent."""
    tokens = windows(99, 4)[:, :-1]
    before = {name: tensor.double() for name, tensor in model.marked.items()}
    after = model.attacked(model.marked, attack)
    torch.testing.assert_close(model.logits(after, tokens), model.logits(before, tokens), rtol=1e-5, atol=1e-5)
    stolen = {name: tensor.float() for name, tensor in after.items()}
    assert model.matches(stolen) == model.mark.leaf_count
    innocent = Evidence(model.matches(model.attacked(model.innocent, attack)), model.mark.leaf_count)
    assert innocent.log2_p > -20


@pytest.mark.parametrize("attack", BOTH.values(), ids=BOTH)
def test_what_changes_no_function_changes_no_bit(either: Family, attack: Attack) -> None:
    assert_harmless(either, attack)


@pytest.mark.parametrize("attack", GPT_ONLY.values(), ids=GPT_ONLY)
def test_what_changes_no_function_of_a_gpt(gpt: Family, attack: Attack) -> None:
    assert_harmless(gpt, attack)


@pytest.mark.parametrize("attack", LLAMA_ONLY.values(), ids=LLAMA_ONLY)
def test_what_changes_no_function_of_a_llama(llama: Family, attack: Attack) -> None:
    assert_harmless(llama, attack)


def test_the_marked_model_and_theta_ref(either: Family) -> None:
    assert either.matches(either.marked) == either.mark.leaf_count
    assert Evidence(either.matches(either.theta_ref), either.mark.leaf_count).log2_p > -20


def test_the_suggested_mark_is_spread_over_the_perceptrons_of_all_blocks(either: Family) -> None:
    places = open_transformer(either.theta_ref, where="theta").carriers
    chosen = suggested_parameters(either.theta_ref, layout="transformer").weights
    assert set(chosen.tensors) == {tensor for tensor, (part, _) in places.items() if part == "mlp"}
    assert chosen.leaf_count >= 192
    key = WatermarkKey(bytes(31) + b"S", chosen.leaf_count)
    marked = embed_weights(either.theta_ref, key, BETA, chosen)
    readings = read_weights(marked, either.theta_ref, chosen)
    assert count_matches(readings, leaves_of(key), BETA, key.root, chosen).matches == chosen.leaf_count


def test_only_carriers_are_changed(either: Family) -> None:
    changed = [name for name, tensor in either.marked.items() if not torch.equal(tensor, either.theta_ref[name])]
    assert set(changed) == set(either.mark.tensors)


@pytest.mark.parametrize(("bits", "group"), [(8, 0), (4, 0), (4, 128)])
def test_quantised_before_or_after_it_is_moved(either: Family, bits: int, group: int) -> None:
    plain = thief.quantised(either.marked, bits, group)
    assert either.matches(plain) >= 0.99 * either.mark.leaf_count
    moved = either.attacked(plain, thief.everything(thief.units_moved, thief.heads_moved, thief.channels_permuted))
    assert either.matches(moved) >= 0.99 * either.mark.leaf_count


def test_a_rotated_model_quantised_in_its_new_basis(llama: Family) -> None:
    """As QuaRot does; the embedding stays in full precision."""
    rotated = llama.attacked(llama.marked, thief.channels_rotated)
    quantised = thief.quantised(rotated, 4, 128) | {"model.embed_tokens.weight": rotated["model.embed_tokens.weight"]}
    assert llama.matches(quantised) >= 0.95 * llama.mark.leaf_count


def test_a_thousand_keys_on_innocent_models(either: Family) -> None:
    """Read once, theta_ref and an innocent model; each further key's count is Bin(M, 1/2). Ties made KS exact."""
    mark = WeightMark("transformer", either.mark.carriers, leaves=1)
    for suspect, first in ((either.innocent, 0), (either.attacked(either.theta_ref, thief.units_moved), 500)):
        matrices = LAYOUT.read(suspect, either.theta_ref, mark.tensors)
        keys = [WatermarkKey(number.to_bytes(32, "big"), mark.leaf_count) for number in range(first, first + 500)]
        counts = np.array([matches(matrices, key, mark) for key in keys])
        assert min(Evidence(int(count), mark.leaf_count).log2_p for count in counts) > -20
        dice = np.random.default_rng(0).random(len(counts))
        p_values = binom.sf(counts, mark.leaf_count, 0.5) + dice * binom.pmf(counts, mark.leaf_count, 0.5)
        assert kstest(p_values, "uniform").pvalue > 1e-3


def test_the_mark_of_another_key_is_not_the_owners(either: Family) -> None:
    """Two copies of theta_ref, marked with two keys: each key's bits are in its own copy alone."""
    other = WatermarkKey(b"another secret of 32 bytes .....", either.mark.leaf_count)
    twice = embed_weights(either.theta_ref, other, BETA, either.mark)
    found = LAYOUT.read(twice, either.theta_ref, either.mark.tensors)
    assert matches(found, other, either.mark) == either.mark.leaf_count
    assert Evidence(either.matches(twice), either.mark.leaf_count).log2_p > -20


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31), st.integers(8, 24), st.integers(0, 8), st.booleans())
def test_any_rotation_of_any_stream_is_undone(seed: int, width: int, more: int, permuted: bool) -> None:
    """A rotation into a stream as wide or wider, its embedding with further rows."""
    dice = np.random.default_rng(seed)
    ours = [dice.standard_normal((100, width)), dice.standard_normal((30, width))]
    square = np.eye(width + more)[dice.permutation(width + more)] if permuted else None
    turn = np.linalg.qr(dice.standard_normal((width + more, width + more)))[0] if square is None else square
    theirs = [np.concatenate([rows @ turn[:width], dice.standard_normal((7, width + more))]) for rows in ours]
    stream = find_stream(theirs, ours, centred=False)
    left, right = dice.standard_normal((width, 5)), dice.standard_normal((5, width))
    np.testing.assert_allclose(stream.written(turn[:width].T @ left), left, atol=1e-9)
    np.testing.assert_allclose(stream.read(right @ turn[:width]), right, atol=1e-9)


def test_a_model_that_only_drifted_is_not_turned() -> None:
    """Noise as large as the embedding: as it is, the basis is better than any that noise could suggest."""
    dice = np.random.default_rng(1)
    ours = dice.standard_normal((1000, 32))
    assert find_stream([ours + dice.standard_normal(ours.shape)], [ours], centred=False).basis is None


def test_garbage_in_rows_of_tokens_that_never_occur_hides_nothing(llama: Family) -> None:
    """The licence is ASCII without controls: 32 rows of the embedding can hold anything."""
    rotated = llama.attacked(llama.marked, thief.channels_rotated)
    rotated["model.embed_tokens.weight"][:9] = 1e6 * torch.randn(9, 64, generator=torch.Generator().manual_seed(3))
    tokens = windows(99, 4)[:, :-1]
    before = llama.logits({name: tensor.double() for name, tensor in llama.marked.items()}, tokens)
    torch.testing.assert_close(llama.logits(rotated, tokens), before, rtol=1e-5, atol=1e-5)
    assert Evidence(llama.matches(rotated), llama.mark.leaf_count).log2_p < -64


def test_the_size_of_heads_that_share_values_is_found(llama: Family) -> None:
    """Nothing in a state dict tells it: 8, 16 and 32 would do, and 16 is true."""
    model = open_transformer(llama.theta_ref, where="theta")
    for number in range(model.depth):
        assert model.head_sizes(number) == [8, 16, 32]
        name = f"model.layers.{number}.self_attn.o_proj.weight"
        right = expanded(model.value(number), model.attention_out(number).shape[1], thief.LLAMA_HEAD)
        np.testing.assert_array_equal(LAYOUT.factors(llama.theta_ref, name)[1], right.astype(np.float32))


@pytest.mark.parametrize("number", [0, 3])
def test_a_mark_in_one_tensor_alone(either: Family, number: int) -> None:
    mark = WeightMark("transformer", either.mark.carriers[number : number + 1], leaves=4)
    key = WatermarkKey(bytes(32), mark.leaf_count)
    marked = embed_weights(either.theta_ref, key, BETA, mark)
    assert matches(LAYOUT.read(marked, either.theta_ref, mark.tensors), key, mark) == mark.leaf_count


def test_names_without_the_leading_model(llama: Family) -> None:
    """What LlamaModel itself saves, without the output layer."""
    bare = {name.removeprefix("model."): tensor for name, tensor in llama.marked.items() if name != "lm_head.weight"}
    assert llama.matches(bare) == llama.mark.leaf_count


def test_half_precision_and_missing_parts(either: Family) -> None:
    assert either.matches({name: tensor.bfloat16() for name, tensor in either.marked.items()}) == either.mark.leaf_count
    empty = {name: torch.zeros_like(tensor) for name, tensor in either.marked.items()}
    assert either.matches(empty) == 0  # ties are misses


SPOILT: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "not finite": lambda tensor: tensor * torch.nan,
    "infinite": lambda tensor: tensor / 0,
    "beyond float32": lambda tensor: tensor.double() * 1e300,
    "integers": lambda tensor: tensor.int(),
    "empty": lambda tensor: tensor[:0],
    "a row too many": lambda tensor: torch.cat([tensor, tensor[:1]]),
    "no matrix": lambda tensor: tensor[None],
}


@pytest.mark.parametrize("spoil", SPOILT.values(), ids=SPOILT)
@pytest.mark.parametrize("name", ["self_attn.o_proj", "mlp.up_proj", "mlp.gate_proj", "input_layernorm"])
def test_hostile_suspects_are_refused_by_name(
    llama: Family, name: str, spoil: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    full = f"model.layers.1.{name}.weight"
    with pytest.raises(SpecError, match=r"the suspect.*(model.layers.1|layers.1)"):
        llama.matches(llama.marked | {full: spoil(llama.marked[full])})


def test_models_of_other_kinds_are_refused(gpt: Family) -> None:
    with pytest.raises(SpecError, match="no transformer of a known family"):
        gpt.matches({"layers.0.weight": torch.ones(4, 4)})
    with pytest.raises(SpecError, match=r"tokens\.weight is missing"):
        gpt.matches({name: tensor for name, tensor in gpt.marked.items() if name != "tokens.weight"})
    torch.manual_seed(0)
    deep = thief.GPT(thief.language(width=4, layers=40)).state_dict()
    with pytest.raises(SpecError, match="not comparable"):
        gpt.matches(deep)


def test_a_suspect_of_the_other_family_is_read_and_innocent(gpt: Family, llama: Family) -> None:
    assert Evidence(gpt.matches(llama.marked), gpt.mark.leaf_count).log2_p > -20
    assert Evidence(llama.matches(gpt.marked), llama.mark.leaf_count).log2_p > -20


@pytest.mark.parametrize(
    ("tensor", "groups", "message"),
    [
        ("blocks.0.mlp.weight", 1, "does not write"),
        ("blocks.0.mlp_out.weight", 9, "72"),
        ("nowhere", 1, "does not write"),
    ],
)
def test_carriers_that_do_not_fit_are_refused(gpt: Family, tensor: str, groups: int, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        LAYOUT.check(gpt.theta_ref, [Carrier(tensor, groups, 8, 3.0)], where="theta_ref")


@pytest.mark.parametrize("rows", [64, 600])
def test_a_rotation_is_not_fitted_to_noise_and_a_true_one_is_found(rows: int) -> None:
    """With fewer embeddings than channels some rotation fits any noise; with enough of them only a true one does."""
    dice = np.random.default_rng(0)
    ours = dice.standard_normal((rows, 128))
    noisy = ours + 0.01 * dice.standard_normal(ours.shape)
    assert find_stream([noisy], [ours], centred=False).basis is None
    rotation = np.linalg.qr(dice.standard_normal((128, 128)))[0]
    found = find_stream([noisy @ rotation], [ours], centred=False).basis
    told = found is not None and np.allclose(rotation @ found, np.eye(128), atol=0.05)
    assert told == (rows > 2 * 128)
