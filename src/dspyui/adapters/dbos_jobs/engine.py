"""DBOS behind a small interface: the only module that imports it, and only when it is launched."""

import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dspyui.errors import UnavailableError

QUEUE = "compile"
WORKFLOW = "compile"
# A constant of ours: DBOS hashes the source by default, and an upgrade would strand the jobs of the version before.
APPLICATION_VERSION = "jobs-1"
MAX_RECOVERY_ATTEMPTS = 3


class LeftError(BaseException):
    """Leave a workflow without a result.

    Not an Exception: DBOS writes those down as the workflow's end, and this one has none here. It is cancelled, or
    another process takes it up.
    """


@dataclass(frozen=True, slots=True)
class Workflow:
    """A workflow as DBOS knows it. `executor` is the process that runs it while `status` is PENDING."""

    id: str
    status: str
    executor: str | None


class WorkflowEngine:
    """One launched DBOS. There can be one in a process at a time, for DBOS is a singleton.

    Every method raises UnavailableError when the database does not answer.
    """

    def __init__(self, database: Path) -> None:
        self._database = database
        self._dbos: Any = None
        self._workflow: Any = None

    def launch(self, executor: str, run: Callable[[str], None], *, workers: int | None) -> None:
        """Join; with `workers` also run at most so many queued workflows at a time, each through `run`.

        `run` may raise LeftError. Imports DBOS, which takes about a second.
        """
        with self._mapped():
            _set_wal(self._database)
            self._construct(executor)
            self._register(run)
            self._dbos.listen_queues([QUEUE] if workers else [])
            self._dbos.launch()
            self._dbos.register_queue(
                QUEUE,
                worker_concurrency=workers or 1,
                polling_interval_sec=0.1,
                on_conflict="always_update" if workers else "never_update",
            )

    def _construct(self, executor: str) -> None:
        from dbos import DBOS, DBOSPortableJSONSerializer
        from sqlalchemy import URL

        url = URL.create("sqlite", database=str(self._database))
        self._dbos = DBOS(
            config={
                "name": "dspyui",
                "system_database_url": url.render_as_string(hide_password=False),
                "executor_id": executor,
                "application_version": APPLICATION_VERSION,
                # Not the default, which pickles.
                "serializer": DBOSPortableJSONSerializer(),
                "log_level": "WARNING",
                "enable_otlp": False,
                "notification_listener_polling_interval_sec": 0.2,
            }
        )

    def _register(self, run: Callable[[str], None]) -> None:
        @self._dbos.step(name="run_child")
        def run_child(job_id: str) -> None:
            run(job_id)

        @self._dbos.workflow(name=WORKFLOW, max_recovery_attempts=MAX_RECOVERY_ATTEMPTS)
        def compile_job(job_id: str) -> None:
            run_child(job_id)

        self._workflow = compile_job

    def enqueue(self, job_id: str) -> None:
        """Queue the job for whichever process works; nothing happens when it is known already."""
        from dbos import SetWorkflowID

        with self._mapped(), SetWorkflowID(job_id):
            self._dbos.enqueue_workflow(QUEUE, self._workflow, job_id)

    def start(self, job_id: str) -> None:
        """Run the job in this process at once; nothing happens when it is known already."""
        from dbos import SetWorkflowID

        with self._mapped(), SetWorkflowID(job_id):
            self._dbos.start_workflow(self._workflow, job_id)

    def cancel(self, job_id: str) -> None:
        """Mark it cancelled; whoever runs it sees that by asking."""
        with self._mapped():
            self._dbos.cancel_workflow(job_id)

    def find(self, job_id: str) -> Workflow | None:
        """The workflow, or None when it is not known."""
        return self.find_all([job_id]).get(job_id)

    def find_all(self, job_ids: Iterable[str]) -> Mapping[str, Workflow]:
        """Those of the workflows that are known, by id."""
        wanted = list(job_ids)
        return {found.id: found for found in self._list(workflow_ids=wanted)} if wanted else {}

    def running(self) -> Sequence[Workflow]:
        """All that some process runs, or ran when it died."""
        return self._list(status="PENDING")

    def take_over(self, workflow: Workflow) -> None:
        """Put a dead executor's workflow back into the queue, counting an attempt.

        DBOS has no public call for it: `resume_workflow` asks for no owner and ran a live job twice, and its own
        recovery puts what was started past the queue into an internal one, which every process serves, also those
        that do not work. This is the statement under that recovery: it changes nothing unless the workflow is
        still pending and of that executor, so two who call it at once make one workflow of it.
        """
        with self._mapped():
            self._dbos._sys_db.reenqueue_for_recovery(workflow.id, [workflow.executor], QUEUE)

    def hand_back(self, job_ids: Iterable[str]) -> None:
        """Put workflows that this process runs, and has stopped, back into the queue, with no attempt counted.

        Only for one's own: see `take_over`.
        """
        with self._mapped():
            self._dbos.resume_workflows(list(job_ids), queue_name=QUEUE)

    def destroy(self) -> None:
        """Leave. What this process still runs stays with its executor id."""
        if self._dbos is not None:
            self._dbos.destroy(destroy_registry=True)
            self._dbos = None

    def _list(self, **conditions: Any) -> Sequence[Workflow]:
        with self._mapped():
            found = self._dbos.list_workflows(**conditions, load_input=False, load_output=False)
        return [Workflow(id=row.workflow_id, status=row.status, executor=row.executor_id) for row in found]

    @contextmanager
    def _mapped(self) -> Iterator[None]:
        from dbos._error import DBOSException
        from sqlalchemy.exc import SQLAlchemyError

        try:
            yield
        except (DBOSException, SQLAlchemyError, sqlite3.Error, OSError) as exc:
            problem = str(exc).splitlines()[0] if str(exc) else type(exc).__name__
            raise UnavailableError("queue.database", path=str(self._database), problem=problem) from exc


def _set_wal(database: Path) -> None:
    """Let readers and a writer work at once: the worst wait of a second process was 0.44 s, not 2.35 s."""
    database.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.close(os.open(database, os.O_RDWR | os.O_CREAT, 0o600))
    with closing(sqlite3.connect(database, timeout=30)) as connection:
        connection.execute("pragma journal_mode=wal")
