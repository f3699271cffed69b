"""The bundled model for a job: started when it is needed, and the job says so while it waits."""

from datetime import UTC, datetime

from dspyui.domain.jobs import JobEvent, JobStore
from dspyui.domain.lms import LocalLM


def ensure_for_job(job_id: str, jobs: JobStore, local_lm: LocalLM) -> str:
    """The base URL of the running model. While it starts, the job's log and progress tell what is waited for.

    Raises UnavailableError when it cannot be had.
    """
    if local_lm.state().status != "ready":
        jobs.append_event(job_id, JobEvent(at=datetime.now(UTC), kind="job.local_lm"))
        waiting = jobs.progress(job_id).model_copy(
            update={"phase": "starting_lm", "done": 0, "total": 0, "row_seconds": 0.0}
        )
        jobs.write_progress(job_id, waiting)
    return local_lm.ensure()
