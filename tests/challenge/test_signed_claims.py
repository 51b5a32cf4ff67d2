"""A claim in somebody else's name: specs, key roots and opened leaves are public, so only a signature says whose it is.

Mallory wants Bob accused, and Alice to answer for it; or Alice's key to be called her own.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from chain.accounts import Account, dev_account
from chain.eip712 import CURVE_ORDER, sign
from challenge.claims import SIGNATURE_FILE, SIGNATURE_FORMAT, SPEC_FILE, read_claim, write_claim
from challenge.demo.story import Story
from challenge.demo.trainer import trunk_end
from challenge.segments import Policy
from challenge.signing import claim_message, domain_of, sign_claim
from challenge.verify import verify
from pol import Proof
from pol.encoding import canonical_json, from_hex, parse_canonical_json, to_hex
from pol.errors import ProofError, SpecError
from pol.spec import TrainingSpec, WatermarkPromise
from pol.state import model_tensors
from watermark import DEFAULT_PARAMETERS, Claim, WatermarkKey

ONE = Policy(segments=[0])


@pytest.fixture
def folder(story: Story, tmp_path: Path) -> Path:
    """A copy of Alice's claim."""
    return Path(shutil.copytree(story.claims["alice"], tmp_path / "claim"))


def account(story: Story, name: str) -> Account:
    found = story.setting.clients[name].account
    assert found is not None
    return found


def put_signature(folder: Path, signature: bytes) -> Path:
    value = {"format": SIGNATURE_FORMAT, "signature": to_hex(signature)}
    (folder / SIGNATURE_FILE).write_bytes(canonical_json(dict(value)))
    return folder


def signature_in(folder: Path) -> bytes:
    item = parse_canonical_json((folder / SIGNATURE_FILE).read_bytes(), where="test")
    assert isinstance(item, dict)
    return from_hex(item["signature"], where="test", length=65)


def test_the_honest_twin_is_alices_own(folder: Path) -> None:
    assert put_signature(folder, signature_in(folder)) and read_claim(folder)


def made_up(story: Story, folder: Path, victim: str) -> TrainingSpec:
    """A claim with a key of Mallory's own, of a spec that says ``victim`` promised it; signed by nobody."""
    proof, key = Proof.read(story.runs / "bob"), WatermarkKey.generate(DEFAULT_PARAMETERS.leaf_count)
    state = trunk_end(proof, story.runs / "bob")
    promise = WatermarkPromise(key_root=key.root, parameters=DEFAULT_PARAMETERS.to_json())
    named = Proof.read(story.runs / victim).spec.trainer
    spec = replace(proof.spec, watermark=promise, trainer=named, task=None)
    claim = Claim.make(key, bytes(32), DEFAULT_PARAMETERS, range(32), model_tensors(state))
    write_claim(folder, claim, spec, state)
    spec = replace(spec, task=proof.spec.task)
    (folder / SPEC_FILE).write_bytes(canonical_json(spec.to_json()))
    return spec


def test_a_key_of_ones_own_under_anothers_name(story: Story, tmp_path: Path) -> None:
    folder = tmp_path / "claim"
    spec = made_up(story, folder, "alice")
    assert spec.task
    with pytest.raises(ProofError, match="signed by its trainer"):
        read_claim(folder)
    message = claim_message(spec, spec.task, DEFAULT_PARAMETERS.digest)
    mallory = account(story, "mallory")
    hers = sign(mallory, domain_of(spec.task), replace(message, trainer=mallory.address))
    with pytest.raises(ProofError, match=f"{SIGNATURE_FILE}: signed by 0x"):
        read_claim(put_signature(folder, hers))
    with pytest.raises(ProofError, match="signed by 0x"):
        read_claim(put_signature(folder, signature_in(story.claims["alice"])))


def test_the_same_with_ones_own_name_is_read(story: Story, tmp_path: Path) -> None:
    spec = made_up(story, tmp_path / "claim", "mallory")
    signature = sign_claim(spec, DEFAULT_PARAMETERS.digest, account(story, "mallory"))
    assert signature and read_claim(put_signature(tmp_path / "claim", signature)).spec == spec


def test_anothers_claim_cannot_be_signed_over(story: Story, folder: Path) -> None:
    """Alice's opened leaves are public; her key becomes nobody else's."""
    alices = read_claim(folder)
    with pytest.raises(SpecError, match="names trainer"):
        sign_claim(alices.spec, DEFAULT_PARAMETERS.digest, account(story, "mallory"))
    assert alices.spec.task
    message = claim_message(alices.spec, alices.spec.task, DEFAULT_PARAMETERS.digest)
    mallory = account(story, "mallory")
    hers = sign(mallory, domain_of(alices.spec.task), replace(message, trainer=mallory.address))
    with pytest.raises(ProofError, match="the spec names trainer"):
        read_claim(put_signature(folder, hers))


def test_another_tasks_or_chains_signature_is_worth_nothing(story: Story, folder: Path) -> None:
    spec = read_claim(folder).spec
    assert spec.task
    for task in (
        replace(spec.task, task_id=spec.task.task_id + 1),
        replace(spec.task, chain_id=1),
        replace(spec.task, arena=bytes(20)),
    ):
        elsewhere = sign_claim(replace(spec, task=task), DEFAULT_PARAMETERS.digest, account(story, "alice"))
        assert elsewhere
        with pytest.raises(ProofError, match="signed by"):
            read_claim(put_signature(folder, elsewhere))


def test_another_parameters_signature_is_worth_nothing(story: Story, folder: Path) -> None:
    other = sign_claim(read_claim(folder).spec, bytes(32), account(story, "alice"))
    assert other
    with pytest.raises(ProofError, match="signed by"):
        read_claim(put_signature(folder, other))


@pytest.mark.parametrize(
    "change",
    [
        lambda r, s, v: r + (CURVE_ORDER - s).to_bytes(32, "big") + bytes([55 - v]),
        lambda r, s, v: r + s.to_bytes(32, "big") + bytes([v - 27]),
        lambda r, s, v: bytes(32) + s.to_bytes(32, "big") + bytes([v]),
        lambda r, s, v: bytes(65),
    ],
    ids=["high s", "v 0/1", "r zero", "zeros"],
)
def test_a_second_form_of_the_signature_is_refused(folder: Path, change: Callable[[bytes, int, int], bytes]) -> None:
    honest = signature_in(folder)
    twisted = change(honest[:32], int.from_bytes(honest[32:64], "big"), honest[64])
    with pytest.raises(ProofError, match=SIGNATURE_FILE):
        read_claim(put_signature(folder, twisted))


def test_a_signature_left_out_or_broken_is_refused(folder: Path) -> None:
    path = folder / SIGNATURE_FILE
    for content in (b"", b"{}", b'"0x00"', path.read_bytes().replace(b"signature/1", b"signature/2")):
        path.write_bytes(content)
        with pytest.raises(ProofError, match=SIGNATURE_FILE):
            read_claim(folder)
    path.unlink()
    with pytest.raises(ProofError, match="signed by its trainer"):
        read_claim(folder)


def test_a_claim_is_not_written_without_its_trainers_account(story: Story, folder: Path, tmp_path: Path) -> None:
    alices = read_claim(folder)
    state = trunk_end(Proof.read(story.runs / "alice"), story.runs / "alice")
    for wrong in (None, dev_account(99)):
        with pytest.raises(SpecError):
            write_claim(tmp_path / "new", alices.claim, alices.spec, state, wrong)
        assert not (tmp_path / "new").exists()
    offline = replace(alices.spec, task=None)
    with pytest.raises(SpecError, match="only then"):
        write_claim(tmp_path / "new", alices.claim, offline, state, account(story, "alice"))


def test_a_claim_without_a_task_is_unsigned_and_the_verdict_says_so(story: Story, folder: Path, tmp_path: Path) -> None:
    alices = read_claim(folder)
    state = trunk_end(Proof.read(story.runs / "alice"), story.runs / "alice")
    write_claim(tmp_path / "offline", alices.claim, replace(alices.spec, task=None), state)
    offline = read_claim(tmp_path / "offline")
    verdict = verify(story.runs / "bob", ONE, claims=[offline])
    assert any("unsigned" in note and to_hex(alices.claim.key_root)[:14] in note for note in verdict.limits)
    assert not any("unsigned" in note for note in verify(story.runs / "bob", ONE, claims=[alices]).limits)
    with pytest.raises(ProofError, match="only then"):
        read_claim(put_signature(tmp_path / "offline", signature_in(folder)))
