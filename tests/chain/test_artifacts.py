"""The shipped contract artifacts are what the sources compile to, byte for byte, and fit the limit on code size."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CONTRACTS = Path(__file__).resolve().parents[2] / "chain" / "contracts"

pytestmark = pytest.mark.node


def require_node() -> None:
    """Skip without node or the npm packages; fail instead where AIARENA_REQUIRE_NODE=1 (CI) says they must be there."""
    if shutil.which("node") is None:
        reason = "node is not installed: the contracts were not recompiled"
    elif not (CONTRACTS / "node_modules" / "solc").is_dir():
        reason = "chain/contracts/node_modules is missing: run `npm ci` in chain/contracts to recompile the contracts"
    else:
        return
    if os.environ.get("AIARENA_REQUIRE_NODE") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


def test_shipped_artifacts_are_what_the_sources_compile_to() -> None:
    require_node()
    command = [sys.executable, str(CONTRACTS / "tools" / "artifacts.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
