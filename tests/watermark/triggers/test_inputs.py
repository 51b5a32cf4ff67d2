"""Trigger inputs and labels: fixed functions of a leaf, the same on every machine, chosen by nobody."""

from __future__ import annotations

import hashlib
from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from watermark import bits
from watermark.bits import trigger_label
from watermark.triggers import Images, TriggerMark, Windows, candidates, trigger_inputs

SEED = bytes(range(32))
SEEDS = st.binary(min_size=32, max_size=32)
SIDES = st.integers(1, 24)
TEXT = TriggerMark(Windows(1000, 16), classes=16, groups=1, leaves=8)


def images(channels: int = 1, height: int = 8, width: int = 8) -> TriggerMark:
    return TriggerMark(Images(channels, height, width), classes=10, groups=1, leaves=8)


@given(SEEDS, SIDES, SIDES, st.integers(1, 3))
def test_images_span_the_whole_range_of_bytes(seed: bytes, height: int, width: int, channels: int) -> None:
    (image,) = trigger_inputs([seed], images(channels, height, width))
    assert image.shape == (channels, height, width)
    assert image.dtype == torch.float32
    assert torch.equal(image, (image * 255).round() / 255)
    assert image.min() == 0
    assert image.max() == 1 or len(image.unique()) == 1


@given(SEEDS)
def test_images_are_smooth(seed: bytes) -> None:
    """Neighbours differ by far less than pixels far apart do: the energy is where that of natural images is."""
    (image,) = trigger_inputs([seed], images(1, 28, 28))
    assert (image[0, 1:] - image[0, :-1]).abs().mean() < 0.5 * (image[0, 14:] - image[0, :-14]).abs().mean()


@given(SEEDS, st.integers(2, 5000), st.integers(1, 40))
def test_windows_are_tokens_of_the_vocabulary(seed: bytes, vocabulary: int, context: int) -> None:
    mark = TriggerMark(Windows(vocabulary, context), classes=2, groups=1, leaves=1)
    (window,) = trigger_inputs([seed], mark)
    assert window.shape == (context,)
    assert window.dtype == torch.int64
    assert 0 <= int(window.min()) <= int(window.max()) < vocabulary


@given(SEEDS, st.integers(2, 60).flatmap(lambda v: st.tuples(st.just(v), st.integers(2, v))))
def test_candidates_are_distinct_tokens(seed: bytes, sizes: tuple[int, int]) -> None:
    vocabulary, classes = sizes
    chosen = candidates(seed, TriggerMark(Windows(vocabulary, 4), classes, 1, 1))
    assert len(set(chosen)) == len(chosen) == classes
    assert 0 <= min(chosen) <= max(chosen) < vocabulary


def test_every_token_is_a_candidate_equally_often() -> None:
    mark = TriggerMark(Windows(20, 4), classes=5, groups=1, leaves=1)
    seen = Counter(token for number in range(2000) for token in candidates(number.to_bytes(32, "big"), mark))
    assert chisquare([seen[token] for token in range(20)]).pvalue > 1e-3


def test_a_classifiers_candidates_are_its_classes() -> None:
    assert candidates(SEED, images()) == list(range(10))


def test_inputs_are_a_function_of_the_seed_alone() -> None:
    seeds = [number.to_bytes(32, "big") for number in range(50)]
    for mark in (images(), images(3, 9, 7), TEXT):
        together = trigger_inputs(seeds, mark)
        assert torch.equal(together[17], trigger_inputs([seeds[17]], mark)[0])
        assert len({bytes(item.numpy().tobytes()) for item in together}) == 50


def fingerprint(seed: bytes, mark: TriggerMark) -> str:
    return hashlib.sha256(trigger_inputs([seed], mark).numpy().tobytes()).hexdigest()[:16]


def test_inputs_have_the_same_bits_everywhere() -> None:
    assert fingerprint(SEED, images(1, 28, 28)) == "8c55478ed2b5d9f0"
    assert fingerprint(SEED, images(3, 32, 20)) == "2e1f1662ee426369"
    assert trigger_inputs([SEED], TEXT)[0].tolist() == [
        609,
        93,
        403,
        385,
        95,
        225,
        863,
        394,
        931,
        111,
        812,
        224,
        53,
        107,
        572,
        299,
    ]
    assert candidates(SEED, TEXT) == [839, 978, 484, 655, 944, 778, 517, 479, 993, 594, 695, 52, 272, 379, 872, 325]


@given(SEEDS, SEEDS, st.integers(0, 1 << 16), SEEDS, st.integers(2, 1 << 16))
def test_a_label_is_the_remainder_of_the_draw(beta: bytes, root: bytes, index: int, seed: bytes, classes: int) -> None:
    label = trigger_label(beta, root, index, seed, classes)
    text = b"aiarena/watermark-label/v1" + beta + root + index.to_bytes(8, "big") + seed + bytes(8)
    # Another draw is needed with a chance below 2^-240.
    assert label == int.from_bytes(hashlib.sha256(text).digest(), "big") % classes


def test_labels_depend_on_all_they_are_bound_to() -> None:
    def labels(beta: bytes = bytes(32), root: bytes = bytes(32), seed: bytes = SEED, first: int = 0) -> list[int]:
        return [trigger_label(beta, root, index, seed, 1000) for index in range(first, first + 8)]

    others = [labels(beta=SEED), labels(root=SEED), labels(seed=bytes(32)), labels(first=8)]
    assert all(other != labels() for other in others)
    assert len(set(labels())) > 4  # equal seeds are separate coins


def test_labels_are_uniform() -> None:
    for classes in (3, 10):
        seen = Counter(trigger_label(SEED, SEED, index, SEED, classes) for index in range(5000))
        assert chisquare([seen[label] for label in range(classes)]).pvalue > 1e-3


@pytest.mark.parametrize("classes", [3, 10, 1000])
def test_a_draw_beyond_the_last_whole_multiple_is_drawn_again(monkeypatch: pytest.MonkeyPatch, classes: int) -> None:
    """Counted modulo the classes, the top of the range would favour small labels."""
    limit = (1 << 256) // classes * classes
    draws = [(1 << 256) - 1, limit, classes + 1]
    monkeypatch.setattr(bits, "_label_draw", lambda beta, root, index, seed, draw: draws[draw])
    assert trigger_label(SEED, SEED, 0, SEED, classes) == 1
    draws[0] = limit - 1
    assert trigger_label(SEED, SEED, 0, SEED, classes) == classes - 1
