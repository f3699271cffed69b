"""The job queue: DBOS says who runs what, the job's folder says how it stands."""

import logging
import secrets
import threading
from collections.abc import Callable, Mapping

from dspyui.adapters.dbos_jobs.attempt import Attempt, StopReason, Surroundings
from dspyui.adapters.dbos_jobs.engine import LeftError, WorkflowEngine
from dspyui.adapters.dbos_jobs.leases import Lease, Leases
from dspyui.adapters.dbos_jobs.states import JobStates
from dspyui.adapters.dbos_jobs.sweep import Sweeper
from dspyui.domain.jobs import Job, JobStore
from dspyui.errors import FailedError, NotFoundError, UnavailableError
from dspyui.settings import Settings

_log = logging.getLogger(__name__)

CLOSE_SECONDS = 5.0


class DbosJobQueue:
    """Implements `domain.jobs.JobQueue` on DBOS with SQLite (`<home>/jobs.db`), one object a process.

    Each process has an executor id of its own and holds a lease under `<home>/executors/` for as long as it lives.
    A job is a workflow of one step, with the job's id as its id; the step runs the child (`Attempt`). The order of
    events in `run_here` matters: the process's name is written into the folder before DBOS knows of the job, so
    that no worker takes a job that is just being started for one that was forgotten (`Sweeper`). Jobs that are
    submitted before `start` has finished wait in their folders and are queued by it.
    """

    def __init__(
        self,
        settings: Settings,
        store: JobStore,
        *,
        command: Callable[[str], list[str]],
        prepare: Callable[[str], Mapping[str, str]],
        on_change: Callable[[str], None],
    ) -> None:
        home = settings.home.resolve()
        self._settings = settings
        self._store = store
        self._command = command
        self._prepare = prepare
        self._states = JobStates(store, on_change)
        self._leases = Leases(home / "executors")
        self._engine = WorkflowEngine(home / "jobs.db")
        # Guards what follows; never held while a job is started, stopped or written.
        self._lock = threading.Condition()
        self._attempts: dict[str, Attempt] = {}
        self._early: list[str] = []
        self._joined = False
        self._closing = threading.Event()
        self._around: Surroundings | None = None
        self._lease: Lease | None = None
        self._sweeper: threading.Thread | None = None

    def start(self, *, works: bool) -> None:
        """Join the queue. Imports DBOS: a second or two.

        Raises UnavailableError when the database cannot be used.
        """
        executor = f"{'ui' if works else 'cli'}-{secrets.token_hex(4)}"
        self._leases.clean()
        self._lease = self._leases.take(executor)
        try:
            self._join(executor, self._lease, works=works)
        except UnavailableError:
            self._leave()
            raise
        with self._lock:
            self._joined = True
            early, self._early = self._early, []
        for job_id in early:
            self._enqueue(job_id)

    def _join(self, executor: str, lease: Lease, *, works: bool) -> None:
        self._around = Surroundings(
            settings=self._settings,
            store=self._store,
            states=self._states,
            executor=executor,
            command=self._command,
            prepare=self._prepare,
            reason_to_stop=self._reason_to_stop,
        )
        self._engine.launch(executor, self._run, workers=self._settings.workers if works else None)
        if works:
            sweeper = Sweeper(self._store, self._states, self._engine, self._leases, lease)
            self._sweeper = threading.Thread(
                target=sweeper.run, args=(self._closing, self._on_lost), name="job-sweeper", daemon=True
            )
            self._sweeper.start()

    def submit(self, job_id: str) -> None:
        """Queue a created job for whichever process works. Idempotent. Raises NotFoundError."""
        self._states.queued(job_id)
        with self._lock:
            if not self._joined:
                self._early.append(job_id)
                return
        self._enqueue(job_id)

    def run_here(self, job_id: str) -> None:
        """Start a created job in this process at once, past the queue. Returns at once.

        Raises NotFoundError, FailedError before `start`, UnavailableError when the database does not answer.
        """
        if not self._joined or self._around is None:
            raise FailedError("queue.not_started", job_id=job_id)
        executor = self._around.executor
        self._store.update(job_id, lambda job: job.model_copy(update={"executor": executor}))
        self._engine.start(job_id)

    def cancel(self, job_id: str) -> None:
        """Stop it wherever it runs. Returns at once. Raises NotFoundError."""
        job = self._states.request_cancel(job_id)
        if job.is_terminal:
            return
        if attempt := self._attempts.get(job_id):
            attempt.stop("cancelled")
        elif job.executor and self._leases.is_dead(job.executor):
            self._states.end(job_id, "cancelled")
        self._mark_cancelled(job_id)

    def release(self, job_id: str) -> None:
        """Cancel a job of a dead process. Raises NotFoundError."""
        if self.is_interrupted(self._store.get(job_id)):
            self.cancel(job_id)

    def is_interrupted(self, job: Job) -> bool:
        """Whether it counts as running, and the process that ran it has ended."""
        return job.status == "running" and job.executor is not None and self._leases.is_dead(job.executor)

    def close(self) -> None:
        """Leave the queue. Children of this process are killed; their jobs are taken up by the next start."""
        if not self._begin_leaving():
            return
        self._stop_attempts("closing")
        if self._sweeper is not None:
            self._sweeper.join(timeout=CLOSE_SECONDS)
        self._leave()

    def _begin_leaving(self) -> bool:
        """Take on no more jobs; False when this was said before."""
        with self._lock:
            if self._closing.is_set():
                return False
            self._closing.set()
            self._joined = False
            return True

    def _leave(self) -> None:
        self._engine.destroy()
        if self._lease is not None:
            self._lease.release()
            self._lease = None

    def _on_lost(self) -> None:
        """Others take this process for dead and will run its jobs: stop them here, and take none out of the queue.

        Each one taken would count as a failed attempt, for the others take it away again.
        """
        if not self._begin_leaving():
            return
        _log.error("The data folder was taken away from under the job queue; its jobs are stopped")
        self._stop_attempts("lost")
        self._leave()

    def _stop_attempts(self, reason: StopReason) -> None:
        with self._lock:
            attempts = dict(self._attempts)
        for attempt in attempts.values():
            attempt.stop(reason)
        with self._lock:
            self._lock.wait_for(lambda: not self._attempts, timeout=CLOSE_SECONDS)
            left = [job_id for job_id in attempts if job_id not in self._attempts]
        if left and reason == "closing":
            self._hand_back(left)

    def _hand_back(self, job_ids: list[str]) -> None:
        try:
            unfinished = [job_id for job_id in job_ids if not self._store.get(job_id).is_terminal]
            self._engine.hand_back(unfinished)
        except NotFoundError:
            _log.warning("The data folder of a running job is gone")
        except UnavailableError as exc:
            # The next start finds them by the dead lease.
            _log.warning("%s", exc)

    def _enqueue(self, job_id: str) -> None:
        try:
            self._engine.enqueue(job_id)
        except UnavailableError as exc:
            # It stays queued in its folder, where a worker's sweep finds it.
            _log.warning("%s", exc)

    def _mark_cancelled(self, job_id: str) -> None:
        if not self._joined:
            return
        try:
            self._engine.cancel(job_id)
        except UnavailableError as exc:
            # The folder says it too, and whoever runs the job looks there.
            _log.warning("%s", exc)

    def _run(self, job_id: str) -> None:
        """The step: one attempt, in a thread of DBOS."""
        around = self._around
        with self._lock:
            if self._closing.is_set() or job_id in self._attempts or around is None:
                raise LeftError
            attempt = self._attempts[job_id] = Attempt(job_id, around)
        try:
            reason = attempt.run()
        finally:
            with self._lock:
                del self._attempts[job_id]
                self._lock.notify_all()
        if reason == "cancelled":
            self._mark_cancelled(job_id)
        if reason is not None:
            raise LeftError

    def _reason_to_stop(self, job_id: str) -> StopReason | None:
        """What DBOS says of a job that runs here."""
        try:
            workflow = self._engine.find(job_id)
        except UnavailableError:
            return None
        if workflow is None or self._around is None:
            return None
        if workflow.status == "CANCELLED":
            return "cancelled"
        return None if workflow.executor == self._around.executor else "lost"
