"""What waits on this machine's disk for MLflow: how much, how old, and sending it now."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from pathlib import Path

from dspyui.domain.base import Fault, Frozen
from dspyui.domain.jobs import Job, JobStore, RecordState
from dspyui.domain.runs import TrackingServer
from dspyui.domain.traces import FULL_MARK, SpoolState, TraceSpool
from dspyui.errors import DSPyUIError, FailedError, NotFoundError, UnavailableError
from dspyui.services.record import TRACES, Piece, RecordService
from dspyui.services.sender import Stop
from dspyui.settings import Settings

_log = logging.getLogger(__name__)
# So long somebody who asked for it waits; what is left goes on by itself.
SEND_SECONDS = 20.0


class Waiting(Frozen):
    """Records of jobs that have ended, and traces, that MLflow does not have yet.

    `size` is what the traces take on disk in bytes, `budget` how much they may before jobs are held up (0: no
    bound). Refused ones are set aside and not sent again by themselves. `oldest` is when the first of all was
    written, UTC. `later_traces` are those among the traces that belong to compiles which still run: they are sent when
    these have ended.
    """

    records: int = 0
    traces: int = 0
    later_traces: int = 0
    size: int = 0
    budget: int = 0
    oldest: datetime | None = None
    refused_records: int = 0
    refused_traces: int = 0

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits."""
        return not (self.records or self.traces)

    @property
    def can_be_sent(self) -> bool:
        """Whether any of it can be sent now."""
        return self.records > 0 or self.traces > self.later_traces

    @property
    def is_full(self) -> bool:
        """Whether jobs are held up until something was sent."""
        return bool(self.budget) and self.size >= self.budget


class Sent(Frozen):
    """What came of sending: how much, what still waits, and why, one reason of each kind."""

    records: int
    traces: int
    left: Waiting
    reasons: tuple[Fault, ...]


class WaitingService:
    """Looks through the folders of all jobs."""

    def __init__(
        self,
        settings: Settings,
        jobs: JobStore,
        record: RecordService,
        tracking: TrackingServer,
        spool: TraceSpool,
        *,
        loose: Mapping[Path, Callable[[Stop], int]] | None = None,
    ) -> None:
        """`loose` are folders of traces that belong to no job, each with what sends them."""
        self._loose = loose or {}
        self._settings = settings
        self._jobs = jobs
        self._record = record
        self._tracking = tracking
        self._spool = spool

    def look(self) -> Waiting:
        """How much waits now."""
        found = Waiting(budget=self._settings.trace_budget)
        for job, state in self._all():
            try:
                folder = self._jobs.folder(job.id) / TRACES
                spool = self._spool.measure(folder)
            except NotFoundError:
                continue  # deleted since it was listed
            found = _with(found, job, state, spool)
            # One that waits for room would wait for ever, so its traces are sent before its end.
            if state.status == "pending" and _is_compiling(job) and not (folder / FULL_MARK).exists():
                later = found.later_traces + spool.traces
                found = found.model_copy(update={"later_traces": later})
        for folder in self._loose:
            found = _plus(found, self._spool.measure(folder))
        return found

    def _all(self) -> Iterator[tuple[Job, RecordState]]:
        for job in self._jobs.search():
            try:
                state = self._jobs.record(job.id)
                if state.status != "off":
                    yield job, state
            except NotFoundError:
                continue  # deleted since it was listed

    def send_now(self, *, seconds: float = SEND_SECONDS) -> Sent:
        """Send what can be sent in that time. Never raises for a server that is away: that is a reason."""
        end = time.monotonic() + seconds
        before = dict(self._records())
        loose, reasons = self._send_all(end)
        sent = [(before[job_id], state) for job_id, state in self._records() if job_id in before]
        self._record.wake()
        return Sent(
            records=sum(was.status == "pending" and now.status == "sent" for was, now in sent),
            traces=sum(now.traces_sent - was.traces_sent for was, now in sent) + loose,
            left=self.look(),
            reasons=tuple(reasons.values()),
        )

    def _records(self) -> Iterator[tuple[str, RecordState]]:
        return ((job.id, state) for job, state in self._all())

    def _send_all(self, end: float) -> tuple[int, dict[str, Fault]]:
        """How many traces of no job were sent, and the reasons for what is left, by their code."""
        try:
            self._reach()
        except DSPyUIError as exc:
            return 0, {exc.code: Fault.of(exc)}
        loose, problems = 0, []
        for send in self._loose.values():
            count, problem = self._send_loose(send, end)
            loose += count
            problems.append(problem)
        for job_id in list(self._jobs.pending_records()):
            if time.monotonic() > end:
                problems.append(UnavailableError("record.goes_on"))
                break
            problems.append(self._send_one(job_id, end))
        return loose, {problem.code: Fault.of(problem) for problem in reversed(problems) if problem}

    def _reach(self) -> None:
        if not self._settings.mlflow_enabled:
            raise UnavailableError("record.tracking_off")
        self._tracking.address()

    def _send_loose(self, send: Callable[[Stop], int], end: float) -> tuple[int, DSPyUIError | None]:
        piece = Piece(lambda: time.monotonic() > end)
        try:
            count = send(piece)
        except DSPyUIError as exc:
            return 0, exc
        except OSError as exc:
            _log.exception("The traces of single calls could not be sent")
            return 0, FailedError("record.calls_broken", problem=str(exc))
        return count, UnavailableError("record.goes_on") if piece.has_ended else None

    def _send_one(self, job_id: str, end: float) -> DSPyUIError | None:
        try:
            problem = self._record.attempt(job_id, stop=lambda: time.monotonic() > end)
            if problem is not None or self._jobs.record(job_id).status != "pending":
                return problem
            if not self._jobs.get(job_id).is_terminal:
                return UnavailableError("record.job_runs", job_id=job_id)
        except NotFoundError:
            return None  # deleted since it was listed
        except DSPyUIError as exc:
            return exc
        except Exception as exc:  # noqa: BLE001 - whatever one record holds, the others must not wait for it
            _log.exception("The record of job %s could not be sent", job_id)
            return FailedError("record.broken", job_id=job_id, problem=f"{type(exc).__name__}: {exc}")
        return UnavailableError("record.goes_on")


def _is_compiling(job: Job) -> bool:
    return job.kind == "compile" and not job.is_terminal


def _with(found: Waiting, job: Job, state: RecordState, spool: SpoolState) -> Waiting:
    """The sum with one job more."""
    waits = state.status == "pending"
    has_ended = waits and job.is_terminal
    # What a refused record has left is sent only when somebody asks for it.
    found = _plus(found, spool if waits else SpoolState(refused=spool.refused))
    return found.model_copy(
        update={
            "records": found.records + has_ended,
            "oldest": _older(found.oldest, (job.ended_at or job.created_at) if has_ended else None),
            "refused_records": found.refused_records + (state.status == "refused"),
        }
    )


def _plus(found: Waiting, spool: SpoolState) -> Waiting:
    return found.model_copy(
        update={
            "traces": found.traces + spool.traces,
            "size": found.size + spool.size,
            "oldest": _older(found.oldest, spool.oldest),
            "refused_traces": found.refused_traces + spool.refused,
        }
    )


def _older(*ages: datetime | None) -> datetime | None:
    return min((age for age in ages if age is not None), default=None)
