"""docs/contracts/ and the contracts: every method, view, event and error is on its page, and nothing else is."""

import re
from pathlib import Path

import pytest

from chain.artifact import ALL_CONTRACTS, artifact

PAGES = Path(__file__).resolve().parents[2] / "docs" / "contracts"
KINDS = ("constructor", "method", "view", "event", "error")


def listed(page: str) -> dict[str, list[str]]:
    """The code in the first cells of the tables whose heads begin with one of KINDS."""
    found = {kind: [] for kind in KINDS}
    kind = None
    for line in page.splitlines():
        first = line.split("|")[1].strip() if line.startswith("|") else None
        if first is None or first in KINDS:
            kind = first
        elif kind and (signature := re.fullmatch(r"`([^`]+)`", first)):
            found[kind].append(signature[1])
    return found


def declared(name: str) -> dict[str, list[str]]:
    found = {kind: [] for kind in KINDS}
    for item in artifact(name).abi:
        reads = item.get("stateMutability") in ("view", "pure")
        kind = ("view" if reads else "method") if item["type"] == "function" else item["type"]
        arguments = ", ".join(map(argument, item["inputs"]))
        found[kind].append(f"{item.get('name', 'constructor')}({arguments})")
    return found


def argument(item: dict) -> str:
    """Its name; where a getter gives none, its type's."""
    kind = item["internalType"]
    return item["name"].rstrip("_") or kind[0].lower() + kind[1:]


def problems(name: str, page: str) -> list[str]:
    ours, theirs = listed(page), declared(name)
    return [
        f"{name}: {kind}s on the page {sorted(ours[kind])}, in the ABI {sorted(theirs[kind])}"
        for kind in KINDS
        if sorted(ours[kind]) != sorted(theirs[kind])
    ]


@pytest.mark.parametrize("name", ALL_CONTRACTS)
def test_a_page_lists_what_its_contract_has_and_nothing_else(name):
    assert problems(name, (PAGES / f"{name}.md").read_text()) == []


@pytest.mark.parametrize(
    "change",
    [
        (r"^\| `withdraw\(taskId\)`.*\n", ""),  # a method is missing
        (r"^\| `slashed\(.*\n", ""),  # a view
        (r"^\| `Undelegated\(.*\n", ""),  # an event
        (r"^\| `BadRole\(.*\n", ""),  # an error
        (r"`Slashed\(taskId, operator, burned\)`", "`Slashed(taskId, burned, operator)`"),  # arguments in another order
        (r"^(\| `slash\(.*\n)", r"\1| `pause()` | nobody | | |\n"),  # what does not exist
        (r"`constructor\(token, arena, manager\)`", "`constructor(token, arena)`"),
    ],
)
def test_a_page_that_is_wrong_is_noticed(change):
    page = (PAGES / "StakeVault.md").read_text()
    broken = re.sub(change[0], change[1], page, flags=re.MULTILINE)
    assert broken != page and problems("StakeVault", broken)


def test_there_is_a_page_a_contract_and_the_index_names_each():
    assert {path.stem for path in PAGES.glob("*.md")} >= {*ALL_CONTRACTS, "README"}
    index = (PAGES / "README.md").read_text()
    assert all(f"]({name}.md)" in index for name in ALL_CONTRACTS)


@pytest.mark.parametrize("name", ALL_CONTRACTS)
def test_methods_name_errors_and_events_of_their_contract_and_each_event_has_a_method(name):
    page, abi = (PAGES / f"{name}.md").read_text(), artifact(name).abi
    rows = re.findall(r"^\| `\w+\([^|]*\)` \|(?=.*\|.*\|.*\|)(.*)$", page, re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`([A-Z]\w+)`", row)}
    assert named <= {item.get("name") for item in abi}
    assert {item["name"] for item in abi if item["type"] == "event"} <= named


@pytest.mark.parametrize("name", [*ALL_CONTRACTS, "README"])
def test_what_the_text_names_exists(name):
    """`Contract.method`, sources and links."""
    page = (PAGES / f"{name}.md").read_text()
    for contract, member in re.findall(r"`(\w+)\.(\w+)`", page):
        if contract in ALL_CONTRACTS:
            assert any(item.get("name") == member for item in artifact(contract).abi), f"{contract}.{member}"
    for source in re.findall(r"`((?:chain|pol|tests)/[\w/]+\.\w+)`", page):
        assert (PAGES.parents[1] / source).is_file(), source
    for link in re.findall(r"\]\(([^)#]+)", page):
        assert (PAGES / link).exists(), link
