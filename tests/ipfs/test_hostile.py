"""A node that cheats, stalls or breaks off: never a wrong file, never a proof to blame, never more than asked for."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from challenge.bundle import fetch_proof, publish_proof
from pol import Proof
from pol.cid import CHUNK_BYTES, cid_of
from pol.errors import CannotRun, PolError, ProofError, Unreachable
from pol.ipfs import IpfsStore
from pol.store import LocalStore
from tests.ipfs.hostile import Answer, Node, honestly
from tests.ipfs.unixfs import binary, text, tree

DATA = random.Random(1).randbytes(3 * CHUNK_BYTES + 1000)
SMALL = b"a manifest, say"
MEGABYTE = 1 << 20


@pytest.fixture
def node() -> Iterator[Node]:
    with Node().running() as node:
        yield node


@pytest.fixture
def store(node: Node) -> IpfsStore:
    return IpfsStore(node.address, stall=30.0)


def fetched(store: IpfsStore, cid: str, folder: Path) -> bytes:
    """What arrives as a file, where nothing else is left behind."""
    store.get_file(cid, folder / "blob")
    assert [path.name for path in folder.iterdir()] == ["blob"]
    return (folder / "blob").read_bytes()


def refused(error: type[PolError], match: str | None, store: IpfsStore, cid: str, folder: Path) -> None:
    """Neither way of reading gives anything, and nobody is blamed for more than ``error`` says."""
    for read in (lambda: store.get(cid), lambda: store.get_file(cid, folder / "blob")):
        with pytest.raises(error, match=match) as found:
            read()
        assert isinstance(found.value, ProofError) == (error is ProofError)
    assert not (folder / "blob").exists()


@pytest.mark.parametrize("data", [b"", SMALL, DATA[:CHUNK_BYTES], DATA])
def test_an_honest_node_serves(node: Node, store: IpfsStore, tmp_path: Path, data: bytes) -> None:
    cid = store.put(data)
    assert cid == cid_of(data)
    assert store.get(cid) == fetched(store, cid, tmp_path) == data
    assert store.put(data) == cid
    assert [command for command, _ in node.asked].count("add") == 1  # what is pinned is not sent again


def test_trees_of_trees_are_read(node: Node, store: IpfsStore, tmp_path: Path) -> None:
    data = random.Random(2).randbytes(CHUNK_BYTES) * 174 + b"one more"
    assert fetched(store, node.keep(data), tmp_path) == data


def wrong(answer: Answer) -> None:
    answer.whole(bytes(len(answer.content)))


def other_length(answer: Answer) -> None:
    answer.whole(answer.content + b"!")


@pytest.mark.parametrize("how", [wrong, other_length])
@pytest.mark.parametrize("data", [SMALL, DATA])
def test_a_wrong_block_is_the_nodes_fault(
    node: Node, store: IpfsStore, tmp_path: Path, data: bytes, how: Callable[[Answer], None]
) -> None:
    cid = node.keep(data)
    node.on["block/get"] = how
    refused(CannotRun, "serves other bytes", store, cid, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_chunk_ends_the_stream(node: Node, store: IpfsStore, tmp_path: Path) -> None:
    cid = node.keep(DATA)

    def turns_wrong(answer: Answer) -> None:
        answer.begin()
        answer.send(DATA[: CHUNK_BYTES + 1] + b"!")
        answer.endlessly(bytes(CHUNK_BYTES))

    node.on["cat"] = turns_wrong
    refused(CannotRun, "serves other bytes", store, cid, tmp_path)
    assert node.sent < 16 * MEGABYTE
    del node.on["cat"]
    assert fetched(store, cid, tmp_path) == DATA
    assert node.offsets()[-1] == CHUNK_BYTES  # the right chunk was kept, and not asked for again


def test_content_that_changes_is_never_mixed(node: Node, store: IpfsStore, tmp_path: Path) -> None:
    cid, other = node.keep(DATA), DATA[::-1]
    answers = [DATA[: CHUNK_BYTES + 5], other[CHUNK_BYTES:], DATA[CHUNK_BYTES:]]
    node.on["cat"] = lambda answer: answer.whole(answers.pop(0))
    with pytest.raises(Unreachable, match="broke off"):
        store.get_file(cid, tmp_path / "blob")
    with pytest.raises(CannotRun, match="serves other bytes"):
        store.get_file(cid, tmp_path / "blob")
    assert fetched(store, cid, tmp_path) == DATA


def test_what_changed_beside_us_is_not_kept(node: Node, store: IpfsStore, tmp_path: Path) -> None:
    cid = node.keep(DATA)
    (tmp_path / ".partial-blob").write_bytes(DATA[:CHUNK_BYTES] + bytes(5 * CHUNK_BYTES))
    counted: list[int] = []
    store.get_file(cid, tmp_path / "blob", on_bytes=counted.append)
    assert fetched(store, cid, tmp_path) == DATA
    assert node.offsets() == [CHUNK_BYTES, 0]
    assert counted == [CHUNK_BYTES, CHUNK_BYTES, CHUNK_BYTES, 1000]  # what was there counts too


def endless(answer: Answer) -> None:
    answer.begin()
    answer.endlessly(b"x" * MEGABYTE)


def one_endless_piece(answer: Answer) -> None:
    answer.begin(Transfer_Encoding="chunked")
    answer.send(b"fffffffffff\r\n")
    answer.endlessly(b"x" * MEGABYTE)


def endless_error(answer: Answer) -> None:
    answer.begin(500)
    answer.send(b'"')
    answer.endlessly(b"x" * MEGABYTE)


def endless_redirection(answer: Answer) -> None:
    answer.begin(302, Location="/elsewhere")
    answer.endlessly(b"x" * MEGABYTE)


@pytest.mark.parametrize("how", [endless, one_endless_piece, endless_error, endless_redirection])
@pytest.mark.parametrize("command", ["block/get", "cat"])
def test_endless_answers_are_cut(
    node: Node, store: IpfsStore, tmp_path: Path, command: str, how: Callable[[Answer], None]
) -> None:
    cid = node.keep(DATA)
    node.on[command] = how
    refused(CannotRun, None, store, cid, tmp_path)
    assert node.sent < 32 * MEGABYTE  # of which nearly all stands in the sockets' buffers


@pytest.mark.parametrize("how", [endless, one_endless_piece, endless_error, endless_redirection])
@pytest.mark.parametrize("command", ["add", "pin/ls"])
def test_endless_answers_to_an_addition_are_cut(
    node: Node, store: IpfsStore, command: str, how: Callable[[Answer], None]
) -> None:
    node.on[command] = how
    with pytest.raises(CannotRun):
        store.put(DATA)
    assert node.sent < 32 * MEGABYTE


def test_nobody_is_sent_elsewhere(node: Node, store: IpfsStore, tmp_path: Path) -> None:
    cid = node.keep(SMALL)
    with Node().running() as other:
        other.keep(SMALL)
        node.on["block/get"] = lambda answer: answer.begin(307, Location=f"{other.address}{answer.path}")
        refused(CannotRun, "sends us elsewhere", store, cid, tmp_path)
    assert not other.asked


def test_more_than_the_file_is_not_read(node: Node, store: IpfsStore, tmp_path: Path) -> None:
    cid = node.keep(DATA)

    def and_more(answer: Answer) -> None:
        answer.begin()
        answer.send(answer.content)
        answer.endlessly(bytes(MEGABYTE))

    node.on["cat"] = and_more
    assert fetched(store, cid, tmp_path) == DATA


def silent(answer: Answer) -> None:
    answer.node.over.wait(60)


def dripping(answer: Answer) -> None:
    answer.begin()
    while not answer.node.over.wait(0.05):
        answer.send(b"x")


def dripping_headers(answer: Answer) -> None:
    answer.send(b"HTTP/1.1 200 OK\r\nX: ")
    while not answer.node.over.wait(0.05):
        answer.send(b"y")


@pytest.mark.parametrize("how", [silent, dripping, dripping_headers])
@pytest.mark.parametrize("command", ["block/get", "cat"])
def test_slow_answers_are_given_up(node: Node, tmp_path: Path, command: str, how: Callable[[Answer], None]) -> None:
    cid = node.keep(DATA)
    node.on[command] = how
    store = IpfsStore(node.address, stall=0.3, slowest_rate=1 << 30)
    refused(Unreachable, "no answer in time", store, cid, tmp_path)


def hanging_up(answer: Answer) -> None:
    """Breaks off at once."""


def breaking_off(answer: Answer) -> None:
    answer.begin(Content_Length=str(len(answer.content)))
    answer.send(answer.content[: CHUNK_BYTES + 7])


def breaking_off_in_a_piece(answer: Answer) -> None:
    answer.begin(Transfer_Encoding="chunked")
    answer.send(b"%x\r\n" % len(answer.content) + answer.content[: CHUNK_BYTES + 7])


@pytest.mark.parametrize("how", [hanging_up, breaking_off, breaking_off_in_a_piece])
def test_a_transfer_that_broke_off_goes_on(
    node: Node, store: IpfsStore, tmp_path: Path, how: Callable[[Answer], None]
) -> None:
    cid = node.keep(DATA)
    node.on["cat"] = how
    for _ in range(3):
        with pytest.raises(Unreachable):
            store.get_file(cid, tmp_path / "blob")
        assert not (tmp_path / "blob").exists()
    kept = 0 if how is hanging_up else CHUNK_BYTES
    assert node.offsets() == [0, kept, 2 * kept]
    del node.on["cat"]
    assert fetched(store, cid, tmp_path) == DATA


def test_a_node_that_is_not_there_is_named(tmp_path: Path) -> None:
    with Node().running() as gone:
        pass
    refused(Unreachable, f"no IPFS node answers at {gone.address}", IpfsStore(gone.address), cid_of(DATA), tmp_path)


def test_what_the_node_lacks_may_come_later(store: IpfsStore, tmp_path: Path) -> None:
    refused(Unreachable, "is not here", store, cid_of(DATA), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "answered",
    [b"", b"<html>", b"3", b"[]", b"{}", b'{"Hash": 3}', b'{"Hash": "x"}{"Hash": "y"}', b"[" * 60_000, b"\xff"],
)
def test_what_is_no_ipfs_node_is_told(node: Node, store: IpfsStore, answered: bytes) -> None:
    node.on["add"] = lambda answer: answer.whole(answered)
    with pytest.raises(CannotRun, match=r"not the answer of an IPFS API|the node says|decoding error|sends more"):
        store.put(SMALL)
    node.on["pin/ls"] = node.on["add"]
    with pytest.raises(CannotRun):
        store.put(SMALL)


def test_a_node_with_settings_of_its_own_is_told(node: Node, store: IpfsStore) -> None:
    node.on["add"] = lambda answer: answer.json({"Hash": tree(DATA, chunk=1 << 20)[0]})
    with pytest.raises(CannotRun, match="chunker size-262144, CIDv1, raw leaves"):
        store.put(DATA)


@pytest.mark.parametrize("layout", [{"chunk": 1000}, {"chunk": 2 * CHUNK_BYTES}, {"width": 2}])
def test_a_tree_of_another_shape_is_its_publishers_fault(
    node: Node, store: IpfsStore, tmp_path: Path, layout: dict[str, int]
) -> None:
    cid = node.keep(DATA, **layout)
    refused(ProofError, "not a tree of", store, cid, tmp_path)
    assert "cat" not in [command for command, _ in node.asked]


def test_a_tree_over_other_sizes_than_it_promises_is_refused(node: Node, store: IpfsStore, tmp_path: Path) -> None:
    """A root that is right for 176 chunks, over a node that is right for two chunks and stands for 174."""
    cid, blocks = tree(bytes(176 * CHUNK_BYTES))
    full, two = list(blocks)[-3:-1]
    forged = blocks[cid].replace(binary(full), binary(two))
    name = text(b"\x01\x70\x12\x20" + hashlib.sha256(forged).digest())
    assert forged != blocks[cid]
    node.blocks |= blocks | {name: forged}
    refused(ProofError, f"{two}: not a tree of", store, name, tmp_path)


def test_a_blob_beyond_the_limit_is_refused_before_its_bytes(node: Node, store: IpfsStore) -> None:
    cid = node.keep(DATA)
    assert store.get(cid, limit=len(DATA)) == DATA
    node.asked.clear()
    with pytest.raises(ProofError, match=f"more than the limit of {len(DATA) - 1}"):
        store.get(cid, limit=len(DATA) - 1)
    assert [command for command, _ in node.asked] == ["block/get"]


def test_two_transfers_never_share_a_file(node: Node, store: IpfsStore, tmp_path: Path) -> None:
    cid = node.keep(DATA)

    def meanwhile(count: int) -> None:
        with pytest.raises(CannotRun, match="another transfer"):
            store.get_file(cid, tmp_path / "blob")

    store.get_file(cid, tmp_path / "blob", on_bytes=meanwhile)
    assert (tmp_path / "blob").read_bytes() == DATA


@pytest.mark.parametrize("how", [wrong, endless, hanging_up])
def test_no_proof_is_rejected_for_its_node(
    node: Node, store: IpfsStore, honest_run: Path, tmp_path: Path, how: Callable[[Answer], None]
) -> None:
    cid = publish_proof(honest_run, store)
    node.on["block/get"] = lambda answer: (honestly if answer.options["arg"] == cid else how)(answer)
    with pytest.raises(CannotRun):
        fetch_proof(cid, store, tmp_path / "there")
    assert not (tmp_path / "there/manifest.json").exists()
    node.on.clear()
    fetch_proof(cid, store, tmp_path / "there")
    assert Proof.read(tmp_path / "there") == Proof.read(honest_run)


def test_a_proof_put_into_one_store_is_found_in_the_other(store: IpfsStore, honest_run: Path, tmp_path: Path) -> None:
    local = LocalStore(tmp_path / "store")
    cid = publish_proof(honest_run, store)
    assert publish_proof(honest_run, local) == cid
    for number, source in enumerate((store, local)):
        fetch_proof(cid, source, tmp_path / str(number))
        assert Proof.read(tmp_path / str(number)) == Proof.read(honest_run)
