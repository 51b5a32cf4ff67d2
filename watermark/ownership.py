"""The two-claims rule: two parties whose marks may be in each other's models, and whose model it is.

Whoever takes a marked model and adds a mark of his own has both in his model; the model he took it from has one. So
each key is tried on the other party's committed model (a 2 x 2 table), and time decides nothing that the table does
not: the earlier commitment wins only if its own model lacks the later one's mark.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from watermark.claim import Claim
from watermark.detect import Court, detect
from watermark.evidence import Evidence
from watermark.weights.arrays import State


@dataclass(frozen=True, eq=False)
class Party:
    """A claimant: its claim, and the model it committed."""

    claim: Claim
    model: State


class Owner(Enum):
    """Whose model it is. ``NOBODY``: neither mark is in the other's model. ``UNDECIDED``: each is in the other's."""

    EARLIER = "earlier"
    LATER = "later"
    NOBODY = "nobody"
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True)
class Ownership:
    """The table: ``of_earlier`` is the evidence of the earlier party's mark in (its own, the later's) model."""

    of_earlier: tuple[Evidence, Evidence]
    of_later: tuple[Evidence, Evidence]

    @property
    def owner(self) -> Owner:
        """Who is owned by whom, by the two entries off the diagonal.

        A party whose mark is not even in its own model claims nothing.
        """
        taken_by_later = self.of_earlier[0].accepted and self.of_earlier[1].accepted
        taken_by_earlier = self.of_later[1].accepted and self.of_later[0].accepted
        if taken_by_later and taken_by_earlier:
            return Owner.UNDECIDED
        if taken_by_later:
            return Owner.EARLIER
        return Owner.LATER if taken_by_earlier else Owner.NOBODY


def compare(earlier: Party, later: Party, *, suspects: int = 1, court: Court | None = None) -> Ownership:
    """Try both claims on both models; ``earlier`` made its final commitment first, which the chain says.

    The p-values count both claims and both models, times ``suspects``. ``court`` is what the judge brings to the test
    (:func:`watermark.detect.detect`). Raises :class:`pol.errors.ProofError` for a
    malformed claim.
    """
    claims = [earlier.claim, later.claim]
    of_earliers, of_laters = (
        detect(party.model, claims, suspects=2 * suspects, court=court) for party in (earlier, later)
    )
    return Ownership((of_earliers[0], of_laters[0]), (of_earliers[1], of_laters[1]))
