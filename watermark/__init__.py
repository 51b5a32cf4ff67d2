"""Address-keyed watermarks with an exact null hypothesis.

The order of events is what makes a match a proof:

1. ``WatermarkKey.generate`` draws secret leaves; ``key.root`` and ``MarkParameters.digest`` are published before
   training ends.
2. The trunk state theta_ref is anchored. Only then the beacon beta is drawn, so nobody could choose the bits.
3. ``mark_run`` makes the model to submit for a recorded run: ``embed`` writes one bit a leaf into its group's own rows
   of the carrier tensors, at the least change in the L2 norm.
   ``verify_embedding`` replays opened groups bit for bit while the others stay secret.
4. When all submissions are frozen, a further beacon names the groups that an accuser opens (``opening_groups``). The
   opened leaves make a ``Claim``; ``detect`` aligns each suspect to theta_ref and counts the bits that agree.

For a model made without knowledge of the bits the count is exactly Bin(M, 1/2), whatever its weights are and whatever
the alignment does, because the bits are coin flips that neither saw. ``Evidence`` holds the exact tail. A mark is in
the weights: a model distilled from a marked one, with weights of its own, does not carry it.

Rooms: ``key`` with ``keyfile`` and ``sealing`` (secrets), ``parameters`` (what the spec promises), ``mark``,
``branch`` and ``branch_replay`` (the trainer's side), ``bits``, ``evidence`` (exact tails), ``claim``, ``detect`` and
``ownership`` (the accuser's and the judge's). The channels: ``weights`` (with a layout for each architecture),
``triggers``, ``outputs``.
"""

from pathlib import Path

from watermark._namesake import PROJECT as PROJECT
from watermark._namesake import warn_if_mixed
from watermark.branch_replay import mark_run
from watermark.claim import Claim, opening_groups
from watermark.detect import detect
from watermark.evidence import Evidence
from watermark.key import LeafOpening, WatermarkKey
from watermark.mark import embed, suggested_parameters
from watermark.parameters import DEFAULT_PARAMETERS, MarkParameters, mlp_mark
from watermark.weights.arrays import State
from watermark.weights.embed import embed_group, verify_embedding

__all__ = [
    "DEFAULT_PARAMETERS",
    "Claim",
    "Evidence",
    "LeafOpening",
    "MarkParameters",
    "State",
    "WatermarkKey",
    "detect",
    "embed",
    "embed_group",
    "mark_run",
    "mlp_mark",
    "opening_groups",
    "suggested_parameters",
    "verify_embedding",
]

warn_if_mixed(Path(__file__).parent)
