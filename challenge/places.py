"""What the ``challenge`` command is pointed at: proofs in folders and stores, the chain to ask, who looks on."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from challenge.console import console, say
from pol.cid import is_cid

if TYPE_CHECKING:
    from chain.client import ArenaClient
    from challenge.segments import Watcher


@contextmanager
def asking(network: str | None, arena: str | None) -> Iterator[ArenaClient | None]:
    """The contracts to ask, through no account; ``None`` where neither a network nor an Arena is named.

    Which Arena is the verifier's to say: the one that a proof names may be one that its trainer made.
    """
    if network is None and arena is None:
        yield None
        return
    from challenge.arena.session import open_session

    with open_session(network or "local", None, arena) as session:
        yield session.client


@contextmanager
def located(proof: str, store: str | None) -> Iterator[Path]:
    """The proof's folder: the one that is named, or a temporary one with what the store has under a CID.

    Raises :class:`ProofError` if what is served there is no proof.
    """
    if Path(proof).exists() or not is_cid(proof):
        yield Path(proof)
        return
    if store is None:
        raise typer.BadParameter(f"say where {proof} is to be fetched from", param_hint="--store")
    from challenge.bundle import fetch_proof
    from pol.store import open_store

    with tempfile.TemporaryDirectory() as name:
        with _progress() as progress:
            task = progress.add_task("fetch", total=None)
            fetch_proof(
                proof,
                open_store(store),
                Path(name) / "proof",
                on_blob=lambda done, total: progress.update(task, completed=done, total=total),
            )
        yield Path(name) / "proof"


@contextmanager
def watching(as_json: bool) -> Iterator[Watcher]:
    """A progress bar on a terminal, one line a segment elsewhere, nothing of either with ``--json``."""
    from challenge.segments import Watcher

    with _progress() as progress:
        task = progress.add_task("replay", total=None)

        def replayed(index: int, matched: bool) -> None:
            progress.advance(task)
            if not console.is_terminal and not as_json:
                say(f"{'replay':<14}segment {index} {'matches' if matched else 'DOES NOT MATCH'}")

        yield Watcher(planned=lambda count: progress.update(task, total=count), replayed=replayed)


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
