"""Commitments byte by byte, and the draw of segments: laws here, equality with the contracts in test_challenges."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chain.case import Charge, Ground
from chain.commitments import (
    Site,
    case_seed,
    charge_commitment,
    final_set_commitment,
    new_salt,
    run_beacon,
    sampled_segments,
    scores_commitment,
    scores_digest,
    submission_commitment,
    vote_commitment,
)

ADDRESS, OTHER = "0x" + "11" * 20, "0x" + "22" * 20
SITE = Site(chain_id=7, address=ADDRESS)
A, B, C = b"\xaa" * 32, b"\xbb" * 32, b"\xcc" * 32
digests = st.binary(min_size=32, max_size=32)


def words(*values):
    """abi.encode of static values, by hand: one 32-byte word each."""
    return b"".join(v if isinstance(v, bytes) and len(v) == 32 else word(v) for v in values)


def word(value):
    if isinstance(value, str):
        return value.encode().ljust(32, b"\0") if not value.startswith("0x") else bytes(12) + bytes.fromhex(value[2:])
    return int(value).to_bytes(32, "big")


def sha(data):
    return hashlib.sha256(data).digest()


def test_submission():
    promise = {"model_digest": A, "transcript_digest": B, "model_cid": "bafy", "salt": C}
    found = submission_commitment(SITE, 3, OTHER, run_id=9, round_=2, branch=5, **promise)
    assert found == sha(words("aiarena/submission/v2", 7, ADDRESS, 3, OTHER, 9, 2, 5, A, B, sha(b"bafy"), C))


def test_scores():
    packed = sha(bytes.fromhex("271000000102"))
    found = scores_commitment(SITE, 3, 2, OTHER, scores=[10_000, 0, 258], salt=C)
    assert found == sha(words("aiarena/scores/v1", 7, ADDRESS, 3, 2, OTHER, packed, C))


def test_vote():
    found = vote_commitment(SITE, 5, OTHER, uphold=True, reproduction=A, salt=C)
    assert found == sha(words("aiarena/vote/v1", 7, ADDRESS, 5, OTHER, True, A, C))


def test_charge():
    charge = Charge(trainer=OTHER, round=2, ground=Ground.WATERMARK, claim=4, evidence_digest=A, named=(1, 6))
    tail = words(OTHER, 2, 1, 4, A, 6 * 32, 2, 1, 6)  # the list lies behind the six words of the struct
    head = words("aiarena/case/v1", 7, ADDRESS, 3, ADDRESS, 7 * 32, C)  # and the struct behind seven
    assert charge_commitment(SITE, 3, ADDRESS, charge, C) == sha(head + tail)


def test_final_set():
    assert final_set_commitment(A, C) == sha(words("aiarena/final-set/v1", A, C))


def test_run_beacon():
    assert run_beacon(A, 11) == sha(words("aiarena/run-beacon/v1", A, 11))


def test_draw():
    seed = case_seed(A, 9)
    assert seed == sha(words("aiarena/case-seed/v1", A, 9))
    first = int.from_bytes(sha(words("aiarena/case-draw/v1", seed, 0)), "big")
    assert sampled_segments(seed, 1_000, 1) == [first % 1_000]


@given(digests, st.integers(1, 60), st.data())
def test_a_draw_is_distinct_in_range_and_grows_at_the_end(seed, segments, data):
    count = data.draw(st.integers(0, min(segments, 16)))
    drawn = sampled_segments(seed, segments, count)
    assert len(set(drawn)) == count
    assert all(0 <= index < segments for index in drawn)
    assert sampled_segments(seed, segments, max(count - 1, 0)) == drawn[: max(count - 1, 0)]


@given(digests)
def test_drawing_all_gives_all(seed):
    assert sorted(sampled_segments(seed, 12, 12)) == list(range(12))


def test_more_than_there_are_is_refused():
    with pytest.raises(ValueError, match="distinct"):
        sampled_segments(A, 3, 4)


@pytest.mark.parametrize("score", [-1, 10_001])
def test_a_score_outside_basis_points_is_refused(score):
    with pytest.raises(ValueError, match="basis points"):
        scores_digest([0, score])


@pytest.mark.parametrize("short", [b"", b"\0" * 31, b"\0" * 33])
def test_a_digest_of_another_length_is_refused(short):
    # ABI encoders pad a short bytes32 in silence: two promises would share a commitment.
    with pytest.raises(ValueError, match="32 bytes"):
        final_set_commitment(short, C)


def test_salts_are_fresh():
    assert len(new_salt()) == 32
    assert new_salt() != new_salt()
