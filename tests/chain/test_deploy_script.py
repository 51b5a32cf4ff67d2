"""The scripts around a deployment: rehearsed on a node with Base Sepolia's chain id, and verifiable by recompiling."""

import hashlib
import io
import json
import sys

import pytest

from chain.accounts import dev_account
from chain.artifact import ALL_CONTRACTS, artifact
from chain.contracts.script import deploy, rehearse, verify
from chain.networks import NETWORKS
from chain.records import Record, check_record, encoded_arguments
from tests.chain.anvil import Anvil, require_anvil
from tests.chain.test_artifacts import CONTRACTS, require_node

DEPLOYER, CHAIN_ID = 0, 84532


@pytest.fixture
def script(monkeypatch, capsys, tmp_path):
    """Run a script on records in ``tmp_path``, with lines for its questions; its exit code and what it said."""

    def run(main, *options, answers=""):
        monkeypatch.setattr(sys, "argv", ["script", *map(str, options), "--deployments", str(tmp_path)])
        monkeypatch.setattr(sys, "stdin", io.StringIO(answers))
        return main(), capsys.readouterr().err

    return run


@pytest.mark.node
def test_a_deployment_to_base_sepolia_rehearsed(tmp_path, monkeypatch, script):
    """Cut short, finished, recorded, compared with the node, and not made a second time."""
    require_node()
    require_anvil()
    file, out = tmp_path / "base-sepolia.json", tmp_path / "out"
    node = Anvil(tmp_path, chain_id=CHAIN_ID)
    monkeypatch.setenv("ARENA_RPC_BASE_SEPOLIA", node.url)
    try:
        monkeypatch.setenv("ARENA_KEY", "11" * 32)
        code, said = script(deploy.main, "base-sepolia", "--yes")
        assert code == 1 and "deploying ArenaToken" in said, "an account without ether"

        monkeypatch.setenv("ARENA_KEY", dev_account(DEPLOYER).key.hex())
        code, said = script(deploy.main, "base-sepolia", answers="y\ny\nno\n")
        assert code == 1 and "deploying RewardEscrow was not wanted" in said and not file.exists()
        assert node.web3.eth.get_transaction_count(dev_account(DEPLOYER).address) == 2
        code, said = script(deploy.main, "base-sepolia", "--first", 1, "--yes")
        assert code == 1 and "leave --first out" in said
        code, said = script(deploy.main, "base-sepolia", "--first", 0, "--yes")
        assert code == 0 and said.count("gas, at most") == 4, said

        record = Record.load(file)
        assert (record.network, record.first_nonce) == ("base-sepolia", 0)
        assert record.least_window == NETWORKS["base-sepolia"].least_window
        check_record(node.web3, record)
        assert script(verify.main, "base-sepolia", "--out", out, "--node")[0] == 0

        code, said = script(deploy.main, "base-sepolia", "--yes")
        assert code == 1 and "is there" in said
    finally:
        node.kill()
    for path in (file, out / "contracts.json"):
        committed = rehearse.REHEARSAL / path.name
        assert path.read_bytes() == committed.read_bytes(), "run chain/contracts/script/rehearse.py, and commit"
    table = json.loads((out / "contracts.json").read_text())["contracts"]
    assert {name: row["address"] for name, row in table.items()} == {n: a for n, (a, _) in record.contracts().items()}
    for name, (_, values) in record.contracts().items():
        assert table[name]["constructor_arguments"] == encoded_arguments(name, values).hex()
        assert json.loads((out / f"{name}.json").read_text()) == verify.standard_input(name)
        assert table[name]["input_sha256"] == hashlib.sha256((out / f"{name}.json").read_bytes()).hexdigest()


def test_the_committed_rehearsal_is_of_the_shipped_code():
    record = Record.load(rehearse.REHEARSAL / "base-sepolia.json")
    found = json.loads((rehearse.REHEARSAL / "contracts.json").read_text())
    assert record.deployer == dev_account(DEPLOYER).address, "a rehearsal's account is one that everybody knows"
    assert found["chain_id"] == record.deployment.chain_id == CHAIN_ID
    assert found["settings"] == verify.settings()
    assert set(found["contracts"]) == set(record.contracts())
    for name, (address, values) in record.contracts().items():
        row, shipped = found["contracts"][name], artifact(name)
        assert (row["address"], row["constructor_arguments"]) == (address, encoded_arguments(name, values).hex())
        assert row["creation_sha256"] == hashlib.sha256(bytes.fromhex(shipped.bytecode[2:])).hexdigest()
        assert {field: row[field] for field in ("creation_sha256", "runtime_sha256")} == verify.code_digests(name)


def test_a_development_account_deploys_on_local_chains_only(script, tmp_path):
    code, said = script(deploy.main, "base", "--account", "dev:0")
    assert code == 1 and "everybody knows the key" in said and not list(tmp_path.iterdir())


def test_a_node_that_does_not_answer(script, tmp_path, monkeypatch):
    monkeypatch.setenv("ARENA_KEY", "11" * 32)
    monkeypatch.setenv("ARENA_RPC_BASE_SEPOLIA", "http://127.0.0.1:9")
    code, said = script(deploy.main, "base-sepolia")
    assert code == 1 and "did not answer" in said and not list(tmp_path.iterdir())


def test_a_network_without_record_is_not_verified(script, tmp_path):
    code, said = script(verify.main, "base-sepolia", "--out", tmp_path / "out")
    assert code == 1 and "cannot read the record" in said and not list(tmp_path.iterdir())


def test_committed_records_are_named_for_their_networks():
    paths = list((CONTRACTS / "deployments").glob("*.json"))
    assert [Record.load(path).network for path in paths] == [path.stem for path in paths]


class TestInputs:
    @pytest.mark.node
    def test_inputs_hold_all_sources_and_only_those(self):
        require_node()
        sources = verify.standard_input("StakeVault")["sources"]
        assert {"src/StakeVault.sol", "src/interfaces/ITasks.sol"} < set(sources)
        assert "src/Scoring.sol" not in sources and not any("forge-std" in path for path in sources)
        outside = {path.split("/")[1] for path in sources if not path.startswith("src/")}
        assert outside == {"@openzeppelin", "solady"}

    @pytest.mark.node
    @pytest.mark.parametrize(
        "name",
        [name if name == "ArenaToken" else pytest.param(name, marks=pytest.mark.slow) for name in ALL_CONTRACTS],
    )
    def test_recompiling_an_input_gives_the_shipped_code(self, name):
        require_node()
        answer = verify.compile_input(verify.standard_input(name))
        assert not [problem for problem in answer.get("errors", []) if problem["severity"] == "error"]
        compiled = answer["contracts"][f"src/{name}.sol"][name]
        shipped = json.loads((CONTRACTS.parent / "artifacts" / f"{name}.json").read_text())
        assert "0x" + compiled["evm"]["bytecode"]["object"] == shipped["bytecode"] == artifact(name).bytecode
        assert "0x" + compiled["evm"]["deployedBytecode"]["object"] == shipped["deployedBytecode"]
        ours, theirs = ({json.dumps(item, sort_keys=True) for item in side["abi"]} for side in (shipped, compiled))
        assert ours == theirs

    @pytest.mark.node
    def test_the_compiler_is_the_one_in_the_lock_file(self):
        require_node()
        lock = json.loads((CONTRACTS / "package-lock.json").read_text())
        assert verify.compiler().startswith(f"v{lock['packages']['node_modules/solc']['version']}+commit.")
