"""How a job's state moves. Every move is made under the folder's lock, told in the job's log, and made once."""

import logging
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Literal

from dspyui.domain.jobs import EventLevel, Job, JobEvent, JobFailure, JobStore
from dspyui.errors import FailedError, NotFoundError

_log = logging.getLogger(__name__)

Ending = Literal["done", "failed", "cancelled"]

_LEVELS: Mapping[Ending, EventLevel] = {"done": "info", "failed": "error", "cancelled": "warning"}


class JobStates:
    """The moves. `on_change` is told the job's id after each one this process made."""

    def __init__(self, store: JobStore, on_change: Callable[[str], None]) -> None:
        self._store = store
        self._on_change = on_change

    def queued(self, job_id: str) -> None:
        """Say in the log that the job waits, the first time. Raises NotFoundError."""
        if not self._store.events(job_id)[0]:
            self._log(job_id, "job.queued")
            self._on_change(job_id)

    def begin(self, job_id: str, executor: str) -> bool:
        """Queued, or left by a dead process, to running: another attempt. False when the job is over or gone."""

        def change(job: Job) -> Job:
            if job.is_terminal or job.cancel_requested:
                return job
            attempt = job.attempt + 1
            self._log(job_id, "job.started" if attempt == 1 else "job.resumed", attempt=attempt)
            started_at = job.started_at or datetime.now(UTC)
            moves = {"status": "running", "executor": executor, "attempt": attempt, "started_at": started_at}
            return job.model_copy(update=moves)

        try:
            job = self._store.update(job_id, change)
        except NotFoundError:
            return False
        if job.is_terminal:
            return False
        if job.cancel_requested:
            self.end(job_id, "cancelled")
            return False
        self._on_change(job_id)
        return True

    def end(self, job_id: str, status: Ending, failure: JobFailure | None = None) -> None:
        """To its end, unless it has one or is gone."""
        moved = False

        def change(job: Job) -> Job:
            nonlocal moved
            moved = not job.is_terminal
            if not moved:
                return job
            # Before the state: whoever sees that the job has ended finds the last line there.
            self._log(job_id, f"job.{status}", _LEVELS[status])
            return job.model_copy(
                update={"status": status, "ended_at": datetime.now(UTC), "failure": failure}
            )

        try:
            self._store.update(job_id, change)
        except NotFoundError:
            return
        if moved:
            self._on_change(job_id)

    def request_cancel(self, job_id: str) -> Job:
        """Ask whoever runs it to stop; one that waits is cancelled at once. Raises NotFoundError.

        Returns the job as it was asked, before that end.
        """
        job = self._store.update(
            job_id, lambda job: job if job.is_terminal else job.model_copy(update={"cancel_requested": True})
        )
        if job.status == "queued":
            # `begin` looks at the request under the same lock: nobody can have started it since.
            self.end(job_id, "cancelled")
        return job

    def _log(self, job_id: str, kind: str, level: EventLevel = "info", **values: Any) -> None:
        event = JobEvent(at=datetime.now(UTC), kind=kind, values=values, level=level)
        try:
            self._store.append_event(job_id, event)
        except FailedError as exc:
            if exc.code != "storage.full":
                raise
            # A line of the log is no reason for a job not to start or to end; its state says it all.
            _log.warning("The log of job %s lacks a line: %s", job_id, exc)
