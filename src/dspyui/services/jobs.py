"""Jobs as people handle them: start, look, cancel, delete."""

from collections.abc import Callable, Sequence

from dspyui.domain.base import Frozen
from dspyui.domain.compiles import CompileResult, CompileSpec, Progress
from dspyui.domain.jobs import (
    Job,
    JobEvent,
    JobQueue,
    JobStatus,
    JobStore,
    RecordState,
    check_note,
    check_title,
)
from dspyui.domain.lms import LMRoles
from dspyui.errors import BadRequestError
from dspyui.services.data import DataService
from dspyui.services.keys import KeyRules
from dspyui.services.metrics import MetricService


class JobView(Frozen):
    """All a page shows of a job, read at one moment. `place` is its place in the queue, from 1, while it waits.

    `interrupted`: it counts as running, and nobody runs it until the program starts again.
    """

    job: Job
    spec: CompileSpec
    progress: Progress
    result: CompileResult | None
    record: RecordState
    place: int | None = None
    interrupted: bool = False


class JobFilter(Frozen):
    """Which jobs are looked for: those of one state, and those with all of some words in title, id, name or note."""

    status: JobStatus | None = None
    text: str = ""

    def fits(self, job: Job) -> bool:
        """Whether the job is among them."""
        if self.status is not None and job.status != self.status:
            return False
        said = "\n".join((job.title, job.id, job.who, job.note or "")).casefold()
        return all(word in said for word in self.text.casefold().split())


class JobService:
    """Starts jobs and tells how they stand."""

    def __init__(
        self,
        store: JobStore,
        queue: JobQueue,
        data: DataService,
        metrics: MetricService,
        *,
        keys: KeyRules,
        wants_record: bool,
        on_described: Callable[[], None] = lambda: None,
    ) -> None:
        """`wants_record`: whether a job gets a Run in MLflow by itself. `keys` says which keys it may use.

        `on_described`: a job was renamed or noted on, and its Run is to follow.
        """
        self._store = store
        self._queue = queue
        self._data = data
        self._metrics = metrics
        self._keys = keys
        self._wants_record = wants_record
        self._on_described = on_described

    def check_keys(self, lms: LMRoles) -> None:
        """Raises BadRequestError when a job with these LMs would fail for want of a key."""
        self._keys.check(lms)

    def create(self, spec: CompileSpec, *, who: str, seen: str | None = None) -> Job:
        """Check the spec against its data and the keys, and write the job's folder; it does not run yet.

        The parsed rows are copied into the folder, so that the job no longer depends on the file. `seen` is the
        fingerprint of the rows as somebody looked at them (`DataPreview.fingerprint`): others are refused.
        Raises BadRequestError.
        """
        self.check_keys(spec.lms)
        self._metrics.check(spec.metrics)
        dataset = self._data.load(spec.program.signature, spec.data)
        if seen is not None and dataset.fingerprint() != seen:
            raise BadRequestError("data.changed", rows=len(dataset.rows))
        sizes = dataset.sizes()
        spec.optimizer.check_rows(train=sizes["train"], validation=sizes["validation"])
        spec.metric.check_rows(spec.program.signature, dataset.rows)
        parts = dataset.parts if dataset.given else None
        digests = self._metrics.digests(spec.metrics)
        if spec.data.has_paths:
            digests["data"] = dataset.digest
        spec = spec.model_copy(update={"digests": digests})
        job = self._store.create(spec, dataset.rows, title=spec.program.name, who=who, parts=parts)
        if not self._wants_record:
            self._store.write_record(job.id, RecordState(status="off"))
        return job

    def submit(self, spec: CompileSpec, *, who: str, seen: str | None = None) -> Job:
        """Create the job and queue it. Raises BadRequestError."""
        job = self.create(spec, who=who, seen=seen)
        self._queue.submit(job.id)
        return job

    def start_here(self, spec: CompileSpec, *, who: str) -> Job:
        """Create the job and run it in this process at once (the command line's way)."""
        job = self.create(spec, who=who)
        self._queue.run_here(job.id)
        return job

    def view(self, job_id: str) -> JobView:
        """Raises NotFoundError."""
        job = self._store.get(job_id)
        return JobView(
            job=job,
            place=self.place(job),
            interrupted=self.is_interrupted(job),
            spec=self._store.spec(job_id),
            progress=self._store.progress(job_id),
            result=self._store.find_result(job_id),
            record=self._store.record(job_id),
        )

    def get(self, job_id: str) -> Job:
        """The job's state alone. Raises NotFoundError."""
        return self._store.get(job_id)

    def progress(self, job_id: str) -> Progress:
        """Where it stands. Raises NotFoundError."""
        return self._store.progress(job_id)

    def place(self, job: Job) -> int | None:
        """Which of the waiting jobs it is, from 1, the oldest first; None when it does not wait."""
        if job.status != "queued":
            return None
        waiting = [other for other in self._store.search() if other.status == "queued"]
        return 1 + sum(other.created_at < job.created_at for other in waiting)

    def is_interrupted(self, job: Job) -> bool:
        """Whether it counts as running, and the process that ran it has ended; the next start goes on with it."""
        return self._queue.is_interrupted(job)

    def search(self, asked: JobFilter = JobFilter()) -> Sequence[Job]:  # noqa: B008 - it is frozen
        """The jobs that fit, newest first."""
        return [job for job in self._store.search() if asked.fits(job)]

    def describe(self, job_id: str, *, title: str | None = None, note: str | None = None) -> Job:
        """Rename the job and note on it; what is None stays as it is. No path changes, and its Run follows.

        Raises BadRequestError for a title or a note that cannot be, NotFoundError.
        """
        checked = None if title is None else check_title(title)
        said = None if note is None else check_note(note)

        def change(job: Job) -> Job:
            # A note that nobody ever wrote stays unwritten: in MLflow there may be one.
            keeps = said is None or (job.note is None and not said)
            changes = {"title": checked or job.title, "note": job.note if keeps else said}
            return job.model_copy(update=changes)

        job = self._store.update(job_id, change)
        self._on_described()
        return job

    def events(self, job_id: str, *, after: int = 0) -> tuple[Sequence[JobEvent], int]:
        """The log from byte `after` on, and the byte to go on from."""
        return self._store.events(job_id, after=after)

    def cancel(self, job_id: str) -> None:
        """Stop it; returns at once. Raises NotFoundError."""
        self._store.get(job_id)
        self._queue.cancel(job_id)

    def record(self, job_id: str) -> RecordState:
        """How far its record in MLflow is. Raises NotFoundError."""
        return self._store.record(job_id)

    def delete(self, job_id: str, *, even_unsent: bool = False) -> None:
        """Delete a finished job's folder; with `even_unsent` also one whose record has not reached MLflow.

        Raises NotFoundError or ConflictError.
        """
        self._store.delete(job_id, even_unsent=even_unsent)
