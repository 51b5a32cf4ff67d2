#!/usr/bin/env python3
"""Write what explorers ask for to verify a deployment: of each contract standard-JSON input and constructor arguments.

``verify.py base-sepolia`` reads deployments/base-sepolia.json and writes, into --out, <Contract>.json (the compiler's
input: sources and settings, nothing else) and contracts.json (compiler and settings, and of each contract address,
name, arguments, and the digests of input and code). Any verifier that takes "Solidity, standard JSON input" takes
these. ``--node`` first compares the code that a node serves with what this package ships. Needs `npm ci`, because
OpenZeppelin's and Solady's sources are part of the input.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import posixpath
import re
import subprocess
import sys
import tomllib
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from chain.errors import ChainError, MissingExtra
from chain.networks import find_network
from chain.records import Record, check_record, encoded_arguments

ROOT = Path(__file__).resolve().parent.parent
DEPLOYMENTS = ROOT / "deployments"
IMPORT = re.compile(r"""^\s*import\s(?:[^;"']*\sfrom\s)?\s*["']([^"']+)["']\s*;""", re.MULTILINE)


def main() -> int:
    """Write the inputs; 0 if they are written, 1 otherwise."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("network", help="the deployment to verify")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "verification", help="a folder for the files")
    parser.add_argument("--node", action="store_true", help="compare the network's code with this package's first")
    parser.add_argument("--deployments", type=Path, default=DEPLOYMENTS, help="the folder of the records")
    options = parser.parse_args()
    try:
        record = Record.load(options.deployments / f"{options.network}.json")
        if options.node:
            check_record(find_network(record.network).connect(), record)
        write_inputs(record, options.out)
    except ChainError as error:
        print(f"verify: {error}", file=sys.stderr)
        return 1
    print(f"verify: {len(record.contracts())} contracts, written to {options.out}")
    return 0


def write_inputs(record: Record, out: Path) -> None:
    """Write ``<Contract>.json`` and ``contracts.json`` into ``out``; raises :class:`ChainError`."""
    out.mkdir(parents=True, exist_ok=True)
    table = {}
    for name, (address, arguments) in record.contracts().items():
        content = json.dumps(standard_input(name), indent=1) + "\n"
        (out / f"{name}.json").write_text(content)
        table[name] = {
            "address": address,
            "contract": f"src/{name}.sol:{name}",
            "constructor_arguments": encoded_arguments(name, arguments).hex(),
            "input_sha256": hashlib.sha256(content.encode()).hexdigest(),
            **code_digests(name),
        }
    found = {"chain_id": record.deployment.chain_id, "compiler": compiler(), "settings": settings(), "contracts": table}
    (out / "contracts.json").write_text(json.dumps(found, indent=1) + "\n")


def code_digests(name: str) -> dict[str, str]:
    """SHA-256 of the shipped code of contract ``name``: that which creates it, without arguments, and that which runs,
    with zeros for immutables. Neither holds metadata."""
    shipped = json.loads(files("chain.artifacts").joinpath(f"{name}.json").read_text("utf-8"))
    codes = {"creation_sha256": shipped["bytecode"], "runtime_sha256": shipped["deployedBytecode"]}
    return {field: hashlib.sha256(bytes.fromhex(code.removeprefix("0x"))).hexdigest() for field, code in codes.items()}


def standard_input(name: str) -> dict[str, Any]:
    """The compiler's whole input for contract ``name``: it and what it imports, under the paths forge gives them, and
    foundry.toml's settings. Raises :class:`MissingExtra` without the npm packages."""
    unit = f"src/{name}.sol"
    wanted = {unit: {name: ["abi", "evm.bytecode.object", "evm.deployedBytecode.object"]}}
    return {
        "language": "Solidity",
        "sources": {path: {"content": (ROOT / path).read_text("utf-8")} for path in _closure(unit)},
        "settings": {**settings(), "outputSelection": wanted},
    }


def settings() -> dict[str, Any]:
    """The compiler's settings, as foundry.toml has them."""
    profile = _profile()
    return {
        "remappings": profile["remappings"],
        "optimizer": {"enabled": profile["optimizer"], "runs": profile["optimizer_runs"]},
        "metadata": {"bytecodeHash": profile["bytecode_hash"], "appendCBOR": profile["cbor_metadata"]},
        "evmVersion": profile["evm_version"],
        "viaIR": profile["via_ir"],
    }


@cache
def compiler() -> str:
    """The compiler's version as explorers list it: ``v0.8.x+commit.y``."""
    said = _run("--version", "")
    return "v" + re.search(r"Version: (\d+\.\d+\.\d+\+commit\.[0-9a-f]+)", said).group(1)  # type: ignore[union-attr]


def compile_input(content: dict[str, Any]) -> dict[str, Any]:
    """The compiler's answer to a standard-JSON input."""
    answer: dict[str, Any] = json.loads(_run("--standard-json", json.dumps(content)))
    return answer


def _run(option: str, given: str) -> str:
    try:
        done = subprocess.run(
            [ROOT / "tools" / "solc", option], input=given, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError) as error:
        raise MissingExtra("the compiler does not run: install node, and run `npm ci` in chain/contracts") from error
    return done.stdout


@cache
def _profile() -> dict[str, Any]:
    with (ROOT / "foundry.toml").open("rb") as file:
        profile: dict[str, Any] = tomllib.load(file)["profile"]["default"]
    return profile


def _closure(unit: str) -> list[str]:
    """The source unit and all that it imports, directly or not; sorted."""
    found: set[str] = set()
    waiting = [unit]
    while waiting:
        path = waiting.pop()
        if path in found:
            continue
        if not (ROOT / path).is_file():
            raise MissingExtra(f"chain/contracts/{path} is missing: run `npm ci` in chain/contracts")
        found.add(path)
        waiting += [_resolve(path, name) for name in IMPORT.findall((ROOT / path).read_text("utf-8"))]
    return sorted(found)


def _resolve(importer: str, name: str) -> str:
    """The path of what ``importer`` calls ``name``."""
    if name.startswith("."):
        return posixpath.normpath(posixpath.join(posixpath.dirname(importer), name))
    for prefix, _, target in (remapping.partition("=") for remapping in _profile()["remappings"]):
        if name.startswith(prefix):
            return str(target + name.removeprefix(prefix))
    return name


if __name__ == "__main__":
    sys.exit(main())
