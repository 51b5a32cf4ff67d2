"""Sponsors, a fund of daily emission, bonds and deposits that burn: each line typed twice, on made-up submissions."""

import pytest

from chain.types import Bond, tokens
from challenge.arena import rewards
from tests.chain.play import World
from tests.challenge.arena_shell import Shell

CREATOR, ALICE, BOB, VERA, SPONSOR = 0, 1, 2, 5, 7
DAY = 86_400


@pytest.fixture
def shell(tmp_path, monkeypatch):
    return Shell(tmp_path, monkeypatch)


@pytest.fixture
def task(shell, monkeypatch):
    """A task of two rounds of three days, with its stakes, before it starts."""
    world = World(shell.chain)
    monkeypatch.setenv("ARENA_ADDRESS", world.deployment.arena)
    task = world.task(round_length=3 * DAY)
    for who in (ALICE, BOB):
        task.trainer(who, tokens(1_000))
    task.validator(VERA, tokens(1_000))
    return task


def fund_file(shell, epoch, **changes):
    terms = {
        "first_amount": '"90"', "epoch": epoch, "decay": '"1"', "period": 1, "beta": '"1"', "least_stake": '"1"',
        "least_deposit": '"0"',
    }  # fmt: skip
    path = shell.folder / "fund.toml"
    path.write_text("".join(f"{name} = {value}\n" for name, value in {**terms, **changes}.items()))
    return path


def test_a_sponsor_gives_what_it_said_however_often_it_is_said(shell, task):
    line = ("sponsor", task.id, 2)
    assert shell.twice(SPONSOR, *line, "0.5")["sponsored"] == "0.5"
    assert shell.twice(SPONSOR, *line, 3)["sponsored"] == "3"
    assert shell.twice(BOB, *line, 1)["sponsored"] == "4"
    assert "does not come back" in shell(SPONSOR, *line, 2, code=1)["error"]
    assert task.reader.escrow.sponsored(task.id, 2) == tokens(4)
    task.to(task.reader.arena.round_times(task.id, 2).settle_from)
    assert "TooLate" in shell(SPONSOR, *line, 5, code=1)["error"]


@pytest.mark.slow
def test_a_fund_pays_what_it_promised_and_nothing_twice(shell, task, monkeypatch):
    monkeypatch.setattr(rewards, "DAYS_A_POKE", 2)
    start = task.config.clock.start
    file = fund_file(shell, epoch=start - DAY // 2)
    deployed = shell.twice(CREATOR, "emission", "deploy", file)
    fund = deployed["fund"]
    assert shell(CREATOR, "emission", "deploy", fund_file(shell, start, period=2))["fund"] != fund
    assert shell.twice(SPONSOR, "emission", "fill", fund, 1_000)["holds"] == "1,000"
    assert shell(ALICE, "emission", "enlist", fund, task.id, code=3)["exit_code"] == 3
    assert not shell(None, "emission", "status", fund, task.id)["enlisted"]
    task.to(start)
    assert shell.twice(ALICE, "emission", "enlist", fund, task.id)["first_day"] == 1
    assert shell(ALICE, "emission", "pay", fund, task.id, code=3)["exit_code"] == 3
    task.to(task.reader.arena.round_times(task.id, 1).opens_at)
    paid = shell.twice(BOB, "emission", "pay", fund, task.id)["paid"]
    assert list(paid) == ["1"] and 179 < float(paid["1"]) <= 180, "two whole days of 90"
    assert task.reader.escrow.sponsored(task.id, 1) == pytest.approx(tokens(180), abs=1)
    status = shell(None, "emission", "status", fund, task.id)
    assert (status["enlisted"], status["days_known"]) == (True, 3) and status["holds"].startswith("820")


def test_no_fund_is_at_another_address(shell, task):
    assert "no fund" in shell(ALICE, "emission", "enlist", task.world.deployment.arena, task.id, code=1)["error"]
    assert "more" in shell(CREATOR, "emission", "deploy", fund_file(shell, 5, more=1), code=1)["error"]


@pytest.mark.slow
def test_what_came_to_nothing_burns_and_what_may_come_to_something_does_not(shell, task):
    task.to_submission()
    used, unused = task.submit(task.world.clients[ALICE]), task.register(task.world.clients[BOB])
    assert "RunAlive" in shell(VERA, "run", "void", unused.run_id, code=1)["error"]
    task.to_round_end(1)
    task.reveal(task.world.clients[ALICE], used)
    task.to_challenging()
    assert shell.twice(VERA, "run", "void", unused.run_id)["bond"] == "burned"
    assert "RunAlive" in shell(VERA, "run", "void", used.run_id, code=1)["error"]
    assert shell(VERA, "task", "burn", task.id, code=3)["exit_code"] == 3
    task.to_closed()
    supply = task.reader.token.total_supply()
    assert shell.twice(VERA, "task", "burn", task.id)["burned"] == "100"
    assert task.reader.token.total_supply() == supply - tokens(100)
    shell(ALICE, "claim", task.id)
    assert task.reader.arena.run(used.run_id).bond is Bond.RETURNED
    assert "went back" in shell(VERA, "run", "void", used.run_id, code=1)["error"]
