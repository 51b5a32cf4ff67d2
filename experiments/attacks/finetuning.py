"""Training on: the thief's data moves the weights, in the hope that the mark is forgotten."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional

from experiments.attacks.attack import BUILT, CLASSIFIERS, Attack, Setting
from experiments.attacks.networks import batches, copied, layers, outputs_of, query
from experiments.attacks.training import asked, fit, own, supervised

SOK = "Lukas et al., SoK, S&P 2022"


def tuned(
    victim: nn.Module, setting: Setting, rng: torch.Generator, *, part: str, fresh: bool, epochs: int, rate: float
) -> nn.Module:
    """FTLL, FTAL, RTLL, RTAL (Adi et al. 2018, section 5): the last layer or all, kept or drawn afresh first.

    Fine-tuning uses the true labels of the thief's half. Retraining uses the stolen model's own, on all queries.
    """
    network = copied(victim)
    last = layers(network)[-1]
    parameters = list(last.parameters()) if part == "last" else None
    if not fresh:
        return fit(network, own(network, setting), len(setting.inputs), setting, rng,
                   epochs=epochs, rate=rate, parameters=parameters)  # fmt: skip
    last.reset_parameters()
    loss = _answered(network, victim, setting.queries, setting)
    return fit(network, loss, len(setting.queries), setting, rng, epochs=epochs, rate=rate, parameters=parameters)


def reinitialised(
    victim: nn.Module, setting: Setting, rng: torch.Generator, *, count: int, epochs: int, rate: float
) -> nn.Module:
    """The last ``count`` layers drawn afresh, then all trained on the thief's half."""
    network = copied(victim)
    for layer in layers(network)[-count:]:
        layer.reset_parameters()
    return fit(network, own(network, setting), len(setting.inputs), setting, rng, epochs=epochs, rate=rate)


def continual(
    victim: nn.Module, setting: Setting, rng: torch.Generator, *, epochs: int, rate: float, back: int
) -> nn.Module:
    """Another task first (the pixels permuted, the tokens renamed), then ``back`` epochs on the thief's half."""
    network = copied(victim)
    inputs, targets = _other_task(setting, rng)
    loss = supervised(network, inputs, targets, setting)
    fit(network, loss, len(inputs), setting, rng, epochs=epochs, rate=rate)
    return fit(network, own(network, setting), len(setting.inputs), setting, rng, epochs=back, rate=rate)


def smoothed(
    victim: nn.Module, setting: Setting, rng: torch.Generator, *, share: float, epochs: int, rate: float
) -> nn.Module:
    """Trained on the stolen model's labels, of whose probability ``share`` is spread over all classes."""
    network = copied(victim)

    def loss(rows: torch.Tensor) -> torch.Tensor:
        taught = asked(victim, setting.queries[rows])
        hard = functional.one_hot(taught.argmax(-1), taught.shape[-1]).float()
        told = hard * (1 - share) + share / taught.shape[-1]
        return setting.loss(outputs_of(network, setting.queries[rows]), told)

    return fit(network, loss, len(setting.queries), setting, rng, epochs=epochs, rate=rate)


def noised(
    victim: nn.Module, setting: Setting, rng: torch.Generator, *, share: float, top: int, epochs: int, rate: float
) -> nn.Module:
    """Trained on the stolen model's labels, ``share`` of which are drawn from its ``top`` likeliest classes."""
    network = copied(victim)

    def loss(rows: torch.Tensor) -> torch.Tensor:
        ranked = asked(victim, setting.queries[rows]).topk(min(top, _classes(victim, setting))).indices
        drawn = torch.randint(ranked.shape[-1], (*ranked.shape[:-1], 1), generator=rng)
        noisy = torch.rand(ranked.shape[:-1], generator=rng) < share
        labels = torch.where(noisy, ranked.gather(-1, drawn).squeeze(-1), ranked[..., 0])
        return setting.loss(outputs_of(network, setting.queries[rows]), labels)

    return fit(network, loss, len(setting.queries), setting, rng, epochs=epochs, rate=rate)


def regularised(
    victim: nn.Module, setting: Setting, rng: torch.Generator, *, decay: float, epochs: int, tune: int, rate: float
) -> nn.Module:
    """Trained under a heavy L2 penalty that shrinks all weights, then fine-tuned without it."""
    network = copied(victim)
    task = own(network, setting)
    weights = [p for p in network.parameters() if p.requires_grad and p.dim() >= 2]

    def loss(rows: torch.Tensor) -> torch.Tensor:
        return task(rows) + decay * torch.stack([weight.square().sum() for weight in weights]).sum()

    fit(network, loss, len(setting.inputs), setting, rng, epochs=epochs, rate=rate)
    return fit(network, task, len(setting.inputs), setting, rng, epochs=tune, rate=rate)


def refit(
    victim: nn.Module, setting: Setting, rng: torch.Generator, *, elastic: float, epochs: int, rate: float
) -> nn.Module:
    """REFIT: a high rate, elastic weight consolidation for what the task needs, and unlabelled data (section 4)."""
    network = copied(victim)
    task, unlabelled = own(network, setting), _answered(network, victim, setting.queries, setting)
    start = [p.detach().clone() for p in network.parameters() if p.requires_grad]
    fisher = _fisher(network, task, len(setting.inputs), setting)

    def loss(rows: torch.Tensor) -> torch.Tensor:
        moved = [p - old for p, old in zip((p for p in network.parameters() if p.requires_grad), start, strict=True)]
        kept = torch.stack([(f * step.square()).sum() for f, step in zip(fisher, moved, strict=True)]).sum()
        more = torch.randint(len(setting.queries), (len(rows),), generator=rng)
        return task(rows) + unlabelled(more) + elastic / 2 * kept

    return fit(network, loss, len(setting.inputs), setting, rng, epochs=epochs, rate=rate)


def distracted(
    victim: nn.Module, setting: Setting, rng: torch.Generator, *, lures: float, epochs: int, rate: float
) -> nn.Module:
    """Attention distraction, in brief: the task is rehearsed while ``lures``, noise with one label, claim the rest."""
    network = copied(victim)
    task = own(network, setting)
    shape = (max(1, round(lures * setting.batch)), *setting.inputs.shape[1:])
    label = int(torch.randint(_classes(victim, setting), (), generator=rng))

    def loss(rows: torch.Tensor) -> torch.Tensor:
        noise = torch.rand(shape, generator=rng)
        return task(rows) + setting.loss(outputs_of(network, noise), torch.full((len(noise),), label))

    return fit(network, loss, len(setting.inputs), setting, rng, epochs=epochs, rate=rate)


def adversarial(
    victim: nn.Module, setting: Setting, rng: torch.Generator,
    *, reach: float, step: float, iterations: int, epochs: int, rate: float,
) -> nn.Module:  # fmt: skip
    """Adversarial training (Madry et al. 2018): the thief's half, moved by projected gradients to fool the model."""
    network = copied(victim)

    def loss(rows: torch.Tensor) -> torch.Tensor:
        inputs, targets = setting.inputs[rows], setting.targets[rows]
        fooled = perturbed(network, inputs, targets, setting, rng, reach=reach, step=step, iterations=iterations)
        network.train()
        return setting.loss(outputs_of(network, fooled), targets)

    return fit(network, loss, len(setting.inputs), setting, rng, epochs=epochs, rate=rate)


def perturbed(
    network: nn.Module, inputs: torch.Tensor, targets: torch.Tensor, setting: Setting, rng: torch.Generator,
    *, reach: float, step: float, iterations: int, towards: bool = False,
) -> torch.Tensor:  # fmt: skip
    """``inputs`` moved by at most ``reach`` a pixel, within [0, 1], away from their targets or ``towards`` them."""
    network.eval()
    start = inputs + reach * (2 * torch.rand(inputs.shape, generator=rng) - 1)
    current = start.clamp(0, 1)
    for _ in range(iterations):
        current = current.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(setting.loss(outputs_of(network, current), targets), current)
        moved = current.detach() + (-step if towards else step) * gradient.sign()
        current = torch.minimum(torch.maximum(moved, inputs - reach), inputs + reach).clamp(0, 1)
    return current.detach()


def _answered(
    network: nn.Module, teacher: nn.Module, inputs: torch.Tensor, setting: Setting
) -> Callable[[torch.Tensor], torch.Tensor]:
    def loss(rows: torch.Tensor) -> torch.Tensor:
        told = setting.answers(asked(teacher, inputs[rows]))
        return setting.loss(outputs_of(network, inputs[rows]), told)

    return loss


def _classes(network: nn.Module, setting: Setting) -> int:
    return query(network, setting.inputs[:1]).shape[-1]


def _other_task(setting: Setting, rng: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    inputs, targets = setting.inputs, setting.targets
    if not inputs.is_floating_point():
        renamed = torch.randperm(int(torch.stack([inputs.max(), targets.max()]).max()) + 1, generator=rng)
        return renamed[inputs], renamed[targets]
    order = torch.randperm(inputs[0].numel(), generator=rng)
    return inputs.flatten(1)[:, order].reshape(inputs.shape), targets


def _fisher(
    network: nn.Module, loss: Callable[[torch.Tensor], torch.Tensor], rows: int, setting: Setting
) -> list[torch.Tensor]:
    """The diagonal Fisher information of the task, a batch at a time, scaled to a maximum of 1 over the network."""
    network.eval()
    parameters = [p for p in network.parameters() if p.requires_grad]
    total = [torch.zeros_like(p) for p in parameters]
    for batch in batches(torch.arange(rows), setting.batch):
        gradients = torch.autograd.grad(loss(batch), parameters)
        total = [so_far + gradient.square() for so_far, gradient in zip(total, gradients, strict=True)]
    largest = max(float(part.max()) for part in total)
    return [part / largest if largest > 0 else part for part in total]


def _tuning(name: str, part: str, fresh: bool, epochs: int, rate: float) -> Attack:
    published = {"epochs": 10 if name == "rtll" else 5}
    return Attack(
        number=2 if fresh else 1, name=name if rate == 1 else f"{name}-rate-{rate:g}", family="fine-tuning",
        source=f"Adi et al., USENIX Security 2018; {SOK}", published=published,
        run={"part": part, "fresh": fresh, "epochs": epochs, "rate": rate}, action=tuned,
        kinds=BUILT if fresh else (*BUILT, "lora"),
    )  # fmt: skip


ATTACKS = (
    _tuning("ftll", "last", fresh=False, epochs=5, rate=1.0),
    _tuning("ftal", "all", fresh=False, epochs=5, rate=1.0),
    _tuning("ftal", "all", fresh=False, epochs=5, rate=10.0),
    _tuning("rtll", "last", fresh=True, epochs=10, rate=1.0),
    _tuning("rtal", "all", fresh=True, epochs=5, rate=1.0),
    _tuning("rtal", "all", fresh=True, epochs=5, rate=10.0),
    Attack(
        number=3, name="adversarial-training", family="fine-tuning", source=f"Madry et al., ICLR 2018; {SOK}",
        published={"reach": 0.25, "step": 0.01, "iterations": 40, "epochs": 5},
        run={"reach": 0.25, "step": 0.01, "iterations": 40, "epochs": 5, "rate": 1.0},
        action=adversarial, kinds=CLASSIFIERS,
    ),
    Attack(
        number=8, name="label-smoothing", family="fine-tuning", source=SOK,
        published={"share": 0.3, "epochs": 5}, run={"share": 0.3, "epochs": 5, "rate": 1.0},
        action=smoothed, kinds=CLASSIFIERS,
    ),
    Attack(
        number=8, name="label-noising", family="fine-tuning", source=SOK,
        published={"share": 0.8, "top": 3, "epochs": 20}, run={"share": 0.8, "top": 3, "epochs": 20, "rate": 1.0},
        action=noised, kinds=CLASSIFIERS,
    ),
    Attack(
        number=9, name="regularisation", family="fine-tuning", source=f"Shafieinejad et al., 2019; {SOK}",
        published={"decay": 0.1, "epochs": 5, "tune": 50},
        run={"decay": 0.1, "epochs": 5, "tune": 50, "rate": 1.0}, action=regularised, kinds=BUILT,
    ),
    Attack(
        number=25, name="refit", family="fine-tuning", source="Chen et al., AsiaCCS 2021",
        published={"elastic": 10.0, "epochs": 60}, run={"elastic": 10.0, "epochs": 60, "rate": 5.0},
        action=refit, kinds=BUILT,
    ),
    Attack(
        number=26, name="attention-distraction", family="fine-tuning", source="Zhong et al., 2022",
        published={}, run={"lures": 0.5, "epochs": 10, "rate": 1.0}, action=distracted, kinds=CLASSIFIERS,
    ),
    Attack(
        number=28, name="continual", family="fine-tuning", source="Nasery et al., 2025; LeaFBench, 2025",
        published={"data": "Alpaca 52k, Dolly 15k, ShareGPT"}, run={"epochs": 5, "rate": 1.0, "back": 5},
        action=continual, kinds=(*CLASSIFIERS, "transformer", "lora"),
    ),
    *(
        Attack(
            number=38, name=f"reinitialise-{count}", family="fine-tuning", source="Adi et al., USENIX Security 2018",
            published={}, run={"count": count, "epochs": 10, "rate": 1.0}, action=reinitialised, kinds=BUILT,
        )
        for count in (1, 2)
    ),
)  # fmt: skip
