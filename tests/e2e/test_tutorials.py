"""Every block of the tutorials works: files are written as the pages say, commands run in order, exit codes are right.

A fence says what it is: ``python file=x.py`` is a file; ``diff from=x.py file=y.py`` turns the one, whole, into the
other; ``sh`` runs, and ends with 0 or with what ``exit=`` says.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

TUTORIALS = Path(__file__).parents[2] / "docs/tutorials"
PAGES = sorted(TUTORIALS.glob("*.md"))


@dataclass(frozen=True)
class Block:
    language: str
    info: dict[str, str]
    text: str


def blocks(page: Path) -> list[Block]:
    fences = re.findall(r"^```(\w+)([^\n]*)\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [Block(lang, dict(part.split("=", 1) for part in info.split()), text) for lang, info, text in fences]


def sides(diff: str) -> tuple[str, str]:
    """What a whole-file diff starts from, and what it leads to."""
    lines = diff.splitlines(keepends=True)
    assert all(line[0] in " +-" for line in lines)
    return tuple("".join(line[1:] for line in lines if line[0] != left_out) for left_out in "+-")  # type: ignore[return-value]


def files(page: Path) -> dict[str, str]:
    """All files of a page; a diff must start from the very file that the page gives."""
    found: dict[str, str] = {}
    for block in blocks(page):
        if block.language == "diff":
            before, after = sides(block.text)
            assert before == found[block.info["from"]], f"{page.name}: the diff of {block.info['from']}"
            found[block.info["file"]] = after
        elif block.language != "sh":
            found[block.info["file"]] = block.text
    return found


def follow(page: Path, folder: Path) -> None:
    """Write all the files, then run all the commands in order."""
    for name, text in files(page).items():
        (folder / name).write_text(text, encoding="utf-8")
    scripts = str(Path(sys.executable).parent)
    environment = os.environ | {"PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}", "HF_HUB_OFFLINE": "1"}
    commands = [block for block in blocks(page) if block.language == "sh"]
    exports = "".join(line + "\n" for b in commands for line in b.text.splitlines() if line.startswith("export "))
    for block in commands:
        done = subprocess.run(
            ["bash", "-e", "-c", exports + block.text],
            cwd=folder, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        expected = int(block.info.get("exit", "0"))
        code = 128 - done.returncode if done.returncode < 0 else done.returncode  # as a shell shows a signal
        assert code == expected, f"exit code {code}\n{block.text}\n{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_files_of_a_page_fit_together(page: Path) -> None:
    found = files(page)
    for name, text in found.items():
        if name.endswith(".py"):
            compile(text, name, "exec")
    commands = "".join(block.text for block in blocks(page) if block.language == "sh")
    for script in re.findall(r"python (\w+\.py)", commands):
        assert script in found
    assert "exit=11" in page.read_text(encoding="utf-8"), "a page shows what becomes of a cheat, too"


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_block_works(page: Path, tmp_path: Path) -> None:
    if page.stem == "transformers":
        pytest.importorskip("transformers")
        pytest.importorskip("datasets")
    follow(page, tmp_path)
