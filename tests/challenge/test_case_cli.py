"""Cases by the commands alone, each line typed twice: upheld and rejected, appealed, unanswered, decided by code."""

import json
import shutil

import pytest
from typer.testing import CliRunner

from chain.case import MarkChannel, Stage
from chain.types import open_segment, tokens
from challenge import case_cli
from challenge.claims import read_claim
from challenge.cli import app as challenge_app
from challenge.dispute import judge_case, leaf_ranges, opened_as_promised
from challenge.evidence import read_verdict, suspect
from challenge.segments import Policy
from pol.errors import CannotRun, ProofError
from pol.store import LocalStore
from tests.chain.anvil import Anvil, require_anvil
from tests.chain.play import World
from tests.challenge.clerk import Clerk
from tests.challenge.court_shell import ALICE, BRUCE, CREATOR, MALLORY, VERA, VICTOR, VIOLA, Courtroom, address
from watermark import WatermarkKey, opening_groups

JURORS = (VICTOR, VIOLA)


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        room = Courtroom(tmp_path_factory.mktemp("court"), patch)
        room.to_court()
        yield room


@pytest.fixture
def room(opened, tmp_path, monkeypatch):
    """The same court for each test, chain and journals wound back afterwards."""
    home = shutil.copytree(opened.folder / "home", tmp_path / "home")
    monkeypatch.setenv("ARENA_HOME", str(home))
    request = opened.chain.web3.provider.make_request
    snapshot = request("evm_snapshot", [])["result"]
    yield opened
    request("evm_revert", [snapshot])


@pytest.fixture
def clerk(opened, monkeypatch):
    """Replays come out as promised for Alice, and everywhere different for Mallory."""

    def with_wrong(who):
        wrong = range(4) if who == MALLORY else ()
        policy = Policy(segments=2, executor=Clerk(opened.proof(who), wrong=wrong))
        monkeypatch.setattr(case_cli, "_policy", lambda data, trust: policy)

    return with_wrong


def held(room, case):
    return room.client.challenges.case(case)


def open_case(room, challenger, trainer, *words):
    """Open a case as far as it goes, and once more when its block is there."""
    line = ("open", 1, address(trainer), *words, "--wait", 0)
    assert "is shown" in room(challenger, *line, code=3)["error"]
    room.chain.mine(3)
    answer = room.twice(challenger, *line)
    assert answer["stage"] == "drawn"
    return answer["case"]


def vote_all(room, case, expected, jurors=JURORS):
    """Everybody judges and promises, twice; then everybody shows, twice."""
    if held(room, case).jury.block and not held(room, case).jury.latched:
        assert "not there yet" in room(jurors[0], "vote", case, "--store", room.store, "--wait", 0, code=3)["error"]
        room.chain.mine(3)
    for juror in jurors:
        line = ("vote", case, "--store", room.store, "--wait", 0)
        assert room.twice(juror, *line)["vote"] == f"{expected}, promised"
    room.to(held(room, case).deadline)
    for juror in jurors:
        assert room.twice(juror, "vote", case, "--store", room.store)["vote"] == f"{expected}, shown"


def settle(room, case):
    """Too early until the last window is over; then once."""
    assert room(CREATOR, "settle", case, code=3)["exit_code"] == 3
    court = room.client.arena.task_config(1).court
    room.to(held(room, case).reveal_by + court.appeal_window)
    return room.twice(CREATOR, "settle", case)


def test_verify_cannot_run_where_the_chain_does_not_answer(tmp_path):
    for words in (["--network", "http://127.0.0.1:9"], ["--network", "nowhere"]):
        done = CliRunner().invoke(challenge_app, ["verify", str(tmp_path), *words, "--json"])
        assert done.exit_code == 1 and json.loads(done.stdout)["exit_code"] == 1


def test_who_does_not_answer_is_convicted_and_who_answers_is_not(tmp_path, monkeypatch):
    """On made-up submissions: quick enough for every run of the tests. The others are slow."""
    room = Courtroom(tmp_path, monkeypatch)
    world = World(room.chain)
    monkeypatch.setenv("ARENA_ADDRESS", world.deployment.arena)
    task, challenges = world.task(), world.reader.challenges
    trainers = [task.trainer(who, tokens(1_000)) for who in (ALICE, MALLORY)]
    task.validator(VERA, tokens(1_000))
    task.to_submission()
    proofs = [task.submit(trainer) for trainer in trainers]
    task.to_round_end(1)
    for trainer, proof in zip(trainers, proofs, strict=True):
        task.reveal(trainer, proof)
    task.to_challenging()
    honest, silent = (open_case(room, VERA, who) for who in (ALICE, MALLORY))
    comes_from = world.reader.arena.submission(1, address(MALLORY), 1).branch
    assert challenges.case(silent).charge.named == (comes_from,), "where a stolen model would have come in"
    assert room(None, "status", silent)["segments"].startswith(f"{comes_from},")
    trainers[0].challenges.respond(honest, [proofs[0].open(k) for k in challenges.segments_to_open(honest)], "bafy")
    assert room(MALLORY, "settle", silent, code=3)["exit_code"] == 3
    room.to(max(challenges.case(honest).reveal_by, challenges.case(silent).deadline))
    verdicts = [room.twice(CREATOR, "settle", case)["verdict"] for case in (honest, silent)]
    assert verdicts == ["inconclusive", "upheld"]


@pytest.mark.slow
def test_a_cheat_is_challenged_judged_and_convicted(room, clerk):
    clerk(MALLORY)
    case = open_case(room, ALICE, MALLORY, "--proof", room.proof(MALLORY))
    assert len(held(room, case).charge.named) == 2, "what the verdict found wrong is named"
    assert "is not the proof of run" in room(
        MALLORY, "respond", case, room.proof(ALICE), "--store", room.store, code=1
    )["error"]  # fmt: skip
    assert "is against" in room(BRUCE, "respond", case, room.proof(MALLORY), "--store", room.store, code=1)["error"]
    assert room.twice(MALLORY, "respond", case, room.proof(MALLORY), "--store", room.store)["stage"] == "voting"
    vote_all(room, case, "uphold")
    before = room(None, "status", case)
    assert (before["slashable"], before["bond"]) == ("1,000", "50") and before["reward"] != "0"
    assert settle(room, case)["verdict"] == "upheld"
    room.to(room.client.arena.phase_times(1).closed_from)
    assert room.client.vault.slashed(1, address(MALLORY)) == tokens(1_000)
    claimed = room(ALICE, "arena", "claim", 1)
    assert {"ChallengeManager.award", "ChallengeManager.withdrawCredit"} <= {
        row["call"] for row in claimed["transactions"]
    }


@pytest.mark.slow
def test_an_honest_trainer_is_not_challenged_by_a_proof_and_not_convicted_without(room, clerk):
    clerk(ALICE)
    line = ("open", 1, address(ALICE), "--proof", room.proof(ALICE))
    assert "nothing speaks against" in room(VERA, *line, code=1)["error"]
    assert room.client.challenges.case_count() == 0
    case = open_case(room, VERA, ALICE)
    room.twice(ALICE, "respond", case, room.proof(ALICE), "--store", room.store)
    vote_all(room, case, "reject")
    assert settle(room, case)["verdict"] == "rejected"
    challenges = room.client.challenges
    assert challenges.credit(address(ALICE)) == tokens(15), "for the segment her model comes from, and two drawn"
    assert challenges.credit(address(VERA)) == 0
    assert "is settled: rejected" in room(VICTOR, "vote", case, "--store", room.store, code=1)["error"]


@pytest.mark.slow
def test_nobody_votes_then_an_appeal_convicts(room, clerk):
    clerk(MALLORY)
    case = open_case(room, ALICE, MALLORY, "--name", "3")
    assert room(None, "status", case)["segments"].startswith("3,")
    room(MALLORY, "respond", case, room.proof(MALLORY), "--store", room.store)
    assert room(ALICE, "appeal", case, code=3)["exit_code"] == 3
    room.to(held(room, case).reveal_by)
    bonds = room.client.token.balance_of(address(ALICE))
    assert room.twice(ALICE, "appeal", case)["level"] == 1
    assert room.client.token.balance_of(address(ALICE)) == bonds - tokens(100)
    vote_all(room, case, "uphold")
    assert "NoAppeal" in room(MALLORY, "appeal", case, code=1)["error"]
    assert room(CREATOR, "settle", case, code=3)["exit_code"] == 3
    room.to(held(room, case).reveal_by)
    assert room.twice(CREATOR, "settle", case)["verdict"] == "upheld"
    assert room.client.challenges.credit(address(ALICE)) == tokens(150)


@pytest.mark.slow
def test_a_case_that_nobody_answers_is_upheld_and_one_that_nobody_judges_is_not(room):
    silent, unjudged = open_case(room, ALICE, MALLORY), open_case(room, VERA, ALICE)
    room(ALICE, "respond", unjudged, room.proof(ALICE), "--store", room.store)
    assert room(MALLORY, "settle", silent, code=3)["exit_code"] == 3
    room.to(held(room, silent).deadline)
    assert room.twice(CREATOR, "settle", silent)["verdict"] == "upheld"
    assert settle(room, unjudged)["verdict"] == "inconclusive"
    court, answered = room.client.arena.task_config(1).court, room.client.challenges.segments_to_open(unjudged)
    paid = court.opening_cost * len(answered)
    assert room.client.challenges.credit(address(VERA)) == court.bond - paid
    assert room.client.challenges.credit(address(ALICE)) == court.bond + paid  # for the other case, and for her answer
    another = room(ALICE, "open", 1, address(MALLORY), "--wait", 0)
    assert another["case"] == silent and another["transactions"] == [], "a case is opened again only where one says so"
    room(ALICE, "open", 1, address(MALLORY), "--again", "--wait", 0, code=3)
    assert room.client.challenges.case_count() == unjudged + 1


@pytest.mark.slow
def test_what_cannot_be_had_is_served_again(room, clerk):
    clerk(ALICE)
    case = open_case(room, VERA, ALICE)
    room(ALICE, "respond", case, room.proof(ALICE), "--store", room.store)
    room.chain.mine(3)
    empty = room.folder / "another store"
    assert "exit_code" in room(VICTOR, "vote", case, "--store", empty, "--wait", 0, code=1)
    for juror in JURORS:
        if held(room, case).stage is Stage.VOTING:  # one who was drawn often is two thirds by himself
            assert room.twice(juror, "vote", case, "--store", empty, "--unavailable")["vote"] == "unavailable"
    assert held(room, case).stage is Stage.SERVING
    assert room.twice(ALICE, "respond", case, room.proof(ALICE), "--store", room.store)["stage"] == "voting"
    vote_all(room, case, "reject")
    assert settle(room, case)["verdict"] == "rejected"


@pytest.mark.slow
def test_code_finds_what_does_not_join_in_the_answer_or_in_a_transcript(room, tmp_path):
    honest = open_case(room, VERA, ALICE, "--name", "0,1")
    room(ALICE, "respond", honest, room.proof(ALICE), "--store", room.store)
    assert room(CREATOR, "settle", honest, "--proof", room.proof(ALICE), code=3)["exit_code"] == 3, "the honest twin"
    broken = room.break_transcript(tmp_path / "bruce")
    case = open_case(room, ALICE, BRUCE, "--proof", broken)
    assert held(room, case).charge.named == (0, 1)
    request = room.chain.web3.provider.make_request
    snapshot = request("evm_snapshot", [])["result"]
    assert room.twice(CREATOR, "settle", case, "--proof", broken)["verdict"] == "upheld"
    request("evm_revert", [snapshot])
    client, segments = room.acting(BRUCE), room.broken_segments()
    anchors = client.arena.anchors(held(room, case).run_id)
    opened = [open_segment(segments, anchors, index) for index in client.challenges.segments_to_open(case)]
    client.challenges.respond(case, opened, "bafy-none")
    assert room.twice(CREATOR, "settle", case)["verdict"] == "upheld"


@pytest.mark.slow
def test_processes_that_die_lose_no_salt_and_pay_no_bond_twice(room, clerk):
    clerk(MALLORY)
    line = ("open", 1, address(MALLORY), "--name", "2", "--wait", 0)
    answer, count = room.mortally(ALICE, *line)
    case = answer["case"]
    assert (count, room.client.challenges.case_count()) == (4, 1), "approve, seal, show, latch"
    assert room.mortally(MALLORY, "respond", case, room.proof(MALLORY), "--store", room.store)[1] == 1
    room.chain.mine(3)
    assert room.mortally(VICTOR, "vote", case, "--store", room.store)[1] == 2, "latch the jury, promise"
    room.to(held(room, case).deadline)
    assert room.mortally(VICTOR, "vote", case, "--store", room.store)[1] == 1


def leaves_alone(client, case, tied):
    """Open a claim's key as if every leaf were a group of its own: 32 leaves are all that is drawn then."""
    claim, count = tied.claim, tied.claim.parameters.leaf_count
    key = WatermarkKey.load(leaves_alone.key)
    beacon = client.scoring.opening_beacon(1).value
    opened = key.open(opening_groups(beacon, claim.key_root, count, 32))
    client.challenges.open_leaves(case, [MarkChannel(count, 1)], leaf_ranges(opened, count))


@pytest.mark.slow
@pytest.mark.parametrize("honest", [True, False], ids=["as promised", "in groups of one leaf"])
def test_a_claim_is_made_and_its_leaves_are_opened(room, tmp_path, monkeypatch, honest):
    """The cheat opens less of its key than its spec promises, and is not listened to."""
    line = ("claim", room.folder / f"run-{ALICE}", "--out", tmp_path / "claim", "--wait", 0)
    assert "not there yet" in room(ALICE, *line, code=3)["error"]
    room.chain.mine(3)
    room.twice(ALICE, *line)
    if not honest:
        leaves_alone.key = room.folder / f"run-{ALICE}" / "watermark.key"
        monkeypatch.setattr("challenge.charges.open_claim", leaves_alone)
    case = open_case(room, ALICE, MALLORY, "--claim", tmp_path / "claim")
    assert (held(room, case).charge.ground.name, held(room, case).leaves_opened) == ("WATERMARK", True)
    assert (held(room, case).leaves == 32) != honest
    room(MALLORY, "respond", case, room.proof(MALLORY), "--store", room.store)
    assert held(room, case).stage.name == "VOTING"
    policy = Policy(executor=Clerk(room.proof(MALLORY)))
    claims = [read_claim(tmp_path / "claim")]
    verdict = judge_case(room.client, case, LocalStore(room.store), claims=claims, policy=policy)
    assert bool(verdict.watermarks) == honest
    assert any("left aside" in limit for limit in verdict.limits) != honest
    with monkeypatch.context() as deaf, pytest.raises(CannotRun, match="keeps its logs"):
        deaf.setattr(type(room.client.challenges), "events", lambda *_, **__: [])
        opened_as_promised(room.client, case, claims[0])


@pytest.mark.slow
@pytest.mark.node
def test_a_thief_and_an_honest_trainer_on_a_node_with_real_replays(tmp_path, monkeypatch):
    """Nothing of it is made up: every verdict replays in processes of its own."""
    require_anvil()
    node = Anvil(tmp_path)
    try:
        room = Courtroom(tmp_path, monkeypatch, node)
        room.to_court()
        verified = room(None, "verify", room.proof(ALICE), "--network", "local", "--segments", "2")
        assert verified["anchors_checked"] and verified["outcome"] == "VERIFIED"
        cases = open_case(room, ALICE, MALLORY, "--proof", room.proof(MALLORY)), open_case(room, VERA, ALICE)
        for case, trainer in zip(cases, (MALLORY, ALICE), strict=True):
            room(trainer, "respond", case, room.proof(trainer), "--store", room.store)
        room.chain.mine(3)
        for case, expected in zip(cases, ("uphold", "reject"), strict=True):
            for juror in JURORS:
                answer = room(juror, "vote", case, "--store", room.store, "--wait", 5)
                assert answer["vote"] == f"{expected}, promised"
        room.to(max(held(room, case).deadline for case in cases))
        for case in cases:
            for juror in JURORS:
                room(juror, "vote", case, "--store", room.store)
        court = room.client.arena.task_config(1).court
        room.to(max(held(room, case).reveal_by for case in cases) + court.appeal_window)
        assert [room.twice(CREATOR, "settle", case)["verdict"] for case in cases] == ["upheld", "rejected"]
    finally:
        node.stop()


VERDICT = {
    "format": "aiarena.verdict/1", "outcome": "REJECTED",
    "findings": [{"code": 11, "message": "m", "segment": 7}, {"code": 10, "message": "m", "segment": None}],
}  # fmt: skip


class TestEvidence:
    def test_a_verdict_names_its_segments_and_is_committed_to(self, tmp_path):
        path = tmp_path / "verdict.json"
        path.write_text(json.dumps(VERDICT))
        found = suspect(read_verdict(path))
        assert (found.segments, found.marked) == ((7,), False)
        other = suspect({**VERDICT, "findings": VERDICT["findings"][:1]})
        assert other.segments == (7,) and other.digest != found.digest

    def test_a_mark_alone_is_a_watermark_case(self):
        assert suspect({**VERDICT, "findings": [{"code": 12, "message": "m", "segment": None}]}).marked

    @pytest.mark.parametrize("outcome", ["VERIFIED", "INCONCLUSIVE"])
    def test_what_was_not_rejected_is_no_evidence(self, outcome):
        with pytest.raises(CannotRun, match="nothing speaks against"):
            suspect({**VERDICT, "outcome": outcome})

    @pytest.mark.parametrize(
        "change",
        [
            {"format": "aiarena.error/1"}, {"outcome": 5}, {"findings": None}, {"findings": [{}]},
            {"findings": [{"code": "11", "segment": 1}]}, {"findings": [{"code": 11, "segment": True}]},
        ],
        ids=str,
    )  # fmt: skip
    def test_what_is_no_verdict_is_refused(self, tmp_path, change):
        path = tmp_path / "verdict.json"
        path.write_text(json.dumps({**VERDICT, **change}))
        with pytest.raises(ProofError, match="not a verdict"):
            read_verdict(path)

    @pytest.mark.parametrize("text", ["", "[", "[]", "null", '{"format": 1}', "[" * 100])
    def test_nor_is_anything_else(self, tmp_path, text):
        path = tmp_path / "verdict.json"
        path.write_text(text)
        with pytest.raises(ProofError):
            read_verdict(path)
        with pytest.raises(CannotRun, match="cannot be read"):
            read_verdict(tmp_path / "none.json")
