"""One attempt at a job: its child process, from start to end. Knows nothing of DBOS."""

import json
import logging
import os
import selectors
import signal
import subprocess
import threading
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from dspyui.adapters.dbos_jobs.log import RedactedLog
from dspyui.adapters.dbos_jobs.processes import has_ended, kill_tree
from dspyui.adapters.dbos_jobs.states import JobStates
from dspyui.adapters.files.atomic import find_no_room
from dspyui.domain.jobs import ChildOutcome, JobFailure, JobStore
from dspyui.errors import DSPyUIError, NotFoundError
from dspyui.settings import Settings

_log = logging.getLogger(__name__)

StopReason = Literal["cancelled", "lost", "closing"]

_CHILD_SECONDS = 0.05
_STATUS_TICKS = 10
_LINE_BYTES = 1_000_000
_TAIL_LINES, _TAIL_CHARACTERS = 40, 8000


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all attempts of one process share.

    `command` gives a child's arguments; `prepare` gives more environment for it, may take some seconds and may
    raise DSPyUIError; `reason_to_stop` tells why this process should no longer run a job, or gives None.
    """

    settings: Settings
    store: JobStore
    states: JobStates
    executor: str
    command: Callable[[str], list[str]]
    prepare: Callable[[str], Mapping[str, str]]
    reason_to_stop: Callable[[str], StopReason | None]


class Attempt:
    """Starts the child, watches over it and gives the job its end.

    A second thread looks twice a second whether the job was cancelled, here or anywhere, or is another's by now,
    and kills the child and its descendants then.
    """

    def __init__(self, job_id: str, around: Surroundings) -> None:
        self._job_id = job_id
        self._around = around
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._log: RedactedLog | None = None
        self._reason: StopReason | None = None

    def run(self) -> StopReason | None:
        """Return why it was left without a result, or None when the job has come to its end."""
        try:
            if not self._around.states.begin(self._job_id, self._around.executor):
                return None
        except DSPyUIError as exc:
            return self._settle(_failed(exc.code, exc.values))
        watcher = threading.Thread(target=self._watch, name=f"watch-{self._job_id}", daemon=True)
        watcher.start()
        try:
            return self._settle(self._work())
        finally:
            self._over.set()
            watcher.join()

    def stop(self, reason: StopReason) -> None:
        """Kill the child and all its descendants, and return at once. The first reason counts."""
        with self._lock:
            self._reason = self._reason or reason
            if self._process is not None:
                kill_tree(self._process)
                return
        if self._reason == "cancelled":
            # Not started yet: nobody should wait for `prepare` to come back.
            self._around.states.end(self._job_id, "cancelled")

    def _work(self) -> ChildOutcome | None:
        """What the child said; None when it was stopped or said nothing that can be understood."""
        try:
            environment = self._environment()
            if not self._start(environment):
                return None
            return _outcome(self._last_line())
        except DSPyUIError as exc:
            return _failed(exc.code, exc.values)
        except OSError as exc:
            if full := find_no_room(exc, self._around.settings.home):
                return _failed(full.code, full.values)
            return _failed("job.start_failed", {"problem": str(exc)})
        except Exception as exc:  # noqa: BLE001 - whatever it was, the job must not stay "running" for ever
            problem = self._around.settings.redact(f"{type(exc).__name__}: {exc}")
            detail = self._around.settings.redact(traceback.format_exc())
            _log.error("Job %s: %s", self._job_id, detail)
            return _failed("job.unexpected", {"problem": problem}, detail)
        finally:
            self._reap()

    def _environment(self) -> dict[str, str]:
        more = self._around.prepare(self._job_id)
        return {**self._around.settings.process_environment(), **more}

    def _start(self, environment: Mapping[str, str]) -> bool:
        arguments = self._around.command(self._job_id)
        with self._lock:
            if self._reason is not None:
                return False
            self._log = RedactedLog(self._folder() / "log.txt", self._around.settings.redactor())
            self._process = subprocess.Popen(
                arguments,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log.writing_end,
                env=environment,
                start_new_session=True,
            )
            self._log.child_started()
        return True

    def _last_line(self) -> bytes:
        """Read what the child prints until it has ended; its last line is its outcome.

        Not until the pipe closes: something that the child has left behind may hold it open.
        """
        process = self._process
        if process is None or process.stdout is None:
            return b""
        printed = b""
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while True:
                # Asked first: what a child wrote before it ended is there to be read after.
                ended = has_ended(process.pid)
                is_readable = bool(selector.select(_CHILD_SECONDS))
                data = os.read(process.stdout.fileno(), 65536) if is_readable else b""
                printed = (printed + data)[-_LINE_BYTES:]
                if ended and not data:
                    break
                if is_readable and not data:
                    # Closed before the end: select would return at once from now on.
                    self._over.wait(_CHILD_SECONDS)
        return next((line for line in reversed(printed.split(b"\n")) if line.strip()), b"")

    def _reap(self) -> None:
        with self._lock:
            process = self._process
            if process is not None:
                # Under the lock: `stop` must not signal a process id that is no longer the child's.
                kill_tree(process)
                for pipe in (process.stdin, process.stdout):
                    if pipe is not None:
                        pipe.close()
                process.wait()
            if self._log is not None:
                self._log.close()

    def _settle(self, outcome: ChildOutcome | None) -> StopReason | None:
        states, job_id = self._around.states, self._job_id
        if self._reason == "lost":
            return "lost"
        if self._reason == "closing" and (outcome is None or outcome.status == "failed"):
            # A failure while everything is shut down tells nothing of the job.
            return "closing"
        if outcome is not None:
            states.end(job_id, outcome.status, outcome.failure)
            return None
        if self._reason == "cancelled":
            states.end(job_id, "cancelled")
            return "cancelled"
        states.end(job_id, "failed", self._died())
        return None

    def _died(self) -> JobFailure:
        code = self._process.returncode if self._process is not None else 0
        tail = ""
        with suppress(OSError, NotFoundError):
            tail = self._around.settings.redact(_tail(self._folder() / "log.txt"))
        return JobFailure(code="job.child_died", values={"how": _how(code)}, detail=tail)

    def _folder(self) -> Path:
        return self._around.store.folder(self._job_id)

    def _watch(self) -> None:
        tick = 0
        while not self._over.wait(_CHILD_SECONDS):
            tick += 1
            if tick % _STATUS_TICKS == 0 and (reason := self._reason_to_stop()):
                self.stop(reason)

    def _reason_to_stop(self) -> StopReason | None:
        try:
            job = self._around.store.get(self._job_id)
        except NotFoundError:
            return "lost"
        except (DSPyUIError, OSError) as exc:
            _log.warning("Job %s: %s", self._job_id, exc)
            return None
        if job.is_terminal or job.executor != self._around.executor:
            return "lost"
        return "cancelled" if job.cancel_requested else self._around.reason_to_stop(self._job_id)


def _outcome(line: bytes) -> ChildOutcome | None:
    with suppress(ValidationError):
        return ChildOutcome.model_validate_json(line)
    return None


def _failed(code: str, values: Mapping[str, Any], detail: str = "") -> ChildOutcome:
    # Through JSON, because that is what becomes of it: a path or an error among the values is its text then.
    plain = json.loads(json.dumps(values, default=str))
    return ChildOutcome(status="failed", failure=JobFailure(code=code, values=plain, detail=detail))


def _how(code: int) -> str:
    """How a process ended, as programmers say it: `exit 3`, `SIGKILL`."""
    if code >= 0:
        return f"exit {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"


def _tail(path: Path) -> str:
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - 4 * _TAIL_CHARACTERS))
        lines = file.read().decode(errors="replace").splitlines()
    return "\n".join(lines[-_TAIL_LINES:])[-_TAIL_CHARACTERS:]
