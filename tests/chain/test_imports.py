"""The chain package stands without torch."""

import pkgutil
import subprocess
import sys

import pytest

import chain


def test_no_module_of_chain_imports_torch():
    names = ["chain", *sorted(f"chain.{module.name}" for module in pkgutil.iter_modules(chain.__path__))]
    assert "chain.devnet" in names
    code = (
        "import importlib, sys\n"
        f"for name in {names!r}: importlib.import_module(name)\n"
        "heavy = sorted({'torch', 'safetensors', 'numpy', 'eth_tester'} & set(sys.modules))\n"
        "sys.exit(', '.join(heavy) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_public_names_resolve():
    assert all(getattr(chain, name) for name in chain.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        chain.nothing  # noqa: B018


def test_the_guided_tour_works():
    embedded = chain.EmbeddedChain()
    creator, alice, *_ = embedded.accounts
    deployment = chain.deploy(embedded.web3, creator, supply=chain.tokens(1_000_000))
    client = chain.ArenaClient(embedded.web3, deployment, creator)
    client.token.transfer(alice.address, chain.tokens(1_000))
    assert client.acting_as(alice).token.balance_of(alice.address) == chain.tokens(1_000)
