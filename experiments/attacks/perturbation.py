"""Weights moved blindly: shifted against their mean, or made noisy, then repaired by fine-tuning."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from experiments.attacks.attack import EVERY, Attack, Setting
from experiments.attacks.finetuning import SOK
from experiments.attacks.networks import State, loaded, matrices, state_of
from experiments.attacks.training import fit, own


def shifted(state: State, names: list[str], rng: torch.Generator, *, shift: float, noise: float) -> State:
    """Each named tensor less ``shift`` times its mean over outputs, with noise of ``noise`` times its deviation."""
    return state | {
        name: state[name]
        - shift * state[name].mean(0, keepdim=True)
        + noise * state[name].std() * torch.randn(state[name].shape, generator=rng)
        for name in names
    }


def weight_shift(
    victim: nn.Module, setting: Setting, rng: torch.Generator, *, shift: float, noise: float, epochs: int, rate: float
) -> nn.Module:
    """Weight shifting (SoK, section 4.3): all weight tensors but the last :func:`shifted`, then fine-tuning."""
    network = loaded(victim, shifted(state_of(victim), matrices(victim)[:-1], rng, shift=shift, noise=noise))
    return fit(network, own(network, setting), len(setting.inputs), setting, rng, epochs=epochs, rate=rate)


def noisy(victim: nn.Module, setting: Setting, rng: torch.Generator, *, noise: float) -> nn.Module:
    """Normal noise on every weight tensor, of ``noise`` times its standard deviation."""
    return loaded(victim, shifted(state_of(victim), matrices(victim), rng, shift=0.0, noise=noise))


_attack = partial(Attack, family="perturbation", kinds=EVERY)

ATTACKS = (
    *(
        _attack(
            number=7, name=f"weight-shift-{shift:g}", source=SOK,
            published={"shift": shift, "noise": 1.0, "epochs": 10},
            run={"shift": shift, "noise": 1.0, "epochs": 10, "rate": 1.0}, action=weight_shift,
        )
        for shift in (1.5, 2.5)
    ),
    *(
        _attack(
            number=7, name=f"weight-noise-{noise:g}", source="Chen et al., AsiaCCS 2021", published={},
            run={"noise": noise}, action=noisy,
        )
        for noise in (0.5, 1.0)
    ),
)  # fmt: skip
