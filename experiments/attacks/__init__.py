"""What thieves do to stolen models, and accusers to innocent ones: a library of attacks, usable on any model.

``ATTACKS[name].apply(victim, setting, rng)`` gives the stolen model, and ``weights_of`` its state dict. One module a
family; the numbers are those of the suite in ``docs/watermark-results.md``. Published parameters stand beside those
that are run, and ``table`` gives both. Everything is written from the papers' descriptions. Attacks on the null
hypothesis are in ``accusers``: they take no model but make a claim, and have a registry of their own, ``ACCUSERS``.
"""

from __future__ import annotations

from collections.abc import Iterable

from experiments.attacks import (
    combined,
    disclosure,
    extraction,
    finetuning,
    inputs,
    merging,
    overwriting,
    perturbation,
    pruning,
    quantisation,
    symmetry,
    unlearning,
)
from experiments.attacks.accusers import ACCUSERS, Accuser
from experiments.attacks.attack import Attack, Kind, Setting, Value
from experiments.attacks.networks import weights_of

__all__ = ["ACCUSERS", "ATTACKS", "Attack", "Kind", "Setting", "table", "weights_of"]

FAMILIES = (
    finetuning,
    unlearning,
    pruning,
    quantisation,
    perturbation,
    symmetry,
    overwriting,
    extraction,
    merging,
    disclosure,
    inputs,
    combined,
)
ATTACKS: dict[str, Attack] = {attack.name: attack for family in FAMILIES for attack in family.ATTACKS}
"""Every attack on a model by its name, in the order of the families."""


def table() -> list[dict[str, str]]:
    """One row an attack, of text: number, name, family, source, published and run parameters, kinds of model.

    After the attacks on models the accusers, whose row says which channel they use.
    """
    rows: list[tuple[Attack | Accuser, str, str]] = [
        (attack, attack.family, ", ".join(attack.kinds))
        for attack in sorted(ATTACKS.values(), key=lambda attack: attack.number)
    ]
    rows += [(accuser, "accusers", accuser.channel) for accuser in ACCUSERS.values()]
    return [
        {
            "number": str(attack.number),
            "attack": attack.name,
            "family": family,
            "source": attack.source,
            "published": _text(attack.published.items()),
            "run": _text(attack.run.items()),
            "models": models,
        }
        for attack, family, models in rows
    ]


def _text(parameters: Iterable[tuple[str, Value]]) -> str:
    return ", ".join(f"{name} {_value(value)}" for name, value in parameters) or "—"


def _value(value: Value) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
