"""The recorder: it attaches to a training loop and leaves a proof, or says that there is none."""

from __future__ import annotations

import math
import os
import secrets
import sys
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader

from pol.anchorer import Anchorer, AnchorLine, NoChain
from pol.data import Batch, Samples, batch_root
from pol.encoding import canonical_json, parse_canonical_json, u64
from pol.errors import CannotRun, ProofError, RecordingError
from pol.journal import JOURNAL, Journal, Progress
from pol.loader import step_loader
from pol.machine import MachineClass, hidden_switches, make_deterministic, this_machine
from pol.numerics import arithmetic
from pol.order import DataOrder
from pol.parallel import alone, rank, shared, world_size
from pol.portable.compiled import KERNELS
from pol.program import load_program
from pol.proof import MANIFEST, Proof, SeedSource, StoredState, parse_seed, states_of
from pol.relay import SPARE_BYTES, Relay
from pol.spec import TrainingSpec
from pol.state import (
    Scheduler,
    Tensors,
    TrainingState,
    from_safetensors,
    safetensors_chunks,
    safetensors_header,
    to_safetensors,
    written_order,
)
from pol.tensors import (
    checked_row,
    same_bits,
    sorted_table,
    table_digest,
    tensors_digest,
)
from pol.transcript import Anchor, Segment, Stop, segment_tree

COMPARED_STEPS = 2
KERNELS_DOUBTED = (
    ". If it does, the compiled kernels of pol.exact compute this model wrongly here: please report it, and train "
    "without them (XDG_CACHE_HOME=/dev/null)"
)
"""The loop's first steps (also after an interruption) must be the program's: the second shows what the first left."""


class Recorder:
    """Records one run of ``spec`` into the folder ``out``.

    ``seed_source`` is the beacon latched after registration (without a chain: a seed of the trainer's choice, drawn
    at random if left out). Segments are anchored as training goes on, ``anchor_every`` at a time (an eighth of the run
    unless said otherwise), or whenever ``anchor_seconds`` have gone by. While the chain does not answer, training goes
    on; at the end, the recorder waits ``patience`` seconds for it. About sqrt(n) of n boundary states are kept, the
    others are digests only.

    The training thread copies the state at every segment boundary and goes on; hashing and writing happen in a
    thread behind it, which begins while the copy is being made. There is one such copy, a little smaller than the
    state: training waits at a boundary rather than leave one out. A small state is hashed at once, in its place.

    Used as a context manager; a run with exact numerics is built and trained inside it, where every operator is that
    of :func:`pol.exact`. Leaving it writes the proof if every promised step was recorded; otherwise it raises
    :class:`RecordingError` and leaves no manifest, so that a broken recording never looks like a proof. A recording
    that did not finish, for whatever reason, resumes when the same program enters the same folder again: training
    goes on from the latest kept state, and what was promised already must come out the same.

    With several processes (``torch.distributed``) every rank uses a recorder in the same way, :meth:`stop` included;
    only rank 0 reads and writes ``out``.
    """

    def __init__(
        self,
        spec: TrainingSpec,
        out: Path | str,
        *,
        seed_source: SeedSource | None = None,
        anchorer: Anchorer | None = None,
        anchor_every: int | None = None,
        anchor_seconds: float | None = None,
        patience: float = 3600.0,
    ) -> None:
        if anchorer is not None and spec.task is None:
            raise RecordingError("an anchorer needs a spec that names the task whose anchors these are")
        if anchor_every is not None and anchor_seconds is not None:
            raise RecordingError("anchor by segments or by seconds, not by both")
        self.spec = spec
        self.out = Path(out)
        self._writes = rank() == 0
        self.seed_source = self._agreed_seed(seed_source)
        self.seed = self.seed_source.seed(spec)
        self.program = load_program(spec.program, spec.program_digest, trusted=frozenset({spec.program_digest}))
        self.order = DataOrder(self.seed, spec.dataset_size, spec.batch_size)
        self._anchorer = anchorer or NoChain()
        self._anchor_every = anchor_every or (1 if anchor_seconds else math.ceil(spec.segments / 8))
        self._anchor_seconds = anchor_seconds or 0.0
        self._patience = patience
        self._keep_every = math.ceil(math.sqrt(spec.segments))
        self._segments: list[Segment] = []
        self._anchors: list[Anchor] = []
        self._states: list[StoredState] = []
        self._stopped: Stop | None = None
        self._stopping = False
        self._optimizer_steps = 0
        self._state: TrainingState | None = None
        self._twin: TrainingState | None = None
        self._first_digests: dict[int, bytes] = {}
        self._samples: Samples | None = None

    def __enter__(self) -> Recorder:
        promised = MachineClass.from_json(self.spec.machine, where="spec.machine")
        make_deterministic(promised.threads)
        differences = this_machine(threads=promised.threads, device=promised.device).differences(promised)
        if differences:
            raise RecordingError(f"this machine is not the spec's (here / spec): {'; '.join(differences)}")
        if hidden_switches():
            raise RecordingError(
                f"{', '.join(hidden_switches())} would change the bits of this run: unset it, record again"
            )
        with ExitStack() as entered:
            entered.enter_context(arithmetic(self.spec))
            self._begin()
            self._arithmetic = entered.pop_all()
        return self

    def _begin(self) -> None:
        self._progress: Progress | None = None
        self._relay = Relay()
        self._hashing: Future[None] | None = None
        self._start_digest = b""
        self._grouped = 0
        self._grouped_at = time.monotonic()
        self._held: dict[int, int] = {}
        if self._writes:
            self._open_folder()
            self._held = {anchor.first: anchor.count for anchor in self._held_anchors()}
            self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="recorder", initializer=_stand_back)
            self._line = AnchorLine(self._anchorer, self._anchored)

    def attach(
        self,
        *,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        scheduler: Scheduler | None = None,
        scaler: torch.amp.GradScaler | None = None,
        ema: nn.Module | None = None,
    ) -> None:
        """Watch the trainer's own objects; they keep their types and names.

        Raises :class:`RecordingError` unless they are bit for bit what the program builds from config and seed. If
        the recording resumes, they are then brought to where it was.
        """
        if isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
            raise RecordingError("attach: a schedule that depends on the loss cannot be replayed from the middle")
        built = self._built()
        self._state = TrainingState(
            model=model, optimizer=optimizer, scheduler=scheduler, scaler=scaler, ema=ema, pinned=built.pinned
        )
        mine, promised = self._state.view(self.seed), built.view(self.seed)
        for name in sorted(set(mine) | set(promised)):
            if name not in mine or name not in promised or not same_bits(mine[name], promised[name]):
                raise RecordingError(f"attach: {name} is not what {self.spec.program} builds from config and seed")
        self._start_digest = tensors_digest(mine)
        self._twin = built if self._writes else None  # between steps the others may have buffers of their own
        optimizer.register_step_post_hook(self._count_step)
        self._resume()

    def batches(self, samples: Samples, *, workers: int = 0) -> Iterator[Batch]:
        """The batches of the committed order, one a step, from where the recording is: a tensor (b, ...) a field.

        ``workers`` processes read ahead; the batches are the same for any number. Raises :class:`RecordingError` for
        another data set than the committed one, or if the loop body did not call :meth:`step` exactly once.
        """
        state = self._attached()
        loader = self.loader(samples, workers=workers)
        for step, batch in enumerate(loader, start=state.step):
            self.begin_step()
            yield batch
            if state.step != step + 1:
                raise RecordingError(f"step {step}: the loop body called recorder.step() {state.step - step} times")
            if self.ended:
                return

    def loader(
        self,
        samples: Samples,
        *,
        workers: int = 0,
        parts: int = 1,
        convert: Callable[[Any], Any] | None = None,
    ) -> DataLoader[Any]:
        """The batches of the committed order as a torch loader, for frameworks that own the loop.

        Each comes in ``parts`` equal parts (for gradient accumulation), ``convert``ed to what the framework wants.
        Its user calls :meth:`begin_step` before each step, :meth:`step` after it, and leaves when :attr:`ended`.
        """
        if samples.root != self.spec.dataset_root or len(samples) != self.spec.dataset_size:
            raise RecordingError(f"batches: this data set is not the committed one ({self.spec.dataset})")
        first = self._attached().step
        self._samples = samples
        self._take_first_steps(samples)
        last = first if self.ended else self.spec.steps
        return step_loader(samples, self.order, first, last, workers=workers, parts=parts, convert=convert)

    def begin_step(self) -> None:
        """Key the generators for the coming step; whatever was drawn since the last one leaves no trace."""
        self._attached().key_generators(self.seed)

    def step(self, loss: torch.Tensor | None = None) -> None:
        """Mark the end of one optimiser step; ``loss`` is a scalar and must be finite.

        Frameworks that do not show it leave it out: a state that is not finite is noticed at the next boundary.
        """
        state = self._attached()
        if loss is not None and not math.isfinite(loss.item()):
            raise RecordingError(f"step {state.step}: the loss is {loss.item()}; a proof of such a run is worthless")
        # A gradient scaler leaves the optimizer's step out where the scaled gradients overflow.
        if state.scaler is None and self._optimizer_steps != state.step + 1:
            raise RecordingError(f"step {state.step}: the optimizer has stepped {self._optimizer_steps} times in all")
        state.step += 1
        promised = self._first_digests.pop(state.step, None)
        if promised is not None:
            self._compare_first_step(state, promised)
        if state.step % self.spec.segment_length == 0 or state.step == self.spec.steps:
            self._close_segment(state)

    def wait(self) -> None:
        """Wait until what was recorded so far is hashed and written; raises what went wrong with it."""
        with self._plainly():
            if self._hashing is not None:
                self._hashing.result()
            self._line.check()
        self._hashing = None

    def stop(self) -> None:
        """End the run at the next segment boundary (this one, if it is at one), and declare it: on chain too.

        :meth:`batches` ends there by itself. A run that reaches all its steps all the same is not a stopped one.
        """
        self._stopping = True
        if self._writes and self._state is not None and self.ended:
            self.wait()
            self._keep_last(self._state)

    @property
    def ended(self) -> bool:
        """Whether the last step was recorded: the promised one, or the boundary at which the run was stopped."""
        step = self.state.step
        return step == self.spec.steps or (self._stopping and step > 0 and step % self.spec.segment_length == 0)

    @property
    def state(self) -> TrainingState:
        """The objects that are being recorded, and how many steps they have taken."""
        return self._attached()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._arithmetic.close()
        if not self._writes:
            return
        try:
            if kind is None:
                with self._plainly():
                    self._finish()
        finally:
            self._writer.shutdown(wait=True)
            self._line.close()
            self._journal.close()

    @property
    def proof(self) -> Proof:
        """The proof as recorded so far."""
        return Proof(
            spec=self.spec,
            seed_source=self.seed_source,
            segments=tuple(self._segments),
            anchors=tuple(self._anchors),
            states=tuple(self._states),
            stopped=self._stopped,
        )

    # What a fresh folder, or one that a killed recording left, becomes

    def _agreed_seed(self, given: SeedSource | None) -> SeedSource:
        """The seed that was given, or the one this folder's unfinished recording has: rank 0's, on every rank."""
        source = given or SeedSource(kind="chosen", value=secrets.token_bytes(32))
        begun = Journal.read(self.out / JOURNAL) if self._writes else None
        if begun is not None:
            if begun.spec != self.spec or given not in (None, begun.seed_source):
                raise RecordingError(f"{self.out} holds an unfinished recording of another run; use a new folder")
            source = begun.seed_source
        agreed = parse_canonical_json(shared(canonical_json(source.to_json())), where="rank 0's seed")
        return parse_seed(agreed, where="rank 0's seed")

    def _open_folder(self) -> None:
        path = self.out / JOURNAL
        if Journal.read(path) is not None:
            for torn in [*self.out.glob(".partial-*"), *states_of(self.out).folder.glob(".partial-*")]:
                torn.unlink()
            (self.out / MANIFEST).unlink(missing_ok=True)  # it was the journal's removal that did not happen
            self._journal, self._progress = Journal.resume(path)
            return
        path.unlink(missing_ok=True)
        if self.out.exists() and any(self.out.iterdir()):
            raise RecordingError(f"{self.out} is not empty; record into a new folder")
        with self._plainly():
            self.out.mkdir(parents=True, exist_ok=True)
            self._journal = Journal.start(path, self.spec, self.seed_source)

    def _held_anchors(self) -> list[Anchor]:
        """What the chain holds already; it must go on from what this folder knows."""
        held = list(self._anchorer.held())
        known = list(self._progress.anchors) if self._progress else []
        if not isinstance(self._anchorer, NoChain) and held[: len(known)] != known:
            raise RecordingError(
                f"the chain holds other anchors of this run than {self.out}: this folder is not its last"
            )
        return held

    def _resume(self) -> None:
        """Bring the attached objects, on every rank, to the latest state that rank 0 kept.

        Rank 0 then knows again what was recorded up to there.
        """
        state, progress = self._attached(), self._progress
        step, tensors = self._latest(progress) if progress else (0, {})
        step = int.from_bytes(shared(u64(step)), "big")
        if step:
            if world_size() > 1:
                tensors = from_safetensors(shared(to_safetensors(tensors)), where="rank 0's state")
            state.restore(tensors, layout=tensors, seed=self.seed, step=step)
            self._optimizer_steps = step
        stopped = progress is not None and progress.stopped is not None
        self._stopping |= shared(bytes([stopped])) == b"\1"
        if progress is None:
            return
        self._segments = list(progress.segments[: -(-step // self.spec.segment_length)])
        self._states = [stored for stored in progress.states if stored.step <= step]
        self._anchors = list(progress.anchors)
        self._grouped = sum(anchor.count for anchor in self._anchors)
        self._stopped = progress.stopped
        if self._segments:
            self._start_digest = self._segments[-1].end_digest
        self._group_anchors(last=False)

    def _latest(self, progress: Progress) -> tuple[int, Tensors]:
        """The latest kept state and its step; nothing and 0 where none is left."""
        for stored in reversed(progress.states):
            tensors = self._kept(stored, progress)
            if tensors is not None:
                return stored.step, tensors
        return 0, {}

    def _kept(self, stored: StoredState, progress: Progress) -> Tensors | None:
        """A kept state, if its file is whole: the disk may have lost what it had promised to keep."""
        ends = {segment.end_step: segment.end_digest for segment in progress.segments}
        store = states_of(self.out)
        with suppress(ProofError, CannotRun, OSError):
            tensors = from_safetensors(store.get(stored.cid), where=stored.cid)
            if tensors_digest(tensors) == ends.get(stored.step):
                return tensors
        store.path(stored.cid).unlink(missing_ok=True)
        return None

    # The first steps

    def _take_first_steps(self, samples: Samples) -> None:
        """What the program makes of the first steps from here, as digests: the loop must do the same.

        Replay would reject everything else later, at the worst time. The program goes first, while the loop's
        optimizer has no state yet, and its state is gone before the loop begins: two whole ones are held only after an
        interruption, and where a device has no room for them the run goes on all the same. It goes without the kernels
        of exact numerics, which so prove themselves on this model's shapes before training begins.
        """
        state, twin, self._twin = self._attached(), self._twin, None
        if twin is None or self.ended:
            return
        try:
            self._take_steps_of(twin, state, samples)
        except torch.OutOfMemoryError:
            if not state.step:
                raise
            self._first_digests.clear()
            warnings.warn("no memory to compare the resumed loop with its program: it goes on uncompared", stacklevel=2)

    def _take_steps_of(self, twin: TrainingState, state: TrainingState, samples: Samples) -> None:
        if state.step:
            resumed = state.view(self.seed)
            if tensors_digest(resumed) != self._start_digest:
                raise RecordingError("batches: the state is not the resumed one: leave it as attach brought it back")
            twin.restore(resumed, layout=resumed, seed=self.seed, step=state.step)
        for step in range(state.step, min(state.step + COMPARED_STEPS, self.spec.steps)):
            twin.optimizer.zero_grad(set_to_none=True)  # a replay that begins here has no gradients left over either
            twin.key_generators(self.seed)
            with alone(), KERNELS.using(None):
                self.program.train_step(twin, samples.batch(self.order.batch(step)))
            twin.step += 1
            self._first_digests[twin.step] = tensors_digest(twin.view(self.seed))

    def _compare_first_step(self, state: TrainingState, promised: bytes) -> None:
        if tensors_digest(state.view(self.seed)) != promised:
            raise RecordingError(
                f"step {state.step - 1}: the loop computed something else than {self.spec.program}.train_step; "
                "call it in the loop, or train with a program that does what the loop does"
                + KERNELS_DOUBTED
                * (KERNELS.functions is not None)
            )

    # What happens at a boundary

    def _close_segment(self, state: TrainingState) -> None:
        if not self._writes:
            return
        self.wait()
        tensors, index = state.view(self.seed), len(self._segments)
        kept = self.ended or (index + 1) % self._keep_every == 0
        header, order = safetensors_header(tensors) if kept else None, written_order(tensors)
        if sum(value.nbytes for value in tensors.values()) <= SPARE_BYTES:
            with self._plainly():
                digest, cid = self._digest(index, header, ((name, tensors[name]) for name in order))
            self._hashing = self._writer.submit(self._record_segment, index, digest, cid)
            return
        self._relay.open(tensors)
        self._hashing = self._writer.submit(self._record_copies, index, header)
        self._relay.send(tensors, order)

    def _record_copies(self, index: int, header: bytes | None) -> None:
        """Record the state that is being copied (in the thread behind the training)."""
        with self._relay.reading() as copies:
            digest, cid = self._digest(index, header, copies)
        self._record_segment(index, digest, cid)

    def _digest(
        self, index: int, header: bytes | None, tensors: Iterable[tuple[str, torch.Tensor]]
    ) -> tuple[bytes, str | None]:
        """The digest of the state at the end of a segment, and its CID where it is kept: if there is a ``header``."""
        rows: dict[str, tuple[bytes, bytes]] = {}
        pieces = _hashed(tensors, rows, where=f"state after step {self.spec.bounds(index)[1]}")
        cid = states_of(self.out).put_chunks(chain([header], pieces)) if header is not None else None
        deque(pieces, maxlen=0)
        return table_digest(sorted_table(rows)), cid

    def _record_segment(self, index: int, end_digest: bytes, cid: str | None) -> None:
        """Promise a segment whose last state has this digest (in the thread behind the training)."""
        assert self._samples is not None
        start, end = self.spec.bounds(index)
        segment = Segment(
            index=index,
            start_step=start,
            end_step=end,
            start_digest=self._start_digest,
            end_digest=end_digest,
            batch_root=batch_root(self._samples, [self.order.batch(step) for step in range(start, end)], start),
        )
        self._start_digest = segment.end_digest
        known = self._progress.segments[index : index + 1] if self._progress else ()
        if known and known[0] != segment:
            raise RecordingError(
                f"segment {index} came out otherwise than before the recording was interrupted, so this training is "
                "not deterministic: 'challenge doctor' finds out why; record into a new folder"
            )
        if not known:
            self._journal.append("segment", segment.to_json())
        self._segments.append(segment)
        if cid is not None:
            self._note_state(StoredState(step=end, cid=cid))
        self._group_anchors(last=False)

    def _note_state(self, stored: StoredState) -> None:
        if self._progress is None or stored not in self._progress.states:
            self._journal.append("state", stored.to_json())
        self._states.append(stored)

    def _group_anchors(self, *, last: bool) -> None:
        """Send the anchors that are due. What the chain holds already keeps its grouping."""
        while ready := len(self._segments) - self._grouped:
            due = time.monotonic() - self._grouped_at >= self._anchor_seconds
            count = self._anchor_every if self._anchor_seconds == 0 else ready
            count = self._held.get(self._grouped, min(count, ready) if last else count)
            if ready < count or not (due or last):
                return
            part = self._segments[self._grouped : self._grouped + count]
            self._line.send(self._grouped, count, segment_tree(part).root)
            self._grouped += count
            self._grouped_at = time.monotonic()

    def _anchored(self, anchor: Anchor) -> None:
        self._journal.append("anchor", anchor.to_json())
        self._anchors.append(anchor)

    @contextmanager
    def _plainly(self) -> Iterator[None]:
        """Say what a full disk, or a state that no proof may hold, means for the recording."""
        try:
            yield
        except OSError as failure:
            reason = failure.strerror or failure
            raise RecordingError(
                f"{self.out}: cannot be written ({reason}); make room and run again, and it resumes"
            ) from failure
        except ProofError as failure:
            raise RecordingError(f"{failure}; a proof of such a run is worthless") from failure

    # The end

    def _keep_last(self, state: TrainingState) -> None:
        """Keep the state of the latest boundary, at which the run was stopped, where that was not done there."""
        if state.step in [stored.step for stored in self._states]:
            return
        tensors = state.view(self.seed)
        if tensors_digest(tensors) != self._segments[-1].end_digest:
            raise RecordingError(f"stop: the state is no longer that after step {state.step}; stop before it changes")
        with self._plainly():
            self._note_state(
                StoredState(step=state.step, cid=states_of(self.out).put_chunks(safetensors_chunks(tensors)))
            )

    def _finish(self) -> None:
        done = self._attached().step
        if not self.ended:
            raise RecordingError(
                f"training stopped after {done} of {self.spec.steps} steps: no proof was written; run it again to "
                "resume it, or call recorder.stop() to declare a shorter run"
            )
        self.wait()
        self._group_anchors(last=True)
        self._line.finish(self._patience)
        if done < self.spec.steps and self._stopped is None:
            self._stopped = self._line.stop(len(self._segments), self._patience)
            self._journal.append("stop", self._stopped.to_json())
        named = {stored.cid for stored in self._states}
        for path in states_of(self.out).folder.iterdir():
            if path.stem not in named:  # written before a crash whose resumed run ended elsewhere
                path.unlink()
        self.proof.write(self.out)
        self._journal.remove()

    def _attached(self) -> TrainingState:
        if self._state is None:
            raise RecordingError("call recorder.attach(model=..., optimizer=...) first")
        return self._state

    def _built(self) -> TrainingState:
        with KERNELS.using(None):
            return self.program.build(self.spec.config, self.seed)

    def _count_step(self, *_: Any) -> None:
        self._optimizer_steps += 1


def _stand_back() -> None:
    """Let this thread have what the training leaves of the processors: it has a whole segment's time for its work."""
    if sys.platform == "linux":  # elsewhere a priority is the whole process's
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), os.getpriority(os.PRIO_PROCESS, 0) + 10)


def _hashed(
    copies: Iterable[tuple[str, torch.Tensor]], rows: dict[str, tuple[bytes, bytes]], *, where: str
) -> Iterator[memoryview]:
    """The bytes of the tensors, each noted in ``rows``, a table of the state, before they are passed on."""
    for name, copy in copies:
        rows[name], data = checked_row(name, copy, where=where)
        yield data
