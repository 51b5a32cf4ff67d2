"""Errors of the proof-of-learning package, split by who is at fault.

Every message says what is wrong, where, and what to do next. A finding about a proof (a segment that does not
replay) is not an exception: it is a result of verification.
"""

from __future__ import annotations


class PolError(Exception):
    """Base of every error this package raises on purpose."""


class SpecError(PolError):
    """The training spec or its configuration is wrong: the author of the spec must change it."""


class RecordingError(PolError):
    """The training run broke its own promise, so no valid proof can come of it: the trainer must act."""


class ProofError(PolError):
    """The artefact is malformed or a commitment in it does not hold. Treated as an attack (exit code 10)."""


class CannotRun(PolError):
    """This machine could not do what was asked (missing file, missing extra, failed process): try again here."""


class Unreachable(CannotRun):
    """A service that this machine needs (a chain's node, a blob store) does not answer: try again later."""
