"""Attacks on the null hypothesis: accusers who want an innocent model convicted. None may do better than chance.

Each breaks the timeline as far as it can: it sees the innocent model and beta before it commits to its key. What it
cannot do is choose bits, because they depend on the root of the very key it would choose.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import torch
from torch import nn

from experiments.attacks.attack import Setting, Value
from experiments.attacks.finetuning import perturbed
from experiments.attacks.networks import outputs_of, query
from pol.errors import SpecError
from pol.merkle import MerkleTree
from watermark import Claim, Evidence, LeafOpening, MarkParameters, State, WatermarkKey, detect, embed
from watermark.bits import mark_bit, trigger_label
from watermark.key import SECRET_BYTES, Leaf
from watermark.triggers import TriggerMark, trigger_inputs, trigger_matches, trigger_null
from watermark.weights.arrays import Array
from watermark.weights.carriers import carrier_product
from watermark.weights.layouts.mlp import align
from watermark.weights.parameters import WeightMark
from watermark.weights.reading import read_weights


@dataclass(frozen=True, kw_only=True, eq=False)
class Case:
    """The innocent ``suspect`` and what an accuser has: a trunk of its own, the parameters it promised, and beta.

    For triggers, ``accused`` is the innocent network itself, ``trunk`` the accuser's, ``references`` its other models,
    and ``setting`` its data.
    """

    suspect: State
    theta_ref: State
    parameters: MarkParameters
    beta: bytes
    accused: nn.Module | None = None
    trunk: nn.Module | None = None
    references: Sequence[nn.Module] = ()
    setting: Setting | None = None

    @property
    def weights(self) -> WeightMark:
        """The parameters of the channel in the weights; :class:`SpecError` if there is none."""
        if self.parameters.weights is None:
            raise SpecError("this accuser needs a mark in the weights")
        return self.parameters.weights


@dataclass(frozen=True, kw_only=True)
class Accuser:
    """An attack on the null; ``published`` and ``run`` as in :class:`experiments.attacks.attack.Attack`."""

    number: int
    name: str
    source: str
    published: Mapping[str, Value]
    run: Mapping[str, Value]
    action: Callable[..., Evidence] = field(repr=False)
    channel: str = "weights"

    def at(self, **changes: Value) -> Accuser:
        """The same accuser with other parameters."""
        if unknown := sorted(set(changes) - set(self.run)):
            raise SpecError(f"accuser {self.name}: it has no parameters {unknown}, only {sorted(self.run)}")
        return replace(self, run={**self.run, **changes})

    def accuse(self, case: Case, rng: torch.Generator) -> Evidence:
        """The best evidence that the accuser can show in its channel against the innocent, without any correction."""
        part = getattr(case.parameters, self.channel)
        alone = replace(case, parameters=MarkParameters(**{self.channel: part})) if part else case
        return self.action(alone, rng, **self.run)


def ground(case: Case, rng: torch.Generator, *, tries: int, leaves: int) -> Evidence:
    """Key grinding: the best of ``tries`` keys, made after the accused model and beta were known.

    The seeds stay, so that the carriers are read once; a new salt in any leaf gives a new root, and with it new bits.
    Only the first ``leaves`` leaves are opened, as in a dispute.
    """
    seeds = [_secret(rng) for _ in range(min(leaves, case.weights.leaf_count))]
    read = _signs(case, seeds)
    best = 0
    for _ in range(tries):
        root = _secret(rng)
        bits = (mark_bit(case.beta, root, index, seed) for index, seed in enumerate(seeds))
        best = max(best, sum(bit == sign for bit, sign in zip(bits, read, strict=True)))
    return Evidence(best, len(seeds))


def forged(case: Case, rng: torch.Generator, *, tries: int) -> Evidence:
    """Forging carriers for a model that exists (Fan et al. 2019 and Chen et al. 2023 forge passports so).

    Under a root that it hopes for, the accuser draws up to ``tries`` seeds a leaf until the carrier agrees with its bit
    in the accused model. All leaves together then have another root, and every bit is drawn again.
    """
    hoped, leaves = bytes(SECRET_BYTES), []
    matrices = _matrices(case)
    for index in range(case.parameters.leaf_count):
        drawn = [_secret(rng) for _ in range(tries)]
        good = (seed for seed in drawn if _sign(matrices, case, index, seed) == mark_bit(case.beta, hoped, index, seed))
        leaves.append(Leaf(index, next(good, drawn[0]), _secret(rng)))
    return _judged(case.suspect, _claim(case, leaves, case.theta_ref))


def free(case: Case, rng: torch.Generator) -> Evidence:
    """What :func:`forged` would win if carriers could be chosen freely: the twin that shows why seeds are committed."""
    leaves = case.weights.leaf_count
    bits = (torch.randint(2, (leaves,), generator=rng) * 2 - 1).numpy()
    matrices = _matrices(case)
    matches = 0
    for index, bit in enumerate(bits):
        number, rows = case.weights.place(index // case.weights.leaves)
        block = matrices[number][rows]
        left, _, right = np.linalg.svd(block, full_matrices=False)
        matches += int(bit * (np.sign(bit * left[:, 0]) @ block @ np.sign(right[0])) > 0)
    return Evidence(matches, leaves)


def realigned(case: Case, rng: torch.Generator, *, margin: float) -> Evidence:
    """The alignment null: the accuser brings the innocent into the coordinates of its own marked model first.

    Detection aligns to theta_ref, whatever coordinates the suspect comes in.
    """
    key, marked = _marked(case, rng, margin)
    claim = Claim.make(key, case.beta, case.parameters, range(case.parameters.groups), case.theta_ref)
    moved = {name: tensor.float() for name, tensor in align(case.suspect, marked).items()}
    return _judged(moved, claim)


def smuggled(case: Case, rng: torch.Generator, *, margin: float) -> Evidence:
    """The same, with the marked model handed in as theta_ref: the bits are in it, so the claim is void."""
    key, marked = _marked(case, rng, margin)
    return _judged(case.suspect, Claim.make(key, case.beta, case.parameters, range(case.parameters.groups), marked))


def ground_triggers(case: Case, rng: torch.Generator, *, pool: int) -> Evidence:
    """Liu et al.'s accuser against committed triggers: of ``pool`` seeds it keeps those that its references answer.

    For each leaf it keeps a seed to which the references give the label hoped for. The real root draws other labels.
    """
    mark, hoped = _triggers(case), bytes(SECRET_BYTES)
    seeds = [_secret(rng) for _ in range(pool)]
    said = _agreed(case.references, _shaped(case, trigger_inputs(seeds, mark))).tolist()
    leaves = []
    for index in range(mark.leaf_count):
        good = [n for n, seed in enumerate(seeds)
                if trigger_label(case.beta, hoped, index, seed, mark.classes) == said[n]]  # fmt: skip
        chosen = seeds.pop(good[0] if good else 0)
        said.pop(good[0] if good else 0)
        leaves.append(Leaf(index, chosen, _secret(rng)))
    root = MerkleTree([leaf.digest for leaf in leaves]).root
    accused, trunk = (partial(_answers, network, case) for network in _networks(case))
    matches = trigger_matches(accused, trunk, leaves, case.beta, root, mark)
    return Evidence(matches, len(leaves), channel="triggers", null=trigger_null(mark, len(leaves)))


def free_triggers(case: Case, rng: torch.Generator, *, pool: int, keep: int, reach: float) -> Evidence:
    """What Liu et al. 2024 win where an accuser chooses its triggers: adversarial examples that transfer.

    Of ``pool`` inputs, moved by at most ``reach`` towards random labels, the ``keep`` that the references answer most
    surely are shown. The twin of :func:`ground_triggers`.
    """
    setting, mark = case.setting, _triggers(case)
    if setting is None or not case.references:
        raise SpecError("this accuser needs a setting and references")
    chosen = torch.randint(len(setting.inputs), (pool,), generator=rng)
    labels = (setting.targets[chosen] + torch.randint(1, mark.classes, (pool,), generator=rng)) % mark.classes
    together = _Mean(case.references)
    examples = perturbed(together, setting.inputs[chosen], labels, setting, rng,
                         reach=reach, step=reach / 8, iterations=20, towards=True)  # fmt: skip
    sure = query(together, examples).gather(1, labels[:, None]).flatten().argsort(descending=True)[:keep]
    accused, _ = _networks(case)
    matches = int((accused(examples[sure]).argmax(-1) == labels[sure]).sum())
    return Evidence(matches, keep, channel="triggers", null=trigger_null(mark, keep))


class _Mean(nn.Module):
    """The mean log-probabilities of several models."""

    def __init__(self, models: Sequence[nn.Module]) -> None:
        super().__init__()
        self.models = nn.ModuleList(models)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return torch.stack([model(inputs).log_softmax(-1) for model in self.models]).mean(0)


def _secret(rng: torch.Generator) -> bytes:
    return bytes(torch.randint(256, (SECRET_BYTES,), generator=rng, dtype=torch.uint8).numpy())


def _matrices(case: Case) -> list[Array]:
    """The accused model's marked matrices, whether they resemble theta_ref's or not: bits are read off these."""
    return [reading.found for reading in read_weights(case.suspect, case.theta_ref, case.weights)]


def _sign(matrices: Sequence[Array], case: Case, index: int, seed: bytes) -> int:
    number, rows = case.weights.place(index // case.weights.leaves)
    return 1 if carrier_product(matrices[number][rows], seed) > 0 else -1


def _signs(case: Case, seeds: Sequence[bytes]) -> list[int]:
    matrices = _matrices(case)
    return [_sign(matrices, case, index, seed) for index, seed in enumerate(seeds)]


def _claim(case: Case, leaves: Sequence[Leaf], theta_ref: State) -> Claim:
    """A claim that opens all of these leaves, under the root that they really have."""
    tree = MerkleTree([leaf.digest for leaf in leaves])
    openings = tuple(LeafOpening(leaf.index, leaf.seed, leaf.salt, tree.prove(leaf.index).siblings) for leaf in leaves)
    groups = tuple(range(case.parameters.groups))
    return Claim(tree.root, case.beta, case.parameters, groups, openings, theta_ref)


def _judged(suspect: State, claim: Claim) -> Evidence:
    return detect(suspect, [claim])[0]


def _marked(case: Case, rng: torch.Generator, margin: float) -> tuple[WatermarkKey, State]:
    """A key of the accuser's, and its trunk with a mark of that key of ``margin`` times the usual strength."""
    key = WatermarkKey(_secret(rng), case.parameters.leaf_count)
    mark = case.weights
    stronger = tuple(replace(carrier, margin=min(64.0, margin * carrier.margin)) for carrier in mark.carriers)
    return key, embed(
        case.theta_ref, key, case.beta, replace(case.parameters, weights=replace(mark, carriers=stronger))
    )


def _triggers(case: Case) -> TriggerMark:
    if case.parameters.triggers is None:
        raise SpecError("this accuser needs a mark in triggers")
    return case.parameters.triggers


def _networks(case: Case) -> tuple[nn.Module, nn.Module]:
    if case.accused is None or case.trunk is None:
        raise SpecError("this accuser needs the networks themselves: accused and trunk")
    return case.accused.eval(), case.trunk.eval()


def _answers(network: nn.Module, case: Case, inputs: torch.Tensor) -> torch.Tensor:
    return outputs_of(network, _shaped(case, inputs))


def _shaped(case: Case, inputs: torch.Tensor) -> torch.Tensor:
    """Triggers in the shape of the task's inputs: images are rows of pixels to a perceptron."""
    return inputs.reshape(len(inputs), *case.setting.inputs.shape[1:]) if case.setting else inputs


def _agreed(references: Sequence[nn.Module], inputs: torch.Tensor) -> torch.Tensor:
    return query(_Mean(references), inputs).argmax(-1)


ACCUSERS: dict[str, Accuser] = {
    accuser.name: accuser
    for accuser in (
        Accuser(
            number=23, name="key-grinding", source="ours", published={"tries": 2**20},
            run={"tries": 2**16, "leaves": 128}, action=ground,
        ),
        Accuser(
            number=23, name="carrier-forging", source="Fan et al., NeurIPS 2019; Chen et al., CVPR 2023",
            published={}, run={"tries": 16}, action=forged,
        ),
        Accuser(
            number=23, name="trigger-grinding", source="Liu et al., USENIX Security 2024",
            published={"pool": 1000, "keep": 50, "references": 10}, run={"pool": 1000}, action=ground_triggers,
            channel="triggers",
        ),
        Accuser(
            number=24, name="alignment-to-the-mark", source="ours", published={}, run={"margin": 8 / 3},
            action=realigned,
        ),
        Accuser(
            number=24, name="marked-theta-ref", source="ours", published={}, run={"margin": 8 / 3}, action=smuggled,
        ),
    )
}  # fmt: skip
"""Every attack on the null by its name. The twins ``free`` and ``free_triggers`` show what commitments are for."""
