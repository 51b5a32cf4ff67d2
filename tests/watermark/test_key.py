"""Keys: what the root commits to, and what an opening proves."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pol.encoding import MAX_JSON_BYTES, MAX_JSON_VALUES, canonical_json, parse_canonical_json
from pol.errors import ProofError, SpecError
from pol.merkle import leaf_digest, merkle_root
from watermark import LeafOpening, WatermarkKey
from watermark.key import KEY_FILE, MAX_DRAWN
from watermark.keyfile import Cost

CHEAP = Cost(n=2)
MASTER = bytes(range(32))
KEY = WatermarkKey(MASTER, 12)


def test_root_is_the_merkle_root_over_the_leaves() -> None:
    leaves = [leaf_digest("aiarena/watermark-leaf/v1", leaf.index, leaf.seed + leaf.salt) for leaf in KEY.leaves]
    assert KEY.root == merkle_root(leaves)


def test_golden_key() -> None:
    """A key file of one version must give the same key in every later one."""
    assert KEY.leaves[0].seed.hex() == "2751e589567238d92095e458a84c652427360dd8efd9cfdbd8e8dddbe3b229b2"
    assert KEY.leaves[11].salt.hex() == "42cca236c5d9f14c5b4d9fb3ed5339b8fd1fdb8911694f16035546262e27fa59"
    assert KEY.root.hex() == "9953faf34ad6ef0ff2b7445a40e0051a8d80ad7dde2bd912fdfb6755734375c9"


def test_fresh_keys_differ_and_no_secret_repeats() -> None:
    first, second = WatermarkKey.generate(8), WatermarkKey.generate(8)
    assert first.root != second.root
    secrets = [secret for key in (first, second) for leaf in key.leaves for secret in (leaf.seed, leaf.salt)]
    assert len(set(secrets)) == len(secrets) == 32


def test_a_longer_key_starts_with_the_same_leaves_but_has_another_root() -> None:
    longer = WatermarkKey(MASTER, 13)
    assert longer.leaves[:12] == KEY.leaves
    assert longer.root != KEY.root


@given(st.integers(1, 40).flatmap(lambda count: st.tuples(st.just(count), st.integers(0, count - 1))))
def test_every_opening_holds_and_survives_json(place: tuple[int, int]) -> None:
    count, index = place
    key = WatermarkKey(MASTER, count)
    (opening,) = key.open([index])
    opening.check(key.root, count)
    text = canonical_json(opening.to_json())
    assert LeafOpening.from_json(parse_canonical_json(text, where="x"), where="x") == opening


@pytest.mark.parametrize(
    "change",
    [
        {"index": 4},
        {"index": 12},
        {"seed": bytes(32)},
        {"seed": b"short"},
        {"salt": bytes(32)},
        {"siblings": ()},
        {"siblings": (bytes(32),) * 4},
    ],
    ids=str,
)
def test_a_tampered_opening_is_refused(change: dict[str, object]) -> None:
    (opening,) = KEY.open([3])
    opening.check(KEY.root, 12)
    with pytest.raises(ProofError):
        dataclasses.replace(opening, **change).check(KEY.root, 12)


def test_an_opening_holds_for_one_key_and_one_count() -> None:
    (opening,) = KEY.open([3])
    for root, count in ((WatermarkKey(bytes(32), 12).root, 12), (KEY.root, 13), (KEY.root, 3)):
        with pytest.raises(ProofError):
            opening.check(root, count)


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        {"index": 0},
        {"index": -1, "seed": "0x" + "00" * 32, "salt": "0x" + "00" * 32, "siblings": []},
        {"index": True, "seed": "0x" + "00" * 32, "salt": "0x" + "00" * 32, "siblings": []},
        {"index": 0, "seed": "00" * 32, "salt": "0x" + "00" * 32, "siblings": []},
        {"index": 0, "seed": "0x" + "00" * 31, "salt": "0x" + "00" * 32, "siblings": []},
        {"index": 0, "seed": "0x" + "00" * 32, "salt": "0x" + "00" * 32, "siblings": ["0x" + "00" * 32] * 65},
        {"index": 0, "seed": "0x" + "00" * 32, "salt": "0x" + "00" * 32, "siblings": [], "more": 1},
    ],
    ids=str,
)
def test_other_json_is_refused(value: object) -> None:
    with pytest.raises(ProofError, match="here"):
        LeafOpening.from_json(value, where="here")  # type: ignore[arg-type]


def words() -> str:
    return "twelve plain words"


def test_a_key_comes_back_from_its_file_and_no_secret_is_in_it(tmp_path: Path) -> None:
    path = tmp_path / "key.json"
    KEY.save(path, words, cost=CHEAP)
    assert WatermarkKey.load(path, words) == KEY
    assert KEY.root.hex().encode() in path.read_bytes()
    assert MASTER.hex().encode() not in path.read_bytes() and MASTER not in path.read_bytes()


def test_golden_key_file() -> None:
    """A file that the first version wrote opens in every later one."""
    assert WatermarkKey.load(Path(__file__).parent / "golden-key.json", words) == KEY


def test_a_key_file_whose_public_root_is_of_another_key_is_refused(tmp_path: Path) -> None:
    """Its writer knew the passphrase; the root is what the owner tells key files apart by."""
    KEY_FILE.write(tmp_path / "key.json", KEY.to_bytes(), bytes(32), words, CHEAP)
    with pytest.raises(ProofError, match="not the one with root"):
        WatermarkKey.load(tmp_path / "key.json", words)


@pytest.mark.parametrize(
    "data", [b"", MASTER, MASTER + bytes(8), MASTER + b"\xff" * 8, KEY.to_bytes() + b"\0"], ids=str
)
def test_other_bytes_are_no_key(data: bytes) -> None:
    assert WatermarkKey.from_bytes(KEY.to_bytes(), where="here") == KEY
    with pytest.raises(ProofError, match="here"):
        WatermarkKey.from_bytes(data, where="here")


def test_secrets_do_not_show_in_logs() -> None:
    assert MASTER.hex() not in repr(KEY)
    assert repr(MASTER)[2:20] not in repr(KEY)
    assert repr(KEY.leaves[0]) == "Leaf(index=0)"


@pytest.mark.parametrize(("master", "count"), [(b"short", 8), (MASTER, 0), (MASTER, (1 << 16) + 1)])
def test_impossible_keys_are_refused(master: bytes, count: int) -> None:
    with pytest.raises(SpecError):
        WatermarkKey(master, count)


def test_a_claim_has_room_for_every_leaf_of_the_largest_fresh_key() -> None:
    """With one leaf more than :data:`MAX_DRAWN` a key is not drawn; all of one that is fits into a claim's file."""
    with pytest.raises(SpecError, match="never be opened whole"):
        WatermarkKey.generate(MAX_DRAWN + 1)
    key = WatermarkKey.generate(MAX_DRAWN)
    opening = canonical_json(key.open([MAX_DRAWN - 1])[0].to_json())
    assert MAX_DRAWN * (len(opening) + 1) + 100_000 < MAX_JSON_BYTES
    assert MAX_DRAWN * (sum(map(opening.count, b",[{")) + 1) + 1_000 < MAX_JSON_VALUES
