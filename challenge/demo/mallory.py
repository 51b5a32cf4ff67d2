"""The thief: she takes a published model, disguises it, and forges the best transcript she can.

Everything she can compute without training is right: her registration, seed, data order, batch roots, initial state,
hyper-parameters, generators, Merkle trees, anchors, second beacon, her own embedded watermark and her signature. Only
the states between the first and the last are made up, because nobody can have them without training.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch

from chain.anchoring import RunAnchorer
from challenge.demo.setting import Setting
from challenge.demo.trainer import Entry
from pol import Proof
from pol.data import Dataset, batch_root
from pol.order import DataOrder
from pol.program import Program, load_program
from pol.proof import StoredState, states_of
from pol.state import Tensors, to_safetensors
from pol.tensors import tensors_digest
from pol.transcript import Anchor, Segment, segment_tree

FINE_TUNE_STEPS = 30
PRUNED_SHARE = 0.3
SEGMENTS_AN_ANCHOR = 6


def disguise(stolen: Tensors, entry: Entry, dataset: Dataset) -> Tensors:
    """Fine-tune a little, shuffle the hidden units, and prune the smallest weights of the hidden layer."""
    program = load_program(entry.spec.program, entry.spec.program_digest)
    state = program.build(entry.spec.config, entry.seed_source.value)
    state.model.load_state_dict(stolen)
    order = DataOrder(entry.seed_source.value, len(dataset), entry.spec.batch_size)
    for step in range(FINE_TUNE_STEPS):
        program.train_step(state, dataset.batch(order.batch(step)))
    tuned = {name: value.detach().clone() for name, value in state.model.state_dict().items()}
    shuffled = _shuffle_units(tuned)
    weight = shuffled["layers.1.weight"]
    threshold = weight.abs().flatten().kthvalue(int(PRUNED_SHARE * weight.numel())).values
    shuffled["layers.1.weight"] = torch.where(weight.abs() <= threshold, torch.zeros_like(weight), weight)
    return shuffled


def forge(setting: Setting, entry: Entry, target: Tensors, dataset: Dataset) -> Proof:
    """A proof folder whose trunk runs in a straight line from the seed's initial state to ``target``."""
    spec = entry.spec
    seed = entry.seed_source.seed(spec)
    program = load_program(spec.program, spec.program_digest)
    order = DataOrder(seed, spec.dataset_size, spec.batch_size)
    states = [_forged_state(program, entry, target, spec.bounds(i)[1]) for i in range(spec.segments)]
    initial = program.build(spec.config, seed).capture(seed)
    digests = [tensors_digest(initial), *(tensors_digest(state) for state in states)]
    segments = []
    for index, (start_digest, end_digest) in enumerate(pairwise(digests)):
        start, end = spec.bounds(index)
        batches = [order.batch(step) for step in range(start, end)]
        segments.append(
            Segment(
                index=index, start_step=start, end_step=end, start_digest=start_digest, end_digest=end_digest,
                batch_root=batch_root(dataset, batches, start),
            )
        )  # fmt: skip
    keep_every = math.ceil(math.sqrt(spec.segments))
    kept = [i for i in range(spec.segments) if (i + 1) % keep_every == 0 or i + 1 == spec.segments]
    store = states_of(entry.folder)
    proof = Proof(
        spec=spec,
        seed_source=entry.seed_source,
        segments=tuple(segments),
        anchors=tuple(_anchor_all(setting, entry, segments)),
        states=tuple(StoredState(step=spec.bounds(i)[1], cid=store.put(to_safetensors(states[i]))) for i in kept),
    )
    proof.write(entry.folder)
    return Proof.read(entry.folder)


def _forged_state(program: Program, entry: Entry, target: Tensors, step: int) -> Tensors:
    """What the state after ``step`` steps might look like: right in everything that can be worked out."""
    spec = entry.spec
    seed, share = entry.seed_source.seed(spec), step / spec.steps
    state = program.build(spec.config, seed)
    start = {name: value.clone() for name, value in state.model.state_dict().items()}
    state.model.load_state_dict({name: torch.lerp(start[name], target[name], share) for name in start})
    for parameter in (p for group in state.optimizer.param_groups for p in group["params"]):
        noise = torch.randn_like(parameter)
        state.optimizer.state[parameter] = {
            "step": torch.tensor(float(step)),
            "exp_avg": 1e-3 * noise,
            "exp_avg_sq": 1e-6 * noise.square(),
        }
    state.advance_schedule(step)
    return state.capture(seed)


def _anchor_all(setting: Setting, entry: Entry, segments: list[Segment]) -> list[Anchor]:
    anchorer = RunAnchorer(setting.clients[entry.name], entry.run_id)
    parts = [segments[i : i + SEGMENTS_AN_ANCHOR] for i in range(0, len(segments), SEGMENTS_AN_ANCHOR)]
    return [anchorer.anchor(part[0].index, len(part), segment_tree(part).root) for part in parts]


def _shuffle_units(model: Tensors) -> Tensors:
    """The same function with its hidden units in another order."""
    shuffled = dict(model)
    for layer in (0, 1):
        units = torch.randperm(len(shuffled[f"layers.{layer}.bias"]))
        for part in ("weight", "bias"):
            shuffled[f"layers.{layer}.{part}"] = shuffled[f"layers.{layer}.{part}"][units]
        shuffled[f"layers.{layer + 1}.weight"] = shuffled[f"layers.{layer + 1}.weight"][:, units]
    return shuffled
