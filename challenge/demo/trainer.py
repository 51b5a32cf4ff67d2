"""An honest trainer: register, receive the beacon, train inside the recorder, embed the watermark, submit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from chain.anchoring import RunAnchorer
from chain.commitments import new_salt
from challenge.claims import OPENED_GROUPS, write_claim
from challenge.demo.setting import BLOCKS_TO_BEACON, SEGMENT_LENGTH, STEPS, THREADS, Setting
from challenge.dispute import open_segments
from challenge.signing import sign_proof
from pol import Proof, Recorder, SeedSource, Submission, TrainingSpec, seal
from pol.data import Dataset
from pol.machine import this_machine
from pol.program import program_digest
from pol.proof import states_of
from pol.spec import TaskRef, WatermarkPromise
from pol.state import Tensors, from_safetensors, model_tensors, to_safetensors
from pol.tensors import tensors_digest
from watermark import DEFAULT_PARAMETERS, Claim, WatermarkKey, mark_run, opening_groups


@dataclass(frozen=True)
class Entry:
    """A trainer's promise, ready to be trained: its run, its spec, its secret key and the seed the beacon gave."""

    name: str
    run_id: int
    folder: Path
    spec: TrainingSpec
    key: WatermarkKey
    seed_source: SeedSource


@dataclass(frozen=True)
class Submitted:
    """A submission committed in a round, and the salt that reveals it."""

    entry: Entry
    proof: Proof
    round: int
    salt: bytes


def register(setting: Setting, name: str) -> Entry:
    """Promise spec and key, then wait for the block that nobody could know when promising."""
    client, arena = setting.clients[name], setting.clients[name].deployment.arena
    key = WatermarkKey.generate(DEFAULT_PARAMETERS.leaf_count)
    dataset = Dataset.from_bytes(setting.store.get(setting.task.train_cid))
    spec = TrainingSpec(
        program=setting.task.program,
        program_digest=program_digest(setting.task.program),
        config=setting.task.config,
        dataset=setting.task.train_name,
        dataset_root=dataset.root,
        dataset_size=len(dataset),
        batch_size=setting.task.batch_size,
        steps=STEPS,
        segment_length=SEGMENT_LENGTH,
        machine=this_machine(threads=THREADS).to_json(),
        trainer=_address_bytes(client.address),
        task=TaskRef(chain_id=client.deployment.chain_id, arena=_address_bytes(arena), task_id=setting.task_id),
        watermark=WatermarkPromise(key_root=key.root, parameters=DEFAULT_PARAMETERS.to_json()),
    )
    run_id = client.arena.register_run(setting.task_id, spec.digest, key.root, setting.terms.pay.run_bond)
    setting.chain.mine(BLOCKS_TO_BEACON)
    beacon = client.arena.latch_beacon(run_id)
    source = SeedSource(kind="beacon", value=beacon, block=client.arena.run(run_id).beacon.block)
    return Entry(name=name, run_id=run_id, folder=setting.runs / name, spec=spec, key=key, seed_source=source)


def train(setting: Setting, entry: Entry) -> Proof:
    """The training itself: a plain loop inside the recorder, anchored as it goes."""
    dataset = Dataset.from_bytes(setting.store.get(setting.task.train_cid))
    anchorer = RunAnchorer(setting.clients[entry.name], entry.run_id)
    with Recorder(entry.spec, entry.folder, seed_source=entry.seed_source, anchorer=anchorer) as recorder:
        state = recorder.program.build(entry.spec.config, recorder.seed)
        recorder.attach(model=state.model, optimizer=state.optimizer, scheduler=state.scheduler)
        for batch in recorder.batches(dataset):
            recorder.step(recorder.program.train_step(state, batch))
    return Proof.read(entry.folder)


def draw_mark(setting: Setting, entry: Entry, proof: Proof) -> tuple[bytes, int]:
    """Name the anchored end of the trunk as the reference and latch the beacon that draws the watermark's bits."""
    client = setting.clients[entry.name]
    (opening,) = open_segments(proof, [proof.spec.segments - 1])
    client.arena.anchor_reference(entry.run_id, opening)
    setting.chain.mine(BLOCKS_TO_BEACON)
    beta = client.arena.latch_mark(entry.run_id)
    return beta, client.arena.run(entry.run_id).mark.block


def mark_and_commit(setting: Setting, entry: Entry, proof: Proof) -> Submitted:
    """Embed the keyed watermark into the end of the trunk, seal the proof and commit to the marked model."""
    client = setting.clients[entry.name]
    beta, block = draw_mark(setting, entry, proof)
    model = mark_run(entry.folder, proof.spec.segments - 1, entry.key, beta)
    blob = to_safetensors(model)
    submission = Submission(
        model_digest=tensors_digest(model),
        model_cid=setting.store.put(blob),
        reference_segment=proof.spec.segments - 1,
        beta=beta,
        beta_block=block,
    )
    assert client.account is not None
    account = client.account
    sealed = seal(entry.folder, submission, blob, lambda unsigned: sign_proof(unsigned, account))
    salt, round_ = new_salt(), client.arena.current_round(setting.task_id)
    client.arena.commit_submission(
        entry.run_id,
        round_=round_,
        branch=submission.reference_segment,
        model_digest=submission.model_digest,
        model_cid=submission.model_cid,
        salt=salt,
    )
    return Submitted(entry, sealed, round_, salt)


def reveal(setting: Setting, submitted: Submitted) -> None:
    """Show the committed model: digest and CID become public, and with them the weights."""
    mark = submitted.proof.submission
    assert mark is not None
    setting.clients[submitted.entry.name].arena.reveal_submission(
        setting.task_id,
        submitted.round,
        branch=mark.reference_segment,
        model_digest=mark.model_digest,
        model_cid=mark.model_cid,
        salt=submitted.salt,
    )


def claim_watermark(setting: Setting, submitted: Submitted) -> Path:
    """Open the leaves that the task's beacon drew, in a signed folder that others can check models with."""
    entry, mark = submitted.entry, submitted.proof.submission
    assert mark is not None and mark.beta is not None
    beacon = setting.clients[entry.name].scoring.opening_beacon(setting.task_id).value
    groups = opening_groups(beacon, entry.key.root, DEFAULT_PARAMETERS.groups, OPENED_GROUPS)
    state = trunk_end(submitted.proof, entry.folder)
    claim = Claim.make(entry.key, mark.beta, DEFAULT_PARAMETERS, groups, model_tensors(state))
    folder = setting.runs / f"{entry.name}-claim"
    write_claim(folder, claim, entry.spec, state, setting.clients[entry.name].account)
    return folder


def trunk_end(proof: Proof, folder: Path) -> Tensors:
    """The last trunk state, as captured."""
    stored = proof.stored_at(proof.spec.steps)
    return from_safetensors(states_of(folder).get(stored.cid), where="trunk")


def _address_bytes(address: str) -> bytes:
    return bytes.fromhex(address.removeprefix("0x"))
