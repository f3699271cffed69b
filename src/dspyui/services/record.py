"""The outbox: job folders are written first, MLflow gets them second, as often as it takes."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from dspyui.domain.jobs import Job, JobKind, JobStore, RecordState
from dspyui.domain.runs import RunLink, RunRecord, RunStore, TrackingServer
from dspyui.domain.traces import FULL_MARK
from dspyui.errors import DSPyUIError, NotFoundError, UnavailableError
from dspyui.services.run_records import run_record
from dspyui.services.sender import Sender, Stop
from dspyui.settings import Settings

TRACES = "traces"
_log = logging.getLogger(__name__)


class Piece:
    """A `stop` that remembers whether it has ended something before all of it was done."""

    def __init__(self, stop: Stop | None) -> None:
        self._stop = stop
        self.has_ended = False

    def __call__(self) -> bool:
        """Whether it is enough for now; asked only while there is more."""
        self.has_ended = self._stop is not None and self._stop()
        return self.has_ended


class RecordService(Sender):
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
        super().__init__(settings, tracking, name="record-sender")
        self._others = others or {}
        self._jobs = jobs
        self._runs = runs
        # What was logged of which job: a record is tried again and again, and one line of each problem is enough.
        self._failures: dict[str, str] = {}
        # Why a job's record is not all sent, as an error that can be told in any language.
        self._problems: dict[str, DSPyUIError] = {}

    @property
    def wanted(self) -> bool:
        """Whether compiles get Runs at all."""
        return self._settings.mlflow_enabled and self._settings.mlflow_log_compiles

    def _send_pending(self) -> bool:
        try:
            waiting = list(self._jobs.pending_records())
        except OSError as exc:
            _log.warning("The job folders cannot be read: %s", exc)
            return False
        fine = True
        for job_id in waiting:
            if self._is_over():
                break
            fine = self._send_one(job_id) and fine
        return fine

    def _send_one(self, job_id: str) -> bool:
        try:
            return self.send(job_id, stop=self._is_over).last_error == ""
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

    def send(self, job_id: str, *, stop: Stop | None = None) -> RecordState:
        """Try once to bring the job's Run up to date, for no longer than `stop` lets it.

        Never raises for a server that is away.
        """
        with self._jobs.lock_record(job_id) as mine:
            return self._send_locked(job_id, stop) if mine else self._jobs.record(job_id)

    def attempt(self, job_id: str, *, stop: Stop | None = None) -> DSPyUIError | None:
        """The same; gives what stands in the way when not all is sent. Raises NotFoundError."""
        with self._jobs.lock_record(job_id) as mine:
            if not mine:
                return UnavailableError("record.sending", job_id=job_id)
            self._send_locked(job_id, stop)
        return self._problems.get(job_id)

    def _send_locked(self, job_id: str, stop: Stop | None) -> RecordState:
        self._problems.pop(job_id, None)
        state = self._jobs.record(job_id)
        if state.status == "pending":
            return self._try(job_id, state, stop)
        job = self._jobs.get(job_id)
        return self._describe(job, state) if state.is_behind(job) else state

    def _said(self, job_id: str, problem: DSPyUIError) -> str:
        self._problems[job_id] = problem
        return str(problem)

    def _try(self, job_id: str, state: RecordState, stop: Stop | None) -> RecordState:
        job = self._jobs.get(job_id)
        if not job.is_terminal and (state.run_id or job.started_at is None):
            # A Run keeps the start it was made with, so it is not made before the job has one.
            return self._send_ahead(job, state, stop)
        state = state.model_copy(update={"tries": state.tries + 1, "last_error": ""})
        try:
            if job.is_terminal:
                state = self._complete(job, state, stop)
            else:
                state = _linked(state, self._runs.send(self._build(job)))
        except UnavailableError as exc:
            state = state.model_copy(update={"last_error": self._said(job_id, exc)})
        except DSPyUIError as exc:
            if exc.code == "storage.full":
                raise  # this machine's trouble, not the record's: it is tried again
            state = state.model_copy(update={"status": "refused", "last_error": self._said(job_id, exc)})
        self._jobs.write_record(job_id, state)
        return state

    def _send_ahead(self, job: Job, state: RecordState, stop: Stop | None) -> RecordState:
        """Send the traces of a running job that may have a million of them; those of a compile go when it has ended.

        Unless it can never end because it waits for room to write the next ones.
        """
        folder = self._jobs.folder(job.id) / TRACES
        is_wanted = job.kind in self._others or (folder / FULL_MARK).exists()
        if not is_wanted or state.run_id is None or not folder.is_dir():
            return state
        state = state.model_copy(update={"last_error": ""})
        try:
            sent = self._with_traces(state, folder, stop)
        except UnavailableError as exc:
            sent = state.model_copy(update={"last_error": self._said(job.id, exc)})
        if sent != state:
            self._jobs.write_record(job.id, sent)
            if not sent.last_error:
                # While these were sent, more have come.
                self._wake.set()
        return sent

    def _with_traces(self, state: RecordState, folder: Path, stop: Stop | None = None) -> RecordState:
        stored, refused = self._runs.send_traces(folder, _link(state), stop=stop)
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
            return state.model_copy(update={"last_error": self._said(job.id, exc)})
        except DSPyUIError as exc:
            # The Run is gone, or the server refuses the words: said once, and not asked again.
            state = state.model_copy(update={"last_error": self._said(job.id, exc)})
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

    def _complete(self, job: Job, state: RecordState, stop: Stop | None = None) -> RecordState:
        link = self._runs.send(self._build(job))
        state = _linked(state, link).model_copy(update={"title": job.title, "note": job.note})
        # Written down before the traces are: they may be many, and a kill in between must not lose the link.
        self._jobs.write_record(job.id, state)
        folder, piece = self._jobs.folder(job.id) / TRACES, Piece(stop)
        if folder.is_dir():
            state = self._with_traces(state, folder, piece)
        return state if piece.has_ended else state.model_copy(update={"status": "sent"})

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
