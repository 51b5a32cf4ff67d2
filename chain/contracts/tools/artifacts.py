#!/usr/bin/env python3
"""Compile the contracts and write what the Python package ships: ``chain/artifacts/<Contract>.json``.

``artifacts.py`` writes them; ``artifacts.py --check`` compiles from scratch in a temporary folder and compares byte for
byte. Both refuse a contract over the limit on code size. Settings come from foundry.toml alone; needs `npm ci` first.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ARTIFACTS = ROOT.parent / "artifacts"
CONTRACTS = (
    *("ArenaToken", "StakeVault", "RewardEscrow", "Arena", "Scoring", "ChallengeManager"),
    *("TaskRules", "CaseRules", "Emission"),
)
CODE_LIMIT = 24_576  # bytes, EIP-170


def main() -> int:
    """Write or check the artifacts; 0 if they are as they should be, 1 otherwise."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare with the shipped artifacts instead of writing")
    check = parser.parse_args().check
    try:
        built = compile_contracts()
    except BuildError as error:
        print(f"artifacts: {error}", file=sys.stderr)
        return 1
    problems = [problem for name, text in built.items() for problem in examine(name, text, check=check)]
    for problem in problems:
        print(f"artifacts: {problem}", file=sys.stderr)
    if not problems:
        print(f"artifacts: {len(built)} contracts {'match' if check else 'written to'} {ARTIFACTS.name}/")
    return 1 if problems else 0


class BuildError(Exception):
    """The contracts could not be compiled; the message says what to do."""


def compile_contracts() -> dict[str, str]:
    """The text of each artifact, compiled from scratch; raises :class:`BuildError`."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "out")
        places = ["--out", str(out), "--cache-path", str(Path(folder, "cache"))]
        command = [str(forge()), "build", "src", "--force", *places]
        done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False)
        if done.returncode:
            raise BuildError(f"forge build failed:\n{done.stdout}{done.stderr}")
        return {name: artifact(name, out / f"{name}.sol" / f"{name}.json") for name in CONTRACTS}


def forge() -> Path:
    """The forge binary that npm installed for this machine."""
    path = ROOT / "node_modules" / ".bin" / ("forge.cmd" if os.name == "nt" else "forge")
    if not path.is_file():
        raise BuildError(
            f"no {path.relative_to(ROOT)}: run `npm ci` in chain/contracts; on a machine whose forge package.json does "
            "not list, also `npm install --no-save @foundry-rs/forge-<system>-<processor>`"
        )
    return path


def environment() -> dict[str, str]:
    """This process's environment without anything that would overrule foundry.toml."""
    return {key: value for key, value in os.environ.items() if not key.startswith(("FOUNDRY_", "DAPP_"))}


def artifact(name: str, path: Path) -> str:
    """The shipped text: name, ABI, creation code and runtime code (immutables zero), keys sorted."""
    compiled = json.loads(path.read_text(encoding="utf-8"))
    content = {
        "contract": name,
        "abi": compiled["abi"],
        "bytecode": compiled["bytecode"]["object"],
        "deployedBytecode": compiled["deployedBytecode"]["object"],
    }
    return json.dumps(content, indent=1, sort_keys=True) + "\n"


def examine(name: str, text: str, *, check: bool) -> list[str]:
    """Write or compare one artifact; what is wrong with it, if anything."""
    path = ARTIFACTS / f"{name}.json"
    problems = []
    size = len(json.loads(text)["deployedBytecode"].removeprefix("0x")) // 2
    if size > CODE_LIMIT:
        problems.append(f"{name} has {size} bytes of code, more than the limit of {CODE_LIMIT}")
    if not check:
        path.write_text(text, encoding="utf-8")
    elif not path.is_file() or path.read_text(encoding="utf-8") != text:
        problems.append(f"{path.name} is not what the sources compile to: run tools/artifacts.py and commit the result")
    return problems


if __name__ == "__main__":
    sys.exit(main())
