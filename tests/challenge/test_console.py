"""What a hostile proof says reaches the terminal as text, never as control sequences or markup."""

from __future__ import annotations

import pytest

from challenge.console import MAX_LINE, say


@pytest.mark.parametrize(
    "text",
    [
        "\x1b[2J\x1b]0;owned\x07",
        "line\rVERIFIED (exit code 0)",
        "line\nVERIFIED (exit code 0)",
        "[red]VERIFIED[/red]",
        "\x9b31m",
    ],
)
def test_control_characters_and_markup_are_shown_not_obeyed(capsys: pytest.CaptureFixture[str], text: str) -> None:
    say(text)
    shown = capsys.readouterr().err
    assert shown.endswith("\n") and len(shown) == len(text) + 1
    assert not any(ord(c) < 32 for c in shown[:-1]) and "\x9b" not in shown


def test_what_is_long_is_cut_and_said(capsys: pytest.CaptureFixture[str]) -> None:
    say("x" * (MAX_LINE + 7))
    shown = "".join(capsys.readouterr().err.split("\n"))
    assert shown == "x" * MAX_LINE + " ... and 7 characters more"
