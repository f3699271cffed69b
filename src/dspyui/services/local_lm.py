"""The bundled model for a job: started when it is needed, and the job says so while it waits."""

from collections.abc import Callable
from datetime import UTC, datetime

from dspyui.domain.batches import BatchStore
from dspyui.domain.jobs import JobEvent, JobStore
from dspyui.domain.lms import LocalLM


def ensure_for_job(
    job_id: str, jobs: JobStore, local_lm: LocalLM, *, show_waiting: Callable[[str], None]
) -> str:
    """The base URL of the running model. While it starts, the job's log and progress tell what is waited for.

    `show_waiting` writes the progress, which is another one for each kind of job. Raises UnavailableError when the
    model cannot be had.
    """
    if local_lm.state().status != "ready":
        jobs.append_event(job_id, JobEvent(at=datetime.now(UTC), kind="job.local_lm"))
        show_waiting(job_id)
    return local_lm.ensure()


def show_waiting_compile(jobs: JobStore, job_id: str) -> None:
    """The progress of a compile that waits for the model."""
    progress = jobs.progress(job_id)
    changes = {"phase": "starting_lm", "done": 0, "total": 0, "row_seconds": 0.0}
    jobs.write_progress(job_id, progress.model_copy(update=changes))


def show_waiting_batch(batches: BatchStore, job_id: str) -> None:
    """The progress of a batch that waits for the model."""
    progress = batches.progress(job_id)
    batches.write_progress(job_id, progress.model_copy(update={"phase": "starting_lm"}))
