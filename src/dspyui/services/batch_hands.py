"""Who asks the rows of a batch: a crew, which is the threads of this process, or several machines."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from dspyui.domain.batches import BatchModel, BatchSpec, EarlierRows, InputRow, RowOutcome
from dspyui.domain.compiles import Usage
from dspyui.domain.engine import Ask, Engine
from dspyui.domain.limits import CallLimiter
from dspyui.domain.metrics import ScoreTools
from dspyui.services.batch_rows import RowAsker, Tracing, trace_tags


@dataclass(frozen=True, slots=True)
class Desk:
    """Where whoever asks rows brings them back. Thread-safe.

    `put` takes a finished row, says whether it is on disk now, and raises what ends the batch; `give_up` takes what has
    ended it; `is_stopped` tells whether anything has. `is_known` tells whether a row is finished and on disk.
    """

    put: Callable[[RowOutcome], bool]
    give_up: Callable[[BaseException], None]
    is_stopped: Callable[[], bool]
    is_known: Callable[[int], bool]


@dataclass(frozen=True, slots=True)
class BatchWork:
    """What a crew has to know of a batch. `tell(kind, values, level=…)` writes a line into the job's log."""

    job_id: str
    spec: BatchSpec
    model: BatchModel
    columns: tuple[str, ...]
    total: int
    earlier: EarlierRows | None
    tracing: Tracing | None
    tell: Callable[..., None]

    def asker(self, tools: ScoreTools) -> RowAsker:
        """Makes the outcomes of its rows."""
        return RowAsker(
            self.spec,
            self.model,
            self.columns,
            tags=trace_tags(self.job_id, self.model),
            tools=tools,
            tracing=self.tracing,
            earlier=self.earlier,
        )


class Hands(Protocol):
    """A crew at work."""

    def take(self, row: InputRow) -> None:
        """A row that is not finished. Returns before it is asked."""
        ...

    def finish(self) -> None:
        """Return when all that were taken are brought back, or the batch has been given up."""
        ...

    def usage(self) -> Usage:
        """What was asked of models up to now, in this attempt."""
        ...

    def workers(self) -> int:
        """How many processes are at it, when machines share the batch; else 0."""
        ...


class Crew(Protocol):
    """Whoever asks the rows of a batch."""

    def open(self, work: BatchWork, desk: Desk) -> AbstractContextManager[Hands]:
        """Begin. On leaving, what is under way is still brought back."""
        ...

    def stop(self) -> None:
        """The batch is given up: nothing more is asked. Any thread may say so."""
        ...

    def versions(self) -> dict[str, str]:
        """Versions of the libraries in play."""
        ...


class OwnCrew:
    """Implements `Crew` with threads of this process. The engine's calls pass the limiter."""

    def __init__(self, engine: Engine, limiter: CallLimiter) -> None:
        self._engine = engine
        self._limiter = limiter

    @contextmanager
    def open(self, work: BatchWork, desk: Desk) -> Iterator[Hands]:
        """See the protocol."""
        asker = work.asker(self._engine.score_tools())
        with self._engine.asking(self._engine.load(work.model.program)) as ask:
            hands = OwnHands(ask, asker, desk, concurrency=work.spec.concurrency, usage=self._engine.usage)
            with hands:
                yield hands

    def stop(self) -> None:
        """See the protocol."""
        self._limiter.close()

    def versions(self) -> dict[str, str]:
        """See the protocol."""
        return self._engine.versions()


class OwnHands:
    """Implements `Hands` with so many threads as calls are wanted."""

    def __init__(
        self, ask: Ask, asker: RowAsker, desk: Desk, *, concurrency: int, usage: Callable[[], Usage]
    ) -> None:
        self._ask = ask
        self._asker = asker
        self._desk = desk
        self._usage = usage
        self._pool = ThreadPoolExecutor(max_workers=concurrency, thread_name_prefix="row")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=True, cancel_futures=self._desk.is_stopped())

    def take(self, row: InputRow) -> None:
        """See the protocol."""
        self._pool.submit(self._one, row)

    def finish(self) -> None:
        """See the protocol."""
        self._pool.shutdown(wait=True)

    def usage(self) -> Usage:
        """See the protocol."""
        return self._usage()

    def workers(self) -> int:
        """See the protocol."""
        return 0

    def _one(self, row: InputRow) -> None:
        if self._desk.is_stopped():
            return
        try:
            self._desk.put(self._asker.settled(row) or self._asker.asked(self._ask, row))
        except Exception as exc:  # noqa: BLE001 - it ends the batch, and is raised by whoever waits for the threads
            self._desk.give_up(exc)
