"""What users type: amounts, addresses, lengths of time."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Annotated

import typer

from chain.accounts import parse_address
from chain.types import tokens

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def wei(text: str) -> int:
    """An amount of whole tokens, as typed, in wei; a usage error unless it is positive with at most 18 decimals."""
    if not re.fullmatch(r"\d{1,20}(\.\d{1,18})?", text) or Fraction(text) == 0:
        raise typer.BadParameter(f"{text[:40]!r}: give tokens such as 100 or 0.25")
    return tokens(text)


def address(text: str) -> str:
    """A checksum address; a usage error for anything else, and for one whose capitals do not check."""
    try:
        return str(parse_address(text))
    except ValueError as error:
        raise typer.BadParameter(f"{text[:60]!r} is no address, or its capitals do not check") from error


def seconds(value: int | str) -> int | None:
    """A length of time in seconds, given so or as a text such as 90s, 30m, 24h or 2d; ``None`` if it is neither."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    found = re.fullmatch(r"(\d{1,9})([smhd])", value) if isinstance(value, str) else None
    return int(found[1]) * UNITS[found[2]] if found else None


TokensArgument = Annotated[
    int, typer.Argument(metavar="TOKENS", parser=wei, help="An amount of tokens, such as 100 or 0.25.")
]
