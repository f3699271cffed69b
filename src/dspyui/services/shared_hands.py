"""A batch's rows asked by every machine that helps, this one among them."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from typing import Final, TypeVar

from dspyui import __version__
from dspyui.domain.base import Notice
from dspyui.domain.batches import InputRow
from dspyui.domain.compiles import Usage
from dspyui.domain.engine import Engine
from dspyui.domain.sharing import BatchBoard, HostSeat, SharedBatch, SharedRow
from dspyui.errors import BadRequestError, DSPyUIError, UnavailableError
from dspyui.services.batch_hands import BatchWork, Desk, Hands
from dspyui.services.batch_rows import RowAsker, row_key, trace_tags
from dspyui.services.chunk_worker import PATIENCE_SECONDS, ChunkWorker, MakeEngine, to_shared

# How often the host looks for answers, and says that it is alive, in seconds.
_LOOK_SECONDS: Final = 0.05
_CHECK_IN_SECONDS: Final = 0.5
# Rows that make no whole chunk wait for others so long, in seconds.
_FLUSH_SECONDS: Final = 0.2
_MOST_ANSWERS: Final = 1000
_AWAY_SECONDS: Final = 1.0
_LAST_SECONDS: Final = 15.0
T = TypeVar("T")


class SharedCrew:
    """Implements `services.batch_hands.Crew`: the batch lies on a board, and this process helps with it too."""

    def __init__(self, board: BatchBoard, engine: Engine, make_engine: MakeEngine) -> None:
        """The engine scores nothing and asks nothing: it knows the versions. `make_engine` gives the one that asks."""
        self._board = board
        self._engine = engine
        self._make_engine = make_engine
        self._hands: SharedHands | None = None

    @contextmanager
    def open(self, work: BatchWork, desk: Desk) -> Iterator[Hands]:
        """See the protocol."""
        batch = SharedBatch(
            id=work.job_id,
            made_by=__version__,
            total=work.total,
            spec=work.spec,
            model=work.model,
            columns=work.columns,
            tags=trace_tags(work.job_id, work.model),
            trace_share=work.tracing.share if work.tracing else None,
        )
        asker = work.asker(self._engine.score_tools())
        with ExitStack() as stack:
            host = _entered(stack, lambda: self._board.host(batch), work, desk)
            seat = _entered(stack, lambda: self._board.work("host"), work, desk)
            self._hands = SharedHands(host, batch, work, asker, desk)
            worker = ChunkWorker(
                seat,
                self._make_engine,
                calls=batch.spec.concurrency,
                only=batch.id,
                tell=self._hands.tell,
                refused=lambda _batch_id, problem: desk.give_up(problem),
            )
            with self._hands.at_work(worker.run):
                yield self._hands

    def stop(self) -> None:
        """See the protocol."""
        if self._hands is not None:
            self._hands.stop()

    def versions(self) -> dict[str, str]:
        """See the protocol."""
        return self._engine.versions()


class SharedHands:
    """Implements `services.batch_hands.Hands`: rows go out in chunks, and a thread brings the answers home."""

    def __init__(
        self, host: HostSeat, batch: SharedBatch, work: BatchWork, asker: RowAsker, desk: Desk
    ) -> None:
        self._host = host
        self._batch = batch
        self._work = work
        self._asker = asker
        self._desk = desk
        self._before: Mapping[int, bytes] = {}
        # Guards what follows.
        self._changed = threading.Condition()
        self._gathered: list[SharedRow] = []
        self._gathered_at = 0.0
        self._out: set[int] = set()
        self._usage = Usage()
        self._workers = 0
        # Only one thread hands out at a time, so that a chunk gets its number once.
        self._handing = threading.Lock()
        self._over = threading.Event()
        self._checked_in = 0.0

    @contextmanager
    def at_work(self, help_: Callable[[threading.Event], None]) -> Iterator[None]:
        """With the thread that collects, and the one in which this process helps."""
        self._before = self._patiently(self._host.outstanding)
        threads = [
            threading.Thread(target=self._guarded, args=(run,), name=name)
            for run, name in ((self._collect, "collect"), (lambda: help_(self._over), "help"))
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self.stop()
            for thread in threads:
                thread.join()
            self._bring_the_last()

    def _bring_the_last(self) -> None:
        """After the batch was given up: what others are just asking is paid for, and is waited for a while."""
        end = time.monotonic() + _LAST_SECONDS
        with suppress(DSPyUIError, OSError):  # the batch has its reason to end already
            self._host.leave()
            while self._out and self._host.workers() and time.monotonic() < end:
                time.sleep(_LOOK_SECONDS)
            self._bring_home()

    def _guarded(self, run: Callable[[], None]) -> None:
        try:
            run()
        except Exception as exc:  # noqa: BLE001 - it ends the batch, and is raised by whoever waits
            self._desk.give_up(exc)

    def take(self, row: InputRow) -> None:
        """See the protocol."""
        if (settled := self._asker.settled(row)) is not None:
            self._desk.put(settled)
            return
        key = row_key(row)
        with self._changed:
            self._out.add(row.index)
        if (known := self._before.get(row.index)) is not None:
            # An earlier attempt has handed it out; whoever has it, or its answer, brings it home.
            if known != key:
                raise BadRequestError("batch.input_changed", row=row.index + 1)
            return
        with self._changed:
            self._gathered_at = self._gathered_at if self._gathered else time.monotonic()
            self._gathered.append(to_shared(row, key))
            is_full = len(self._gathered) >= self._batch.chunk_rows
        if is_full:
            self._hand_out()

    def finish(self) -> None:
        """See the protocol."""
        self._hand_out()
        with self._changed:
            while self._out and not self._desk.is_stopped():
                self._changed.wait(0.5)

    def stop(self) -> None:
        """Nothing more is asked here, and nothing more collected."""
        self._over.set()
        with self._changed:
            self._changed.notify_all()

    def usage(self) -> Usage:
        """See the protocol."""
        with self._changed:
            return self._usage

    def workers(self) -> int:
        """See the protocol."""
        with self._changed:
            return self._workers

    def tell(self, notice: Notice) -> None:
        """Nothing of the helping in this process is worth a line: the log tells of the whole batch."""

    def _hand_out(self) -> None:
        with self._handing:
            with self._changed:
                rows, self._gathered = self._gathered, []
            if rows:
                self._patiently(lambda: self._host.hand_out(rows))

    def _collect(self) -> None:
        try:
            self._collect_until_over()
        except UnavailableError:
            # At the end nothing is missing, or the batch was given up: nobody waits for the database any more.
            if not self._over.is_set():
                raise
        if self._desk.is_stopped():
            # At once: the others ask nothing more, while what is under way here comes to its end.
            with suppress(DSPyUIError):
                self._host.leave()

    def _collect_until_over(self) -> None:
        while not self._over.is_set():
            found = self._bring_home()
            with self._changed:
                waits = bool(self._gathered) and time.monotonic() - self._gathered_at > _FLUSH_SECONDS
            if waits:
                self._hand_out()
            self._check_in()
            if not found:
                self._over.wait(_LOOK_SECONDS)

    def _bring_home(self) -> bool:
        """Put the answers that have come where they belong; whether there were any."""
        kept = []
        for answer in self._patiently(lambda: self._host.answers(_MOST_ANSWERS)):
            with self._changed:
                is_out = answer.index in self._out
            if not is_out:
                # Put away by an attempt that was killed before it could say so; or not asked for yet by this one.
                if self._desk.is_known(answer.index):
                    kept.append(answer.index)
                continue
            if answer.trace is not None and self._work.tracing is not None:
                self._work.tracing.sink.write(answer.trace)
            if not self._desk.put(answer.to_outcome()):
                continue
            with self._changed:
                # Before it is said to be kept: what breaks in between must not put it a second time.
                self._out.discard(answer.index)
                self._usage += answer.usage
                self._changed.notify_all()
            kept.append(answer.index)
        if kept:
            self._patiently(lambda: self._host.kept(kept))
        return bool(kept)

    def _check_in(self) -> None:
        if time.monotonic() - self._checked_in < _CHECK_IN_SECONDS:
            return
        self._checked_in = time.monotonic()
        self._patiently(self._host.check_in)
        workers = self._patiently(self._host.workers)
        with self._changed:
            self._workers = workers

    def _patiently(self, do: Callable[[], T]) -> T:
        """Do it, as often as it takes while the database is away. Raises UnavailableError in the end."""
        end, told = time.monotonic() + PATIENCE_SECONDS, False
        while True:
            try:
                found = do()
            except UnavailableError as exc:
                if time.monotonic() > end or self._over.is_set() or self._desk.is_stopped():
                    raise
                if not told:
                    self._work.tell(
                        "batch.database_away",
                        {"problem": str(exc.values.get("problem", exc))},
                        level="warning",
                    )
                told = True
                self._over.wait(_AWAY_SECONDS)
                continue
            if told:
                self._work.tell("batch.database_back", {})
            return found


def _entered(
    stack: ExitStack, make: Callable[[], AbstractContextManager[T]], work: BatchWork, desk: Desk
) -> T:
    """Enter it, as soon as the database is there: after the start of a machine that may take a while."""
    end, told = time.monotonic() + PATIENCE_SECONDS, False
    while True:
        try:
            return stack.enter_context(make())
        except UnavailableError as exc:
            if time.monotonic() > end or desk.is_stopped():
                raise
            if not told:
                work.tell(
                    "batch.database_away", {"problem": str(exc.values.get("problem", exc))}, level="warning"
                )
            told = True
            time.sleep(_AWAY_SECONDS)
