"""A batch that several machines work on: its rows go out in chunks, and the answers come back, over one database.

The machine that keeps the batch (its host) reads the input and writes the results; whoever helps needs nothing of its
disk. A row that was answered is never handed out again, whoever dies.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final, Protocol, Self

from dspyui.domain.base import Frozen
from dspyui.domain.batches import BatchModel, BatchSpec, InputRow, RowOutcome
from dspyui.domain.compiles import Usage
from dspyui.domain.limits import PaceState
from dspyui.domain.lms import LMRoles
from dspyui.domain.programs import CompiledProgram
from dspyui.domain.traces import Trace

# Rows that are handed out together, at most; and the calls at once that a chunk takes of the batch's.
CHUNK_ROWS: Final = 25
CHUNK_CALLS: Final = 4


class SharedBatch(Frozen):
    """What a helper has to know. `total` counts the rows; `columns` are the input's; `trace_share` None: no trace.

    `made_by` is the version of DSPyUI that reads the answers: another one may mean something else by them.
    """

    id: str
    made_by: str
    total: int
    spec: BatchSpec
    model: BatchModel
    columns: tuple[str, ...]
    tags: dict[str, str]
    trace_share: float | None

    @property
    def lms(self) -> LMRoles:
        """Who answers."""
        return self.spec.lms(self.model.program)

    @property
    def is_shareable(self) -> bool:
        """Whether other machines can help."""
        return is_shareable(self.spec, self.model.program)

    @property
    def slots(self) -> tuple[int, ...]:
        """The calls at once of each chunk that may be worked on at a time; together they are the batch's."""
        count = math.ceil(self.spec.concurrency / CHUNK_CALLS)
        calls, more = divmod(self.spec.concurrency, count)
        return tuple(calls + (number < more) for number in range(count))

    @property
    def chunk_rows(self) -> int:
        """How many rows go out together: few of a small batch, so that everybody gets some."""
        return max(1, min(CHUNK_ROWS, self.total // (4 * len(self.slots))))


class SharedRow(Frozen):
    """A row of the input on its way; `key` is its content key in hex."""

    index: int
    key: str
    values: dict[str, Any]

    def to_row(self) -> InputRow:
        """As a batch reads it."""
        return InputRow(self.index, self.values, key=bytes.fromhex(self.key))


class Chunk(Frozen):
    """Rows that one worker has taken: those of them that are not answered yet, to be asked so many calls at once.

    `claim` tells this taking from an earlier or later one of the same rows.
    """

    batch_id: str
    number: int
    claim: str
    calls: int
    rows: tuple[SharedRow, ...]


class Answer(Frozen):
    """A finished row on its way back, its trace with it. What a `RowOutcome` says; `latency_ms` None is none."""

    index: int
    key: str
    line: str
    error: str | None
    latency_ms: float | None
    usage: Usage
    score: float | None
    traced: bool
    trace: Trace | None = None

    @classmethod
    def of(cls, outcome: RowOutcome, trace: Trace | None) -> Self:
        """The outcome of a row, and its trace when it has one."""
        return cls(
            index=outcome.index,
            key=outcome.key.hex(),
            line=outcome.line,
            error=outcome.error,
            latency_ms=None if math.isnan(outcome.latency_ms) else outcome.latency_ms,
            usage=outcome.usage,
            score=outcome.score,
            traced=outcome.traced,
            trace=trace,
        )

    def to_outcome(self) -> RowOutcome:
        """As a batch takes it."""
        latency = math.nan if self.latency_ms is None else self.latency_ms
        return RowOutcome(
            self.index,
            bytes.fromhex(self.key),
            self.line,
            self.error,
            latency,
            self.usage,
            self.score,
            self.traced,
        )


def is_shareable(spec: BatchSpec, program: CompiledProgram) -> bool:
    """Whether other machines can help: they have neither the bundled model's server nor a person's own metric files."""
    metrics = (*program.metrics, *((spec.metric,) if spec.metric else ()))
    return not spec.lms(program).uses_local and not any(metric.kind == "custom" for metric in metrics)


class HostSeat(Protocol):
    """What the batch's host does with the database. Every call may raise UnavailableError."""

    def outstanding(self) -> Mapping[int, bytes]:
        """The rows that an earlier attempt handed out and that were not taken back yet, with their content keys."""
        ...

    def hand_out(self, rows: Sequence[SharedRow]) -> None:
        """Rows that nobody was given before, as one chunk."""
        ...

    def answers(self, most: int) -> Sequence[Answer]:
        """Some that have come back, again and again until they are said to be `kept`."""
        ...

    def kept(self, indexes: Sequence[int]) -> None:
        """These answers are safe on the host's disk."""
        ...

    def workers(self) -> int:
        """How many processes work on it at this moment."""
        ...

    def check_in(self) -> None:
        """Say that the host is alive, after the database was away too. To be called once a second or so."""
        ...

    def leave(self) -> None:
        """Be no longer alive: whoever helps brings what is under way to its end, and asks nothing more."""
        ...


class WorkerSeat(Protocol):
    """What a worker does with the database. Every call may raise UnavailableError."""

    def check_in(self) -> None:
        """Say that the worker is alive, after the database was away too. To be called once a second or so."""
        ...

    def wanted(self) -> Sequence[str]:
        """The batches whose hosts are alive, oldest first. Work for another one has to stop."""
        ...

    def batch(self, batch_id: str) -> SharedBatch | None:
        """The batch, or None when it is gone."""
        ...

    def claim(self, batch_id: str, *, held: Collection[int], calls: int) -> Chunk | None:
        """A chunk nobody works on, the first ones first; None when there is none, or this worker has its share.

        `held` are the numbers of the chunks that this worker really works on: any other that the database takes for
        its own (the answer to a claim was lost) is free again. `calls` is the most calls at once that it has left.
        """
        ...

    def answer(self, chunk: Chunk, answer: Answer) -> None:
        """Bring an answer back. One that is there already, and that the host does not have yet, stays as it is."""
        ...

    def give_back(self, chunk: Chunk, *, done: bool) -> None:
        """The worker is through with the chunk, or cannot go on with it (`done` False)."""
        ...

    def withdraw(self, batch_id: str) -> None:
        """Take no more of this batch; the others share what would have been this worker's part."""
        ...

    def pace(self, batch_id: str, change: "PaceChange") -> PaceState | None:
        """Change the pace of a batch's calls, for everybody, in one step; gives the new one, None when it is gone."""
        ...


class PaceChange(Protocol):
    """What a call does to the pace; `now` is the database's clock, in seconds. It may be tried more than once."""

    def __call__(self, state: PaceState, now: float) -> PaceState: ...


class BatchBoard(Protocol):
    """The database over which machines share batches."""

    def host(self, batch: SharedBatch) -> AbstractContextManager[HostSeat]:
        """Offer a batch, or go on with one of the same id.

        Raises UnavailableError, FailedError when the database refuses, and ConflictError when it has a host.
        """
        ...

    def work(self, name: str) -> AbstractContextManager[WorkerSeat]:
        """Join as a worker of a name that people read. Raises UnavailableError, FailedError when it is refused."""
        ...

    def forget(self, batch_id: str) -> None:
        """Remove a batch whose job has ended, if it is there. Raises UnavailableError."""
        ...
