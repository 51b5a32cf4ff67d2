"""Records of deployments: read strictly, derived as far as they can be, and checked against a node's code."""

import pytest

import chain.deployment
import chain.networks
import chain.records
from chain.accounts import dev_account
from chain.deployment import deploy
from chain.devnet import EmbeddedChain
from chain.errors import ChainError, WrongChain
from chain.networks import NETWORKS, Network
from chain.records import Record, check_record, encoded_arguments, first_child
from chain.types import tokens

SUPPLY = tokens(1_000_000)


@pytest.fixture(scope="module")
def node():
    return EmbeddedChain(accounts=1)


@pytest.fixture(scope="module", autouse=True)
def embedded(node):
    """The embedded chain, which has an id of its own, among the networks."""
    chain_id = node.web3.eth.chain_id
    network = Network(name="embedded", chain_id=chain_id, rpc_variable="X", confirmations=1, least_window=60)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chain.networks, "NETWORKS", {**NETWORKS, "embedded": network})
        yield


@pytest.fixture(scope="module")
def record(node):
    deployment = deploy(node.web3, node.accounts[0], SUPPLY, least_window=60)
    return Record(
        network="embedded",
        deployer=node.accounts[0].address,
        first_nonce=0,
        supply=SUPPLY,
        least_window=60,
        deployment=deployment,
    )


def test_round_trip(record, tmp_path):
    path = tmp_path / "local.json"
    record.save(path)
    assert Record.load(path) == record
    with pytest.raises(ChainError, match="cannot write the record"):
        record.save(path)
    assert Record.load(path) == record, "a refused write leaves the record as it was"


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"network": "base-sepolia"}, "network"),
        ({"network": "nowhere"}, "no network"),
        ({"network": ["embedded"]}, "network"),
        ({"deployer": dev_account(5).address.lower()}, "deployer"),
        ({"deployer": dev_account(5).address}, "do not follow"),
        ({"first_nonce": 1}, "do not follow"),
        ({"first_nonce": -1}, "first_nonce"),
        ({"first_nonce": 2**64}, "first_nonce"),
        ({"least_window": 0}, "least_window"),
        ({"least_window": True}, "least_window"),
        ({"supply": SUPPLY}, "supply"),
        ({"supply": "1e24"}, "supply"),
        ({"supply": "٣"}, "supply"),
        ({"supply": "0"}, "supply"),
        ({"deployment": None}, "deployment"),
        ({"owner": "0x"}, "expected an object"),
    ],
)
def test_anything_else_is_refused(record, change, where):
    with pytest.raises(ChainError, match=where):
        Record.from_json({**record.to_json(), **change})


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 60_000, "[" * 1_000_000, '"record"'])
def test_broken_files_are_refused(tmp_path, text):
    path = tmp_path / "broken.json"
    path.write_text(text)
    with pytest.raises(ChainError, match="broken"):
        Record.load(path)


@pytest.mark.parametrize("change", [(b": 60", b":60"), (b"{", b'{"network": "local", ', 1), (b"\n", b"\r\n")])
def test_the_same_values_written_otherwise_are_refused(record, tmp_path, change):
    path = tmp_path / "embedded.json"
    record.save(path)
    path.write_bytes(path.read_bytes().replace(*change))
    with pytest.raises(ChainError, match="but not as"):
        Record.load(path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ChainError, match="cannot read the record"):
        Record.load(tmp_path / "none.json")


def test_a_record_leads_to_the_contracts_that_were_deployed_on_the_way(node, record):
    d = record.deployment
    for owner, address, getter, child in (
        ("Arena", d.arena, "rules", "TaskRules"),
        ("ChallengeManager", d.challenges, "caseRules", "CaseRules"),
    ):
        contract = node.web3.eth.contract(address, abi=chain.records.artifact(owner).abi)
        assert contract.functions[getter]().call() == first_child(address) == record.contracts()[child][0]


def test_arguments_are_what_stood_behind_the_creation_code(node, record):
    creation = {
        name: bytes.fromhex(chain.records.artifact(name).bytecode[2:]) for name in record.deployment.names().values()
    }
    for number, (address, name) in enumerate(record.deployment.names().items()):
        sent = bytes(node.web3.eth.get_block(number + 1, True)["transactions"][0]["data"])
        assert sent == creation[name] + encoded_arguments(name, record.contracts()[name][1]), address


class TestAgainstANode:
    def test_an_honest_record_passes(self, node, record):
        check_record(node.web3, record)

    def test_a_chain_without_them_does_not(self, record):
        with pytest.raises(WrongChain, match="ArenaToken"):
            check_record(EmbeddedChain(accounts=1).web3, record)

    def test_another_term_than_the_deployed_one_does_not(self, node, record):
        other = Record.from_json({**record.to_json(), "least_window": 61})
        with pytest.raises(WrongChain, match="TaskRules"):
            check_record(node.web3, other)

    def test_a_later_block_than_the_deployments_does_not(self, node, record):
        def since(block):
            deployment = {**record.to_json()["deployment"], "since": block}
            return Record.from_json({**record.to_json(), "deployment": deployment})

        first = record.deployment.since
        for block in (0, first):
            check_record(node.web3, since(block))
        with pytest.raises(WrongChain, match="events would be missed"):
            check_record(node.web3, since(first + 1))

    @pytest.mark.parametrize("name", ["StakeVault", "CaseRules"])
    def test_one_other_byte_of_code_does_not(self, node, record, name, monkeypatch):
        runtime_code = chain.records._runtime_code

        def changed(contract):
            code = bytearray(runtime_code(contract))
            code[-1] ^= contract == name
            return bytes(code)

        monkeypatch.setattr(chain.records, "_runtime_code", changed)
        with pytest.raises(WrongChain, match=name):
            check_record(node.web3, record)

    @pytest.mark.parametrize("stranger", [dev_account(7).address, None])
    def test_contracts_that_know_other_contracts_do_not(self, node, stranger):
        """The same code, but no conviction slashes: the vault takes somebody else, or the arena, for the manager."""
        account = node.accounts[0]
        first = node.web3.eth.get_transaction_count(account.address)
        planned = chain.records.planned_deployment(node.web3.eth.chain_id, account.address, first)
        original = chain.deployment.constructor_arguments

        def crooked(deployment, supply, least_window):
            manager = stranger or deployment.arena
            arguments = original(deployment, supply, least_window)
            return {**arguments, "StakeVault": (deployment.token, deployment.arena, manager)}

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(chain.deployment, "constructor_arguments", crooked)
            assert deploy(node.web3, account, SUPPLY, least_window=60) == planned
        terms = {"network": "embedded", "deployer": account.address, "supply": SUPPLY, "least_window": 60}
        with pytest.raises(WrongChain, match="has another manager than the record"):
            check_record(node.web3, Record(**terms, first_nonce=first, deployment=planned))


def test_every_immutable_has_a_getter_that_is_compared(record):
    """But for the supply, and for what Arena and manager only hand on to the rules they deploy."""
    kept = {name: set(chain.records._links(record, name)) for name in record.contracts()}
    passed = set()
    for name in record.contracts():
        constructor = next(item for item in chain.records.artifact(name).abi if item["type"] == "constructor")
        arguments = {argument["name"].rstrip("_") for argument in constructor["inputs"]}
        passed |= {(name, argument) for argument in arguments - kept[name]}
    assert passed == {("ArenaToken", "supply"), ("Arena", "leastWindow"), ("ChallengeManager", "scoring")}
    assert "leastWindow" in kept["TaskRules"] and "scoring" in kept["CaseRules"]
    assert "rules" in kept["Arena"] & kept["Scoring"] and "caseRules" in kept["ChallengeManager"]
