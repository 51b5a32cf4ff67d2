"""Accusers who want an innocent to match: what they could do elsewhere, and why none of it helps here."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch.nn import functional

from pol.encoding import digest, u64
from tests.watermark import digits
from tests.watermark.conftest import BETA
from tests.watermark.digits import State
from watermark import Evidence
from watermark.bits import trigger_label
from watermark.key import Leaf
from watermark.triggers import Answers, Images, TriggerMark, trigger_inputs, trigger_matches, trigger_null

USED = 50
TRIED = 1000
GROUND = 8000
MARK = TriggerMark(Images(1, 8, 8), classes=10, groups=1, leaves=USED)
ROOT = bytes(range(64, 96))


def seeds(count: int) -> list[bytes]:
    return [digest("an accuser's seeds", u64(number)) for number in range(count)]


def leaves(chosen: list[bytes]) -> list[Leaf]:
    return [Leaf(index, seed, bytes(32)) for index, seed in enumerate(chosen)]


def evidence(matches: int, *, tests: int = 1) -> Evidence:
    return Evidence(matches, USED, tests=tests, channel="triggers", null=trigger_null(MARK, USED))


def answers(state: State) -> Answers:
    return lambda inputs: digits.forward(state, inputs.flatten(1))


def silent(inputs: torch.Tensor) -> torch.Tensor:
    """The theta_ref that suits these accusers best: one that says nothing, so that the suspect's own answers count."""
    return torch.zeros(len(inputs), 10)


@dataclass(frozen=True)
class Accuser:
    """Somebody with ten models of the task, and so a good idea of what another one will answer."""

    references: list[State]

    def answers(self, inputs: torch.Tensor) -> torch.Tensor:
        """Each reference's log probabilities [10, n, classes]."""
        return torch.stack([digits.forward(state, inputs.flatten(1)).log_softmax(1) for state in self.references])

    def perturbed(self, inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Inputs moved by at most 16/255 a pixel, so that the references agree on ``labels``."""
        moved = inputs.clone().requires_grad_()
        for _ in range(8):
            loss = functional.nll_loss(self.answers(moved).mean(0), labels)
            (slope,) = torch.autograd.grad(loss, moved)
            step = (moved - slope.sign() * 4 / 255).clamp(inputs - 16 / 255, inputs + 16 / 255).clamp(0, 1)
            moved = step.detach().requires_grad_()
        return moved.detach()

    def best(self, inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The numbers of the 50 inputs whose labels the references agree on most."""
        agreed = self.answers(inputs).gather(2, labels.expand(len(self.references), -1)[..., None])[..., 0]
        return agreed.amin(0).topk(USED).indices


@pytest.fixture(scope="module")
def accuser() -> Accuser:
    return Accuser(digits.train_many(range(300, 310), (64, 128, 128, 10), steps=40, rate=5e-3))


@pytest.fixture(scope="module")
def innocents() -> list[State]:
    return digits.train_many(range(400, 404), (64, 128, 128, 10), steps=40, rate=5e-3)


def test_chosen_inputs_and_labels_convict_innocents(accuser: Accuser, innocents: list[State]) -> None:
    """False claims by transferable adversarial examples (Liu et al. 2024), where triggers are anybody's choice."""
    inputs = trigger_inputs(seeds(TRIED), MARK)
    labels = accuser.answers(inputs).mean(0).argmax(1)
    inputs = accuser.perturbed(inputs, labels)
    best = accuser.best(inputs, labels)
    for innocent in innocents:
        matches = int((answers(innocent)(inputs[best]).argmax(1) == labels[best]).sum())
        assert evidence(matches).accepted


def test_committed_seeds_and_labels_from_the_beacon_do_not(accuser: Accuser, innocents: list[State]) -> None:
    """The same accuser: only seeds are free, and their labels are drawn when the best 50 of 1000 are committed."""
    tried = seeds(TRIED)
    inputs = trigger_inputs(tried, MARK)
    best = accuser.best(inputs, accuser.answers(inputs).mean(0).argmax(1))
    chosen = leaves([tried[number] for number in best.tolist()])
    for innocent in innocents:
        for draw in range(10):
            matches = trigger_matches(answers(innocent), silent, chosen, u64(draw) * 4, ROOT, MARK)
            assert evidence(matches).log2_p > -20


def test_labels_without_the_beacon_can_be_ground(accuser: Accuser, innocents: list[State]) -> None:
    """The forbidden shortcut: labels known while leaves are chosen. Those that everybody answers right are kept."""
    tried = seeds(GROUND)
    inputs = trigger_inputs(tried, MARK)
    labels = torch.tensor([trigger_label(bytes(32), bytes(32), 0, seed, 10) for seed in tried])
    best = accuser.best(inputs, labels)
    chosen = leaves([tried[number] for number in best.tolist()])
    bound = torch.tensor([trigger_label(BETA, ROOT, leaf.index, leaf.seed, 10) for leaf in chosen])
    for innocent in innocents:
        said = answers(innocent)(inputs[best]).argmax(1)
        assert evidence(int((said == labels[best]).sum())).accepted
        assert evidence(int((said == bound).sum())).log2_p > -20  # the honest twin: labels from the beacon
        assert evidence(trigger_matches(answers(innocent), silent, chosen, BETA, ROOT, MARK)).log2_p > -20


def test_grinding_key_roots_gives_nothing_beyond_the_union_bound(innocents: list[State]) -> None:
    """2^12 roots for the same seeds (other salts), by one who knows the suspect and, against the rules, beta."""
    chosen = leaves(seeds(USED))
    said = answers(innocents[0])(trigger_inputs([leaf.seed for leaf in chosen], MARK)).argmax(1).tolist()

    def matches(root: bytes) -> int:
        labels = (trigger_label(BETA, root, leaf.index, leaf.seed, 10) for leaf in chosen)
        return sum(label == answer for label, answer in zip(labels, said, strict=True))

    best = max(range(1 << 12), key=lambda number: matches(u64(number) * 4))
    found = evidence(matches(u64(best) * 4), tests=1 << 12)
    assert found.log2_p < -8  # grinding does move the p-value
    assert found.log2_p_corrected > -12  # and the union bound takes it back
    assert not found.accepted
    later = [trigger_label(bytes(32), u64(best) * 4, leaf.index, leaf.seed, 10) for leaf in chosen]
    fresh = sum(label == answer for label, answer in zip(later, said, strict=True))
    assert evidence(fresh).log2_p > -12  # nor does it help with a beacon that comes afterwards
