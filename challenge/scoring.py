"""Scores of submitted models, as validators commit them: integer basis points."""

from __future__ import annotations

from collections.abc import Mapping

from pol.data import Dataset
from pol.encoding import Json
from pol.errors import PolError
from pol.program import load_program
from pol.state import from_safetensors
from pol.tensors import check_values, tensors_digest

FULL_SCORE = 10_000


def score_model(
    blob: bytes,
    promised_digest: bytes,
    *,
    program: str,
    program_digest: bytes,
    config: Mapping[str, Json],
    dataset: Dataset,
    trusted: frozenset[bytes] = frozenset(),
) -> int:
    """The score of a revealed model in [0, 10000]; 0 for a model that is not what was promised or does not run.

    ``blob`` are the published weights (safetensors) and ``promised_digest`` the digest revealed on chain. The program
    itself must be allowed here: :class:`pol.errors.CannotRun` otherwise, for that is not the trainer's fault.
    """
    runner = load_program(program, program_digest, trusted=trusted)
    try:
        model = from_safetensors(blob, where="submitted model")
        check_values(model, where="submitted model")
        if tensors_digest(model) != promised_digest:
            return 0
        score = runner.evaluate(model, config, dataset)
    except PolError:
        return 0
    return round(FULL_SCORE * score) if 0 <= score <= 1 else 0
