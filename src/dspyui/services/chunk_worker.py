"""Helping with batches that machines share: take a chunk of rows, ask them, bring the answers back."""

import json
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass, field
from typing import Final, Protocol

from dspyui import __version__
from dspyui.domain.base import Notice
from dspyui.domain.batches import InputRow
from dspyui.domain.engine import Ask, CallGate, Engine
from dspyui.domain.sharing import Answer, Chunk, SharedBatch, SharedRow, WorkerSeat
from dspyui.domain.traces import Trace
from dspyui.errors import FailedError, UnavailableError
from dspyui.services.batch_rows import RowAsker, Tracing
from dspyui.services.shared_gate import SharedGate

# How often a worker says that it is alive and looks for work, in seconds; and how soon when it has just found some.
LOOK_SECONDS: Final = 0.5
_SOON_SECONDS: Final = 0.05
# What a model's server answers to a machine that it does not serve, or that cannot reach it.
_NO_WAY: Final = frozenset({"engine.transport", "engine.timeout", "engine.server", "engine.not_found"})
# An answer that was paid for is offered to a database that is away for so long, in seconds.
PATIENCE_SECONDS: Final = 600.0


class MakeEngine(Protocol):
    """Gives an engine for a batch, whose calls pass the gate. Raises DSPyUIError when this machine cannot help."""

    def __call__(self, batch: SharedBatch, gate: CallGate) -> AbstractContextManager[Engine]: ...


class TraceCatcher:
    """A sink that keeps the trace of the row that the calling thread has asked last."""

    def __init__(self) -> None:
        self._kept = threading.local()

    def write(self, trace: Trace) -> None:
        """Keep it."""
        self._kept.trace = trace

    def pop(self) -> Trace | None:
        """Give it away, if there is one."""
        trace, self._kept.trace = getattr(self._kept, "trace", None), None
        return trace

    def close(self) -> None:
        """Nothing to do."""


@dataclass(slots=True)
class Help:
    """What a worker has set up for one batch. `problem` is why it no longer helps."""

    batch: SharedBatch
    gate: SharedGate
    asker: RowAsker
    ask: Ask
    traces: TraceCatcher
    stack: ExitStack
    closed: threading.Event = field(default_factory=threading.Event)
    problem: BaseException | None = None
    has_answered: bool = False
    chunks: dict[int, tuple[Chunk, threading.Thread]] = field(default_factory=dict)

    def at_work(self) -> list[Chunk]:
        """The chunks whose threads run."""
        self.chunks = {number: held for number, held in self.chunks.items() if held[1].is_alive()}
        return [chunk for chunk, _thread in self.chunks.values()]

    def close(self) -> None:
        """Ask nothing more; what is under way comes to its end."""
        self.closed.set()
        self.gate.close()


class ChunkWorker:
    """Helps with whatever batches there are, or with `only` one. `run` belongs to one thread.

    `calls` is the most calls at once of this process. `tell` is given what a person should know; `refused` is called
    when a batch cannot be helped with any more from here, with why.
    """

    def __init__(
        self,
        seat: WorkerSeat,
        make_engine: MakeEngine,
        *,
        calls: int,
        only: str | None = None,
        tell: Callable[[Notice], None],
        refused: Callable[[str, BaseException], None],
    ) -> None:
        self._seat = seat
        self._make_engine = make_engine
        self._calls = calls
        self._only = only
        self._tell = tell
        self._refused = refused
        self._helps: dict[str, Help] = {}
        self._declined: set[str] = set()
        self._stopping = threading.Event()
        self._away = False
        self.rows = 0
        self._lock = threading.Lock()

    def run(self, stop: threading.Event) -> None:
        """Work until `stop`; calls under way are then brought to their end, and the other rows given back."""
        try:
            while not stop.is_set():
                found = self._look()
                stop.wait(_SOON_SECONDS if found else LOOK_SECONDS)
        finally:
            self._stopping.set()
            for help_ in self._helps.values():
                help_.close()
            for help_ in list(self._helps.values()):
                for _chunk, thread in help_.chunks.values():
                    thread.join()
                self._end(help_)

    def _look(self) -> bool:
        """One look around; whether a chunk was found."""
        try:
            self._seat.check_in()
            wanted = [one for one in self._seat.wanted() if self._only in {None, one}]
            self._end_unwanted(wanted)
            for help_ in self._helps.values():
                help_.gate.refresh()
            found = [self._claim(batch_id) for batch_id in wanted if batch_id not in self._declined]
        except UnavailableError as exc:
            if not self._away:
                self._tell(Notice(key="worker.away", values={"problem": str(exc.values.get("problem", exc))}))
            self._away = True
            return False
        if self._away:
            self._tell(Notice(key="worker.back"))
        self._away = False
        return any(found)

    def _end_unwanted(self, wanted: Sequence[str]) -> None:
        """Ask nothing more of them; what is under way ends by itself, and holds up no other batch meanwhile."""
        for help_ in [one for one in self._helps.values() if one.batch.id not in wanted or one.problem]:
            help_.close()
            if not help_.at_work():
                self._end(help_)

    def _claim(self, batch_id: str) -> bool:
        help_ = self._helps.get(batch_id) or self._begin(batch_id)
        if help_ is None or help_.closed.is_set():
            return False
        room = self._calls - sum(chunk.calls for one in self._helps.values() for chunk in one.at_work())
        if room <= 0:
            return False
        held = [chunk.number for chunk in help_.at_work()]
        if (chunk := self._seat.claim(batch_id, held=held, calls=room)) is None:
            return False
        thread = threading.Thread(target=self._work, args=(help_, chunk), name=f"chunk-{chunk.number}")
        help_.chunks[chunk.number] = (chunk, thread)
        thread.start()
        return True

    def _begin(self, batch_id: str) -> Help | None:
        """Set up for a batch; None when it is gone, or cannot be helped with from here."""
        stack = ExitStack()
        try:
            if (batch := self._seat.batch(batch_id)) is None:
                return None
            help_ = self._set_up(batch, stack)
        except UnavailableError:
            stack.close()
            raise
        except Exception as exc:  # noqa: BLE001 - whatever it is, this worker outlives it and says why it does not help
            stack.close()
            self._decline(batch_id, exc)
            return None
        self._tell(Notice(key="worker.helps", values={"job_id": batch_id, "model": batch.model.uri}))
        self._helps[batch_id] = help_
        return help_

    def _set_up(self, batch: SharedBatch, stack: ExitStack) -> Help:
        if batch.made_by != __version__:
            raise FailedError("sharing.version", found=batch.made_by, own=__version__)
        gate, traces = SharedGate(self._seat, batch), TraceCatcher()
        engine = stack.enter_context(self._make_engine(batch, gate))
        ask = stack.enter_context(engine.asking(engine.load(batch.model.program)))
        share = batch.trace_share
        asker = RowAsker(
            batch.spec,
            batch.model,
            batch.columns,
            tags=batch.tags,
            tools=engine.score_tools(),
            tracing=None if share is None else Tracing(traces, share),
            earlier=None,
        )
        return Help(batch, gate, asker, ask, traces, stack)

    def _end(self, help_: Help) -> None:
        """Let go of what was set up; its threads have ended."""
        del self._helps[help_.batch.id]
        help_.stack.close()
        if help_.problem is not None:
            self._decline(help_.batch.id, help_.problem)

    def _decline(self, batch_id: str, problem: BaseException) -> None:
        self._declined.add(batch_id)
        self._refused(batch_id, problem)
        with suppress(UnavailableError):  # a helper that asks no more is soon counted no more
            self._seat.withdraw(batch_id)

    def _work(self, help_: Help, chunk: Chunk) -> None:
        """A chunk, in a thread of its own."""
        done = False
        try:
            with ThreadPoolExecutor(max_workers=chunk.calls, thread_name_prefix="row") as pool:
                done = all(list(pool.map(lambda row: self._one(help_, chunk, row), chunk.rows)))
        except Exception as exc:  # noqa: BLE001 - this worker cannot go on with the batch, and says why
            help_.problem = help_.problem or exc
            help_.close()
        finally:
            self._patiently(lambda: self._seat.give_back(chunk, done=done))

    def _one(self, help_: Help, chunk: Chunk, row: SharedRow) -> bool:
        """Whether the row was answered and brought back. What it raises ends the help with the batch."""
        if help_.closed.is_set():
            return False
        outcome = help_.asker.asked(help_.ask, row.to_row())
        if help_.closed.is_set() and not outcome.is_whole(scored=help_.batch.spec.metric is not None):
            return False  # no mistake of the row's: another worker asks it
        if self._only is None and outcome.error in _NO_WAY and not help_.has_answered:
            # Nothing was ever heard of the model here: the row is for those that reach it.
            raise FailedError("sharing.no_way", problem=str(json.loads(outcome.line)["_error"]))
        help_.has_answered = help_.has_answered or outcome.error is None
        answer = Answer.of(outcome, help_.traces.pop())
        if not self._patiently(lambda: self._seat.answer(chunk, answer)):
            return False
        with self._lock:
            self.rows += 1
        return True

    def _patiently(self, do: Callable[[], None]) -> bool:
        """Do it, as often as it takes while the database is away; False when it was given up.

        A worker that is told to stop tries once, and leaves the rest to the others.
        """
        end = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                do()
            except UnavailableError:
                if time.monotonic() > end or self._stopping.wait(1.0):
                    return False
            else:
                return True


def to_shared(row: InputRow, key: bytes) -> SharedRow:
    """A row as it travels."""
    return SharedRow(index=row.index, key=key.hex(), values=row.values)
