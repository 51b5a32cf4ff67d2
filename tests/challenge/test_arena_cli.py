"""The ``arena`` command: a whole task typed line by line, each line twice, and by processes that die in the middle."""

import json
import re
import signal
import subprocess
import sys
import time
from fractions import Fraction
from unittest.mock import Mock

import pytest
from typer.testing import CliRunner

from chain.accounts import dev_account, save_keystore
from chain.anvil import connect
from chain.errors import ContractReverted, Overtaken
from chain.scoring import Scoring
from challenge.arena_cli import app
from pol.errors import CannotRun, SpecError
from pol.journal import JOURNAL, Journal
from pol.proof import MANIFEST
from tests.chain.anvil import require_anvil
from tests.challenge.arena_shell import Killed, Shell, task_text

CREATOR, ALICE, BOB, VERA, VICTOR, DORA = range(6)


@pytest.fixture
def shell(tmp_path, monkeypatch):
    return Shell(tmp_path, monkeypatch)


def prepared(shell):
    """Contracts, tokens, a task, and everybody's stakes; returns the task's terms of time."""
    shell(CREATOR, "deploy", "--purse", 5_000)
    start = shell.chain.now() + 3_600
    shell(CREATOR, "task", "create", shell.task_file(start), "--store", shell.folder / "store")
    shell(ALICE, "stake", 1, "trainer", 1_000, "--commission", 2_000)
    shell(BOB, "stake", 1, "trainer", 800)
    shell(VERA, "stake", 1, "validator", 900)
    shell(VICTOR, "stake", 1, "validator", 1_000)
    shell(DORA, "delegate", 1, dev_account(ALICE).address, 500)
    return start


class TestOnce:
    @pytest.mark.slow
    def test_a_command_that_is_repeated_sends_nothing(self, shell):
        deployed = shell.twice(CREATOR, "deploy", "--supply", 1_000_000, "--purse", 5_000)
        assert deployed["tokens"] == "925,000" and len(deployed["transactions"]) == 6 + 15
        file = shell.task_file(shell.chain.now() + 3_600)
        created = shell.twice(CREATOR, "task", "create", file, "--store", shell.folder / "store")
        assert (created["task"], created["budget"], created["paid"]) == (1, "1,000", "1,100")
        another = shell.twice(BOB, "task", "create", file, "--store", shell.folder / "store")
        assert another["task"] == 2, "the same terms from another creator are another task"
        staked = shell.twice(ALICE, "stake", 1, "trainer", "1000.5", "--commission", 2_000)
        assert staked["staked"] == "1,000.5"
        lent = shell.twice(DORA, "delegate", 1, dev_account(ALICE).address, 300)
        assert lent["lent"] == "300"
        more = shell.twice(DORA, "delegate", 1, dev_account(ALICE).address, 350)
        assert [row["call"] for row in more["transactions"]] == ["ArenaToken.approve", "StakeVault.delegate"]
        status = shell(None, "status", 1, "--of", dev_account(DORA).address)
        assert status["tokens"] == "4,650" and status["phase"] == "registration"

    def test_a_command_that_is_killed_again_and_again_sends_each_transaction_once(self, shell):
        answer, count = shell.mortally(CREATOR, "deploy")
        assert count == 6 and answer["tokens"] == "1,000,000"
        shell(CREATOR, "deploy", "--purse", 2_000)
        file = shell.task_file(shell.chain.now() + 3_600)
        answer, count = shell.mortally(CREATOR, "task", "create", file, "--store", shell.folder / "store")
        assert (answer["task"], count) == (1, 2)
        assert shell.mortally(ALICE, "stake", 1, "trainer", 1_000)[1] == 2
        assert shell.mortally(DORA, "delegate", 1, dev_account(ALICE).address, 500)[1] == 2
        assert shell(None, "status")["tasks"] == 1
        (trainer,) = shell(None, "status", 1)["trainers"]
        assert trainer["own"] == "1,000"


class TestRefusals:
    def test_what_is_declined_is_not_sent(self, shell):
        before = shell.sent(CREATOR)
        done = CliRunner().invoke(app, ["deploy", "--account", "dev:0"], input="n\n")
        assert done.exit_code == 1 and "at most" in done.stderr and "declined" in done.stderr
        done = CliRunner().invoke(app, ["deploy", "--account", "dev:0", "--json"], input="")
        assert done.exit_code == 1 and "give --yes" in json.loads(done.stdout)["error"]
        assert shell.sent(CREATOR) == before

    def test_a_known_key_is_for_local_chains_only(self, shell, monkeypatch):
        monkeypatch.setattr("chain.networks.LOCAL_CHAIN_ID", 31_337)
        assert "everybody knows" in shell(CREATOR, "deploy", code=1)["error"]

    def test_without_anybody_to_type_it_the_passwords_variable_is_named(self, shell, monkeypatch):
        monkeypatch.delenv("ARENA_PASSWORD", raising=False)
        save_keystore(dev_account(1), shell.folder / "key.json", "a password")
        line = ["stake", "1", "trainer", "5", "--account", str(shell.folder / "key.json"), "--json"]
        done = CliRunner().invoke(app, line, input="")
        assert done.exit_code == 1 and "ARENA_PASSWORD" in json.loads(done.stdout)["error"]

    def test_without_contracts_the_next_step_is_named(self, shell):
        assert "`arena deploy` first" in shell(ALICE, "stake", 1, "trainer", 100, code=1)["error"]

    def test_a_stake_is_made_once_too_early_is_not_yet_and_too_late_is_no(self, shell):
        prepared(shell)
        assert "is made once" in shell(ALICE, "stake", 1, "trainer", 999, code=1)["error"]
        assert "is made once" in shell(ALICE, "stake", 1, "validator", 1_000, code=1)["error"]
        assert "comes back" in shell(DORA, "delegate", 1, dev_account(ALICE).address, 499, code=1)["error"]
        assert shell(ALICE, "claim", 1, code=3)["exit_code"] == 3
        assert "UnknownTask" in shell(ALICE, "claim", 99, code=1)["error"]
        line = ("score", "commit", 1, "--store", "x", "--scores", "1,2,3")
        assert "3 scores for 2 trainers" in shell(VERA, *line, code=1)["error"], "it could never be shown"
        shell.to(shell.chain.now() + 4_000)
        assert shell(DORA, "stake", 1, "trainer", 500, code=1)["exit_code"] == 1

    @pytest.mark.parametrize(
        "words",
        [
            "stake", "stake 0 trainer 1", "stake 1 owner 1", "stake 1 trainer 0", "stake 1 trainer -1",
            "stake 1 trainer 1e3", "stake 1 trainer 1.0000000000000000001", "delegate 1 alice 5",
            f"delegate 1 0x{dev_account(1).address[2:].swapcase()} 5", "task", "task create",
            "score commit 1 --store x --scores 1,a", "score commit 1 --store x --scores 1,10001", "up --port 0",
            "up --state /nowhere/at/all.json", "status 0", "status --arena 0x12",
        ],
    )  # fmt: skip
    def test_a_wrong_command_line_is_usage(self, shell, words):
        account = [] if words.startswith(("up", "status")) or words == "task" else ["--account", "dev:1", "--yes"]
        assert CliRunner().invoke(app, [*words.split(), *account]).exit_code == 2

    def test_what_another_overtook_is_not_yet_and_what_is_refused_is_no(self, shell, monkeypatch):
        prepared(shell)
        for error, code in ((Overtaken("settling"), 3), (ContractReverted("settling", "", {}), 1)):
            monkeypatch.setattr(Scoring, "settled_rounds", Mock(side_effect=error))
            assert "settling was refused" in shell(VERA, "score", "settle", 1, code=code)["error"]

    def test_the_exit_codes_are_in_the_help(self):
        assert "3 not yet" in " ".join(CliRunner().invoke(app, ["--help"]).stdout.split())


class TestTaskFile:
    @pytest.mark.parametrize(
        ("old", "new", "where"),
        [
            ('q = "0.9"', "q = 0.9", "pay.q"),
            ("sampled = 4\n", "", "sampled"),
            ("sampled = 4\n", "sampled = 4\nowner = 1\n", "owner"),
            ('window = "2h"', 'window = "2 hours"', "clock.window"),
            ('"mean"', '"mode"', "pay.aggregator"),
            ('machines = ["this"]', 'machines = ["mine"]', "machines"),
            ("threads = 1", "threads = true", "threads"),
            ("start = 5", "start = 2026-12-01T00:00:00", "zone"),
            ("[clock]", "[clock", "not TOML"),
            ("[config]", "[[config]]", "config"),
        ],
    )
    def test_a_wrong_field_is_named(self, tmp_path, old, new, where):
        from challenge.arena.terms import read_task_file

        path = tmp_path / "task.toml"
        path.write_text(task_text(5))
        read_task_file(path)
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new, 1))
        with pytest.raises(SpecError, match=where):
            read_task_file(path)

    def test_a_missing_file_is_named(self, tmp_path):
        from challenge.arena.terms import read_task_file

        with pytest.raises(CannotRun, match="cannot be read"):
            read_task_file(tmp_path / "none.toml")


def killed(*_):
    raise Killed


@pytest.mark.slow
def test_a_whole_task_line_by_line(shell):
    """Two trainers, two validators and a delegator, every line typed twice; afterwards all tokens are accounted for."""
    store = ("--store", shell.folder / "store")
    start = prepared(shell)
    shell.to(start)
    for who in (ALICE, BOB):
        folder = shell.folder / f"run-{who}"
        assert "is registered" in shell(who, "run", "register", 1, folder, *store, "--wait", 0, code=3)["error"]
        shell.chain.mine(3)
        shell.twice(who, "run", "register", 1, folder, *store, "--wait", 0)
        assert "you act as" in shell(VERA, "run", "train", folder, code=1)["error"]
        if who == ALICE:
            with pytest.raises(Killed), pytest.MonkeyPatch.context() as patch:
                patch.setattr(Journal, "remove", killed)
                shell(who, "run", "train", folder)
            assert (folder / "proof" / MANIFEST).exists() and (folder / "proof" / JOURNAL).exists()
            assert shell(who, "run", "train", folder)["transactions"] == []
            assert not (folder / "proof" / JOURNAL).exists()
        else:
            shell.twice(who, "run", "train", folder)
        assert "not there yet" in shell(who, "submit", "commit", folder, *store, "--wait", 0, code=3)["error"]
        shell.chain.mine(3)
        shell.twice(who, "submit", "commit", folder, *store)
        assert not (folder / "proof" / "watermark.key").exists()
    shell.to(shell.client.arena.round_times(1, 1).opens_at)
    for who in (ALICE, BOB):
        assert shell.twice(who, "submit", "reveal", 1)["stands"]
    for round_ in (1, 2, 3):
        times = shell.client.arena.round_times(1, round_)
        if round_ == 3:
            shell.to(times.opens_at)
            shell.twice(CREATOR, "task", "final", 1, "digits/final-validation", *store)
        shell.to(times.scores_from)
        for who in (VERA, VICTOR):
            answer = shell.twice(who, "score", "commit", 1, *store)
            assert answer["round"] == round_ and len(answer["scores"]) == 2 and min(answer["scores"]) > 1_000
        shell.to(times.reveal_from)
        for who in (VERA, VICTOR):
            shell.twice(who, "score", "reveal", 1)
        shell.to(times.settle_from)
        assert shell.twice(DORA, "score", "settle", 1)["settled_rounds"] == round_
    assert shell(ALICE, "claim", 1, code=3)["exit_code"] == 3
    shell.to(shell.client.arena.phase_times(1).closed_from)
    for who in (CREATOR, ALICE, BOB, VERA, VICTOR, DORA):
        shell(who, "claim", 1)
        assert shell(who, "claim", 1)["transactions"] == []
    status = shell(None, "status", 1, "--of", dev_account(ALICE).address)
    assert (status["phase"], status["settled_rounds"]) == ("closed", 3)
    purses = [shell(None, "status", "--of", dev_account(who).address)["tokens"] for who in range(6)]
    held = [Fraction(purse.replace(",", "")) for purse in purses]
    dust = 1_000_000 - 10 * 5_000 - sum(held)
    assert 0 <= dust < Fraction(100, 10**18), "what rounding leaves in the escrow"
    assert all(purse > 5_000 for purse in held[1:])


@pytest.mark.slow
def test_a_run_that_the_task_or_the_mark_forbids_pays_no_bond(shell):
    """Machine classes, bounds and base models as the task lists them, and a training too short for its mark."""
    store = ("--store", shell.folder / "store")
    shell(CREATOR, "deploy", "--purse", 5_000)
    file, abacus = shell.task_file(shell.chain.now() + 3_600), '["this", "0x' + "ab" * 32 + '"]'
    text = re.sub("steps = 240", "steps = 2", file.read_text()).replace("segment_length = 10", "segment_length = 1")
    text = text.replace("sampled = 4", "sampled = 2")
    text = text.replace('["this"]', abacus).replace("[config]", 'bases = ["seed", "0x' + "cd" * 32 + '"]\n[config]', 1)
    config = dict(re.findall(r"^(\w+) = (\S+)", text.partition("[config]")[2].partition("[clock]")[0], re.MULTILINE))
    bounds = {**config, "width": "[128, 512]", "learning_rate": "{ from = 1e-6, to = 1e-2 }"}
    file.write_text(text + "\n[bounds]\n" + "".join(f"{name} = {bound}\n" for name, bound in bounds.items()))
    assert "out of its bounds" in refused_with(shell, file, "width = 512", "width = 513", store)
    assert "is not in the list" in refused_with(shell, file, '"seed", "0x', '"0x', store)
    shell(CREATOR, "task", "create", file, *store)
    shell(ALICE, "stake", 1, "trainer", 1_000)
    spec = shell.folder / "run.toml"
    for width, what in ((513, "config: width is 513"), (128, "too strong for so short a training")):
        own = {**config, "width": width}
        lines = [f"{name} = {value}" for name, value in own.items()]
        top = text.partition("[config]")[0].splitlines()
        head = [row for row in top if re.match("program|batch_size|steps|segment_length", row)]
        spec.write_text("\n".join([*head, 'dataset = "digits/train"', "[config]", *lines]))
        line = ("run", "register", 1, shell.folder / f"run-{width}", *store, "--spec", spec, "--wait", 0)
        assert what in shell(ALICE, *line, code=1)["error"]
    assert "--unmarked" in shell(ALICE, *line, code=1)["error"] and not shell.client.arena.runs_of(1, me(ALICE))
    assert "is registered" in shell(ALICE, *line, "--unmarked", code=3)["error"]
    (run,) = shell.client.arena.runs_of(1, me(ALICE))
    shell.chain.mine(3)
    shell.to(shell.client.arena.task_config(1).clock.start)
    shell(ALICE, *line)
    trained = shell.twice(ALICE, "run", "train", shell.folder / "run-128", "--stop-after", 1)
    assert (trained["anchored"], shell.client.arena.run(run).stopped) == (1, 1), "ended early, and declared so"


def me(who):
    return dev_account(who).address


def refused_with(shell, file, old, new, store):
    """What is said of the task file after a change."""
    changed = shell.folder / "changed.toml"
    assert old in file.read_text()
    changed.write_text(file.read_text().replace(old, new, 1))
    return shell(CREATOR, "task", "create", changed, *store, code=1)["error"]


ARENA = [sys.executable, "-c", "from challenge.arena_cli import main; main()"]


@pytest.mark.slow
@pytest.mark.node
def test_a_local_chain_outlives_its_process(tmp_path, monkeypatch):
    """``arena up`` in a process of its own, and commands in others."""
    require_anvil()
    monkeypatch.setenv("ARENA_HOME", str(tmp_path / "home"))
    url = "http://127.0.0.1:18545"
    monkeypatch.setenv("ARENA_RPC_LOCAL", url)

    def arena(*words):
        done = subprocess.run([*ARENA, *words, "--json"], capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def up():
        process = subprocess.Popen([*ARENA, "up", "--port", "18545", "--state", str(tmp_path / "chain.json")])
        deadline = time.monotonic() + 60
        while not connect(url, {"timeout": 5}).is_connected():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.2)
        return process

    def down(process):
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0

    first = up()
    deployed = arena("deploy", "--account", "dev:0", "--purse", "100", "--yes")
    assert len(deployed["transactions"]) == 6 + 15
    down(first)
    second = up()
    assert arena("status")["arena"] == deployed["arena"]
    assert arena("deploy", "--account", "dev:0", "--purse", "100", "--yes") == {**deployed, "transactions": []}
    down(second)


def test_the_node_of_a_network_that_is_not_up_is_not_yet(monkeypatch, tmp_path):
    monkeypatch.setenv("ARENA_HOME", str(tmp_path))
    monkeypatch.setenv("ARENA_RPC_LOCAL", "http://127.0.0.1:9")
    done = CliRunner().invoke(app, ["status", "--json"])
    assert done.exit_code == 3 and json.loads(done.stdout)["exit_code"] == 3
