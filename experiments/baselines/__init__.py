"""Published schemes beside ours, written from their papers: what they find, and whom they accuse."""

from __future__ import annotations

from typing import Final

from experiments.baselines.adi import Adi
from experiments.baselines.inference import DatasetInference
from experiments.baselines.scheme import Scheme
from experiments.baselines.similarity import LinearCKA, ParameterCosine
from experiments.baselines.uchida import Uchida

EMBEDDED: Final[dict[str, Scheme]] = {"uchida": Uchida(), "adi": Adi()}
"""Schemes that release a marked model of their own."""

UNMARKED: Final[dict[str, Scheme]] = {
    "cosine": ParameterCosine(),
    "cka": LinearCKA(),
    "dataset-inference": DatasetInference(),
}
"""Schemes that embed nothing, and so can look at the same suspects as ours."""
