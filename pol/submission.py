"""The models that a run submits: each a branch off its trunk, with the run's one watermark in it. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from pol.cid import parse_cid
from pol.encoding import Json, fields, from_hex, integer, to_hex
from pol.errors import ProofError

MAX_EARLIER = 128
"""Rows of ``earlier`` in a manifest: twice the rounds that a task has at most, as some models are never shown."""

_BRANCH = ("model_digest", "model_cid", "reference_segment")


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """A submitted model, and the segment at whose end it branched off the trunk.

    ``beta`` is the run's second beacon (32 bytes, latched at ``beta_block``), or None where no watermark was embedded:
    then the model must be the trunk's own at that boundary.
    """

    model_digest: bytes
    model_cid: str
    reference_segment: int
    beta: bytes | None = None
    beta_block: int = 0

    def to_json(self) -> dict[str, Json]:
        """The object stored in the manifest as ``submission``."""
        beta = None if self.beta is None else to_hex(self.beta)
        return {**self.branch_to_json(), "beta": beta, "beta_block": self.beta_block}

    def branch_to_json(self) -> dict[str, Json]:
        """The object stored in the manifest as a row of ``earlier``: the beacon is that of ``submission``."""
        return {
            "model_digest": to_hex(self.model_digest),
            "model_cid": self.model_cid,
            "reference_segment": self.reference_segment,
        }


def parse_submission(value: Json, *, where: str) -> Submission | None:
    """Strict inverse of :meth:`Submission.to_json`, None for null; raises :class:`ProofError`."""
    if value is None:
        return None
    row = fields(value, {*_BRANCH, "beta", "beta_block"}, where=where)
    beta = None if row["beta"] is None else from_hex(row["beta"], where=f"{where}.beta")
    block = integer(row["beta_block"], where=f"{where}.beta_block")
    return replace(_branch(row, where=where), beta=beta, beta_block=block)


def parse_earlier(value: Json, submission: Submission | None, *, where: str) -> tuple[Submission, ...]:
    """The submissions before ``submission``, with its beacon, as in the manifest; raises :class:`ProofError`.

    There is at least one: a manifest without any leaves the field out.
    """
    if not isinstance(value, list) or not 1 <= len(value) <= MAX_EARLIER:
        raise ProofError(f"{where}: expected a list of 1 to {MAX_EARLIER} submissions")
    if submission is None:
        raise ProofError(f"{where}: earlier submissions, but none that they are earlier than")
    rows = [fields(item, set(_BRANCH), where=f"{where}[{number}]") for number, item in enumerate(value)]
    branches = [_branch(row, where=f"{where}[{number}]") for number, row in enumerate(rows)]
    return tuple(replace(branch, beta=submission.beta, beta_block=submission.beta_block) for branch in branches)


def check_order(submissions: Sequence[Submission]) -> None:
    """:class:`ProofError` unless these can be the submissions of one run: those that were earlier, and the last.

    The earlier ones ascend, none branches off before the first (which theta_ref is at or before, the state that was
    anchored before the run's only beacon was drawn), and a model is submitted once.
    """
    branches = [mark.reference_segment for mark in submissions]
    if branches[:-1] != sorted(branches[:-1]) or branches[-1:] < branches[:1]:
        raise ProofError(f"earlier submissions must ascend, and none branch off before the first: {str(branches)[:80]}")
    if len({(mark.beta, mark.beta_block) for mark in submissions}) > 1:
        raise ProofError("the submissions of a run have one watermark beacon")
    if len({mark.model_digest for mark in submissions}) < len(submissions):
        raise ProofError("two submissions are of one model")


def _branch(row: Mapping[str, Json], *, where: str) -> Submission:
    return Submission(
        model_digest=from_hex(row["model_digest"], where=f"{where}.model_digest"),
        model_cid=parse_cid(row["model_cid"], where=f"{where}.model_cid"),
        reference_segment=integer(row["reference_segment"], where=f"{where}.reference_segment"),
    )
