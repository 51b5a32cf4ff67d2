"""One person of the story of many processes, as a process of its own: types commands, and may be killed at any time.

``python person.py FOLDER``: the folder has ``script.json``, rows of an act's number and a command line. A line is typed
once its act has begun (``act`` beside the folder says which has), again and again while the command says "not yet";
``done`` counts the lines that ended well. Whoever is started again goes on at the line that was being typed: that half
of it may have happened is the command's affair. The process ends after the last line, or with a failed one's code.
"""

import json
import subprocess
import sys
import time
from pathlib import Path

NOT_YET = 3
PAUSE_S = 0.2


def main(folder):
    script = json.loads((folder / "script.json").read_text())
    for line in range(number(folder / "done"), len(script)):
        act, words = script[line]
        while number(folder.parent / "act") < act:
            time.sleep(PAUSE_S)
        if code := typed(folder, words):
            return code
        keep(folder / "done", line + 1)
    return 0


def typed(folder, words):
    """The exit code of the command, typed until it is anything but "not yet"."""
    while True:
        with (folder / "output").open("ab") as output:
            output.write(f"\n$ {' '.join(words)}\n".encode())
            output.flush()
            done = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=output, stderr=output, check=False)
        if done.returncode != NOT_YET:
            return done.returncode
        time.sleep(5 * PAUSE_S)


def number(path):
    return int(path.read_text()) if path.exists() else 0


def keep(path, value):
    """Write a number, whole or not at all."""
    new = path.with_suffix(".new")
    new.write_text(str(value))
    new.replace(path)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
