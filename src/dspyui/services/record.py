"""The outbox: job folders are written first, MLflow gets them second, as often as it takes."""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from dspyui.domain.jobs import Job, JobKind, JobStore, RecordState
from dspyui.domain.runs import RunLink, RunRecord, RunStore, TrackingServer
from dspyui.errors import DSPyUIError, NotFoundError, UnavailableError
from dspyui.services.run_records import run_record
from dspyui.settings import Settings

# How soon a record that could not be sent is tried again, in seconds: it doubles from the first to the second.
FIRST_DELAY, LONGEST_DELAY = 1.0, 30.0
TRACES = "traces"
_log = logging.getLogger(__name__)


class RecordService:
    """Sends what job folders hold to MLflow. One process at a time sends one job's record.

    A server that is away delays a record and loses none: it waits in its folder, and every start looks there.
    """

    def __init__(
        self,
        settings: Settings,
        jobs: JobStore,
        runs: RunStore,
        tracking: TrackingServer,
        *,
        others: Mapping[JobKind, Callable[[Job], RunRecord]] | None = None,
    ) -> None:
        """`others` put together the records of jobs that are no compiles."""
        self._others = others or {}
        self._settings = settings
        self._jobs = jobs
        self._runs = runs
        self._tracking = tracking
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        # What was logged of which job: a record is tried again and again, and one line of each problem is enough.
        self._failures: dict[str, str] = {}

    @property
    def wanted(self) -> bool:
        """Whether compiles get Runs at all."""
        return self._settings.mlflow_enabled and self._settings.mlflow_log_compiles

    def start(self) -> None:
        """Send in the background whatever waits, now and whenever something new does."""
        if self._settings.mlflow_enabled and self._thread is None:
            self._thread = threading.Thread(target=self._loop, name="record-sender", daemon=True)
            self._thread.start()

    def wake(self) -> None:
        """Look at once, not at the next turn."""
        self._wake.set()

    def close(self) -> None:
        """Stop the background sending; what is under way is finished or tried again by the next start."""
        self._closing.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(timeout=10)

    def _loop(self) -> None:
        delay = FIRST_DELAY
        while not self._closing.is_set():
            self._wake.clear()
            delay = FIRST_DELAY if self._send_pending() else min(delay * 2, LONGEST_DELAY)
            # While the server comes up or is away, its own watcher knows first; look often, it costs nothing.
            self._wake.wait(FIRST_DELAY if self._tracking.state().status != "ready" else delay)

    def _send_pending(self) -> bool:
        """Whether everything that could be tried went well."""
        if self._tracking.state().status != "ready":
            return True
        try:
            waiting = list(self._jobs.pending_records())
        except OSError as exc:
            _log.warning("The job folders cannot be read: %s", exc)
            return False
        fine = True
        for job_id in waiting:
            if self._closing.is_set():
                break
            fine = self._send_one(job_id) and fine
        return fine

    def _send_one(self, job_id: str) -> bool:
        try:
            return self.send(job_id).last_error == ""
        except NotFoundError:
            return True  # deleted since it was listed
        except Exception as exc:  # noqa: BLE001 - see below
            # The sender must outlive whatever one record holds, and the other records must not wait for that one;
            # it stays pending and is tried again.
            problem = f"{type(exc).__name__}: {exc}"
            if self._failures.get(job_id) != problem:
                self._failures[job_id] = problem
                _log.exception("The record of job %s could not be sent", job_id)
                self._tell(job_id, str(exc) if isinstance(exc, DSPyUIError) else type(exc).__name__)
            return False

    def _tell(self, job_id: str, problem: str) -> None:
        """Say it on the job's page too; only by its kind when it is none of our errors, whose words hold no secret."""
        try:
            with self._jobs.lock_record(job_id) as mine:
                state = self._jobs.record(job_id)
                if mine and state.status == "pending":
                    self._jobs.write_record(job_id, state.model_copy(update={"last_error": problem}))
        except (DSPyUIError, OSError) as exc:
            _log.warning("The record of job %s cannot be written: %s", job_id, exc)

    def send(self, job_id: str) -> RecordState:
        """Try once to bring the job's Run up to date. Never raises for a server that is away."""
        with self._jobs.lock_record(job_id) as mine:
            state = self._jobs.record(job_id)
            if not mine:
                return state
            if state.status == "pending":
                return self._try(job_id, state)
            job = self._jobs.get(job_id)
            return self._describe(job, state) if state.is_behind(job) else state

    def _try(self, job_id: str, state: RecordState) -> RecordState:
        job = self._jobs.get(job_id)
        if not job.is_terminal and (state.run_id or job.started_at is None):
            # A Run keeps the start it was made with, so it is not made before the job has one.
            return self._send_ahead(job, state)
        state = state.model_copy(update={"tries": state.tries + 1, "last_error": ""})
        try:
            if job.is_terminal:
                state = self._complete(job, state)
            else:
                state = _linked(state, self._runs.send(self._build(job)))
        except UnavailableError as exc:
            state = state.model_copy(update={"last_error": str(exc)})
        except DSPyUIError as exc:
            if exc.code == "storage.full":
                raise  # this machine's trouble, not the record's: it is tried again
            state = state.model_copy(update={"status": "refused", "last_error": str(exc)})
        self._jobs.write_record(job_id, state)
        return state

    def _send_ahead(self, job: Job, state: RecordState) -> RecordState:
        """Send the traces of a running job that may have a million of them; those of a compile go when it has ended."""
        folder = self._jobs.folder(job.id) / TRACES
        if job.kind not in self._others or state.run_id is None or not folder.is_dir():
            return state
        state = state.model_copy(update={"last_error": ""})
        try:
            sent = self._with_traces(state, folder)
        except UnavailableError as exc:
            sent = state.model_copy(update={"last_error": str(exc)})
        if sent != state:
            self._jobs.write_record(job.id, sent)
            if not sent.last_error:
                # While these were sent, more have come.
                self._wake.set()
        return sent

    def _with_traces(self, state: RecordState, folder: Path) -> RecordState:
        stored, refused = self._runs.send_traces(folder, _link(state))
        return state.model_copy(
            update={
                "traces_sent": state.traces_sent + stored,
                "traces_refused": state.traces_refused + refused,
            }
        )

    def _describe(self, job: Job, state: RecordState) -> RecordState:
        """Bring the Run's name and note up to date with the job's."""
        state = state.model_copy(update={"last_error": ""})
        try:
            self._runs.describe(state.run_id or "", name=self._build(job).name, note=job.note)
        except UnavailableError as exc:
            return state.model_copy(update={"last_error": str(exc)})
        except DSPyUIError as exc:
            # The Run is gone, or the server refuses the words: said once, and not asked again.
            state = state.model_copy(update={"last_error": str(exc)})
        state = state.model_copy(update={"title": job.title, "note": job.note})
        self._jobs.write_record(job.id, state)
        return state

    def resend(self, job_id: str) -> None:
        """Try a refused record again, in the background. Raises NotFoundError, or UnavailableError when it is busy."""
        with self._locked(job_id):
            state = self._jobs.record(job_id)
            if state.status == "refused":
                self._jobs.write_record(
                    job_id, state.model_copy(update={"status": "pending", "last_error": ""})
                )
        self._wake.set()

    def _complete(self, job: Job, state: RecordState) -> RecordState:
        link = self._runs.send(self._build(job))
        state = _linked(state, link).model_copy(update={"title": job.title, "note": job.note})
        # Written down before the traces are: they may be many, and a kill in between must not lose the link.
        self._jobs.write_record(job.id, state)
        folder = self._jobs.folder(job.id) / TRACES
        if folder.is_dir():
            state = self._with_traces(state, folder)
        return state.model_copy(update={"status": "sent"})

    def _build(self, job: Job) -> RunRecord:
        if (build := self._others.get(job.kind)) is not None:
            return build(job)
        return run_record(
            job,
            self._jobs.spec(job.id),
            self._jobs.progress(job.id),
            self._jobs.find_result(job.id),
            self._jobs.folder(job.id),
            with_evaluations=self._settings.mlflow_log_evals,
        )

    def wait_sent(self, job_id: str, *, seconds: float) -> RecordState:
        """The record once it is no longer pending, or as it is after `seconds`."""
        end = time.monotonic() + seconds
        while (state := self._jobs.record(job_id)).status == "pending" and time.monotonic() < end:
            if self._tracking.state().status == "unreachable":
                break
            self._wake.set()
            time.sleep(0.1)
        return state

    def ensure_run(self, job_id: str) -> RunLink:
        """The job's Run, made now if it has none. Raises UnavailableError, or FailedError when it is refused."""
        if not self._settings.mlflow_enabled:
            raise UnavailableError("record.tracking_off")
        with self._locked(job_id):
            state = self._jobs.record(job_id)
            if state.status != "sent":
                state = self._complete(self._jobs.get(job_id), state)
                self._jobs.write_record(job_id, state)
        return _link(state)

    @contextmanager
    def _locked(self, job_id: str) -> Iterator[None]:
        end = time.monotonic() + 60
        while True:
            with self._jobs.lock_record(job_id) as mine:
                if mine:
                    yield
                    return
            if time.monotonic() > end:
                raise UnavailableError("record.busy", job_id=job_id)
            time.sleep(0.1)


def _linked(state: RecordState, link: RunLink) -> RecordState:
    return state.model_copy(
        update={"run_id": link.run_id, "experiment_id": link.experiment_id, "run_url": link.url}
    )


def _link(state: RecordState) -> RunLink:
    return RunLink(
        run_id=state.run_id or "", experiment_id=state.experiment_id or "", url=state.run_url or ""
    )
