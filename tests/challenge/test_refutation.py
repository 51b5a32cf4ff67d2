"""Cases that code decides by files: a start from something else than the base model, and a refuted step."""

import pytest

from chain.terms import NO_DIGEST
from chain.types import BaseModel, tokens
from challenge.cli import app
from pol.encoding import canonical_json
from pol.merkle import MerkleTree
from pol.state import to_safetensors
from pol.tensors import tensors_digest
from tests.chain.play import Proof, World
from tests.challenge.court_shell import Courtroom
from tests.golden.openings import base_model, first_state, wrong_state

pytestmark = pytest.mark.slow
ALICE, MALLORY, VERA = 1, 2, 5
BASE = base_model()
YES_WORD = bytes.fromhex("6020360335" + "5f5260205ff3")
"""A contract that returns the last word of what it is called with: a step verifier that its proof convinces."""


class Starting(Proof):
    """What a trainer records whose first state is this one."""

    def start_from(self, state):
        first = self.segments[0]
        self.segments[0] = type(first)(**{**self.row(first), "start_digest": tensors_digest(state)})
        return self

    @staticmethod
    def row(segment):
        return {name: getattr(segment, name) for name in segment.__slots__}


@pytest.fixture(scope="module")
def court(tmp_path_factory):
    """Alice's run starts from the base model and Mallory's does not; the task has a step verifier. In each a case."""
    with pytest.MonkeyPatch.context() as patch:
        room = Courtroom(tmp_path_factory.mktemp("court"), patch)
        world = World(room.chain)
        patch.setenv("ARENA_ADDRESS", world.deployment.arena)
        bases = MerkleTree([NO_DIGEST, tensors_digest(BASE)])
        path = bases.prove(1)
        base = BaseModel(tensors_digest(BASE), path.position, path.count, path.siblings)
        task = world.task(bases_root=bases.root, step_verifier=deployed(world, YES_WORD))
        people = {ALICE: first_state(BASE), MALLORY: wrong_state(BASE)}
        for who in people:
            task.trainer(who, tokens(1_000))
        task.validator(VERA, tokens(1_000))
        task.to_submission()
        proofs = {who: submitted(task, who, state, base) for who, state in people.items()}
        task.to_round_end(1)
        for who, proof in proofs.items():
            task.reveal(world.clients[who], proof)
            written(room, who, proof, people[who])
        (room.folder / "base.safetensors").write_bytes(to_safetensors(BASE))
        task.to_challenging()
        room.cases = {who: task.open_case(world.clients[VERA], world.clients[who], 1) for who in people}
        room.app = app
        yield room


def deployed(world, code):
    eth, sender = world.chain.web3.eth, world.creator.account
    data = "0x60" + f"{len(code):02x}" + "600a5f39" + f"60{len(code):02x}" + "5ff3" + code.hex()
    transaction = {
        "from": sender.address, "data": data, "gas": 200_000, "nonce": eth.get_transaction_count(sender.address),
        "gasPrice": 10**10, "chainId": eth.chain_id, "value": 0,
    }  # fmt: skip
    sent = eth.send_raw_transaction(sender.sign_transaction(transaction).raw_transaction)
    return eth.wait_for_transaction_receipt(sent)["contractAddress"]


def submitted(task, who, state, base):
    client = task.world.clients[who]
    proof = Starting(client.address, task.config).start_from(state)
    bond = task.config.pay.run_bond
    proof.run_id = client.arena.register_run(task.id, proof.spec_digest, proof.key_root, bond, base)
    task.chain.mine(2)
    client.arena.latch_beacon(proof.run_id)
    task.anchor(client, proof)
    task.mark(client, proof)
    task.commit(client, proof)
    return proof


def written(room, who, proof, state):
    folder = room.folder / f"proof-{who}"
    folder.mkdir()
    (folder / "transcript.jsonl").write_bytes(b"".join(canonical_json(s.to_json()) + b"\n" for s in proof.segments))
    (room.folder / f"first-{who}.safetensors").write_bytes(to_safetensors(state))


@pytest.fixture
def room(court, monkeypatch, tmp_path):
    monkeypatch.setenv("ARENA_HOME", str(tmp_path / "home"))
    request = court.chain.web3.provider.make_request
    snapshot = request("evm_snapshot", [])["result"]
    yield court
    request("evm_revert", [snapshot])


def started(room, who, first=None):
    folder = room.folder
    first = folder / f"first-{who if first is None else first}.safetensors"
    files = ("--proof", folder / f"proof-{who}", "--first", first, "--base", folder / "base.safetensors")
    return ("settle", room.cases[who], *files)


def test_another_start_than_the_base_model_convicts_and_the_base_model_does_not(room):
    assert room.twice(VERA, *started(room, MALLORY))["verdict"] == "upheld"
    assert "nothing is wrong" in room(VERA, *started(room, ALICE), code=1)["error"], "the honest twin"


def test_nor_does_somebody_elses_state_or_model(room):
    assert "not the state that segment 0 starts from" in room(VERA, *started(room, ALICE, MALLORY), code=1)["error"]
    line = [*started(room, MALLORY)[:-1], room.folder / f"first-{ALICE}.safetensors"]
    assert "not the base model" in room(VERA, *line, code=1)["error"]
    line = ["settle", room.cases[ALICE], "--proof", room.folder / f"proof-{MALLORY}", *started(room, ALICE)[4:]]
    assert "not the one that run" in room(VERA, *line, code=1)["error"]


def refuting(room, who, proof):
    (room.folder / "step.bin").write_bytes(proof)
    folder = room.folder / f"proof-{who}"
    return ("settle", room.cases[who], "--proof", folder, "--segment", 2, "--evidence", room.folder / "step.bin")


def test_the_tasks_verifier_decides_a_step(room):
    honest = refuting(room, ALICE, bytes(32))
    assert "does not refute" in room(VERA, *honest, code=1)["error"], "the honest twin"
    assert room.twice(VERA, *refuting(room, MALLORY, bytes(31) + b"\1"))["verdict"] == "upheld"


def test_files_that_are_not_there_are_named_and_halves_are_usage(room):
    line = list(refuting(room, ALICE, bytes(32)))
    assert "cannot be read" in room(VERA, *line[:-1], room.folder / "none", code=1)["error"]
    assert "more than" in room(VERA, *refuting(room, ALICE, bytes(100_000)), code=1)["error"]
    assert "not the one that run" in room(VERA, *line[:5], 99, *line[6:], code=1)["error"]
    for cut in (line[:6], line[:4] + line[6:], [*line[:2], *line[4:]], [*line, "--base", "x"]):
        room(VERA, *cut, code=2)
