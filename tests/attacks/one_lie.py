"""One small lie a segment: many of them in one run, each between honest segments, so that one verification judges all.

``DURING`` holds lies that are told before one step of training: the trainer commits to the right batches and
hyper-parameters, does something else once, and goes on honestly from there. ``AFTERWARDS`` holds lies that a forger
writes into a stored state, with every digest made consistent again. No lie is larger than it must be.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from challenge.segments import Policy
from challenge.verdict import ExitCode, Finding
from pol import TrainingSpec
from pol.data import Samples
from pol.state import Tensors, TrainingState
from tests.attacks.forging import trained_states, write_forgery
from tests.attacks.judging import judged

Telling = Callable[[TrainingState, list[torch.Tensor]], None]
Forging = Callable[[Tensors], None]
Findings = dict[str, list[Finding]]


def one_label(_state: TrainingState, batch: list[torch.Tensor]) -> None:
    batch[1] = batch[1].clone()
    batch[1][0] = (batch[1][0] + 1) % 10


def one_pixel(_state: TrainingState, batch: list[torch.Tensor]) -> None:
    batch[0] = batch[0].clone()
    batch[0][0, 20] += 1 / 255


def one_weight(state: TrainingState, _batch: list[torch.Tensor]) -> None:
    next(state.model.parameters())[0, 0] += 1e-6


def other_draws(_state: TrainingState, _batch: list[torch.Tensor]) -> None:
    torch.manual_seed(0)  # other dropout in this one step


def a_running_mean(state: TrainingState, _batch: list[torch.Tensor]) -> None:
    dict(state.model.named_buffers())["norms.0.running_mean"][0] += 1e-6


def no_dropout(state: TrainingState, _batch: list[torch.Tensor]) -> None:
    kept, state.model.dropout.p = state.model.dropout.p, 0.0
    after_steps(state, 1, lambda: setattr(state.model.dropout, "p", kept))


def norm_momentum(state: TrainingState, _batch: list[torch.Tensor]) -> None:
    norm = state.model.norms[0]
    kept, norm.momentum = norm.momentum, 0.2
    after_steps(state, 1, lambda: setattr(norm, "momentum", kept))


def _moment(slot: str) -> Telling:
    def tell(state: TrainingState, _batch: list[torch.Tensor]) -> None:
        first = state.optimizer.param_groups[0]["params"][0]
        state.optimizer.state[first][slot].view(-1)[-1] += 1e-6

    return tell


def _option(name: str, value: Callable[[TrainingState], object]) -> Telling:
    """Another hyper-parameter for one step."""

    def tell(state: TrainingState, _batch: list[torch.Tensor]) -> None:
        group = state.optimizer.param_groups[0]
        kept, group[name] = group[name], value(state)
        after_steps(state, 1, lambda: group.update({name: kept}))

    return tell


def after_steps(state: TrainingState, count: int, undo: Callable[[], None]) -> None:
    """Call ``undo`` when the optimizer has stepped ``count`` times."""
    left = [None] * count

    def once(*_: object) -> None:
        left.pop()
        if not left:
            undo()
            hook.remove()

    hook = state.optimizer.register_step_post_hook(once)


DURING: dict[str, Telling] = {
    "one label": one_label,
    "one pixel": one_pixel,
    "one weight": one_weight,
    "first moment": _moment("exp_avg"),
    "second moment": _moment("exp_avg_sq"),
    "Adam's count": _moment("step"),
    "learning rate": _option("lr", lambda state: state.optimizer.param_groups[0]["lr"] * 1.0001),
    "betas": _option("betas", lambda _: (0.9001, 0.999)),
    "epsilon": _option("eps", lambda _: 1.001e-8),
    "weight decay": _option("weight_decay", lambda _: 0.0),
    "generator": other_draws,
    "dropout": no_dropout,
    "norm's momentum": norm_momentum,
    "running mean": a_running_mean,
}


def flip(name: str) -> Forging:
    """The smallest lie there is: the lowest bit of the last element."""

    def forge(tensors: Tensors) -> None:
        value = tensors[name]
        value.view(-1).view(torch.uint8)[-value.element_size()] ^= 1

    return forge


def change_text(old: bytes, new: bytes) -> Forging:
    """Another number in the canonical JSON of hyper-parameters, schedule and step."""

    def forge(tensors: Tensors) -> None:
        text = bytes(tensors["scalars"].tolist())
        assert old in text, f"{old!r} is not in {text!r}"
        tensors["scalars"] = torch.frombuffer(bytearray(text.replace(old, new)), dtype=torch.uint8)

    return forge


def _without(name: str) -> Forging:
    def forge(tensors: Tensors) -> None:
        del tensors[name]

    return forge


def _instead(name: str, value: Callable[[Tensors], torch.Tensor]) -> Forging:
    def forge(tensors: Tensors) -> None:
        tensors[name] = value(tensors)

    return forge


def a_rate(tensors: Tensors) -> None:
    """A rate of zero: what the published verifier took from the checkpoint, and so trained nothing at all."""
    text = bytes(tensors["scalars"].tolist())
    start = text.index(b'"lr":{"float":"') + len(b'"lr":{"float":"')
    forged = text[:start] + (0.0).hex().encode() + text[text.index(b'"', start) :]
    tensors["scalars"] = torch.frombuffer(bytearray(forged), dtype=torch.uint8)


def _hexes(old: float, new: float) -> tuple[bytes, bytes]:
    return old.hex().encode(), new.hex().encode()


AFTERWARDS: dict[str, Forging] = {
    "a weight": flip("model/layers.1.weight"),
    "first moment": flip("optimizer/0/exp_avg"),
    "second moment": flip("optimizer/3/exp_avg_sq"),
    "Adam's count": flip("optimizer/2/step"),
    "running variance": flip("model/norms.0.running_var"),
    "batches seen by the norm": flip("model/norms.1.num_batches_tracked"),
    "torch's generator": flip("rng/torch"),
    "numpy's generator": flip("rng/numpy"),
    "python's generator": flip("rng/python"),
    "learning rate": a_rate,
    "first beta": change_text(*_hexes(0.9, 0.0)),
    "second beta": change_text(*_hexes(0.999, 0.5)),
    "epsilon": change_text(*_hexes(1e-8, 1.0)),
    "weight decay": change_text(*_hexes(0.01, 0.0)),
    "amsgrad": change_text(b'"amsgrad":false', b'"amsgrad":true'),
    "maximize": change_text(b'"maximize":false', b'"maximize":true'),
    "schedule's position": change_text(b'"last_epoch":', b'"last_epoch":1'),
    "schedule's end": change_text(
        b'"end_factor":{"float":"0x0.0p+0"}', b'"end_factor":{"float":"0x1.0000000000000p+0"}'
    ),
    "schedule's kind": change_text(b'"scheduler":"LinearLR"', b'"scheduler":null'),
    "optimizer's kind": change_text(b'"optimizer":"Adam"', b'"optimizer":"SGD"'),
    "step": change_text(b'"step":', b'"step":1'),
    "one more field": change_text(b'{"optimizer"', b'{"loss":0,"optimizer"'),
    "a moment too many": _instead("optimizer/99/exp_avg", lambda _: torch.zeros(1)),
    "a moment too few": _without("optimizer/0/exp_avg_sq"),
    "a buffer too few": _without("model/norms.0.running_mean"),
    "a moment in double precision": _instead("optimizer/0/exp_avg", lambda t: t["optimizer/0/exp_avg"].double()),
    "a moment of another shape": _instead("optimizer/0/exp_avg", lambda _: torch.zeros(3, 3)),
}


def told(spec: TrainingSpec, samples: Samples, lies: Mapping[str, Telling], folder: Path, **policy: Any) -> Findings:
    """What a verifier finds of each of ``lies``: told before the first step of every other segment, of two steps each.

    Of ``spec`` the numbers of steps are made to fit; ``policy`` is the verifier's, apart from the segments.
    """
    segments = {name: {2 * number + 1} for number, name in enumerate(lies)}
    steps = {2 * min(segments[name]): tell for name, tell in lies.items()}

    def cheat(step: int, state: TrainingState, batch: list[torch.Tensor]) -> None:
        if step in steps:
            with torch.no_grad():
                steps[step](state, batch)

    spec = replace(spec, steps=4 * len(lies), segment_length=2)
    write_forgery(folder, spec, samples, trained_states(spec, samples, cheat=cheat))
    return _judged(folder, segments, policy)


def forged(spec: TrainingSpec, samples: Samples, lies: Mapping[str, Forging], folder: Path, **policy: Any) -> Findings:
    """What a verifier finds of each of ``lies``: forged into the state at the end of every third segment, of one step.

    The segment after it begins with the lie (and may be found or not: rounding can swallow the lie), the one after that
    is honest.
    """
    segments = {name: {3 * number + 1, 3 * number + 2} for number, name in enumerate(lies)}
    spec = replace(spec, steps=3 * len(lies), segment_length=1)
    states = trained_states(spec, samples)
    for name, forge in lies.items():
        forge(states[max(segments[name])])
    write_forgery(folder, spec, samples, states)
    return _judged(folder, segments, policy)


def _judged(folder: Path, segments: Mapping[str, set[int]], policy: Mapping[str, Any]) -> Findings:
    """The findings of each lie, in order: one at least, in its first segment, and none in any honest one."""
    verdict = judged(folder, Policy(segments=None, **policy))
    assert verdict.exit_code is ExitCode.REPLAY_MISMATCH, verdict.findings or verdict.undecided
    found = {name: [f for f in verdict.findings if f.segment in own] for name, own in segments.items()}
    unseen = [name for name, own in segments.items() if min(own) not in {f.segment for f in found[name]}]
    honest = [f for f in verdict.findings if f.segment not in set[int]().union(*segments.values())]
    assert not unseen and not honest, f"unseen: {unseen}, honest ones rejected: {honest}"
    return {name: sorted(findings, key=lambda finding: finding.segment) for name, findings in found.items()}
