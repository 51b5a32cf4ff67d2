"""Triggers guessed and unlearnt: the thief looks for inputs that a model answers too surely, and trains them away."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from experiments.attacks.attack import CLASSIFIERS, Attack, Setting
from experiments.attacks.finetuning import SOK, perturbed
from experiments.attacks.networks import batches, copied, loaded, outputs_of, query, state_of
from experiments.attacks.pruning import activity, last_units, without
from experiments.attacks.training import Loss, fit, own

REVERSE_RATE = 0.1


def reversed_trigger(
    network: nn.Module, setting: Setting, rng: torch.Generator, *, label: int, weight: float, epochs: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The smallest (mask, pattern), each of an input's shape, that turns the thief's inputs into ``label``.

    Wang et al. 2019 (Neural Cleanse), equations 2 and 3: cross-entropy and ``weight`` times the mask's L1 norm.
    """
    network.eval()
    shape = setting.inputs.shape[1:]
    raw_mask = (torch.zeros(shape) - 2).requires_grad_()
    raw_pattern = torch.zeros(shape).requires_grad_()
    optimizer = torch.optim.Adam([raw_mask, raw_pattern], lr=REVERSE_RATE)
    for _ in range(max(1, round(epochs * setting.effort))):
        for rows in batches(torch.randperm(len(setting.inputs), generator=rng), setting.batch):
            mask, pattern = raw_mask.sigmoid(), raw_pattern.sigmoid()
            outputs = outputs_of(network, stamped(setting.inputs[rows], mask, pattern))
            loss = setting.loss(outputs, torch.full((len(rows),), label)) + weight * mask.sum()
            raw_mask.grad, raw_pattern.grad = torch.autograd.grad(loss, [raw_mask, raw_pattern])
            optimizer.step()
    return raw_mask.detach().sigmoid(), raw_pattern.detach().sigmoid()


def stamped(inputs: torch.Tensor, mask: torch.Tensor, pattern: torch.Tensor) -> torch.Tensor:
    """``inputs`` with the pattern laid over them where the mask says so."""
    return (1 - mask) * inputs + mask * pattern


def cleansed(
    victim: nn.Module, setting: Setting, rng: torch.Generator,
    *, weight: float, extract: int, epochs: int, share: float, prune: float, rate: float,
) -> nn.Module:  # fmt: skip
    """Neural Cleanse: the class whose reversed trigger is smallest is cleaned of it, then the model is fine-tuned.

    ``prune`` of the last hidden units, those that the trigger wakes most, are cut (0: none); ``share`` of every batch
    bears the trigger, with its true labels.
    """
    found = [
        reversed_trigger(victim, setting, rng, label=label, weight=weight, epochs=extract)
        for label in range(query(victim, setting.inputs[:1]).shape[-1])
    ]
    trigger = min(found, key=lambda pair: float(pair[0].sum()))
    network = _without_woken(victim, setting, [trigger], prune)
    loss = _stamping(network, setting, [trigger], share, rng)
    return fit(network, loss, len(setting.inputs), setting, rng, epochs=epochs, rate=rate)


def laundered(
    victim: nn.Module, setting: Setting, rng: torch.Generator,
    *, weight: float, extract: int, epochs: int, prune: float, rate: float,
) -> nn.Module:  # fmt: skip
    """Neural laundering (Aiken et al. 2021, section 3): the same for every class at once, and half of every batch."""
    found = [
        reversed_trigger(victim, setting, rng, label=label, weight=weight, epochs=extract)
        for label in range(query(victim, setting.inputs[:1]).shape[-1])
    ]
    network = _without_woken(victim, setting, found, prune)
    loss = _stamping(network, setting, found, 0.5, rng)
    return fit(network, loss, len(setting.inputs), setting, rng, epochs=epochs, rate=rate)


def reshaped(
    victim: nn.Module,
    setting: Setting,
    rng: torch.Generator,
    *,
    reach: float,
    iterations: int,
    epochs: int,
    rate: float,
) -> nn.Module:
    """WRK in its idea (Xiao et al. 2025): break the boundaries that a trigger's artefact draws around the task.

    Inputs are pushed over the nearest boundaries and relabelled at random among the wrong classes that they reach,
    together with the task itself; then the task alone repairs what was broken.
    """
    network = copied(victim)
    task, classes = own(network, setting), query(victim, setting.inputs[:1]).shape[-1]

    def loss(rows: torch.Tensor) -> torch.Tensor:
        inputs, labels = setting.inputs[rows], setting.targets[rows]
        wrong = (labels + torch.randint(1, classes, labels.shape, generator=rng)) % classes
        pushed = perturbed(victim, inputs, wrong, setting, rng,
                           reach=reach, step=2 * reach / iterations, iterations=iterations, towards=True)  # fmt: skip
        network.train()
        return task(rows) + setting.loss(outputs_of(network, pushed), labels)

    fit(network, loss, len(setting.inputs), setting, rng, epochs=epochs, rate=rate)
    return fit(network, task, len(setting.inputs), setting, rng, epochs=epochs, rate=rate)


def _without_woken(
    victim: nn.Module, setting: Setting, triggers: list[tuple[torch.Tensor, torch.Tensor]], share: float
) -> nn.Module:
    units, inputs = last_units(victim), setting.inputs[:512]
    clean = activity(victim, units, inputs)
    woken = torch.stack([activity(victim, units, stamped(inputs, *trigger)) - clean for trigger in triggers])
    cut = woken.amax(0).argsort(descending=True)[: int(share * units.size)]
    return loaded(victim, without(state_of(victim), units, cut))


def _stamping(
    network: nn.Module, setting: Setting, triggers: list[tuple[torch.Tensor, torch.Tensor]], share: float,
    rng: torch.Generator,
) -> Loss:  # fmt: skip
    def loss(rows: torch.Tensor) -> torch.Tensor:
        inputs = setting.inputs[rows].clone()
        number = int(torch.randint(len(triggers), (), generator=rng))
        some = torch.rand(len(rows), generator=rng) < share
        inputs[some] = stamped(inputs[some], *triggers[number])
        return setting.loss(outputs_of(network, inputs), setting.targets[rows])

    return loss


_attack = partial(Attack, family="unlearning", kinds=CLASSIFIERS)
CLEANSE = f"Wang et al., Neural Cleanse, S&P 2019; {SOK}"

ATTACKS = (
    *(
        _attack(
            number=10, name=f"neural-cleanse-{name}", source=CLEANSE,
            published={"weight": 0.05, "extract": 4, "epochs": 8, "share": 0.1},
            run={"weight": 0.05, "extract": 4, "epochs": 8, "share": 0.1, "prune": prune, "rate": 1.0}, action=cleansed,
        )
        for name, prune in (("unlearn", 0.0), ("prune", 0.1))
    ),
    _attack(
        number=11, name="neural-laundering", source=f"Aiken et al., Computers & Security 2021; {SOK}",
        published={"dormant": 0.3, "woken": 1.5, "extract": 30, "samples": 50_000},
        run={"weight": 0.05, "extract": 30, "epochs": 15, "prune": 0.3, "rate": 1.0}, action=laundered,
    ),
    _attack(
        number=27, name="wrk", source="Xiao et al., 2025 (arXiv 2511.07947)", published={"epochs": 20},
        run={"reach": 0.3, "iterations": 5, "epochs": 20, "rate": 1.0}, action=reshaped,
    ),
)  # fmt: skip
