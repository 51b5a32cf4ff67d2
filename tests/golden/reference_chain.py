"""The chain's side of the second implementation: keccak, EIP-712, secp256k1, commitments and draws, in plain Python."""

from __future__ import annotations

import hashlib
import hmac

from tests.golden import reference as ref
from tests.golden.reference import hexed, u256, unhex

P = 2**256 - 2**32 - 977
N = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
G = (
    0x79BE667EF9DCBBAC55A06295CE870B07029BFCDB2DCE28D959F2815B16F81798,
    0x483ADA7726A3C4655DA4FBFC0E1108A8FD17B448A68554199C47D08FFB10D4B8,
)
MASK = (1 << 64) - 1


def keccak256(data: bytes) -> bytes:
    """Keccak-256 as Ethereum uses it: the padding byte is 0x01, where SHA3-256 has 0x06."""
    padded = bytearray(data + b"\x01" + bytes(-(len(data) + 1) % 136))
    padded[-1] |= 0x80
    lanes = [[0] * 5 for _ in range(5)]
    for start in range(0, len(padded), 136):
        for i in range(17):
            lanes[i % 5][i // 5] ^= int.from_bytes(padded[start + 8 * i : start + 8 * i + 8], "little")
        _permute(lanes)
    return b"".join(lanes[i][0].to_bytes(8, "little") for i in range(4))


def _permute(a: list[list[int]]) -> None:
    feedback = 1
    for _ in range(24):
        column = [a[x][0] ^ a[x][1] ^ a[x][2] ^ a[x][3] ^ a[x][4] for x in range(5)]
        for x in range(5):
            mix = column[(x + 4) % 5] ^ _rotate(column[(x + 1) % 5], 1)
            a[x] = [lane ^ mix for lane in a[x]]
        x, y, moving = 1, 0, a[1][0]
        for t in range(24):
            x, y = y, (2 * x + 3 * y) % 5
            moving, a[x][y] = a[x][y], _rotate(moving, (t + 1) * (t + 2) // 2)
        for y in range(5):
            row = [a[x][y] for x in range(5)]
            for x in range(5):
                a[x][y] = row[x] ^ (~row[(x + 1) % 5] & MASK & row[(x + 2) % 5])
        for j in range(7):
            feedback = (feedback << 1 ^ (feedback >> 7) * 0x71) % 256
            if feedback & 2:
                a[0][0] ^= 1 << ((1 << j) - 1)


def _rotate(lane: int, by: int) -> int:
    return (lane << by % 64 | lane >> (64 - by % 64)) & MASK


def add(a: tuple[int, int] | None, b: tuple[int, int] | None) -> tuple[int, int] | None:
    if a is None or b is None:
        return a or b
    if a[0] == b[0]:
        if (a[1] + b[1]) % P == 0:
            return None
        slope = 3 * a[0] * a[0] * pow(2 * a[1], -1, P)
    else:
        slope = (b[1] - a[1]) * pow(b[0] - a[0], -1, P)
    x = (slope * slope - a[0] - b[0]) % P
    return x, (slope * (a[0] - x) - a[1]) % P


def times(scalar: int) -> tuple[int, int]:
    point, power = None, G
    while scalar:
        point = add(point, power) if scalar & 1 else point
        power, scalar = add(power, power), scalar >> 1
    assert point
    return point


def address(key: int) -> bytes:
    x, y = times(key)
    return keccak256(u256(x) + u256(y))[12:]


def sign(key: int, message: bytes) -> bytes:
    """r || s || v with the nonce of RFC 6979, low s, v = 27 or 28."""
    secret, k, v = u256(key) + u256(int.from_bytes(message, "big") % N), bytes(32), b"\x01" * 32
    for byte in (b"\x00", b"\x01"):
        k = hmac.digest(k, v + byte + secret, "sha256")
        v = hmac.digest(k, v, "sha256")
    nonce = int.from_bytes(hmac.digest(k, v, "sha256"), "big")
    assert 0 < nonce < N  # another one would be drawn, with a chance of 2^-128
    x, y = times(nonce)
    s = pow(nonce, -1, N) * (int.from_bytes(message, "big") + x * key) % N
    odd = y % 2
    if s > N // 2:
        s, odd = N - s, 1 - odd
    return u256(x) + u256(s) + bytes([27 + odd])


def word(value: object) -> bytes:
    """One ABI word: a name is padded on the right, numbers and addresses on the left."""
    if isinstance(value, bytes):
        return value.rjust(32, b"\0")
    return value.encode().ljust(32, b"\0") if isinstance(value, str) else u256(int(value))  # type: ignore[call-overload]


def commit(domain: str, *values: object, version: int = 1) -> bytes:
    return hashlib.sha256(b"".join(map(word, (f"aiarena/{domain}/v{version}", *values)))).digest()


def struct_digest(type_text: str, *values: object) -> bytes:
    return keccak256(keccak256(type_text.encode()) + b"".join(map(word, values)))


def separator_of(task: dict) -> bytes:
    return struct_digest(
        "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)",
        keccak256(b"AIArena"), keccak256(b"1"), task["chain_id"], unhex(task["arena"]),
    )  # fmt: skip


def signed_manifest(value: dict) -> dict:
    """Section 8 for an unsigned manifest of a task and a private key."""
    manifest, key = value["manifest"], int(value["private_key"], 16)
    task = manifest["spec"]["task"]
    spec_digest = ref.json_digest("training-spec")(manifest["spec"])
    transcript = ref.transcript({"spec_digest": spec_digest, "anchors": manifest["anchors"]})
    manifest_digest = ref.json_digest("proof-manifest")(manifest)
    separator = separator_of(task)
    model = manifest["submission"]["model_digest"] if manifest["submission"] else hexed(bytes(32))
    struct = struct_digest(
        "ProofManifest(uint256 taskId,address trainer,bytes32 specDigest,bytes32 transcriptDigest,"
        "bytes32 modelDigest,bytes32 manifestDigest)",
        task["task_id"], address(key), *map(unhex, (spec_digest, transcript, model, manifest_digest)),
    )  # fmt: skip
    message = keccak256(b"\x19\x01" + separator + struct)
    return {
        "trainer": hexed(address(key)),
        "spec_digest": spec_digest,
        "transcript_digest": transcript,
        "manifest_digest": manifest_digest,
        "domain_separator": hexed(separator),
        "struct_digest": hexed(struct),
        "signing_digest": hexed(message),
        "signature": hexed(sign(key, message)),
    }


def signed_claim(value: dict) -> dict:
    """Section 10 for a spec with a task and a watermark, and a private key."""
    spec, key = value["spec"], int(value["private_key"], 16)
    parameters = ref.json_digest("watermark-parameters")(spec["watermark"]["parameters"])
    digests = (ref.json_digest("training-spec")(spec), spec["watermark"]["key_root"], parameters)
    struct = struct_digest(
        "WatermarkClaim(address trainer,uint256 taskId,bytes32 specDigest,bytes32 keyRoot,bytes32 parametersDigest)",
        address(key), spec["task"]["task_id"], *map(unhex, digests),
    )  # fmt: skip
    message = keccak256(b"\x19\x01" + separator_of(spec["task"]) + struct)
    return {"struct_digest": hexed(struct), "signature": hexed(sign(key, message))}


def submission(v: dict) -> str:
    site = (v["chain_id"], unhex(v["arena"]), v["task_id"], unhex(v["trainer"]))
    cid = hashlib.sha256(v["model_cid"].encode()).digest()
    digests = (unhex(v["model_digest"]), unhex(v["transcript_digest"]), cid, unhex(v["salt"]))
    return hexed(commit("submission", *site, *digests))


def submission_v2(v: dict) -> str:
    whose = (v["chain_id"], unhex(v["arena"]), v["task_id"], unhex(v["trainer"]), v["run_id"], v["round"], v["branch"])
    cid = hashlib.sha256(v["model_cid"].encode()).digest()
    digests = (unhex(v["model_digest"]), unhex(v["transcript_digest"]), cid, unhex(v["salt"]))
    return hexed(commit("submission", *whose, *digests, version=2))


def scores(v: dict) -> str:
    packed = hashlib.sha256(b"".join(score.to_bytes(2, "big") for score in v["scores"])).digest()
    site = (v["chain_id"], unhex(v["arena"]), v["task_id"], v["round"], unhex(v["validator"]))
    return hexed(commit("scores", *site, packed, unhex(v["salt"])))


def vote(v: dict) -> str:
    site = (v["chain_id"], unhex(v["manager"]), v["case_id"], unhex(v["juror"]))
    return hexed(commit("vote", *site, v["uphold"], unhex(v["reproduction"]), unhex(v["salt"])))


def case(v: dict) -> dict:
    seed = commit("case-seed", unhex(v["block_digest"]), v["case_id"])
    drawn: list[int] = []
    counter = 0
    while len(drawn) < v["sampled"]:
        index = int.from_bytes(commit("case-draw", seed, counter), "big") % v["segments"]
        drawn += [index] if index not in drawn else []
        counter += 1
    return {"seed": hexed(seed), "segments": drawn}


FUNCTIONS = {
    "signed_manifest": signed_manifest,
    "signed_claim": signed_claim,
    "submission": submission,
    "submission_v2": submission_v2,
    "scores": scores,
    "vote": vote,
    "final_set": lambda v: hexed(commit("final-set", unhex(v["final_root"]), unhex(v["salt"]))),
    "case": case,
}
