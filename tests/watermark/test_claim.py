"""Claims: what is void, what is an attack, and the folder they travel in."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pol.encoding import canonical_json
from pol.errors import CannotRun, ProofError
from pol.merkle import MerkleTree, leaf_digest
from tests.watermark import digits, thief
from tests.watermark.conftest import BETA, OPENING_BEACON, Owner, changed
from watermark import Claim, LeafOpening, WatermarkKey, detect, mlp_mark, opening_groups

BYTES32 = st.binary(min_size=32, max_size=32)


# --- which groups are opened ----------------------------------------------------------------------------------------


@given(BYTES32, BYTES32, st.integers(1, 80).flatmap(lambda n: st.tuples(st.just(n), st.integers(1, n))))
def test_opened_groups_are_distinct_and_in_range(beacon: bytes, key_root: bytes, size: tuple[int, int]) -> None:
    groups, count = size
    opened = opening_groups(beacon, key_root, groups, count)
    assert len(set(opened)) == len(opened) == count
    assert all(0 <= group < groups for group in opened)
    assert opening_groups(beacon, key_root, groups, groups)[:count] == opened


def test_golden_opening() -> None:
    assert list(opening_groups(OPENING_BEACON, bytes(32), 64, 8)) == [23, 40, 34, 13, 1, 39, 14, 52]


def test_the_opening_depends_on_beacon_and_key() -> None:
    draws = {opening_groups(beacon, root, 64, 32) for beacon in (bytes(32), BETA) for root in (bytes(32), BETA)}
    assert len(draws) == 4


@pytest.mark.parametrize("count", [0, 65, -1])
def test_impossible_openings_are_refused(count: int) -> None:
    with pytest.raises(ValueError, match="cannot open"):
        opening_groups(bytes(32), bytes(32), 64, count)


# --- claims ---------------------------------------------------------------------------------------------------------


def test_leaves_that_are_missing_are_misses(small: Owner) -> None:
    claim = dataclasses.replace(small.claim, leaves=small.claim.leaves[:200])
    evidence = detect(small.model, [claim])[0]
    assert (evidence.matches, evidence.trials) == (200, 256)
    fewer = dataclasses.replace(small.claim, leaves=small.claim.leaves[:199])
    assert evidence.accepted
    assert not detect(small.model, [fewer])[0].accepted


def test_every_claim_pays_for_all_that_are_tested(small: Owner) -> None:
    evidence = detect(small.model, [small.claim] * 3, suspects=4)
    assert [item.tests for item in evidence] == [12, 12, 12]
    assert detect(small.model, []) == []


def twin_claim(small: Owner, twins: int) -> Claim:
    """An accuser's own key whose first ``twins`` leaves have one seed, well committed."""
    leaves = [(bytes(32) if index < twins else small.key.leaves[index].seed) for index in range(256)]
    tree = MerkleTree([leaf_digest("aiarena/watermark-leaf/v1", i, seed + bytes(32)) for i, seed in enumerate(leaves)])
    groups = range(16)
    openings = [LeafOpening(i, seed, bytes(32), tree.prove(i).siblings) for i, seed in enumerate(leaves)]
    return Claim(tree.root, BETA, small.parameters, tuple(groups), tuple(openings), small.theta_ref)


def test_equal_seeds_void_a_claim(small: Owner) -> None:
    evidence = detect(small.model, [twin_claim(small, 2)])[0]
    assert not evidence.accepted
    assert "one seed" in str(evidence.void)
    assert detect(small.model, [twin_claim(small, 1)])[0].void is None


@pytest.mark.parametrize("change", ["seed", "salt", "sibling", "order", "twice", "foreign", "groups", "no groups"])
def test_tampered_claims_are_refused(small: Owner, change: str) -> None:
    claim = Claim.make(small.key, BETA, small.parameters, [2, 5], small.theta_ref)
    claim.check()
    first, *rest = claim.leaves
    forged = {
        "seed": {"leaves": (dataclasses.replace(first, seed=bytes(32)), *rest)},
        "salt": {"leaves": (dataclasses.replace(first, salt=bytes(32)), *rest)},
        "sibling": {"leaves": (dataclasses.replace(first, siblings=(bytes(32), *first.siblings[1:])), *rest)},
        "order": {"leaves": (*rest, first)},
        "twice": {"leaves": (first, first, *rest)},
        "foreign": {"leaves": (*small.key.open([0]), *claim.leaves)},
        "groups": {"groups": (2, 5, 2)},
        "no groups": {"groups": (), "leaves": ()},
    }[change]
    with pytest.raises(ProofError):
        detect(small.model, [dataclasses.replace(claim, **forged)])


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("name", ["layers.0.bias", "layers.1.weight"])
def test_a_model_with_values_that_are_not_finite_never_matches(small: Owner, name: str, value: float) -> None:
    poisoned = thief.copy(small.model)
    poisoned[name].view(-1)[7] = value
    evidence = detect(poisoned, [small.claim])[0]
    assert (evidence.matches, evidence.accepted) == (0, False)
    assert "finite" in str(evidence.void)
    assert detect(small.model, [small.claim])[0].accepted


def test_a_reference_that_is_no_model_is_an_attack(small: Owner) -> None:
    for change in ({"layers.0.bias": torch.full((256,), torch.nan)}, {"layers.1.weight": torch.zeros(128, 256)}):
        forged = dataclasses.replace(small.claim, theta_ref={**small.theta_ref, **change})
        with pytest.raises(ProofError, match="theta_ref"):
            detect(small.model, [forged])


def test_the_digest_binds_all_of_it(small: Owner) -> None:
    claim = small.claim
    moved = thief.copy(small.theta_ref)
    moved["layers.2.bias"].view(torch.int32)[0] ^= 1
    others = [
        dataclasses.replace(claim, beta=bytes(32)),
        dataclasses.replace(claim, key_root=bytes(32)),
        dataclasses.replace(claim, groups=claim.groups[::-1]),
        dataclasses.replace(claim, leaves=claim.leaves[1:]),
        dataclasses.replace(claim, parameters=changed(claim.parameters, margin=2.0)),
        dataclasses.replace(claim, theta_ref=moved),
    ]
    assert len({other.digest for other in (claim, *others)}) == 7


# --- the folder -----------------------------------------------------------------------------------------------------


def tiny_claim() -> Claim:
    parameters = mlp_mark("layers.1.weight", groups=4, rows=2, leaves=2, margin=1.0)
    key = WatermarkKey(bytes(32), 8)
    return Claim.make(key, BETA, parameters, [3], digits.initial(0, (1, 2048, 8, 2)))


def test_a_claim_survives_its_folder(small: Owner, tmp_path: Path) -> None:
    small.claim.save(tmp_path / "claim")
    assert sorted(path.name for path in (tmp_path / "claim").iterdir()) == ["claim.json", "theta_ref.safetensors"]
    loaded = Claim.load(tmp_path / "claim")
    assert loaded.digest == small.claim.digest
    assert detect(small.model, [loaded])[0].matches == 256


def test_any_flipped_byte_of_the_json_is_refused_or_only_changes_beacon_or_margin(tmp_path: Path) -> None:
    """Beacon and margin are no secrets to prove; whoever judges compares them with the chain and the spec."""
    claim = tiny_claim()
    claim.save(tmp_path)
    path = tmp_path / "claim.json"
    good, survivors = path.read_bytes(), 0
    for position in range(len(good)):
        path.write_bytes(good[:position] + bytes([good[position] ^ 1]) + good[position + 1 :])
        try:
            loaded = Claim.load(tmp_path)
        except ProofError:
            continue
        survivors += 1
        assert (loaded.beta, loaded.parameters.weights.carriers) != (claim.beta, claim.parameters.weights.carriers)
        assert loaded.digest != claim.digest
        same = dataclasses.replace(loaded, beta=claim.beta, parameters=claim.parameters)
        assert same.digest == claim.digest
    assert survivors < 80


def test_a_flipped_beacon_finds_nothing(small: Owner, tmp_path: Path) -> None:
    small.claim.save(tmp_path)
    path = tmp_path / "claim.json"
    value = json.loads(path.read_bytes())
    assert detect(small.model, [Claim.load(tmp_path)])[0].accepted
    value["beta"] = value["beta"][:-1] + ("0" if value["beta"][-1] != "0" else "1")
    path.write_bytes(canonical_json(value))
    assert detect(small.model, [Claim.load(tmp_path)])[0].log2_p > -20


def test_any_flipped_byte_of_the_reference_is_refused(tmp_path: Path) -> None:
    """Every byte of the header and the first weights, then every 331st."""
    claim = tiny_claim()
    claim.save(tmp_path)
    path = tmp_path / "theta_ref.safetensors"
    good = path.read_bytes()
    for position in [*range(800), *range(800, len(good), 331)]:
        path.write_bytes(good[:position] + bytes([good[position] ^ 1]) + good[position + 1 :])
        with pytest.raises(ProofError):
            Claim.load(tmp_path)
    path.write_bytes(good)
    assert Claim.load(tmp_path).digest == claim.digest


@pytest.mark.parametrize("name", ["claim.json", "theta_ref.safetensors"])
def test_missing_and_oversized_files_are_named(tmp_path: Path, name: str) -> None:
    tiny_claim().save(tmp_path)
    with (tmp_path / name).open("r+b") as file:
        file.truncate(1 << 31)  # sparse: a size, not a file that must be read
    with pytest.raises(ProofError, match="larger than"):
        Claim.load(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(CannotRun, match=name):
        Claim.load(tmp_path)


def test_pickles_are_refused(tmp_path: Path) -> None:
    tiny_claim().save(tmp_path)
    torch.save({}, tmp_path / "theta_ref.safetensors")
    with pytest.raises(ProofError, match="safetensors"):
        Claim.load(tmp_path)
