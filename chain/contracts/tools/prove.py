#!/usr/bin/env python3
"""Solve one query of halmos: ``prove.py FILE.smt2``, in the environment that `make halmos` makes.

Yices works bit by bit and is quick where a path cannot be taken; cvc5 works with integers, where an inequality of
products and quotients has a short proof. Prints the answer, which is what halmos expects of its --solver-command.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cvc5

BITWISE_SECONDS = 20


def bitwise(path: str) -> str:
    """What yices says within its time; empty if it does not get there."""
    yices = Path(sys.executable).with_name("yices-smt2")
    try:
        done = subprocess.run([yices, path], capture_output=True, text=True, check=False, timeout=BITWISE_SECONDS)
    except subprocess.TimeoutExpired:
        return ""
    return done.stdout if done.stdout.startswith(("sat", "unsat")) else ""


def with_integers(path: str) -> str:
    """What cvc5 says, however long it takes: halmos ends it."""
    solver = cvc5.Solver()
    solver.setOption("solve-bv-as-int", "sum")
    solver.setOption("produce-models", "true")
    parser = cvc5.InputParser(solver)
    parser.setFileInput(cvc5.InputLanguage.SMT_LIB_2_6, path)
    symbols, said = parser.getSymbolManager(), ""
    while not (command := parser.nextCommand()).isNull():
        said += command.invoke(solver, symbols)
    return said


if __name__ == "__main__":
    print(bitwise(sys.argv[1]) or with_integers(sys.argv[1]))
