"""A small task on an embedded chain: for what only a chain can refuse."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from chain.anchoring import RunAnchorer
from chain.client import ArenaClient
from chain.eip712 import typed_data
from chain.terms import Numerics
from chain.types import tokens
from challenge.signing import manifest_domain, manifest_message
from pol import Proof, Recorder, SeedSource, TrainingSpec
from pol.data import Samples
from pol.machine import this_machine
from pol.merkle import merkle_root
from pol.program import program_digest
from pol.spec import TaskRef, WatermarkPromise
from tests.chain.play import World
from tests.runs import PROGRAM, small_spec
from watermark import DEFAULT_PARAMETERS

STEPS, SEGMENT_LENGTH = 20, 5
KEY_ROOT = b"\1" * 32
"""Every run promises a watermark key; these runs embed nothing."""


class Ring:
    """The task of the small run's program and data, in its submission phase, with Alice and Mallory staked.

    On a chain of its own, or on the one in ``world`` as one more task.
    """

    def __init__(self, samples: Samples, world: World | None = None) -> None:
        self.samples = samples
        self.world = world or World()
        self.task = self.world.task(
            program_digest=program_digest(PROGRAM),
            train_root=samples.root,
            steps=STEPS,
            segment_length=SEGMENT_LENGTH,
            numerics=Numerics.MACHINE,
            classes_root=merkle_root([this_machine(threads=1).digest]),
            round_length=100_000,  # still open when later tasks have moved the chain's clock
        )
        self.alice, self.mallory = (self.task.trainer(index, tokens(1_000)) for index in (1, 2))
        self.validator = self.task.validator(5, tokens(1_000))
        self.task.to_submission()

    def spec(self, client: ArenaClient, **config: object) -> TrainingSpec:
        """What ``client`` promises to train."""
        arena = address(client.deployment.arena)
        task = TaskRef(chain_id=client.deployment.chain_id, arena=arena, task_id=self.task.id)
        plain = small_spec(self.samples, steps=STEPS, segment_length=SEGMENT_LENGTH, **config)
        mark = WatermarkPromise(key_root=KEY_ROOT, parameters=DEFAULT_PARAMETERS.to_json())
        return replace(plain, task=task, trainer=address(client.address), watermark=mark)

    def register(self, client: ArenaClient, spec: TrainingSpec) -> SeedSource:
        """Promise ``spec`` as another run of ``client``, and wait for the beacon."""
        run_id = client.arena.register_run(self.task.id, spec.digest, KEY_ROOT, self.task.config.pay.run_bond)
        self.world.chain.mine(2)
        value = client.arena.latch_beacon(run_id)
        return SeedSource(kind="beacon", value=value, block=client.arena.run(run_id).beacon.block)

    def run_of(self, client: ArenaClient) -> int:
        """The latest run of ``client``."""
        return client.arena.runs_of(self.task.id, client.address)[-1]

    def anchorer(self, client: ArenaClient) -> RunAnchorer:
        """What anchors the latest run of ``client``."""
        return RunAnchorer(client, self.run_of(client))

    def train(
        self,
        client: ArenaClient,
        spec: TrainingSpec,
        seed_source: SeedSource,
        out: Path,
        *,
        samples: Samples | None = None,
        anchored: bool = True,
        stop_after: int | None = None,
    ) -> Path:
        """Record the run honestly and sign it.

        ``samples`` may be others than the task's; ``stop_after`` is the step after which the run is declared to end.
        """
        anchorer = self.anchorer(client) if anchored else None
        with Recorder(spec, out, seed_source=seed_source, anchorer=anchorer) as recorder:
            state = recorder.program.build(spec.config, recorder.seed)
            recorder.attach(model=state.model, optimizer=state.optimizer, scheduler=state.scheduler)
            for batch in recorder.batches(samples or self.samples):
                if recorder.state.step + 1 == stop_after:
                    recorder.stop()
                recorder.step(recorder.program.train_step(state, batch))
        sign(out, client)
        return out


def sign(folder: Path, client: ArenaClient, **changes: object) -> Path:
    """Change what a manifest says and put ``client``'s signature under it, whoever it names; returns the folder."""
    assert client.account is not None
    unsigned = replace(Proof.read(folder), signature=None, **changes)  # type: ignore[arg-type]
    signable = typed_data(manifest_domain(unsigned), manifest_message(unsigned))
    replace(unsigned, signature=bytes(client.account.sign_message(signable).signature)).write(folder)
    return folder


def address(text: str) -> bytes:
    """The 20 bytes of an address."""
    return bytes.fromhex(text.removeprefix("0x"))
