"""The process behind :mod:`pol.rehearsal`: a job a line on standard input, its exit status a line on standard output.

This interpreter imports and opens data, and never trains: every job runs in a child forked from it
(:mod:`pol.rehearsal_program`), which loads the program itself and leaves what it finds in files of the job's folder.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from pol.confine import Limits, confine, die_with_parent
from pol.data import Samples
from pol.errors import CannotRun
from pol.machine import make_deterministic
from pol.rehearsal_program import Child, Stop, said
from pol.sources import open_data
from pol.spec import TrainingSpec

UNLIMITED = 2**60  # what a program takes is not what is examined


class Interpreter:
    """What the jobs of one process share: imports and opened data."""

    def __init__(self) -> None:
        make_deterministic(1)  # one thread: no pool may exist that a fork would tear
        self._opened: dict[tuple[str, str | None, bytes], Samples] = {}

    def run(self, job: dict[str, Any]) -> int:
        """Do ``job`` in a child; returns the status it ended with."""
        try:
            spec = TrainingSpec.from_json(job["spec"])
            samples = self._samples(spec, job["data"])
        except Exception as error:
            _write_error(job, error)
            return 0
        child = os.fork()
        if child:
            return os.waitpid(child, 0)[1]
        die_with_parent()
        os.dup2(os.open(os.devnull, os.O_RDONLY), sys.stdin.fileno())  # the next jobs are not the program's to read
        _do(job, samples, spec)
        os._exit(0)

    def _samples(self, spec: TrainingSpec, data: str | None) -> Samples:
        key = (spec.dataset, data, spec.dataset_root)
        if key not in self._opened:
            samples = open_data(spec.dataset, Path(data) if data else None)
            if samples.root != spec.dataset_root:
                raise CannotRun(f"the data set {spec.dataset!r} changed while it was being used")
            self._opened[key] = samples
        return self._opened[key]


def _do(job: dict[str, Any], samples: Samples, spec: TrainingSpec) -> None:
    """The child: whatever happens, it leaves rows and no traceback."""
    child = Child(job, samples, spec)
    if job["confined"]:
        os.chdir(child.folder)
        os.environ["TMPDIR"] = tempfile.tempdir = job["folder"]
        confine(Limits(memory=UNLIMITED, file_size=UNLIMITED), child.folder, device=job["device"].split(":")[0])
    try:
        child.run()
    except Stop:
        pass
    except BaseException as error:  # a program may raise SystemExit
        child.write("error", message=said(error))
    finally:
        child.rows.close()
        child.trace.close()


def _write_error(job: dict[str, Any], error: Exception) -> None:
    (Path(job["folder"]) / "rows").write_text(json.dumps({"row": "error", "message": said(error)}) + "\n")


def main() -> None:
    """Do jobs until there are no more."""
    out = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # a program that prints must not be able to answer
    interpreter = Interpreter()
    for line in sys.stdin:
        print(interpreter.run(json.loads(line)), file=out, flush=True)


if __name__ == "__main__":
    main()
