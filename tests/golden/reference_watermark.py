"""The watermark's side of the second implementation: leaves, bits, carriers, the embed segment, in plain Python."""

from __future__ import annotations

import hmac
import struct
from math import fsum, inf, sqrt

from tests.golden.reference import hexed, leaf, raw, root, tagged, u64, unhex

TOLERANCE = 2.0**-40


def leaf_secret(master: bytes, index: int) -> tuple[bytes, bytes]:
    """(seed, salt): HKDF-SHA256 without a salt, 64 bytes."""
    info, key = b"aiarena/watermark-leaf-secret/v1" + u64(index), hmac.digest(bytes(32), master, "sha256")
    seed = hmac.digest(key, info + b"\x01", "sha256")
    return seed, hmac.digest(key, seed + info + b"\x02", "sha256")


def watermark_key(value: dict) -> dict:
    secrets = [leaf_secret(unhex(value["master"]), index) for index in range(value["leaves"])]
    digests = [leaf("watermark-leaf", index, seed + salt) for index, (seed, salt) in enumerate(secrets)]
    key_root = root(digests)
    bits = [mark_bit(unhex(value["beta"]), key_root, index, seed) for index, (seed, _) in enumerate(secrets)]
    seed, salt = secrets[1]
    leaf_1 = {"seed": hexed(seed), "salt": hexed(salt), "digest": hexed(digests[1])}
    return {"leaf_1": leaf_1, "key_root": hexed(key_root), "bits": signs(bits)}


def mark_bit(beta: bytes, key_root: bytes, index: int, seed: bytes) -> int:
    return 1 if tagged("watermark-bit", beta, key_root, u64(index), seed)[0] >= 128 else -1


def signs(values: list[int]) -> str:
    return "".join("+" if value > 0 else "-" for value in values)


def chacha20(key: bytes, length: int) -> bytes:
    """The key stream of RFC 8439 with a zero nonce, from block 0."""
    stream = b""
    for block in range(-(-length // 64)):
        start = list(struct.unpack("<4I", b"expand 32-byte k") + struct.unpack("<8I", key) + (block, 0, 0, 0))
        x = start.copy()
        for _ in range(10):
            for quarter in ((0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15),
                            (0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14)):  # fmt: skip
                _quarter(x, *quarter)
        stream += struct.pack("<16I", *((a + b) % 2**32 for a, b in zip(x, start, strict=True)))
    return stream[:length]


def _quarter(x: list[int], a: int, b: int, c: int, d: int) -> None:
    for target, other, mixed, turn in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
        x[target] = (x[target] + x[other]) % 2**32
        word = x[mixed] ^ x[target]
        x[mixed] = (word << turn | word >> (32 - turn)) % 2**32


def factors(seed: bytes, rows: int, columns: int) -> tuple[list[int], list[int]]:
    stream = chacha20(tagged("watermark-carrier", seed), -(-(rows + columns) // 8))
    bits = [1 if stream[i // 8] >> (7 - i % 8) & 1 else -1 for i in range(rows + columns)]
    return bits[:rows], bits[rows:]


def carrier(value: dict) -> dict:
    u, v = factors(unhex(value["seed"]), value["rows"], value["columns"])
    return {"u": signs(u), "v": signs(v)}


def opening_groups(value: dict) -> list[int]:
    drawn: list[int] = []
    counter = 0
    while len(drawn) < value["count"]:
        digest = tagged("watermark-opening", unhex(value["beacon"]), unhex(value["key_root"]), u64(counter))
        group = int.from_bytes(digest, "big") % value["groups"]
        drawn += [group] if group not in drawn else []
        counter += 1
    return drawn


def embed_group(value: dict) -> str:
    """Section 10: the marked rows of one group, float32 little-endian."""
    rows, columns, margin = value["rows"], value["columns"], float.fromhex(value["margin"])
    flat = struct.unpack(f"<{rows * columns}f", raw(value["block"]))
    block = [list(flat[r * columns : (r + 1) * columns]) for r in range(rows)]
    scale, signed = sqrt(rows * columns), []
    for number, text in enumerate(value["seeds"]):
        bit = mark_bit(unhex(value["beta"]), unhex(value["key_root"]), value["first_leaf"] + number, unhex(text))
        u, v = factors(unhex(text), rows, columns)
        signed.append(([bit * sign for sign in u], v))
    inner = [fsum(u[r] * block[r][c] * v[c] for r in range(rows) for c in range(columns)) for u, v in signed]
    gram = [[_dot(u, w) * _dot(v, z) / (rows * columns) for w, z in signed] for u, v in signed]
    for weight, (u, v) in zip(least_weights(gram, [margin - one / scale for one in inner]), signed, strict=True):
        block = [[block[r][c] + weight / scale * (u[r] * v[c]) for c in range(columns)] for r in range(rows)]
    return hexed(struct.pack(f"<{rows * columns}f", *(one for row in block for one in row)))


def least_weights(gram: list[list[float]], need: list[float]) -> list[float]:
    x, active = [0.0] * len(need), [False] * len(need)
    for _ in range(4 * len(need)):
        products = [fsum(g * weight for g, weight in zip(row, x, strict=True)) for row in gram]
        slack = [-inf if active[i] else need[i] - products[i] for i in range(len(need))]
        if max(slack) <= TOLERANCE * max(map(abs, need)):
            return x
        active[slack.index(max(slack))] = True
        x = _solve(gram, need, active, x)
    raise ValueError("no embedding")


def _solve(gram: list[list[float]], need: list[float], active: list[bool], x: list[float]) -> list[float]:
    trial = _eliminate(gram, need, active)
    while falling := [i for i in range(len(x)) if active[i] and trial[i] <= 0]:
        ratios = [x[i] / (x[i] - trial[i]) if x[i] > trial[i] else x[i] for i in falling]
        step = min(ratios)
        x = [a + step * (b - a) for a, b in zip(x, trial, strict=True)]
        active[falling[ratios.index(step)]] = False
        x = [max(a, 0.0) if used else 0.0 for a, used in zip(x, active, strict=True)]
        trial = _eliminate(gram, need, active)
    return trial


def _eliminate(gram: list[list[float]], need: list[float], active: list[bool]) -> list[float]:
    chosen = [i for i, used in enumerate(active) if used]
    system = [[*(gram[i][j] for j in chosen), need[i]] for i in chosen]
    for i, row in enumerate(system):
        if row[i] < TOLERANCE:
            raise ValueError("no embedding")
        system[i] = pivot = [value / row[i] for value in row]
        for j, other in enumerate(system):
            if j != i:
                system[j] = [a - other[i] * b for a, b in zip(other, pivot, strict=True)]
    solution = [0.0] * len(need)
    for i, row in zip(chosen, system, strict=True):
        solution[i] = row[-1]
    return solution


def _dot(a: list[int], b: list[int]) -> int:
    return sum(x * y for x, y in zip(a, b, strict=True))


FUNCTIONS = {
    "watermark_key": watermark_key,
    "carrier": carrier,
    "opening_groups": opening_groups,
    "embed_group": embed_group,
}
