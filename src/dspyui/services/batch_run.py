"""The batch itself, as it runs in its own process: read, ask, write down, and go on where a killed one stopped."""

import json
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Final

from dspyui.domain.batches import (
    BatchPhase,
    BatchProgress,
    BatchResult,
    BatchSpec,
    BatchStore,
    EarlierRows,
    InputRow,
    InputStream,
    ResultLog,
    RowOutcome,
)
from dspyui.domain.compiles import Usage
from dspyui.domain.jobs import EventLevel, JobEvent, JobStore
from dspyui.errors import BadRequestError, FailedError
from dspyui.services.batch_hands import BatchWork, Crew, Desk, Hands
from dspyui.services.batch_rows import Tracing, row_key
from dspyui.services.batches import check_columns, check_earlier

PROGRESS_SECONDS: Final = 0.25
# When not one of so many rows was answered, the next million will not be either.
HOPELESS_ROWS: Final = 50
# Rows that may be finished, or under way, before one that stands ahead of them.
_WINDOW_ROWS, _WINDOW_CALLS = 256, 8
_LOOK_SECONDS: Final = 0.5
# The log of a job tells of so many failed rows of one kind; all of them stand in the results.
_TOLD_ROWS: Final = 5


class BatchRun:
    """One batch of one job.

    `open_input` opens the file of a spec; the `crew` asks the rows; `tracing` None keeps no trace.
    """

    def __init__(
        self,
        job_id: str,
        *,
        jobs: JobStore,
        batches: BatchStore,
        open_input: Callable[[BatchSpec], InputStream],
        crew: Crew,
        tracing: Tracing | None,
    ) -> None:
        self._job_id = job_id
        self._jobs = jobs
        self._batches = batches
        self._open_input = open_input
        self._crew = crew
        self._tracing = tracing
        self._hands: Hands | None = None
        self._spec = batches.spec(job_id)
        self._model = batches.model(job_id)
        self._lock = threading.Lock()
        window = max(_WINDOW_ROWS, _WINDOW_CALLS * self._spec.concurrency)
        self._window = threading.Semaphore(window)
        self._stop: BaseException | None = None
        self._progress = BatchProgress()
        self._before = Usage()
        self._written = self._began = 0.0
        self._answered = False

    def run(self) -> BatchResult:
        """Do it.

        Raises ConflictError when another batch writes to the same output, BadRequestError when the file does not fit
        the program or has changed since an earlier attempt, RefusedError when the model will not answer at all,
        FailedError when it answers nothing, or the disk is full. What was finished stays, and is not asked again.
        """
        with self._batches.open_target(self._spec, self._job_id) as target:
            self._enter("reading")
            stream = self._open_input(self._spec)
            columns = stream.columns()
            check_columns(self._spec, self._model.program, columns)
            total = min(stream.count(), self._spec.limit or 2**62)
            digest = stream.digest()
            self._log_event(
                "batch.read", {"rows": total, "format": stream.format, "encoding": stream.encoding}
            )
            log = self._batches.open_log(self._job_id)
            try:
                self._ask_all(stream, columns, log, total)
                self._enter("writing")
                log.write_errors()
                target.publish(self._batches.results(self._job_id))
                result = self._result(log, digest)
            finally:
                self._show(log, force=True)
                log.close()
        self._batches.write_result(self._job_id, result)
        return result

    def _ask_all(self, stream: InputStream, columns: tuple[str, ...], log: ResultLog, total: int) -> None:
        totals = log.totals()
        self._before = totals.usage if totals.rows else Usage()
        self._progress = self._progress.model_copy(update={"total": total, "reused": log.finished})
        if log.finished:
            self._log_event("batch.resumed", {"rows": log.finished, "total": total})
        self._enter("running")
        earlier = self._earlier()
        try:
            with self._crew.open(self._work(columns, total, earlier), self._desk(log)) as hands:
                self._hands, self._began = hands, time.monotonic()
                self._dispatch(islice(stream, total), hands, log)
        finally:
            if earlier is not None:
                earlier.close()
        if self._stop is not None:
            raise self._stop

    def _earlier(self) -> EarlierRows | None:
        if self._spec.earlier is None:
            return None
        check_earlier(self._batches, self._spec, self._model)
        return self._batches.open_earlier(self._spec.earlier)

    def _work(self, columns: tuple[str, ...], total: int, earlier: EarlierRows | None) -> BatchWork:
        return BatchWork(
            job_id=self._job_id,
            spec=self._spec,
            model=self._model,
            columns=columns,
            total=total,
            earlier=earlier,
            tracing=self._tracing,
            tell=self._log_event,
        )

    def _desk(self, log: ResultLog) -> Desk:
        def put(outcome: RowOutcome) -> bool:
            with self._lock:
                return self._finish(outcome, log)

        def is_known(index: int) -> bool:
            with self._lock:
                return log.known(index) is not None

        return Desk(put, self._give_up, lambda: self._stop is not None, is_known)

    def _dispatch(self, rows: "islice[InputRow]", hands: Hands, log: ResultLog) -> None:
        """Hand out the rows; at a stop, those under way are still finished."""
        try:
            for row in rows:
                is_known = self._is_known(row, log)
                if is_known is None:
                    continue
                if not self._take_place():
                    break
                if not is_known:
                    hands.take(row)
            hands.finish()
        except BaseException as exc:
            self._give_up(exc)
            raise

    def _is_known(self, row: InputRow, log: ResultLog) -> bool | None:
        """Whether the row is finished; None when it also has its place in the results already."""
        with self._lock:
            key, placed = log.known(row.index), row.index < log.count
        if key is None:
            return False
        if key != row_key(row):
            raise BadRequestError("batch.input_changed", row=row.index + 1)
        return None if placed else True

    def _take_place(self) -> bool:
        while not self._window.acquire(timeout=_LOOK_SECONDS):
            if self._stop is not None:
                return False
        return self._stop is None

    def _give_up(self, problem: BaseException) -> None:
        with self._lock:
            self._stop = self._stop or problem
        self._crew.stop()

    def _finish(self, outcome: RowOutcome, log: ResultLog) -> bool:
        """Whether the row is on disk."""
        if self._stop is not None and not outcome.is_whole(scored=self._spec.metric is not None):
            return False  # no mistake of the row's: it is asked again when the batch goes on
        for _row in range(log.add(outcome)):
            self._window.release()
        if outcome.reused:
            self._progress = self._progress.model_copy(update={"reused": self._progress.reused + 1})
            self._show(log)
            return True
        asked = self._progress.asked + 1
        self._progress = self._progress.model_copy(update={"asked": asked})
        self._answered = self._answered or outcome.error is None
        if outcome.error is not None:
            self._tell(outcome, log)
            if not self._answered and asked >= HOPELESS_ROWS and outcome.error.startswith("engine."):
                raise FailedError("batch.hopeless", rows=asked, problem=_error_of(outcome))
        self._show(log)
        return True

    def _tell(self, outcome: RowOutcome, log: ResultLog) -> None:
        if log.errors().get(outcome.error or "", 0) <= _TOLD_ROWS:
            values = {"row": outcome.index + 1, "problem": _error_of(outcome)}
            self._log_event("batch.row_error", values, level="warning")

    def _result(self, log: ResultLog, digest: str) -> BatchResult:
        totals = log.totals()
        self._show(log, force=True)
        progress = self._progress
        return BatchResult(
            total_rows=totals.rows,
            success_count=totals.rows - totals.failed,
            error_count=totals.failed,
            reused=progress.reused,
            usage=totals.usage,
            latency_ms_mean=totals.latency_ms_mean,
            latency_ms_p50=totals.latency_ms_p50,
            latency_ms_p95=totals.latency_ms_p95,
            latency_ms_p99=totals.latency_ms_p99,
            seconds=progress.seconds,
            rows_per_second=progress.rows_per_second,
            traced=totals.traced,
            trace_sample=self._tracing.share if self._tracing else 0.0,
            errors=log.errors(),
            score=totals.score,
            input_digest=digest,
            output=str(self._batches.output(self._spec, self._job_id)),
            versions=self._crew.versions(),
        )

    # Progress and log.

    def _enter(self, phase: BatchPhase) -> None:
        self._progress = self._progress.model_copy(update={"phase": phase})
        self._batches.write_progress(self._job_id, self._progress)
        self._log_event("batch.phase", {"phase": phase})

    def _show(self, log: ResultLog, *, force: bool = False) -> None:
        now = time.monotonic()
        if not force and now - self._written < PROGRESS_SECONDS:
            return
        self._written = now
        errors = log.errors()
        changes: dict[str, Any] = {
            "done": log.finished,
            "failed": sum(errors.values()),
            "errors": errors,
            "usage": self._before + (self._hands.usage() if self._hands else Usage()),
            "workers": self._hands.workers() if self._hands else 0,
        }
        if self._began and self._progress.phase == "running":
            changes["seconds"] = now - self._began
        self._progress = self._progress.model_copy(update=changes)
        self._batches.write_progress(self._job_id, self._progress)

    def _log_event(self, kind: str, values: Mapping[str, Any], *, level: EventLevel = "info") -> None:
        event = JobEvent(at=datetime.now(UTC), kind=kind, values=dict(values), level=level)
        self._jobs.append_event(self._job_id, event)


def _error_of(outcome: RowOutcome) -> str:
    """What stands in a failed row's `_error`, without its code."""
    return str(json.loads(outcome.line)["_error"]).partition(": ")[2]
