"""What a spec says of triggers: strict both ways."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pol.encoding import Json, canonical_json, parse_canonical_json
from pol.errors import ProofError, SpecError
from watermark.triggers import Images, TriggerMark, Windows

SIDES = st.integers(1, 64)
MARKS = st.builds(
    TriggerMark,
    inputs=st.builds(Images, SIDES, SIDES, SIDES) | st.builds(Windows, st.integers(300, 1 << 20), st.integers(1, 512)),
    classes=st.integers(2, 300),
    groups=st.integers(1, 256),
    leaves=st.integers(1, 256),
    percent=st.integers(1, 100),
)
IMAGE: dict[str, Json] = {"kind": "image", "shape": [1, 8, 8], "classes": 10, "groups": 32, "leaves": 8}
TEXT: dict[str, Json] = {"kind": "text", "shape": [16], "vocabulary": 64, "classes": 10, "groups": 32, "leaves": 8}


@given(MARKS)
def test_parameters_survive_json(mark: TriggerMark) -> None:
    text = canonical_json(mark.to_json())
    assert TriggerMark.from_json(parse_canonical_json(text, where="x"), where="x") == mark


def test_the_examples_of_these_tests_are_sound() -> None:
    for value in (IMAGE, TEXT, IMAGE | {"percent": 30}):
        assert TriggerMark.from_json(value, where="x").to_json() == value
        assert TriggerMark.from_json(value, where="x").leaf_count == 256


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        {},
        IMAGE | {"kind": "sound"},
        IMAGE | {"kind": 3},
        IMAGE | {"kind": ["text"]},
        IMAGE | {"shape": [8, 8]},
        IMAGE | {"shape": [1, 8, 0]},
        IMAGE | {"shape": [1, 8, "8"]},
        IMAGE | {"shape": [1 << 10, 1 << 10, 2]},
        IMAGE | {"shape": 64},
        IMAGE | {"vocabulary": 64},
        IMAGE | {"classes": 1},
        IMAGE | {"classes": True},
        IMAGE | {"groups": 0},
        IMAGE | {"leaves": 4096},
        IMAGE | {"more": 1},
        IMAGE | {"percent": 0},
        IMAGE | {"percent": 100},
        TEXT | {"percent": "30"},
        TEXT | {"classes": 65},
        TEXT | {"vocabulary": 1 << 21},
        TEXT | {"vocabulary": 1},
        TEXT | {"shape": []},
        TEXT | {"shape": [1 << 17]},
        {name: TEXT[name] for name in TEXT if name != "vocabulary"},
    ],
)
def test_anything_else_is_malformed(value: Json) -> None:
    with pytest.raises(ProofError, match="x"):
        TriggerMark.from_json(value, where="x")


def test_nonsense_is_the_authors_fault() -> None:
    for make in (
        lambda: Images(0, 8, 8),
        lambda: Images(1 << 7, 1 << 7, 1 << 7),
        lambda: Windows(1, 8),
        lambda: Windows(64, 0),
        lambda: TriggerMark(Images(1, 8, 8), 1, 1, 1),
        lambda: TriggerMark(Windows(64, 8), 65, 1, 1),
        lambda: TriggerMark(Images(1, 8, 8), 10, 1 << 9, 1 << 9),
        lambda: TriggerMark(Images(1, 8, 8), 10, 4, 4, percent=101),
    ):
        with pytest.raises(SpecError):
            make()
