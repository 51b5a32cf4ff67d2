"""One owner on the bench: the trunk, the released model, the thief's means, the innocents, and everybody's tests."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn

from experiments.attacks import ACCUSERS, ATTACKS, Setting
from experiments.attacks.accusers import Accuser, Case
from experiments.attacks.attack import Attack, Value
from experiments.attacks.networks import Host, query
from experiments.baselines import EMBEDDED, UNMARKED
from experiments.baselines.scheme import Owner, Part, Reader, Scheme
from experiments.stolen_model.channels import Channel, Triggers, Weights, beta_of, channels_of, release, secret
from experiments.stolen_model.data import Split
from experiments.stolen_model.store import Record, cached, digest_of
from experiments.stolen_model.workloads import Workload
from watermark import MarkParameters

OURS: Final = "ours"
INNOCENT_SEEDS: Final = 1_000_000
PARTNER: Final = 900_000
PARTNERS: Final = 2
COPIES: Final = 800_000
COPIED: Final = 2
THIEF: Final = b"thief"
IMITATORS: Final = ("distil", "retrain")
FRESH: Final = 2000
"""Inputs like triggers on which a student is compared with its teacher."""


@dataclass(frozen=True)
class Bench:
    """The owner of ``workload`` with ``seed``, whose released model bears ``mark``: "ours", or an embedded baseline.

    What is trained is kept in ``cache``, under the digest ``settings``.
    """

    workload: Workload
    mark: str
    seed: int
    cache: Path
    settings: str

    @cached_property
    def split(self) -> Split:
        """This seed's parts of the data."""
        return self.workload.split(self.seed)

    @cached_property
    def owner(self) -> Owner:
        """The owner, with the trunk (theta_ref)."""
        trunk = self._kept("trunk", lambda: self.workload.train(self.split.owner, self.seed))
        return self._owner(trunk, self.split.owner, self.seed)

    @cached_property
    def released(self) -> nn.Module:
        """The marked model."""
        return self._kept(f"released-{self.mark}", self._mark)

    @cached_property
    def channels(self) -> dict[str, Channel]:
        """Our channels, as config.toml sets them for this workload."""
        return channels_of(self.workload.channels)

    @cached_property
    def schemes(self) -> dict[str, Scheme]:
        """Every scheme whose test can be run on suspects of this owner."""
        ours = self.mark == OURS
        schemes: dict[str, Scheme] = {**self.channels, **UNMARKED} if ours else {self.mark: EMBEDDED[self.mark]}
        return {name: scheme for name, scheme in schemes.items() if scheme.applies(self.owner)}

    @cached_property
    def readers(self) -> dict[str, Reader]:
        """Their tests."""
        return {name: scheme.reader(self.owner, self.released) for name, scheme in self.schemes.items()}

    def setting(self, needs: Collection[str] = ()) -> Setting:
        """The thief's means: a disjoint part of the data with labels, and the owner's part without them.

        ``needs`` names what else is at hand (``Attack.needs``); most of it must be trained first.
        """
        weights = self.channels.get("weights")
        means: dict[str, Callable[[], Any]] = {"partners": lambda: tuple(map(self._partner, range(PARTNERS)))}
        if self.mark == OURS:
            means |= {"mark": lambda: self._mark_again, "copies": lambda: tuple(map(self._copy, range(COPIED)))}
        if self.mark == OURS and isinstance(weights, Weights):
            means |= {"claim": lambda: weights.disclosed(self.owner)}
        queries = torch.cat([self.split.attacker.inputs, self.split.owner.inputs])
        wanted = {name: make() for name, make in means.items() if name in needs}
        return self.workload.setting(self.split.attacker, queries, effort=self.workload.effort, **wanted)

    def innocent(self, number: int) -> nn.Module:
        """Innocent ``number``: even ones were trained on the owner's own data, odd ones on the other part."""
        part = self.split.attacker if number % 2 else self.split.owner
        seed = INNOCENT_SEEDS * self.seed + number
        return self._kept(f"innocent-{number}", lambda: self.workload.train(part, seed))

    def suspect(self, name: str) -> nn.Module:
        """The model called ``name``: released, innocent-<n>, or what an attack makes of the released one."""
        if name == "released":
            return self.released
        if name.startswith("innocent-"):
            return self.innocent(int(name.removeprefix("innocent-")))
        rng = torch.Generator().manual_seed(int(digest_of([self.workload.name, self.mark, self.seed, name])[:15], 16))
        attack = attack_of(name)
        return attack.apply(self.released, self.setting(attack.needs), rng)

    def examine(self, name: str) -> Record:
        """What becomes of the model called ``name``, and what every test says about it; processor seconds."""
        start = time.process_time()
        suspect = self.suspect(name)
        seconds = time.process_time() - start
        quality = self.workload.quality(suspect, self.split.test)
        hidden = name.partition("@")[0] in ATTACKS and attack_of(name).black_box
        readings = {}
        for scheme, read in self.readers.items():
            if hidden and not self.schemes[scheme].black_box:
                continue  # the weights behind a filter are the victim's own
            shown = suspect if self.schemes[scheme].black_box else unwrapped(suspect)
            start = time.process_time()
            reading = asdict(read(shown))
            readings[scheme] = reading | {"seconds": time.process_time() - start}
        return {"quality": quality, "seconds": seconds, "readings": readings}

    def cost(self) -> Record:
        """What marking costs, all marks and each of our channels alone: quality before and after, processor seconds.

        All is made afresh.
        """
        start = time.process_time()
        self.workload.train(self.split.owner, self.seed)
        taken = time.process_time() - start
        alone = {name: {name: channel} for name, channel in self.channels.items()} if self.mark == OURS else {}
        makers = {name: partial(release, self.owner, channels) for name, channels in alone.items()}
        before = self.workload.quality(self.owner.model, self.split.test)
        return {
            "unmarked": before, "train_seconds": taken, **self._cost_of(self._mark),
            "channels": {name: self._cost_of(make) for name, make in makers.items()},
        }  # fmt: skip

    def _cost_of(self, mark: Callable[[], nn.Module]) -> Record:
        start = time.process_time()
        marked = mark()
        taken = time.process_time() - start
        pairs = _pairs(marked, self.owner.model)
        change = sum(float((a - b).square().sum()) for a, b in pairs) ** 0.5
        norm = sum(float(b.square().sum()) for _, b in pairs) ** 0.5
        quality = self.workload.quality(marked, self.split.test)
        return {"marked": quality, "embed_seconds": taken, "relative_change": change / norm}

    def null(self, channel: str, number: int, keys: int) -> Record:
        """How often the bits of ``keys`` other keys match on innocent ``number``."""
        first = 10**9 + 10**6 * self.seed + keys * number
        tested = channels_of({**self.workload.channels, **self.workload.nulls})[channel]
        coins = tested.null(self.owner, self.innocent(number), range(first, first + keys))
        return {"matches": coins.matches, "trials": coins.trials, "chance": str(coins.chance)}

    def others(self, attack: str, keys: int) -> Record:
        """The same for ``keys`` other keys on what ``attack`` left of the released model, read as a test reads it."""
        weights = self.channels["weights"]
        assert isinstance(weights, Weights)
        first = 2 * 10**9 + 10**6 * self.seed
        coins = weights.others(self.owner, unwrapped(self.suspect(attack)), range(first, first + keys))
        return {"matches": coins.matches, "trials": coins.trials, "chance": str(coins.chance)}

    def imitation(self) -> Record:
        """How well a student imitates its teacher: where it asked, and on random inputs like the triggers.

        It asks the thief's queries alone, as the attacks do, or as many such random inputs besides, which are no
        triggers; for probabilities, or for bare labels. The share of equal answers on the test data and on fresh ones
        of these inputs, and what the triggers say.
        """
        channel = self.channels["triggers"]
        assert isinstance(channel, Triggers)
        setting = self.setting()
        asked = len(setting.queries)
        fields = channel.fields(self.owner, asked + FRESH)
        both = torch.cat([setting.queries, fields[:asked]])
        seen = {"test data": self.split.test.inputs, "inputs like triggers": fields[asked:]}
        distil, retrain = (ATTACKS[name] for name in IMITATORS)
        students = {
            "probabilities on the data": (distil, setting.queries),
            "the same for twice as long": (attack_of("distil@epochs=60"), setting.queries),
            "probabilities on the data and on inputs like triggers": (distil, both),
            "bare labels on the data and on inputs like triggers": (retrain, both),
        }
        found = {}
        for name, (attack, queries) in students.items():
            student = attack.apply(self.released, replace(setting, queries=queries), torch.Generator().manual_seed(0))
            told = {what: _agreement(student, self.released, inputs) for what, inputs in seen.items()}
            found[name] = {"agreement": told, "reading": asdict(self.readers["triggers"](student))}
        return {"imitation": found}

    def accuse(self, name: str) -> Record:
        """The best that the accuser called ``name`` can show against an innocent, with the owner's means."""
        parameters = MarkParameters(
            **{channel: found for channel in ("weights", "triggers") if (found := self._promised(channel))}
        )
        case = Case(
            suspect=self.innocent(0).state_dict(), theta_ref=self.owner.model.state_dict(), parameters=parameters,
            beta=beta_of(self.seed), accused=self.innocent(0), trunk=self.owner.model,
            references=[self.innocent(number) for number in range(1, self.workload.innocents)], setting=self.setting(),
        )  # fmt: skip
        found = accuser_of(name).accuse(case, torch.Generator().manual_seed(self.seed))
        return {"log2_p": found.log2_p, "matches": found.matches, "trials": found.trials, "void": found.void}

    def _promised(self, channel: str) -> Any:
        found = self.channels.get(channel)
        return found.parameters(self.owner) if found else None

    def _mark(self) -> nn.Module:
        if self.mark == OURS:
            return release(self.owner, self.channels)
        return EMBEDDED[self.mark].mark(self.owner, self.owner.model)

    def _mark_again(self, model: nn.Module, secret_: bytes, strength: float) -> nn.Module:
        """The owner's own algorithm in the hands of a thief, with another key and the thief's data."""
        seed = int.from_bytes(secret(int.from_bytes(secret_[:8], "big"), THIEF)[:6], "big")
        return release(self._owner(model, self.split.attacker, seed), self.channels, strength=strength)

    def _copy(self, number: int) -> nn.Module:
        """A release of the same trunk with another key, as collusion needs."""
        owner = self._owner(self.owner.model, self.split.owner, COPIES * self.seed + number)
        return self._kept(f"copy-{number}", lambda: release(owner, self.channels))

    def _owner(self, model: nn.Module, part: Part, seed: int) -> Owner:
        setting = self.workload.setting(part, part.inputs, effort=self.workload.effort)
        return Owner(model, part, self.split.test, setting, seed, partial(self.workload.fit, part, seed))

    def _partner(self, number: int) -> nn.Module:
        seed = PARTNER + 1000 * number + self.seed
        return self._kept(f"partner-{number}", lambda: self.workload.train(self.split.attacker, seed))

    def _kept(self, name: str, make: Any) -> nn.Module:
        path = self.cache / self.settings / f"{self.workload.name}-{self.seed}-{name}.safetensors"
        return cached(path, self.workload.network, make)


def _agreement(student: nn.Module, teacher: nn.Module, inputs: torch.Tensor) -> float:
    answers = [query(model, inputs).argmax(-1) for model in (student, teacher)]
    return float((answers[0] == answers[1]).double().mean())


def unwrapped(suspect: nn.Module) -> nn.Module:
    """The model that a host keeps behind a filter, or ``suspect`` itself: what a white-box test gets."""
    while isinstance(suspect, Host):
        suspect = suspect.model
    return suspect


def attack_of(name: str) -> Attack:
    """``<attack>``, or ``<attack>@<parameter>=<value>`` for a point of a curve over its strength."""
    attack = ATTACKS[name.partition("@")[0]]
    return attack.at(**_change(name, attack.run))


def accuser_of(name: str) -> Accuser:
    """The same for an accuser."""
    accuser = ACCUSERS[name.partition("@")[0]]
    return accuser.at(**_change(name, accuser.run))


def _change(name: str, run: Mapping[str, Value]) -> dict[str, Value]:
    parameter, _, value = name.partition("@")[2].partition("=")
    if not parameter:
        return {}
    kind = type(run[parameter])
    return {parameter: kind(value)}  # type: ignore[arg-type]


def _pairs(left: nn.Module, right: nn.Module) -> list[tuple[torch.Tensor, torch.Tensor]]:
    both = zip(left.parameters(), right.parameters(), strict=True)
    return [(a.detach().double(), b.detach().double()) for a, b in both]
