"""Ways to break a proof folder, held in memory as {file name: bytes}: by its bytes, and by what its JSON says."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

from pol.encoding import canonical_json

Files = dict[str, bytes]
NASTY: list[Any] = [
    None, True, False, 0, 1, -1, 2**31, 2**53, 2**63 - 1, 2**63, -(2**63), 2**256, "", "0x", "0x00", "../../etc/passwd",
    "a\x00b", "\u202e", "\ud800", "é" * 300, "0x" + "ff" * 32, "0x" + "FF" * 32, "bafk" + "a" * 55, [], {}, [[]],
    1.5, float("nan"), float("inf"), -0.0, "x" * 100_000, list(range(1000)), {"a": {"a": {"a": {"a": {}}}}}, {"": {}},
]  # fmt: skip


def raw(files: Files, draw: random.Random) -> None:
    """Break the bytes of one file."""
    name = draw.choice(sorted(files))
    data = bytearray(files[name])
    draw.choice([_flip, _cut, _insert, _repeat, _splice, _blank, _extreme])(data, draw)
    files[name] = bytes(data)


def structured(files: Files, draw: random.Random) -> None:
    """Change what one JSON file says, and write it canonically (or nearly so); its bytes, if it is JSON no more."""
    before = dict(files)
    try:
        _rewrite(files, draw)
    except (ValueError, IndexError, KeyError, RecursionError):
        files.update(before)
        raw(files, draw)


def _rewrite(files: Files, draw: random.Random) -> None:
    name = draw.choice(["manifest.json", "manifest.json", "transcript.jsonl", "openings.json"])
    lines = files[name].splitlines() if name.endswith("l") else [files[name]]
    if name.endswith("l") and draw.random() < 0.3:
        draw.choice([draw.shuffle, lambda rows: rows.pop(), lambda rows: rows.append(draw.choice(rows))])(lines)
    else:
        number = draw.randrange(len(lines))
        lines[number] = _write(_change(json.loads(lines[number]), draw), draw)
    files[name] = b"".join(line + b"\n" for line in lines) if name.endswith("l") else lines[0]


def tensors(files: Files, draw: random.Random) -> None:
    """Change the header of one blob, and leave its name: the CID is wrong then, so it is read only in part."""
    name = draw.choice([each for each in sorted(files) if each.startswith("states/")] or sorted(files))
    data = files[name]
    size = int.from_bytes(data[:8], "little")
    try:
        header = _change(json.loads(data[8 : 8 + size]), draw)
    except ValueError:
        return raw(files, draw)
    text = json.dumps(header).encode("utf-8", "surrogatepass")
    length = draw.choice([len(text), 0, 2**63, 2**64 - 1, len(text) + 1, 2**40])
    files[name] = length.to_bytes(8, "little") + text + data[8 + size :]
    return None


def names(files: Files, draw: random.Random) -> None:
    """Remove, rename, exchange or add files."""
    name, other = draw.choice(sorted(files)), draw.choice(sorted(files))
    kind = draw.randrange(5)
    if kind == 0 and len(files) > 1:
        del files[name]
    elif kind == 1:
        files[draw.choice(["states/x.safetensors", "notes.txt", ".hidden", "states/" + "b" * 59])] = files.pop(name)
    elif kind == 2:
        files[name], files[other] = files[other], files[name]
    elif kind == 3:
        files[draw.choice(["extra", "journal.jsonl", "openings.json", "states/.partial-x"])] = files[name]
    else:
        files[name] = b""


MUTATORS: list[Callable[[Files, random.Random], None]] = [raw, raw, structured, structured, structured, tensors, names]


def _change(value: Any, draw: random.Random) -> Any:
    """``value`` with one thing changed somewhere in it."""
    deeper = draw.random() < 0.9
    if isinstance(value, dict) and value and deeper:
        return _change_object(value, draw)
    if isinstance(value, list) and value and deeper:
        return _change_list(value, draw)
    nearby = draw.random() < 0.6
    if isinstance(value, int) and nearby:
        return value + draw.choice([-1, 1, 10, 2**32])
    if isinstance(value, str) and value and nearby:
        at = draw.randrange(len(value))
        return value[:at] + draw.choice("0123456789abcdefx.-/p+ ") + value[at + 1 :]
    return draw.choice(NASTY)


def _change_object(value: dict[str, Any], draw: random.Random) -> dict[str, Any]:
    key, kind = draw.choice(sorted(value)), draw.random()
    if kind < 0.7:
        return value | {key: _change(value[key], draw)}
    if kind < 0.8:
        return {name: each for name, each in value.items() if name != key}
    return value | {draw.choice(["extra", key + " ", key.upper(), "\u0000"]): draw.choice(NASTY)}


def _change_list(value: list[Any], draw: random.Random) -> list[Any]:
    rows, number, kind = list(value), draw.randrange(len(value)), draw.random()
    if kind < 0.6:
        rows[number] = _change(rows[number], draw)
    elif kind < 0.8:
        rows.insert(draw.randrange(len(rows) + 1), rows[number])
    else:
        rows.pop(number)
    return rows


def _write(value: Any, draw: random.Random) -> bytes:
    try:
        if draw.random() < 0.8:
            return canonical_json(value)
    except (TypeError, ValueError):
        pass
    return json.dumps(value, indent=draw.choice([None, 1])).encode("utf-8", "surrogatepass")


def _flip(data: bytearray, draw: random.Random) -> None:
    for _ in range(draw.choice([1, 1, 1, 8])):
        if data:
            data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)


def _cut(data: bytearray, draw: random.Random) -> None:
    del data[draw.randrange(len(data) + 1) :]


def _insert(data: bytearray, draw: random.Random) -> None:
    at = draw.randrange(len(data) + 1)
    data[at:at] = draw.choice(
        [b"\0", b"[" * 5000, b'{"a":' * 5000, b"\xff\xfe", b'"', b"1" * 5000, b"\n", b"\xef\xbb\xbf"]
    )


def _repeat(data: bytearray, draw: random.Random) -> None:
    at = draw.randrange(len(data) + 1)
    data[at:at] = data[at : at + draw.randrange(1, 200)]


def _splice(data: bytearray, draw: random.Random) -> None:
    a, b = sorted(draw.randrange(len(data) + 1) for _ in range(2))
    del data[a : min(b, a + 300)]


def _blank(data: bytearray, draw: random.Random) -> None:
    at = draw.randrange(len(data) + 1)
    data[at : at + 16] = bytes(16)


def _extreme(data: bytearray, draw: random.Random) -> None:
    data[:8] = draw.choice([b"\xff" * 8, bytes(8), (2**40).to_bytes(8, "little"), b"\x80\x04\x95\0\0\0\0\0"])
