"""A company of people, each a process (:mod:`tests.e2e.person`), on one node; at random they are killed and go on."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from random import Random

from chain.accounts import dev_account
from tests.e2e import person

ROOT = Path(__file__).parents[2]
LONGEST_ACT_S = 1_200
BETWEEN_KILLS_S = (0.3, 4.0)
KILLS_OF_ONE = 2  # an act, so that it ends however the dice fall


class Company:
    """People by name, who act as development accounts in that order. ``script`` has a row of lines for everybody:
    an act's number and a command line."""

    def __init__(self, folder, node, arena, script, seed):
        self.folder, self.node, self.arena, self.pick = folder, node, arena, Random(seed)
        self.names, self.script = list(script), script
        self.processes, self.kills = {}, dict.fromkeys(script, 0)
        for name, lines in script.items():
            (folder / name).mkdir(parents=True)
            (folder / name / "script.json").write_text(json.dumps(lines))
            self.start(name)

    def address(self, name):
        return dev_account(self.names.index(name)).address

    def start(self, name):
        """Start somebody's process, the leader of a group to which everything belongs that it starts."""
        command = [sys.executable, person.__file__, str(self.folder / name)]
        environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "ARENA_HOME": str(self.folder / name / "home"),
            "ARENA_NETWORK": "local",
            "ARENA_RPC_LOCAL": self.node.url,
            "ARENA_ADDRESS": self.arena,
            "ARENA_ACCOUNT": f"dev:{self.names.index(name)}",
            "AIARENA_KEY_PASSPHRASE": f"the passphrase of {name}",
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
        }
        self.processes[name] = subprocess.Popen(command, env=environment, cwd=ROOT, start_new_session=True)

    def kill(self, name):
        """End somebody's process and the command it was typing, at once."""
        process = self.processes[name]
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def play(self, act):
        """Begin an act and return when everybody has typed its lines, however often they are killed in it."""
        person.keep(self.folder / "act", act)
        deadline, next_kill, spared = time.monotonic() + LONGEST_ACT_S, self.soon(), dict.fromkeys(self.names, 0)
        while busy := [name for name in self.names if not self.is_through(name, act)]:
            self.check(busy)
            assert time.monotonic() < deadline, f"act {act} does not end: {busy} are still at it\n{self.tail(busy[0])}"
            victims = [name for name in busy if spared[name] < KILLS_OF_ONE]
            if victims and time.monotonic() > next_kill:
                victim, next_kill = self.pick.choice(victims), self.soon()
                self.kill(victim)
                self.start(victim)
                self.kills[victim] += 1
                spared[victim] += 1
            time.sleep(0.1)

    def soon(self):
        return time.monotonic() + self.pick.uniform(*BETWEEN_KILLS_S)

    def is_through(self, name, act):
        return person.number(self.folder / name / "done") >= sum(line[0] <= act for line in self.script[name])

    def check(self, names):
        """Nobody's command failed."""
        for name in names:
            code = self.processes[name].poll()
            assert not code, f"a command of {name} ended with {code}\n{self.tail(name)}"

    def tail(self, name):
        """The end of what somebody's commands said."""
        output = self.folder / name / "output"
        return "\n".join(output.read_text(errors="replace").splitlines()[-40:]) if output.exists() else ""

    def disperse(self):
        """End all that is left of it."""
        for process in self.processes.values():
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
