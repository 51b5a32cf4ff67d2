"""A whole claim sealed to the jurors of one case, in the library and on the command line."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from challenge.claims import SIGNATURE_FILE, SPEC_FILE, TABLE_FILE, read_claim
from challenge.cli import app
from challenge.demo.story import Story
from challenge.sealed import read_sealed_claim, seal_claim
from pol.encoding import canonical_json, u64
from pol.errors import CannotRun, ProofError
from watermark.claim import CLAIM_FILE, REFERENCE_FILE
from watermark.keyfile import PASSPHRASE_VARIABLE
from watermark.sealing import CLAIM, WHOLE_KEY, JurorKey, Occasion, seal

VERA, VICTOR, STRANGER = (JurorKey(bytes([n]) * 32) for n in (1, 2, 3))
JURORS = [VERA.public, VICTOR.public]
ALL = (CLAIM_FILE, SIGNATURE_FILE, SPEC_FILE, TABLE_FILE, REFERENCE_FILE)  # in the order of their names


@pytest.fixture(scope="module")
def sealed(story: Story, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Alice's claim, sealed for case 1."""
    path = tmp_path_factory.mktemp("sealed") / "alice.sealed"
    path.write_bytes(seal_claim(story.claims["alice"], JURORS, case=1))
    return path


def occasion(story: Story, **changes: object) -> Occasion:
    spec = read_claim(story.claims["alice"]).spec
    honest = Occasion(contents=CLAIM, accuser=spec.trainer, task=spec.task, case=1)
    return replace(honest, **changes)  # type: ignore[arg-type]


def packed(files: dict[str, bytes], **sizes: int) -> bytes:
    index = canonical_json({name: len(data) for name, data in files.items()} | sizes)
    return u64(len(index)) + index + b"".join(data for _, data in sorted(files.items()))


def files(story: Story) -> dict[str, bytes]:
    return {name: (story.claims["alice"] / name).read_bytes() for name in ALL}


def put(folder: Path, content: bytes, occasion: Occasion) -> Path:
    (folder / "made up").write_bytes(seal(content, occasion, JURORS))
    return folder / "made up"


def test_every_juror_reads_the_claim_that_was_sealed(story: Story, sealed: Path) -> None:
    honest = read_claim(story.claims["alice"])
    for key in (VERA, VICTOR):
        tied = read_sealed_claim(sealed, key, case=1)
        assert tied.claim.digest == honest.claim.digest
        assert (tied.spec, tied.reference_digest) == (honest.spec, honest.reference_digest)


def test_nothing_secret_is_in_the_file(story: Story, sealed: Path) -> None:
    claim, data = read_claim(story.claims["alice"]).claim, sealed.read_bytes()
    for leaf in claim.leaves:
        assert leaf.seed not in data and leaf.seed.hex().encode() not in data
    assert claim.theta_ref["layers.0.weight"].numpy().tobytes()[:64] not in data


def test_it_is_for_these_jurors_in_this_case(story: Story, sealed: Path) -> None:
    with pytest.raises(CannotRun, match="not sealed to juror key"):
        read_sealed_claim(sealed, STRANGER, case=1)
    for case in (None, 2):
        with pytest.raises(ProofError, match="sealed for case 1"):
            read_sealed_claim(sealed, VERA, case=case)


def test_an_unsound_claim_is_not_sealed(story: Story, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(story.claims["alice"], tmp_path / "claim"))
    (folder / SIGNATURE_FILE).unlink()
    with pytest.raises(ProofError, match="signed by its trainer"):
        seal_claim(folder, JURORS)


def test_a_claim_under_anothers_name_or_task_is_refused(story: Story, tmp_path: Path) -> None:
    content = packed(files(story))
    assert read_sealed_claim(put(tmp_path, content, occasion(story)), VERA, case=1)  # the honest twin
    for changes in ({"accuser": bytes(20)}, {"task": None}):
        with pytest.raises(ProofError, match="another accuser or task"):
            read_sealed_claim(put(tmp_path, content, occasion(story, **changes)), VERA, case=1)


def test_a_whole_key_is_not_taken_for_a_claim(story: Story, tmp_path: Path) -> None:
    with pytest.raises(ProofError, match="not for case 1"):
        read_sealed_claim(put(tmp_path, bytes(40), occasion(story, contents=WHOLE_KEY)), VERA, case=1)


def test_what_an_accuser_puts_together_wrongly_is_refused(story: Story, tmp_path: Path) -> None:
    """Names are not taken from what is sealed, and sizes add up."""
    honest = files(story)
    spec = honest[SPEC_FILE]
    for content in (
        b"",
        u64(2**63) + b"{}",
        u64(2) + b"{}",
        u64(2) + b"[]",
        packed(honest) + b"more",
        packed(honest)[:-1],
        packed(honest, **{SPEC_FILE: len(spec) - 1}),
        packed(honest, **{REFERENCE_FILE: -1}),
        packed(honest, **{REFERENCE_FILE: 2**62}),
        packed(honest | {"../escaped": b"x"}),
        packed({name: data for name, data in honest.items() if name != TABLE_FILE}),
        packed({name: data for name, data in honest.items() if name != SIGNATURE_FILE}),
    ):
        with pytest.raises(ProofError):
            read_sealed_claim(put(tmp_path, content, occasion(story)), VERA, case=1)
    assert {path.name for path in tmp_path.iterdir()} == {"made up"}


# The command line


@pytest.fixture
def passphrase(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PASSPHRASE_VARIABLE, "twelve plain words")


def challenge(*arguments: str | Path, code: int = 0) -> dict[str, object]:
    done = CliRunner().invoke(app, [*map(str, arguments), "--json"])
    assert done.exit_code == code, done.output
    found: dict[str, object] = json.loads(done.stdout)
    return found


@pytest.mark.usefixtures("passphrase")
def test_a_juror_judges_a_sealed_claim(story: Story, tmp_path: Path) -> None:
    key, sealed = tmp_path / "juror.json", tmp_path / "alice.sealed"
    public = str(challenge("juror-key", key)["public_key"])
    assert public.encode() in key.read_bytes()
    challenge("seal", story.claims["alice"], "--to", public, "--case", "1", "--out", sealed)
    verify = ("verify", story.runs / "mallory", "--segments", "4,", "--claim", sealed)
    verdict = challenge(*verify, "--juror-key", key, "--case", "1", code=11)
    (mark,) = verdict["watermarks"]  # type: ignore[misc]
    assert mark["found"] and not mark["own"]
    assert "--juror-key" in str(challenge(*verify, code=1)["error"])
    assert "sealed for case 1" in str(challenge(*verify, "--juror-key", key, code=1)["error"])


@pytest.mark.usefixtures("passphrase")
def test_neither_a_key_nor_a_sealed_file_is_overwritten(story: Story, tmp_path: Path) -> None:
    path = tmp_path / "mine"
    path.write_text("mine")
    assert "never overwritten" in str(challenge("juror-key", path, code=1)["error"])
    sealing = ("seal", story.claims["alice"], "--to", f"0x{VERA.public.hex()}", "--out", path)
    assert "exists already" in str(challenge(*sealing, code=1)["error"])
    assert path.read_text() == "mine"


def test_a_wrong_or_missing_passphrase_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sealed: Path) -> None:
    key = tmp_path / "juror.json"
    monkeypatch.delenv(PASSPHRASE_VARIABLE, raising=False)
    assert PASSPHRASE_VARIABLE in str(challenge("juror-key", key, code=1)["error"])
    assert not key.exists()
    monkeypatch.setenv(PASSPHRASE_VARIABLE, "right")
    challenge("juror-key", key)
    monkeypatch.setenv(PASSPHRASE_VARIABLE, "wrong")
    found = challenge("verify", tmp_path, "--claim", sealed, "--juror-key", key, "--case", "1", code=1)
    assert "wrong passphrase" in str(found["error"])


@pytest.mark.parametrize(
    "arguments",
    ["juror-key", "seal .", "seal . --to 0x00 --out x", f"seal . --to {'ab' * 32} --out x", "seal . --out x",
     f"seal . --to 0x{'ab' * 32} --out x --case -1", "verify . --case -1"],
)  # fmt: skip
def test_a_wrong_command_line_is_usage(arguments: str) -> None:
    assert CliRunner().invoke(app, arguments.split()).exit_code == 2
