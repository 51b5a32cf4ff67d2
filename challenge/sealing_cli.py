"""``challenge juror-key`` and ``challenge seal``, and the claims that ``challenge verify`` is given, sealed or not."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from challenge.console import failing, say
from pol.encoding import MAX_INTEGER, to_hex
from pol.errors import CannotRun

if TYPE_CHECKING:
    from challenge.claims import TiedClaim

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")]
Verbose = Annotated[bool, typer.Option("-v", "--verbose", help="Show the traceback of an error.")]


def juror_key_command(
    file: Annotated[Path, typer.Argument(help="Where the key is kept; a file that is not there yet.")],
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Make a juror's key, to which claims can be sealed, and show its public half.

    The file is encrypted under a passphrase: AIARENA_KEY_PASSPHRASE, or what you are asked for.

    Example:

        challenge juror-key juror.json
    """
    from watermark.sealing import JurorKey

    with failing(as_json, verbose):
        key = JurorKey.generate()
        key.save(file, lambda: _passphrase(new=True))
    public = to_hex(key.public)
    if as_json:
        print(json.dumps({"public_key": public}, sort_keys=True))
    else:
        say(f"{'juror key':<14}{file}, encrypted; lost without its passphrase")
        say(f"{'public key':<14}{public}")


def seal_command(
    claim: Annotated[Path, typer.Argument(help="The folder of your watermark claim.")],
    to: Annotated[list[str], typer.Option(metavar="HEX", help="A juror's public key; repeatable.")],
    out: Annotated[Path, typer.Option(help="The sealed file; one that is not there yet.")],
    case: Annotated[
        int | None, typer.Option(min=0, max=MAX_INTEGER, help="The case that the jurors judge; no other will do.")
    ] = None,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Seal a watermark claim to jurors, so that nobody else sees the opened leaves and the unmarked model.

    Example:

        challenge seal runs/alice-claim --to 0x8520... --to 0xde9e... --case 1 --out alice.sealed
    """
    from challenge.sealed import seal_claim
    from pol.store import write_atomically

    jurors = [_public_key(text) for text in to]

    with failing(as_json, verbose):
        if out.exists():
            raise CannotRun(f"{out}: exists already; choose another file")
        sealed = seal_claim(claim, jurors, case=case)
        write_atomically(out, sealed)
    if as_json:
        print(json.dumps({"sealed": str(out), "bytes": len(sealed), "case": case, "jurors": to}, sort_keys=True))
    else:
        only = "no case" if case is None else f"case {case}"
        say(f"{'sealed':<14}{out}, {len(sealed)} bytes, for {len(jurors)} of the jurors, {only}")


def read_claims(paths: Sequence[Path], juror_key: Path | None, case: int | None) -> list[TiedClaim]:
    """The claims in folders and in sealed files; the passphrase of ``juror_key`` is asked for once, if it is needed.

    Raises :class:`CannotRun` for a sealed file without a key to open it, and as ``read_claim`` does.
    """
    from challenge.claims import read_claim
    from challenge.sealed import read_sealed_claim
    from watermark.sealing import JurorKey

    sealed = [path for path in paths if path.is_file()]
    if not sealed:
        return [read_claim(path) for path in paths]
    if juror_key is None:
        raise CannotRun(f"{sealed[0]}: a sealed claim; give --juror-key, and --case if it was sealed for one")
    key = JurorKey.load(juror_key, _passphrase)
    return [read_sealed_claim(path, key, case=case) if path in sealed else read_claim(path) for path in paths]


def _passphrase(*, new: bool = False) -> str:
    """From the environment, or asked for where somebody can answer (a new one twice)."""
    from watermark.keyfile import PASSPHRASE_VARIABLE, passphrase_from_environment

    if os.environ.get(PASSPHRASE_VARIABLE) or not sys.stdin.isatty():
        return passphrase_from_environment()
    return str(typer.prompt("passphrase", hide_input=True, confirmation_prompt=new, err=True))


def _public_key(text: str) -> bytes:
    if not re.fullmatch(r"0x[0-9a-f]{64}", text):
        raise typer.BadParameter(f"{text[:80]!r} is not a public key, 0x and 64 hex digits", param_hint="--to")
    return bytes.fromhex(text[2:])
