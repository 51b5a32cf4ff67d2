"""Why a contract refused: error data decoded against the custom errors of all contracts, with advice."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import IntEnum
from functools import cache
from json import JSONDecodeError
from typing import Any

from eth_abi.abi import decode
from eth_abi.exceptions import DecodingError
from eth_utils.abi import abi_to_signature
from eth_utils.crypto import keccak
from web3.exceptions import (
    BadFunctionCallOutput,
    BadResponseFormat,
    ContractLogicError,
    ProviderConnectionError,
    TimeExhausted,
    Web3RPCError,
)

from chain.artifact import ALL_CONTRACTS, artifact
from chain.case import CaseVerdict, Stage
from chain.errors import ChainError, ContractReverted, NetworkUnavailable, WrongChain
from chain.types import Bond, Phase

PANICS = {0x01: "assertion failed", 0x11: "arithmetic overflow", 0x12: "division by zero", 0x32: "index out of range"}
SILENCE = (
    OSError,  # every failure of a connection, time-outs and HTTP errors included
    ProviderConnectionError,
    TimeExhausted,
    BadResponseFormat,  # this and the next two: something answered, but no node
    JSONDecodeError,
    UnicodeDecodeError,
)
ENUMS: dict[str, type[IntEnum]] = {
    "enum Bond": Bond,
    "enum Phase": Phase,
    "enum Stage": Stage,
    "enum Verdict": CaseVerdict,
}

HINTS = {
    "AlreadyCommitted": "One submission a round; its promise stands.",
    "AlreadyDone": "It was done before in this case, or in this sitting of its jury.",
    "AlreadyEnlisted": "Nothing is left to do.",
    "AlreadyForfeited": "An upheld case took this reward for good.",
    "AlreadyPaid": "Nothing is left to do.",
    "AlreadyRevealed": "Nothing is left to do.",
    "AlreadyStaked": "An account stakes once a task; use another account for another role.",
    "BadAnchor": "Continue with segment `have`, and end by segment `limit`.",
    "BadBase": "Give a base model of the task's list with its path, or none if the task has no list.",
    "BadBranch": "Branch at the reference segment or later, and below what was anchored at the commitment.",
    "BadCharge": "Show the charge and the salt that were sealed, with the account that sealed them.",
    "BadClaim": "Name a run of your own in this task for a watermark, and none otherwise.",
    "BadCommission": "Give at most 10000 basis points.",
    "BadFinalSet": "Use the root and the salt that the task was created with.",
    "BadFund": "Its terms do not fit: see IEmission.sol.",
    "BadLeaf": "Open exactly the leaves that the opening beacon drew, in order, under the claimed run's key.",
    "BadNames": "Name at most `limit` distinct segments, all of them anchored.",
    "BadOpening": "Opening k (from 0) must be the k-th drawn segment, with its proof in its own anchor.",
    "BadOpeningProof": "Open a segment that is anchored, at the steps the task's terms give it.",
    "BadReveal": "Use the model digest, CID and salt of the promise, and the account that made it.",
    "BadRole": "Stake as a trainer or as a validator.",
    "BadScores": "Give 0 to 10000 basis points.",
    "BadScoresLength": "Give one score a staked trainer, in staking order.",
    "BadScoresReveal": "Use the scores and the salt of the promise, and the account that made it.",
    "BadStop": "Stop with the `have` anchored segments, if they are fewer than `limit`; a stopped run stays so.",
    "BadTerms": "Change that field; its bounds are in ITasks.sol.",
    "BadVoteReveal": "Use the vote, reproduction and salt of the promise, and the account that made it.",
    "BeaconAlreadyRequested": "The block is promised, and can still be latched or was.",
    "BeaconExpired": "Nobody latched it while its hash was in reach: the run is void, or request another block.",
    "BeaconNotLatched": "Latch the run's beacon first.",
    "BeaconNotReady": "Wait until that block is followed by another, then latch.",
    "BeaconNotRequested": "Nothing was promised here yet.",
    "BondForfeited": "Nothing of this run stands, or its trainer was convicted: its bond burns.",
    "BondSettled": "Nothing is left to do.",
    "CasePending": "Settle the case first; anyone may, once its windows are over.",
    "DelegationTooLow": "Lend at least `need` wei.",
    "DepositEarned": "The final set was attested: the creator reclaims its deposit.",
    "Done": "Another has done this part of the round; go on with the next.",
    "DuplicateModel": "Another trainer committed to the same model before; this submission cannot stand.",
    "ERC20InsufficientAllowance": "Approve the amount for the contract that takes it.",
    "ERC20InsufficientBalance": "Get more tokens, or pay less.",
    "EmptyDigest": "Give a spec digest and a key root that are not zero.",
    "FinalSetAlreadyOpened": "Nothing is left to do.",
    "FinalSetNotOpened": "The creator opens the final set first; if not, the last submission round ranks.",
    "JuryNotLatched": "Latch the jury's beacon first.",
    "MarkNotLatched": "Anchor the reference state, then latch the mark.",
    "NoAppeal": "The verdict of the last level is final.",
    "NoBadBounds": "The segment is what the terms say it must be.",
    "NoDiscontinuity": "The two segments join.",
    "NoWrongStart": "The two openings do not show another block than the base model's.",
    "NotAllowed": "Only one certain account may do this.",
    "NotEarlier": "A claim counts against models that were committed later only.",
    "NotEnlisted": "Enlist the task first, on the day it starts.",
    "NotJuror": "Only validators of the level's jury vote, and not the challenger.",
    "NotPoked": "Poke the fund up to that day first.",
    "NotRanked": "Rank the round first.",
    "NotRefuted": "The task names no step verifier, or it does not refute this segment.",
    "NotStaked": "Name an account that has staked in this task.",
    "NotStanding": "Only a revealed, unstruck submission can be challenged: name its round.",
    "NotTrainer": "Act as a trainer of this task (in a case: as the challenged one).",
    "NotValidator": "Act as a validator of this task.",
    "NotWeighed": "Weigh all validators first.",
    "NothingCommitted": "There is no promise to show: commit within the round.",
    "NothingToPay": "It was paid already, or there was nothing.",
    "ReferenceExists": "A run has one reference state.",
    "RunAlive": "Something may still come of this run: its bond cannot burn yet.",
    "ScoresAlreadyCommitted": "The promise stands.",
    "ScoresAlreadyRevealed": "Nothing is left to do.",
    "ScoresNotCommitted": "There is no promise to show: commit in the window before.",
    "StakeTooLow": "Stake at least `need` wei.",
    "TaskTooShort": "The fund pays for days that end within the submission rounds: this task has none.",
    "TaskTooSmall": "The fund asks for more stake, or a higher deposit of the creator.",
    "TooEarly": "Wait until then (seconds since 1970).",
    "TooLate": "The window is over (seconds since 1970).",
    "TooManyOperators": "The task is full.",
    "UnknownCase": "Check the case's id.",
    "UnknownRound": "Rounds count from 1, and the final validation comes after the task's last.",
    "UnknownRun": "Check the run's number, or register one first.",
    "UnknownTask": "Check the task's id.",
    "VoteNotCommitted": "There is no promise to show.",
    "WrongOpeningCount": "Open exactly the drawn segments.",
    "WrongPhase": "The task is in phase `have`; do this in phase `need`.",
    "WrongRound": "Settle round `next` now.",
    "WrongStage": "The case is in another stage: see `challenge status`.",
    "ZeroAmount": "Give an amount above zero.",
}


@contextmanager
def refusals(label: str) -> Iterator[None]:
    """Turn what web3 raises into this package's errors, naming ``label``."""
    try:
        yield
    except ContractLogicError as error:
        raise explain_revert(_error_data(error), label) from error
    except BadFunctionCallOutput as error:
        raise WrongChain(f"{label}: no such contract there; use another node or another deployment") from error
    except SILENCE as error:
        # Not `from error`: its text names the node's address, and that of a paid node contains a key.
        raise NetworkUnavailable(f"{label}: the node did not answer ({why_silent(error)}); check its address") from None
    except Web3RPCError as error:
        raise ChainError(f"{label}: the node refused it ({error.message})") from error


def why_silent(error: Exception) -> str:
    """What went wrong on the way to a node, in words of our own: the error's text may contain the node's address."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    return f"HTTP status {status}" if isinstance(status, int) else type(error).__name__


def explain_revert(data: bytes, label: str) -> ContractReverted:
    """The decoded form of a call's error data (any length)."""
    name, inputs = _errors().get(data[:4], ("", ()))
    try:
        values = decode([item["type"] for item in inputs], data[4:])
    except DecodingError:
        name, inputs, values = "", (), ()
    arguments = {item["name"]: _named(item, value) for item, value in zip(inputs, values, strict=True)}
    if name == "Panic":
        return ContractReverted(label, name, arguments, hint=PANICS.get(values[0], "internal error") + ".")
    return ContractReverted(label, name, arguments, hint=HINTS.get(name, ""))


def _named(item: Mapping[str, Any], value: Any) -> Any:
    enum = ENUMS.get(item.get("internalType", ""))
    return enum(value) if enum else value


def _error_data(error: ContractLogicError) -> bytes:
    data = error.data
    if isinstance(data, Mapping):  # some nodes wrap it
        data = data.get("data", "")
    text = str(data or "").removeprefix("Reverted ").removeprefix("0x")
    try:
        return bytes.fromhex(text)
    except ValueError:
        return b""


@cache
def _errors() -> dict[bytes, tuple[str, tuple[Mapping[str, Any], ...]]]:
    table: dict[bytes, tuple[str, tuple[Mapping[str, Any], ...]]] = {
        bytes.fromhex("08c379a0"): ("Error", ({"type": "string", "name": "message"},)),
        bytes.fromhex("4e487b71"): ("Panic", ({"type": "uint256", "name": "code"},)),
    }
    for item in (item for name in ALL_CONTRACTS for item in artifact(name).abi if item["type"] == "error"):
        table[keccak(text=abi_to_signature(item))[:4]] = (item["name"], tuple(item["inputs"]))
    return table
