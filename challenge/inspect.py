"""A proof as it lies there: what it promises and holds, and what checking it would cost. Nothing of it is run.

Torch-free, so that a proof of unknown origin can be looked at quickly. Whether the states have their digests, and
whether the program leads to them, is for :mod:`challenge.verify` to say.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from challenge.sampling import replayed_segments
from pol.encoding import to_hex
from pol.errors import ProofError
from pol.proof import Proof, StoredState, states_of
from pol.submission import Submission
from pol.tensorfile import read_rows

INSPECTION_FORMAT = "aiarena.inspection/1"
SHOWN_ROWS = 20
"""How many anchors and states are shown to people; ``--json`` has them all."""


def inspect_proof(folder: Path, sampled: int) -> dict[str, Any]:
    """What the proof in ``folder`` says, as one JSON object, with the cost of verifying a sample of ``sampled``.

    Reads manifest, transcript and the headers of the states. Raises :class:`ProofError` for a malformed proof and
    :class:`CannotRun` if there is none. A signature that does not hold is told, not raised.
    """
    proof = Proof.read(folder)
    count = proof.segment_count
    branches = {mark.reference_segment for mark in proof.earlier}
    mean, most = replayed_segments(replay_starts(proof), count, min(sampled, count), branches)
    return {
        "format": INSPECTION_FORMAT,
        "spec": proof.spec.to_json(),
        "digests": {
            "spec": to_hex(proof.spec.digest),
            "transcript": to_hex(proof.transcript_digest),
            "manifest": to_hex(proof.manifest_digest),
        },
        "seed": proof.seed_source.to_json(),
        "segments": count,
        "steps": proof.steps,
        "segments_promised": proof.spec.segments,
        "stopped": proof.stopped.to_json() if proof.stopped else None,
        "anchors": [anchor.to_json() for anchor in proof.anchors],
        "states": [_state(folder, state) for state in proof.states],
        "openings": [_state(folder, state) for state in proof.openings],
        "submission": _model(folder, proof.submission) if proof.submission else None,
        "earlier": [_model(folder, mark) for mark in proof.earlier],
        "theta_ref": proof.reference,
        "signature": _signature(proof),
        "cost": {"sampled": min(sampled, count), "mean_segments": round(float(mean), 2), "most_segments": most},
        "limits": list(_limits(proof)),
    }


def replay_starts(proof: Proof) -> list[int]:
    """The segments before which a state is at hand, ascending; 0, the initial state, is always one."""
    kept = (state.step for state in (*proof.states, *proof.openings) if state.step < proof.steps)
    return sorted({0, *(step // proof.spec.segment_length for step in kept)})


def lines(found: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The same for people: a label of at most 13 characters, and a line of text."""
    spec, segments = found["spec"], found["segments"]
    yield "program", f"{spec['program']}, source {spec['program_digest']}"
    yield "config", _plain(spec["config"])
    yield "data", f"{spec['dataset']}, {spec['dataset_size']} samples, root {spec['dataset_root']}"
    length, batch = spec["segment_length"], spec["batch_size"]
    yield "steps", f"{found['steps']} in {segments} segments of {length}, {batch} samples a step"
    if found["stopped"]:
        block = found["stopped"]["block"]
        yield "early stop", f"after {segments} of {found['segments_promised']} promised segments, in block {block}"
    yield "machine", f"{_plain(spec['machine'])}; numerics {spec['numerics']}"
    yield "task", _plain(spec["task"]) if spec["task"] else "none: recorded without a chain"
    yield "trainer", spec["trainer"]
    yield "watermark", _plain(spec["watermark"]) if spec["watermark"] else "none promised"
    yield "seed", "{kind} {value}, block {block}".format(**found["seed"])
    yield from _some("anchor", [_anchor(row) for row in found["anchors"]])
    yield from _some("state", [_held(row) for row in found["states"]])
    yield from _some("opened state", [_held(row) for row in found["openings"]])
    yield from (("earlier model", _submission(row)) for row in found["earlier"])
    yield "submission", _submission(found["submission"])
    signature = found["signature"]
    yield "signature", signature["problem"] or (f"valid, by {signature['signer']}" if signature["signer"] else "none")
    for name, value in found["digests"].items():
        yield "digest", f"of the {name}: {value}"
    cost = found["cost"]
    ends = "the first, the last and those before a submission" if found["earlier"] else "the first and the last"
    yield (
        "cost",
        f"a sample of {cost['sampled']}, {ends}: {cost['mean_segments']:g} of {segments} segments are "
        f"replayed on average, at most {cost['most_segments']} (those between stored states included)",
    )
    for limit in found["limits"]:
        yield "note", limit


def _state(folder: Path, state: StoredState) -> dict[str, Any]:
    return state.to_json() | _blob(folder, state.cid)


def _model(folder: Path, mark: Submission) -> dict[str, Any]:
    return mark.to_json() | _blob(folder, mark.model_cid)


def _blob(folder: Path, cid: str) -> dict[str, int]:
    path = states_of(folder).path(cid)
    return {"bytes": path.stat().st_size, "tensors": len(read_rows(path, where=f"states/{cid}"))}


def _signature(proof: Proof) -> dict[str, Any]:
    if proof.signature is None and proof.spec.task is None:
        return {"signer": None, "problem": None}
    # Imported here: the chain's libraries take a second, and a proof without a signature needs none of them.
    from chain.errors import BadSignature
    from challenge.signing import signer_of

    try:
        return {"signer": signer_of(proof), "problem": None}
    except (ProofError, BadSignature) as error:
        return {"signer": None, "problem": f"NOT VALID: {error}"}


def _limits(proof: Proof) -> Iterator[str]:
    yield "nothing was run, and the digests of the states were not compared: challenge verify does both"
    if proof.spec.task is None:
        yield "recorded without a chain: order and initial state could have been ground, times are unproven"
        yield "unsigned: nothing ties this proof to an account"
    else:
        yield "no chain was asked: blocks and beacons are what the proof says of them"


def _anchor(row: dict[str, Any]) -> str:
    last = row["first"] + row["count"] - 1
    return f"segments {row['first']} to {last}, block {row['block']}, root {row['root']}"


def _held(row: dict[str, Any]) -> str:
    return f"after step {row['step']}: {row['cid']}, {row['bytes']} bytes, {row['tensors']} tensors"


def _submission(row: dict[str, Any] | None) -> str:
    if row is None:
        return "none: only the trunk is here"
    mark = f"watermark beacon {row['beta']}, block {row['beta_block']}" if row["beta"] else "no watermark embedded"
    held = f"{row['model_cid']}, {row['bytes']} bytes, {row['tensors']} tensors"
    return f"model {row['model_digest']}, {held}, branch after segment {row['reference_segment']}, {mark}"


def _some(label: str, texts: list[str]) -> Iterator[tuple[str, str]]:
    yield from ((label, text) for text in texts[:SHOWN_ROWS])
    if len(texts) > SHOWN_ROWS:
        yield label, f"... and {len(texts) - SHOWN_ROWS} more (--json lists them)"


def _plain(value: Any) -> str:
    """An object of the spec on one line."""
    return json.dumps(value, sort_keys=True)[1:-1].replace('"', "") if isinstance(value, dict) else json.dumps(value)
