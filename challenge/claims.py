"""Watermark claims as they travel between parties: the claim, what ties it to an anchored state, and whose it is.

A claim's folder holds ``claim.json`` and ``theta_ref.safetensors`` (see :mod:`watermark.claim`) and
``state_table.json``: the tensor headers and roots of the whole trunk state that theta_ref is the model of. The table
leads to the state digest that was anchored before the second beacon, and each tensor of theta_ref must be in it.
``spec.json`` is the claimant's training spec, which promised the key and the parameters; if it names a task,
``signature.json`` is the trainer's signature under them. :mod:`challenge.sealed` makes one sealed file of all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from chain.eip712 import SIGNATURE_BYTES
from challenge.signing import check_claim_signature, sign_claim
from pol.encoding import MAX_JSON_BYTES, Json, canonical_json, fields, from_hex, parse_canonical_json, to_hex
from pol.errors import CannotRun, ProofError
from pol.spec import TrainingSpec
from pol.state import Tensors
from pol.tensors import table_digest, table_row, tensor_table
from watermark import Claim

if TYPE_CHECKING:
    from chain.signers import Signer

TABLE_FILE = "state_table.json"
SPEC_FILE = "spec.json"
SIGNATURE_FILE = "signature.json"
SIGNATURE_FORMAT = "aiarena.claim-signature/1"
OPENED_GROUPS = 32
"""How many groups of a key an accuser opens, drawn by the task's opening beacon."""
MAX_HEADER_BYTES = 70_000


@dataclass(frozen=True)
class TiedClaim:
    """A claim, the spec that promised it, and the digest of the trunk state its theta_ref is the model of.

    ``model`` is the claimant's submitted model, where the verifier has it; it is not part of what travels.
    """

    claim: Claim
    spec: TrainingSpec
    reference_digest: bytes
    model: Tensors | None = None


def write_claim(
    folder: Path,
    claim: Claim,
    spec: TrainingSpec,
    reference: Mapping[str, torch.Tensor],
    account: Signer | None = None,
) -> None:
    """Write ``claim`` with ``spec`` and the table of ``reference``, the whole captured state after which it branched.

    ``account`` is the trainer's and signs the claim, where the spec names a task. Raises :class:`ProofError` if they
    do not belong together, :class:`SpecError` for a missing or another account.
    """
    _check_members(claim, tensor_table(reference))
    _check_promised(claim, spec)
    signature = sign_claim(spec, claim.parameters.digest, account)
    claim.save(folder)
    rows = [{"header": to_hex(header), "root": to_hex(root)} for header, root in tensor_table(reference)]
    (folder / TABLE_FILE).write_bytes(canonical_json([dict(row) for row in rows]))
    (folder / SPEC_FILE).write_bytes(canonical_json(spec.to_json()))
    if signature is not None:
        value: Json = {"format": SIGNATURE_FORMAT, "signature": to_hex(signature)}
        (folder / SIGNATURE_FILE).write_bytes(canonical_json(value))


def read_claim(folder: Path) -> TiedClaim:
    """Read a claim strictly; :class:`CannotRun` if it is not there, :class:`ProofError` if it is not sound."""
    if not folder.is_dir():
        raise CannotRun(f"{folder}: no such folder; give the folder of a watermark claim")
    claim = Claim.load(folder)
    spec = TrainingSpec.from_json(_json(folder / SPEC_FILE), where=str(folder / SPEC_FILE))
    _check_promised(claim, spec)
    where = str(folder / SIGNATURE_FILE)
    check_claim_signature(spec, claim.parameters.digest, _signature(folder / SIGNATURE_FILE), where=where)
    path = folder / TABLE_FILE
    rows = _json(path)
    if not isinstance(rows, list):
        raise ProofError(f"{path}: expected a list")
    table = []
    for number, item in enumerate(rows):
        row = fields(item, {"header", "root"}, where=f"{path}[{number}]")
        text = row["header"]
        if not isinstance(text, str) or len(text) > MAX_HEADER_BYTES or len(text) % 2:
            raise ProofError(f"{path}[{number}].header: expected hex")
        header = from_hex(text, where=f"{path}[{number}].header", length=len(text) // 2 - 1)
        table.append((header, from_hex(row["root"], where=f"{path}[{number}].root")))
    _check_members(claim, table)
    return TiedClaim(claim, spec, table_digest(table))


def _signature(path: Path) -> bytes | None:
    if not path.exists():
        return None
    item = fields(_json(path), {"format", "signature"}, where=str(path))
    if item["format"] != SIGNATURE_FORMAT:
        raise ProofError(f"{path}: not a signature of format {SIGNATURE_FORMAT}")
    return from_hex(item["signature"], where=f"{path}: signature", length=SIGNATURE_BYTES)


def _json(path: Path) -> Json:
    if not path.is_file() or path.stat().st_size > MAX_JSON_BYTES:
        raise ProofError(f"{path}: missing or too large; the claim is not tied to an anchored state")
    return parse_canonical_json(path.read_bytes(), where=str(path))


def _check_promised(claim: Claim, spec: TrainingSpec) -> None:
    promise = spec.watermark
    if promise is None or promise.key_root != claim.key_root or promise.parameters != claim.parameters.to_json():
        raise ProofError(f"{SPEC_FILE}: this spec does not promise the claim's key and parameters")


def _check_members(claim: Claim, table: list[tuple[bytes, bytes]]) -> None:
    """The rows of the state's model must be exactly theta_ref's tensors."""
    members = {table_row(f"model/{name}", value) for name, value in claim.theta_ref.items()}
    listed = {(header, root) for header, root in table if header[2:8] == b"model/"}
    if members != listed:
        raise ProofError(f"{TABLE_FILE}: theta_ref is not the model of the state in the table")
