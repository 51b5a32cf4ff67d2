"""Our channels as schemes, so that they meet the same thieves and innocents as the baselines.

A channel also answers for its null hypothesis: ``Channel.null`` counts the matches of many keys on one innocent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from torch import nn

from experiments.baselines.scheme import Owner
from experiments.stolen_model.channels.outputs import Outputs
from experiments.stolen_model.channels.shared import Channel, Coins, beta_of, secret
from experiments.stolen_model.channels.triggers import Triggers
from experiments.stolen_model.channels.weights import Weights

__all__ = ["CHANNELS", "Channel", "Coins", "Triggers", "Weights", "beta_of", "channels_of", "release", "secret"]

CHANNELS: Final[Mapping[str, type[Triggers | Outputs | Weights]]] = {
    "triggers": Triggers,
    "outputs": Outputs,
    "weights": Weights,
}
"""In the order in which they are embedded: what trains the model comes before what edits it."""


def channels_of(settings: Mapping[str, Mapping[str, Any]]) -> dict[str, Channel]:
    """The channels of a workload, from its tables in config.toml, in the order of embedding."""
    return {name: make(**settings[name]) for name, make in CHANNELS.items() if name in settings}


def release(owner: Owner, channels: Mapping[str, Channel], *, strength: float = 1.0) -> nn.Module:
    """The owner's model with the mark of every channel."""
    model = owner.model
    for channel in channels.values():
        model = channel.at(strength).mark(owner, model)
    return model
