"""The packages' side of each vector, through the functions that recorder and verifier use (see README.md)."""

from __future__ import annotations

import hashlib
import importlib
import struct
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from eth_abi.abi import encode
from torch import nn

from chain.accounts import account_from_key
from chain.commitments import (
    Site,
    case_seed,
    final_set_commitment,
    sampled_segments,
    scores_commitment,
    submission_commitment,
    vote_commitment,
)
from chain.eip712 import recover, signing_digest, typed_data
from challenge.dispute import _nothing_to_replay
from challenge.segments import _judge
from challenge.signing import claim_message, domain_of, manifest_domain, manifest_message, sign_claim, sign_proof
from challenge.verdict import ExitCode, Outcome, Verdict
from pol.data import Dataset, batch_root, built_in
from pol.encoding import canonical_json, float_text, to_hex
from pol.machine import MachineClass, this_machine
from pol.order import DataOrder
from pol.program import program_digest
from pol.proof import Proof, parse_seed
from pol.replay import ReplayedSegment, ReplayedSpan, Span
from pol.seed import draw, run_seed
from pol.spec import TrainingSpec
from pol.state import TrainingState
from pol.submission import parse_submission
from pol.tensors import DTYPES, tensor_header, tensor_root, tensors_digest
from pol.transcript import Anchor, transcript_digest
from tests.golden.reference import raw, unhex
from watermark import Claim, MarkParameters, WatermarkKey, opening_groups
from watermark.bits import mark_bit
from watermark.key import Leaf, LeafOpening
from watermark.weights.carriers import carrier_factors
from watermark.weights.embed import embed_group

FOLDER = Path(__file__).parent / "proof-v1"
TORCH_DTYPES = {name: dtype for dtype, name in DTYPES.items()}


def _tensor(value: dict) -> torch.Tensor:
    data = bytearray(raw(value["data"]))
    dtype = TORCH_DTYPES[value["dtype"]]
    return (
        torch.frombuffer(data, dtype=dtype).reshape(value["shape"]) if data else torch.empty(value["shape"]).to(dtype)
    )


def _named(value: dict) -> dict:
    tensor = _tensor(value)
    return {
        "header": to_hex(tensor_header(value["name"], tensor)),
        "root": to_hex(tensor_root(value["name"], tensor)),
    }


def _generators(value: dict) -> dict:
    model = nn.Linear(1, 1)
    state = TrainingState(model=model, optimizer=torch.optim.SGD(model.parameters(), lr=1.0), step=value["step"])
    captured = state.capture(unhex(value["seed"]))
    return {name: to_hex(tensor_root(name, captured[name])) for name in ("rng/python", "rng/numpy", "rng/torch")}


def _dataset(value: dict) -> Dataset:
    return Dataset(_tensor(value["inputs"]), _tensor(value["labels"]))


def _samples(value: dict) -> dict:
    dataset = _dataset(value)
    return {"leaves": [to_hex(leaf) for leaf in dataset.leaves], "root": to_hex(dataset.root)}


def _digits(split: str) -> dict:
    dataset = built_in(f"digits/{split}")
    return {"size": len(dataset), "root": to_hex(dataset.root)}


def _data_order(value: dict) -> list[int]:
    return list(DataOrder(unhex(value["seed"]), value["size"], value["batch_size"]).batch(value["step"]))


def _batches(value: dict) -> dict:
    dataset = _dataset(value["dataset"])
    return {
        "digests": [to_hex(dataset.batch_digest(indices)) for indices in value["batches"]],
        "root": to_hex(batch_root(dataset, value["batches"], value["first_step"])),
    }


def _run_seed(value: dict) -> str:
    plain = {"chain_id": value["chain_id"], "task_id": value["task_id"]}
    binary = {name: unhex(value[name]) for name in ("arena", "trainer", "spec_digest", "beacon")}
    return to_hex(run_seed(**plain, **binary))


def _transcript(value: dict) -> str:
    anchors = [
        Anchor(first=row["first"], count=row["count"], root=unhex(row["root"]), block=0, tx=bytes(32))
        for row in value["anchors"]
    ]
    return to_hex(transcript_digest(unhex(value["spec_digest"]), anchors))


def _proof_of(manifest: dict) -> Proof:
    """A proof without segments or states of its own, from an unsigned manifest: enough for every digest."""
    return Proof(
        spec=TrainingSpec.from_json(manifest["spec"]),
        seed_source=parse_seed(manifest["seed"], where="seed"),
        segments=(),
        anchors=tuple(Anchor.from_json(row, where="anchors") for row in manifest["anchors"]),
        states=Proof.read(FOLDER).states,
        submission=parse_submission(manifest["submission"], where="submission"),
    )


def _program_digest(source: str) -> str:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "golden_vector_program.py").write_text(source, encoding="utf-8")
        sys.path.insert(0, folder)
        importlib.invalidate_caches()
        try:
            return to_hex(program_digest("golden_vector_program:Program"))
        finally:
            sys.path.remove(folder)


def _reproduction(rows: list[dict]) -> str:
    segments = [
        ReplayedSegment(
            index=row["index"],
            start_digest=unhex(row["start_digest"]),
            end_digest=unhex(row["end_digest"]),
            batch_root=unhex(row["batch_root"]),
        )
        for row in rows
    ]
    verdict = Verdict()
    _judge(
        Proof.read(FOLDER), [ReplayedSpan(Span(first=0, last=len(rows) - 1), segments, machine=this_machine())], verdict
    )
    assert verdict.outcome is Outcome.VERIFIED and verdict.reproduction
    return verdict.reproduction


def _no_reproduction(code: int) -> str:
    verdict = Verdict()
    verdict.reject(ExitCode(code), "broken")
    return to_hex(_nothing_to_replay(verdict))


def _signed_manifest(value: dict) -> dict:
    proof, account = _proof_of(value["manifest"]), account_from_key(value["private_key"])
    domain, message = manifest_domain(proof), manifest_message(proof)
    signature = sign_proof(proof, account)
    assert recover(signature, domain, message) == account.address
    return {
        "trainer": account.address.lower(),
        "spec_digest": to_hex(proof.spec.digest),
        "transcript_digest": to_hex(proof.transcript_digest),
        "manifest_digest": to_hex(proof.manifest_digest),
        "domain_separator": to_hex(typed_data(domain, message).header),
        "struct_digest": to_hex(typed_data(domain, message).body),
        "signing_digest": to_hex(signing_digest(domain, message)),
        "signature": to_hex(signature),
    }


def _signed_claim(value: dict) -> dict:
    spec, account = TrainingSpec.from_json(value["spec"]), account_from_key(value["private_key"])
    assert spec.task and spec.watermark
    parameters = MarkParameters.from_json(spec.watermark.parameters, where="parameters").digest
    signable = typed_data(domain_of(spec.task), claim_message(spec, spec.task, parameters))
    return {
        "struct_digest": to_hex(signable.body),
        "signature": to_hex(sign_claim(spec, parameters, account) or b""),
    }


def _submission_commitment(value: dict) -> str:
    digests = {name: unhex(value[name]) for name in ("model_digest", "transcript_digest", "salt")}
    place = {"run_id": value["run_id"], "round_": value["round"], "branch": value["branch"]}
    site, cid = Site(value["chain_id"], value["arena"]), value["model_cid"]
    return to_hex(submission_commitment(site, value["task_id"], value["trainer"], model_cid=cid, **place, **digests))


def _first_submission_commitment(value: dict) -> str:
    """Version 1, of one submission a run: no package makes it any more, so it is spelled out here."""
    cid = hashlib.sha256(value["model_cid"].encode()).digest()
    digests = (unhex(value["model_digest"]), unhex(value["transcript_digest"]), cid, unhex(value["salt"]))
    kinds = ("bytes32", "uint256", "address", "uint256", "address", *["bytes32"] * 4)
    whose = (value["chain_id"], value["arena"], value["task_id"], value["trainer"])
    return to_hex(hashlib.sha256(encode(kinds, (b"aiarena/submission/v1".ljust(32, b"\0"), *whose, *digests))).digest())


def _scores_commitment(value: dict) -> str:
    site, salt = Site(value["chain_id"], value["arena"]), unhex(value["salt"])
    voter = (value["task_id"], value["round"], value["validator"])
    return to_hex(scores_commitment(site, *voter, scores=value["scores"], salt=salt))


def _vote_commitment(value: dict) -> str:
    site, reproduction = Site(value["chain_id"], value["manager"]), unhex(value["reproduction"])
    vote = {"uphold": value["uphold"], "reproduction": reproduction, "salt": unhex(value["salt"])}
    return to_hex(vote_commitment(site, value["case_id"], value["juror"], **vote))


def _case(value: dict) -> dict:
    seed = case_seed(unhex(value["block_digest"]), value["case_id"])
    return {"seed": to_hex(seed), "segments": sampled_segments(seed, value["segments"], value["sampled"])}


def _signs(values: Iterable[float]) -> str:
    return "".join("+" if value > 0 else "-" for value in values)


def _watermark_key(value: dict) -> dict:
    key = WatermarkKey(unhex(value["master"]), value["leaves"])
    leaf = key.leaves[1]
    return {
        "leaf_1": {"seed": to_hex(leaf.seed), "salt": to_hex(leaf.salt), "digest": to_hex(leaf.digest)},
        "key_root": to_hex(key.root),
        "bits": _signs(mark_bit(unhex(value["beta"]), key.root, one.index, one.seed) for one in key.leaves),
    }


def _carrier(value: dict) -> dict:
    u, v = carrier_factors(unhex(value["seed"]), value["rows"], value["columns"])
    return {"u": _signs(u), "v": _signs(v)}


def _opening_groups(value: dict) -> list[int]:
    return list(opening_groups(unhex(value["beacon"]), unhex(value["key_root"]), value["groups"], value["count"]))


def _embed_group(value: dict) -> str:
    block = _tensor({"dtype": "F32", "shape": [value["rows"], value["columns"]], "data": value["block"]}).numpy()
    leaves = [Leaf(value["first_leaf"] + i, unhex(seed), bytes(32)) for i, seed in enumerate(value["seeds"])]
    beta, key_root = unhex(value["beta"]), unhex(value["key_root"])
    marked = embed_group(block, leaves, beta, key_root, margin=float.fromhex(value["margin"]))
    return to_hex(marked.astype("<f4").tobytes())


def _claim_digest(value: dict) -> str:
    theta_ref = {"w": torch.zeros(1)}  # whose digest the vector's claim names
    leaves = tuple(LeafOpening.from_json(row, where="leaf") for row in value["leaves"])
    for leaf in leaves:
        leaf.check(unhex(value["key_root"]), 12)
    parameters = MarkParameters.from_json(value["parameters"], where="parameters")
    claim = Claim(unhex(value["key_root"]), unhex(value["beta"]), parameters, tuple(value["groups"]), leaves, theta_ref)
    return to_hex(claim.digest)


FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "canonical_json": lambda value: canonical_json(value).decode("ascii"),
    "float_text": lambda bits: float_text(struct.unpack(">d", unhex(bits))[0]),
    "tensor": _named,
    "state_digest": lambda values: to_hex(tensors_digest({value["name"]: _tensor(value) for value in values})),
    "generators": _generators,
    "dataset": _samples,
    "digits": _digits,
    "data_order": _data_order,
    "batches": _batches,
    "run_seed": _run_seed,
    "draw": lambda value: str(draw(unhex(value["seed"]), value["purpose"], value["counter"])),
    "transcript": _transcript,
    "spec_digest": lambda value: to_hex(TrainingSpec.from_json(value).digest),
    "manifest_digest": lambda value: to_hex(_proof_of(value).manifest_digest),
    "machine_class": lambda value: to_hex(MachineClass.from_json(value, where="machine").digest),
    "mark_parameters": lambda value: to_hex(MarkParameters.from_json(value, where="parameters").digest),
    "claim_digest": _claim_digest,
    "program_digest": _program_digest,
    "reproduction": _reproduction,
    "no_reproduction": _no_reproduction,
    "signed_manifest": _signed_manifest,
    "signed_claim": _signed_claim,
    "submission": _first_submission_commitment,
    "submission_v2": _submission_commitment,
    "scores": _scores_commitment,
    "vote": _vote_commitment,
    "final_set": lambda value: to_hex(final_set_commitment(unhex(value["final_root"]), unhex(value["salt"]))),
    "case": _case,
    "watermark_key": _watermark_key,
    "carrier": _carrier,
    "opening_groups": _opening_groups,
    "embed_group": _embed_group,
}
