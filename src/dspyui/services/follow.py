"""Stand by a job until it ends, as the command line does."""

import time
from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

from dspyui.domain.jobs import Job, JobEvent

INTERVAL = 0.2
Shown = TypeVar("Shown", covariant=True)  # noqa: PLC0105 - it is what a kind of job shows
Told = TypeVar("Told", contravariant=True)  # noqa: PLC0105 - the same, on the other side
Stands = TypeVar("Stands")


class Watcher(Protocol[Told]):
    """Is told what a job does."""

    def on_event(self, event: JobEvent) -> None: ...

    def on_progress(self, progress: Told, /) -> None: ...


class Followed(Protocol[Shown]):
    """Tells how jobs of a kind stand."""

    def get(self, job_id: str) -> Job: ...

    def events(self, job_id: str, *, after: int = 0) -> tuple[Sequence[JobEvent], int]: ...

    def progress(self, job_id: str) -> Shown: ...


def follow(
    jobs: Followed[Stands],
    job_id: str,
    watcher: Watcher[Stands],
    *,
    seconds: float | None = None,
    interval: float = INTERVAL,
) -> Job:
    """Tell the watcher every event and the latest progress, until the job ends or `seconds` have passed.

    Returns the job as it then stands. Raises NotFoundError.
    """
    end = None if seconds is None else time.monotonic() + seconds
    position = 0
    while True:
        # The state is read before the log: what is in the log when the job has ended is all there will be.
        job = jobs.get(job_id)
        events, position = jobs.events(job_id, after=position)
        for event in events:
            watcher.on_event(event)
        watcher.on_progress(jobs.progress(job_id))
        if job.is_terminal or (end is not None and time.monotonic() >= end):
            return job
        time.sleep(interval)


class Nobody:
    """Watches without a word."""

    def on_event(self, event: JobEvent) -> None:
        """Nothing."""

    def on_progress(self, progress: Any, /) -> None:
        """Nothing."""
