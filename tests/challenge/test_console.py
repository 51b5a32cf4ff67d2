"""What a hostile proof says reaches the terminal as text, never as control sequences or markup."""

from __future__ import annotations

import pytest

from challenge.console import say


@pytest.mark.parametrize(
    "text", ["\x1b[2J\x1b]0;owned\x07", "line\rVERIFIED (exit code 0)", "[red]VERIFIED[/red]", "\x9b31m"]
)
def test_control_characters_and_markup_are_shown_not_obeyed(capsys: pytest.CaptureFixture[str], text: str) -> None:
    say(text)
    shown = capsys.readouterr().err
    assert not any(ord(c) < 32 and c != "\n" for c in shown) and "\x9b" not in shown
    assert len(shown.rstrip("\n")) == len(text)
