#!/usr/bin/env python3
"""Solve one query of halmos: ``prove.py FILE.smt2``, in the environment that `make halmos` makes.

Yices works bit by bit and is quick where a path cannot be taken; cvc5 works with integers, where an inequality of
products and quotients has a short proof. What it simplifies first hides some of these proofs, and shows others: it
tries both. Prints the answer, which is what halmos expects of its --solver-command.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cvc5

SECONDS = 20


def answer(command: list[str]) -> str:
    """What a solver says within its time; empty if it does not get there."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        return ""
    return done.stdout if done.stdout.startswith(("sat", "unsat")) else ""


def with_integers(path: str, simplification: str) -> str:
    """What cvc5 says, however long it takes."""
    solver = cvc5.Solver()
    solver.setOption("solve-bv-as-int", "sum")
    solver.setOption("produce-models", "true")
    solver.setOption("simplification", simplification)
    parser = cvc5.InputParser(solver)
    parser.setFileInput(cvc5.InputLanguage.SMT_LIB_2_6, path)
    symbols, said = parser.getSymbolManager(), ""
    while not (command := parser.nextCommand()).isNull():
        said += command.invoke(solver, symbols)
    return said


def solve(path: str) -> str:
    """The first answer; the last attempt takes as long as halmos lets it."""
    yices = str(Path(sys.executable).with_name("yices-smt2"))
    unsimplified = [sys.executable, __file__, path, "none"]
    return answer([yices, path]) or answer(unsimplified) or with_integers(path, "batch")


if __name__ == "__main__":
    print(with_integers(*sys.argv[1:]) if len(sys.argv) > 2 else solve(sys.argv[1]))
