"""A second implementation of docs/spec/proof-format.md, from the text alone: hashlib, struct, numpy, nothing of ours.

Each function of :data:`FUNCTIONS` takes the ``input`` of a vector in vectors.json and returns its ``output``.
"""

from __future__ import annotations

import base64
import hashlib
import json
import struct
from functools import lru_cache
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np

SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}


def sha(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()


def tagged(domain: str, *parts: bytes) -> bytes:
    return sha(f"aiarena/{domain}/v1".encode(), *parts)


def u64(value: int) -> bytes:
    return struct.pack(">Q", value)


def u256(value: int) -> bytes:
    return value.to_bytes(32, "big")


def unhex(text: str) -> bytes:
    assert text.startswith("0x")
    return bytes.fromhex(text[2:])


def hexed(value: bytes) -> str:
    return "0x" + value.hex()


# Section 2: canonical bytes


def canonical(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str):
        return '"' + "".join(map(_escaped, value)) + '"'
    if isinstance(value, list):
        return "[" + ",".join(map(canonical, value)) + "]"
    return "{" + ",".join(f"{canonical(key)}:{canonical(value[key])}" for key in sorted(value)) + "}"


def _escaped(character: str) -> str:
    short = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\t": "\\t", "\n": "\\n", "\f": "\\f", "\r": "\\r"}
    if character in short:
        return short[character]
    if " " <= character <= "~":
        return character
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2))


def json_bytes(value: Any) -> bytes:
    return canonical(value).encode("ascii")


def float_text(bits: str) -> str:
    number = int(bits, 16)
    sign, exponent, fraction = "-" * (number >> 63), number >> 52 & 0x7FF, number & (1 << 52) - 1
    if exponent == 0 and fraction == 0:
        return f"{sign}0x0.0p+0"
    lead, power = (1, exponent - 1023) if exponent else (0, -1022)
    return f"{sign}0x{lead}.{fraction:013x}p{power:+d}"


# Section 6: Merkle trees


def leaf(domain: str, index: int, payload: bytes) -> bytes:
    return tagged(domain, u64(index), payload)


def root(leaves: list[bytes]) -> bytes:
    level = leaves
    while len(level) > 1:
        level = [sha(*level[i : i + 2]) if i + 1 < len(level) else level[i] for i in range(0, len(level), 2)]
    return tagged("root-record", u64(len(leaves)), level[0])


# Section 5: tensors, states, generators. A tensor is {"name", "dtype", "shape", "data"}.


def raw(data: Any) -> bytes:
    """``data`` of a vector: hex, or the number of bytes i mod 251 for i = 0, 1, 2, ..."""
    return unhex(data) if isinstance(data, str) else bytes(i % 251 for i in range(data))


def header(name: str, dtype: str, shape: list[int]) -> bytes:
    label, kind = name.encode("utf-8"), dtype.encode("ascii")
    lengths = struct.pack(f">B{len(shape)}Q", len(shape), *shape)
    return struct.pack(">H", len(label)) + label + struct.pack(">B", len(kind)) + kind + lengths


def tensor_root(head: bytes, data: bytes) -> bytes:
    blocks = [data[i : i + 16384] for i in range(0, len(data), 16384)] or [b""]
    return root([leaf("tensor-block", i, head + block) for i, block in enumerate(blocks)])


def tensor(value: dict) -> dict:
    head, data = header(value["name"], value["dtype"], value["shape"]), raw(value["data"])
    assert len(data) == SIZES[value["dtype"]] * int(np.prod(value["shape"], dtype=int))
    return {"header": hexed(head), "root": hexed(tensor_root(head, data))}


def table_digest(table: dict[str, tuple[bytes, bytes]]) -> bytes:
    """From {name: (header, root)}."""
    rows = [table[name] for name in sorted(table, key=lambda name: name.encode("utf-8"))]
    return root([leaf("named-tensor", i, top + head) for i, (head, top) in enumerate(rows)])


def state_digest(values: list[dict]) -> str:
    both = {value["name"]: tensor(value) for value in values}
    return hexed(table_digest({name: (unhex(one["header"]), unhex(one["root"])) for name, one in both.items()}))


def safetensors(data: bytes) -> dict[str, tuple[str, list[int], bytes]]:
    """{name: (dtype, shape, bytes)} of a safetensors blob."""
    (length,) = struct.unpack("<Q", data[:8])
    rows, body = json.loads(data[8 : 8 + length]), data[8 + length :]
    return {name: (row["dtype"], row["shape"], body[slice(*row["data_offsets"])]) for name, row in rows.items()}


def blob_digest(data: bytes) -> bytes:
    heads = {name: (header(name, *row[:2]), row[2]) for name, row in safetensors(data).items()}
    return table_digest({name: (head, tensor_root(head, body)) for name, (head, body) in heads.items()})


def draw(seed: bytes, purpose: str, counter: int = 0) -> int:
    label = purpose.encode("ascii") + bytes(32 - len(purpose))
    return int.from_bytes(tagged("seed-draw", seed, label, u64(counter))[:8], "big") // 2


def mersenne(seed: int) -> list[int]:
    """MT19937's init_genrand."""
    words = [seed % 2**32]
    for i in range(1, 624):
        words.append((1812433253 * (words[-1] ^ words[-1] >> 30) + i) % 2**32)
    return words


def mersenne_by_array(key: list[int]) -> list[int]:
    """MT19937's init_by_array for a key of at most 624 words."""
    mt, i, j = mersenne(19650218), 1, 0
    for step in range(624 + 623):
        mixed = mt[i] ^ (mt[i - 1] ^ mt[i - 1] >> 30) * (1664525 if step < 624 else 1566083941)
        mt[i] = (mixed + key[j] + j if step < 624 else mixed - i) % 2**32
        i, j = i + 1, (j + 1) % len(key)
        if i == 624:
            mt[0], i = mt[623], 1
    mt[0] = 1 << 31
    return mt


def generator_tensors(seed: bytes, step: int) -> dict[str, tuple[str, list[int], bytes]]:
    python, numpy, torch = (draw(seed, f"rng/{name}", step) for name in ("python", "numpy", "torch"))
    key = [python % 2**32, python >> 32] if python >> 32 else [python]
    state = struct.pack("<QiiQ624Q", torch, 1, 1, 0, *mersenne(torch))
    return {
        "rng/python": ("I64", [625], struct.pack("<625q", *mersenne_by_array(key), 624)),
        "rng/numpy": ("I64", [625], struct.pack("<625q", *mersenne(numpy), 624)),
        "rng/torch": ("U8", [5056], state + bytes(40)),
    }


def generators(value: dict) -> dict:
    tensors = generator_tensors(unhex(value["seed"]), value["step"])
    return {name: hexed(tensor_root(header(name, *kind), data)) for name, (*kind, data) in tensors.items()}


# Sections 3, 4 and 6: data sets, order, batches, seeds, specs, manifests


def samples(value: dict) -> list[bytes]:
    """The sample leaves of {"inputs": {dtype, shape, data}, "labels": {...}}."""
    inputs, labels = (value[name] | {"data": raw(value[name]["data"])} for name in ("inputs", "labels"))
    head = header("input", inputs["dtype"], inputs["shape"][1:]) + header("label", labels["dtype"], [])
    size = inputs["shape"][0]
    cuts = [[part["data"][i * (len(part["data"]) // size) :][: len(part["data"]) // size] for i in range(size)]
            for part in (inputs, labels)]  # fmt: skip
    return [leaf("sample", i, head + x + y) for i, (x, y) in enumerate(zip(*cuts, strict=True))]


def dataset(value: dict) -> dict:
    leaves = samples(value)
    return {"leaves": [hexed(one) for one in leaves], "root": hexed(root(leaves))}


@lru_cache
def digits_samples(first: int, last: int) -> list[bytes]:
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    rows = sorted(range(len(labels)), key=lambda i: tagged("digits-split", u64(i)))[first:last]
    head = header("input", "F32", [64]) + header("label", "I64", [])
    values = [(pixels[row] / 16).astype("<f4").tobytes() + struct.pack("<q", labels[row]) for row in rows]
    return [leaf("sample", i, head + both) for i, both in enumerate(values)]


def digits(split: str) -> dict:
    edges = {"train": (0, 1197), "submission-validation": (1197, 1497), "final-validation": (1497, 1797)}
    leaves = digits_samples(*edges[split])
    return {"size": len(leaves), "root": hexed(root(leaves))}


def data_order(value: dict) -> list[int]:
    seed, size, batch = unhex(value["seed"]), value["size"], value["batch_size"]
    number, slot = value["step"] // (size // batch), value["step"] % (size // batch)
    order = sorted(range(size), key=lambda i: tagged("data-order", seed, u64(number), u64(i)))
    return order[slot * batch : (slot + 1) * batch]


def batch_digest(leaves: list[bytes], indices: list[int]) -> bytes:
    return tagged("batch", *(leaves[i] for i in indices))


def batches(value: dict) -> dict:
    leaves, first = samples(value["dataset"]), value["first_step"]
    digests = [batch_digest(leaves, indices) for indices in value["batches"]]
    top = root([leaf("step-batch", first + i, one) for i, one in enumerate(digests)])
    return {"digests": [hexed(one) for one in digests], "root": hexed(top)}


def run_seed(value: dict) -> str:
    arena, trainer, spec, beacon = (unhex(value[name]) for name in ("arena", "trainer", "spec_digest", "beacon"))
    return hexed(tagged("run-seed", u256(value["chain_id"]), arena, u256(value["task_id"]), trainer, spec, beacon))


def transcript(value: dict) -> str:
    digest = unhex(value["spec_digest"])
    for anchor in value["anchors"]:
        digest = tagged("transcript", digest, u64(anchor["first"]), u64(anchor["count"]), unhex(anchor["root"]))
    return hexed(digest)


def cid(blob: bytes) -> str:
    """The CID of a blob of at most 256 KiB."""
    assert len(blob) <= 262144
    return "b" + base64.b32encode(b"\x01\x55\x12\x20" + sha(blob)).decode().lower().rstrip("=")


def segment_leaf(row: dict) -> bytes:
    digests = b"".join(unhex(row[name]) for name in ("start_digest", "end_digest", "batch_root"))
    return leaf("segment", row["index"], u64(row["start_step"]) + u64(row["end_step"]) + digests)


def reproduction(rows: list[dict]) -> str:
    parts = [u64(row["index"]) + unhex(row["end_digest"]) + unhex(row["batch_root"]) for row in rows]
    return hexed(tagged("reproduction", *parts))


def json_digest(domain: str) -> Any:
    return lambda value: hexed(tagged(domain, json_bytes(value)))


def proof_digests(folder: Path) -> dict:
    """What a proof folder without a task promises, worked out from its files alone."""
    manifest = json.loads((folder / "manifest.json").read_bytes())
    rows = [json.loads(line) for line in (folder / "transcript.jsonl").read_bytes().splitlines()]
    spec_digest = json_digest("training-spec")(manifest["spec"])
    blobs = {path.stem: path.read_bytes() for path in sorted((folder / "states").iterdir())}
    return {
        "spec_digest": spec_digest,
        "seed": manifest["seed"]["value"],
        "machine_class": json_digest("machine-class")(manifest["spec"]["machine"]),
        "transcript_digest": transcript({"spec_digest": spec_digest, "anchors": manifest["anchors"]}),
        "manifest_digest": json_digest("proof-manifest")({k: v for k, v in manifest.items() if k != "signature"}),
        "anchor_roots": [
            hexed(root([segment_leaf(row) for row in islice(rows, a["first"], a["first"] + a["count"])]))
            for a in manifest["anchors"]
        ],
        "blobs": {cid(blob): hexed(blob_digest(blob)) for blob in blobs.values()},
        "reproduction": reproduction(rows),
    }


def task_seed(manifest: dict) -> str:
    """The seed of a task's run, from its manifest."""
    spec = manifest["spec"]
    beacon = {"trainer": spec["trainer"], "spec_digest": json_digest("training-spec")(spec)}
    return run_seed(spec["task"] | beacon | {"beacon": manifest["seed"]["value"]})


def task_proof_digests(folder: Path) -> dict:
    """What the proof folder of a task's run promises, worked out from its files alone."""
    return proof_digests(folder) | {"seed": task_seed(json.loads((folder / "manifest.json").read_bytes()))}


def token_samples(data: bytes, length: int) -> list[bytes]:
    """The sample leaves of a file of uint8 tokens in windows of ``length``."""
    head = header("tokens", "I64", [length + 1])
    windows = [data[start : start + length + 1] for start in range(0, len(data) - length, length)]
    return [leaf("sample", i, head + struct.pack(f"<{length + 1}q", *one)) for i, one in enumerate(windows)]


def stopped_batch_roots(manifest: dict, leaves: list[bytes]) -> list[str]:
    """The batch roots of a task's run that was stopped early, from the seed and the sample leaves."""
    spec = manifest["spec"] | {"steps": manifest["stopped"]["segments"] * manifest["spec"]["segment_length"]}
    seed = manifest["seed"] | {"value": task_seed(manifest)}
    return replayed_batch_roots({"spec": spec, "seed": seed}, leaves)


def replayed_batch_roots(manifest: dict, leaves: list[bytes] | None = None) -> list[str]:
    """The batch roots of a run on digits/train (or on the data with these ``leaves``), from the seed."""
    spec, leaves, roots = manifest["spec"], leaves or digits_samples(0, 1197), []
    for start in islice(count(0, spec["segment_length"]), -(-spec["steps"] // spec["segment_length"])):
        steps = range(start, min(start + spec["segment_length"], spec["steps"]))
        asked = {"seed": manifest["seed"]["value"], "size": spec["dataset_size"], "batch_size": spec["batch_size"]}
        indices = [data_order(asked | {"step": step}) for step in steps]
        rows = [leaf("step-batch", s, batch_digest(leaves, i)) for s, i in zip(steps, indices, strict=True)]
        roots.append(hexed(root(rows)))
    return roots


FUNCTIONS = {
    "canonical_json": canonical,
    "float_text": float_text,
    "tensor": tensor,
    "state_digest": state_digest,
    "generators": generators,
    "dataset": dataset,
    "digits": digits,
    "data_order": data_order,
    "batches": batches,
    "run_seed": run_seed,
    "draw": lambda value: str(draw(unhex(value["seed"]), value["purpose"], value["counter"])),
    "transcript": transcript,
    "spec_digest": json_digest("training-spec"),
    "manifest_digest": json_digest("proof-manifest"),
    "machine_class": json_digest("machine-class"),
    "mark_parameters": json_digest("watermark-parameters"),
    "claim_digest": json_digest("watermark-claim"),
    "program_digest": lambda source: hexed(tagged("program-source", source.encode("utf-8"))),
    "reproduction": reproduction,
    "no_reproduction": lambda code: hexed(tagged("no-reproduction", bytes([code]))),
}
