"""What the tests of jobs share: a queue on a temporary data folder, jobs that do as they are told, waiting."""

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any

import psutil

from dspyui.adapters.dbos_jobs.queue import DbosJobQueue
from dspyui.adapters.files.jobs import FileJobStore
from dspyui.domain.compiles import CompileSpec
from dspyui.domain.datasets import DataSpec
from dspyui.domain.jobs import Job
from dspyui.domain.programs import ProgramSpec
from dspyui.domain.signatures import FieldSpec, SignatureSpec
from dspyui.settings import Settings

ROOT = Path(__file__).parent.parent
SECRET = "sk-0123456789abcdef"
ROWS = ({"question": "1+1", "answer": "2"}, {"question": "1+2", "answer": "3"})
SPEC = CompileSpec(
    program=ProgramSpec(
        signature=SignatureSpec(inputs=(FieldSpec(name="question"),), outputs=(FieldSpec(name="answer"),))
    ),
    data=DataSpec(rows=ROWS),
)


def environment() -> dict[str, str]:
    """What child processes of a test get."""
    return {"PATH": os.environ["PATH"], "PYTHONPATH": f"{ROOT}/src:{ROOT}", "TEST_API_KEY": SECRET}


def make_queue(
    home: Path,
    *,
    workers: int = 2,
    prepare: Callable[[str], Mapping[str, str]] = lambda _job_id: {},
    on_change: Callable[[str], None] = lambda _job_id: None,
) -> tuple[FileJobStore, DbosJobQueue]:
    """A queue that is not started yet, whose children are `job_child.py`."""
    store = FileJobStore(home)
    settings = Settings(home=home, workers=workers, child_environment=environment())
    queue = DbosJobQueue(
        settings,
        store,
        command=lambda job_id: [sys.executable, str(ROOT / "tests" / "job_child.py"), str(home), job_id],
        prepare=prepare,
        on_change=on_change,
    )
    return store, queue


def new_job(store: FileJobStore, deed: str) -> str:
    """A created job whose child will do the deed."""
    return store.create(SPEC, ROWS, title=deed, who="tester").id


def wait_for(condition: Callable[[], Any], *, seconds: float = 60) -> Any:
    """Poll until the condition gives something true, and return that."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
    return found


def wait_ended(store: FileJobStore, job_id: str, *, seconds: float = 60) -> Job:
    """The job once it has ended."""
    wait_for(lambda: store.get(job_id).is_terminal, seconds=seconds)
    return store.get(job_id)


def marks(store: FileJobStore, job_id: str, word: str) -> list[list[str]]:
    """What the job's children have written down under a word."""
    path = store.folder(job_id) / "marks"
    lines = path.read_text().splitlines() if path.exists() else []
    return [line.split()[1:] for line in lines if line.split()[0] == word]


def kinds(store: FileJobStore, job_id: str) -> list[str]:
    """The kinds of the job's events, in order."""
    return [event.kind for event in store.events(job_id)[0]]


def running_tree(store: FileJobStore, job_id: str) -> list[int]:
    """Process ids of a `forever` job's child and grandchild, once both run."""
    grandchild = wait_for(lambda: marks(store, job_id, "grandchild"))
    return [int(marks(store, job_id, "start")[-1][1]), int(grandchild[-1][0])]


def is_alive(pid: int) -> bool:
    """Whether the process exists and is more than a zombie."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@contextmanager
def worker_process(home: Path, role: str, *job_ids: str, workers: int = 2) -> Iterator[Popen[str]]:
    """A real process in the queue (`job_worker.py`), ready; it is killed at the end if it still runs."""
    process = Popen(
        [sys.executable, str(ROOT / "tests" / "job_worker.py"), str(home), role, str(workers), *job_ids],
        stdout=PIPE,
        text=True,
        env=environment(),
        cwd=ROOT,
    )
    with process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()
