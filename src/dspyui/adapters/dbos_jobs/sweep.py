"""The worker's look around: jobs of dead processes, and folders that say something else than the queue."""

import logging
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from dspyui.adapters.dbos_jobs.engine import Workflow, WorkflowEngine
from dspyui.adapters.dbos_jobs.leases import Lease, Leases
from dspyui.adapters.dbos_jobs.states import JobStates
from dspyui.domain.jobs import Job, JobFailure, JobStore
from dspyui.errors import DSPyUIError

_log = logging.getLogger(__name__)

SWEEP_SECONDS = 2.0
# Between a folder's creation and the queue's knowledge of it: milliseconds, unless its maker died in between.
UNKNOWN_SECONDS = 5.0


class Sweeper:
    """Every two seconds: takes over what dead processes ran, and brings folders and queue to agree.

    The folder is the truth about what has ended, the queue about who runs what. They can differ only after a crash:

    - queued in the folder, unknown to the queue: its maker died in between. It is queued when it is older than five
      seconds and no living process has put its name on it. `DbosJobQueue.run_here` writes that name before it
      starts the job, so a slow command line is never overtaken; and were it, the queue knows a job only once.
    - running in the folder, unknown to the queue: the database was deleted. It is queued when its process is dead.
    - cancel requested, its process dead: it is cancelled here, for nobody else will.
    - ended in the queue, not in the folder: DBOS gave it up, or its process could not write. It has failed.
    """

    def __init__(
        self, store: JobStore, states: JobStates, engine: WorkflowEngine, leases: Leases, own: Lease
    ) -> None:
        self._store = store
        self._states = states
        self._engine = engine
        self._leases = leases
        self._own = own

    def run(self, stopped: threading.Event, on_lost: Callable[[], None]) -> None:
        """Sweep until `stopped`, or until this process's own lease is gone; then `on_lost` is called."""
        while not stopped.is_set():
            if not self._own.is_held():
                on_lost()
                return
            try:
                self.sweep()
            except (DSPyUIError, OSError) as exc:
                if not stopped.is_set():
                    _log.warning("Looking after jobs: %s", exc)
            stopped.wait(SWEEP_SECONDS)

    def sweep(self) -> None:
        """Look once."""
        # The folder first: a job that ends while this looks must not seem ended in the queue alone.
        jobs = [job for job in self._store.search() if not job.is_terminal]
        known = self._engine.find_all(job.id for job in jobs)
        for job in jobs:
            self._reconcile(job, known.get(job.id))
        for workflow in self._engine.running():
            if workflow.executor and self._leases.is_dead(workflow.executor):
                self._engine.take_over(workflow)

    def _reconcile(self, job: Job, workflow: Workflow | None) -> None:
        if job.cancel_requested and self._is_abandoned(job):
            self._states.end(job.id, "cancelled")
            self._engine.cancel(job.id)
        elif workflow is None:
            if self._is_forgotten(job):
                self._engine.enqueue(job.id)
        elif failure := _FAILURES.get(workflow.status):
            self._states.end(job.id, "failed", failure(job))

    def _is_abandoned(self, job: Job) -> bool:
        return job.executor is None or self._leases.is_dead(job.executor)

    def _is_forgotten(self, job: Job) -> bool:
        age = (datetime.now(UTC) - job.created_at).total_seconds()
        return age > UNKNOWN_SECONDS and self._is_abandoned(job)


def _gave_up(job: Job) -> JobFailure:
    return JobFailure(code="job.gave_up", values={"attempts": job.attempt})


def _broke(_job: Job) -> JobFailure:
    return JobFailure(code="job.broke")


_FAILURES: Mapping[str, Callable[[Job], JobFailure]] = {
    "MAX_RECOVERY_ATTEMPTS_EXCEEDED": _gave_up,
    "ERROR": _broke,
    "SUCCESS": _broke,
}
