"""A thief registers the task's own program digest and data root under names that no juror can find.

If names decided what is run, every juror's verification would end in "cannot run", nobody would vote, and the case
would be inconclusive. Digest and root decide instead.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from challenge.segments import Policy
from challenge.verdict import Outcome
from pol import Proof
from tests.attacks.forging import copied, edit_proof
from tests.attacks.judging import judged
from tests.attacks.ring import sign


@pytest.mark.parametrize(
    "names",
    [
        {"program": "nowhere:ImageClassifier"},
        {"program": "pol.programs.convnet:ConvNetClassifier"},
        {"dataset": "nowhere"},
        {"dataset": "digits/final-validation"},
    ],
    ids=str,
)
def test_names_do_not_keep_a_juror_from_judging(ring, alices_run, tmp_path, names) -> None:
    folder = copied(alices_run, tmp_path / "proof")
    with ring.world.wound_back():
        spec = replace(ring.spec(ring.mallory), **names)
        source, anchorer = ring.register(ring.mallory, spec), ring.anchorer(ring.mallory)
        edit_proof(folder, lambda proof: replace(proof, spec=spec, seed_source=source))
        anchors = tuple(anchorer.anchor(a.first, a.count, a.root) for a in Proof.read(folder).anchors)
        sign(folder, ring.mallory, anchors=anchors)
        verdict = judged(folder, Policy(segments=[0, 1]), chain=ring.world.reader)
        assert verdict.outcome is Outcome.REJECTED
