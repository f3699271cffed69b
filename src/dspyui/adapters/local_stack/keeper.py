"""Keeps one server running for as long as some process uses it: `python -m dspyui.adapters.local_stack.keeper`.

Reads a `KeptSpec` as JSON from stdin. The users hold the server's lock shared; when the keeper can have it alone,
nobody is left, and it ends the server, removes the address file and exits. It keeps the lock meanwhile, so a process
that comes just then waits for the lock, finds no keeper, and starts a new one. There is one keeper, which holds the
keeper's lock. The guard that runs the server holds another, so that a keeper which follows on one that was killed
starts a server only when the old one is gone.
"""

import fcntl
import http.client
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from dspyui.adapters.local_stack.kept import (
    KeptSpec,
    KeptState,
    open_lock,
    remember_port,
    remembered_port,
    try_lock,
    write_state,
)
from dspyui.adapters.local_stack.ports import LOOPBACK, free_port, is_free, listens

# All in seconds.
POLL, STARTING_POLL = 0.25, 0.05
HEALTH_EVERY, HEALTH_TIMEOUT = 5.0, 5.0
TAKE_OVER_SECONDS = 2.0
STOP_SECONDS = 8.0
# A server that ends more often than this in so many seconds is not started again.
CRASHES, CRASH_SECONDS = 3, 60.0
PORT_TRIES = 5
LOG_LIMIT_BYTES = 10 * 1024**2
REASON_LINES = 12


@dataclass(slots=True)
class _Attempt:
    """One start of the server. `ready` is set once it has answered; `log_start` is where its log begins."""

    process: "subprocess.Popen[bytes]"
    port: int
    log_start: int
    started: float
    ready: bool = False
    answered: float = 0.0
    looked: float = 0.0


class Keeper:
    """Runs the server again and again until nobody uses it, or it cannot be kept running."""

    def __init__(self, spec: KeptSpec, stop: threading.Event) -> None:
        self._spec = spec
        self._users_lock = open_lock(spec.lock)
        self._stop = stop
        self._port = remembered_port(spec)
        self._state = KeptState(status="starting", keeper=os.getpid(), version=spec.version)

    def run(self) -> None:
        """Keep the server; return when it has ended for good."""
        crashes: deque[float] = deque(maxlen=CRASHES)
        other_ports = PORT_TRIES
        while (attempt := self._serve()) is not None:
            if attempt.ready:
                crashes.append(time.monotonic())
            too_often = len(crashes) == CRASHES and time.monotonic() - crashes[0] < CRASH_SECONDS
            if not attempt.ready and not is_free(LOOPBACK, attempt.port):
                other_ports -= 1  # another server was quicker to take the port
                again = other_ports > 0
            else:
                again = attempt.ready and not too_often
            if not again:
                self._tell(status="failed", address=None, server=None, reason=self._last_words(attempt))
                return
        self._spec.address_file.unlink(missing_ok=True)

    def _serve(self) -> _Attempt | None:
        """Start the server and stay with it. None when it was ended because nobody needs it."""
        self._tell(status="starting", address=None, server=None)
        attempt = self._start()
        try:
            while attempt.process.poll() is None and not self._is_lost(attempt):
                if self._unneeded():
                    return None
                self._stop.wait(POLL if attempt.ready else STARTING_POLL)
            return attempt
        finally:
            _end(attempt.process)

    def _start(self) -> _Attempt:
        # The last server's port again, if it can be had: links to it are kept in Runs, pages and bookmarks.
        if not self._port or not is_free("localhost", self._port):
            self._port = free_port(self._spec.port)
        command = [part.replace("{port}", str(self._port)) for part in self._spec.command]
        guard = [sys.executable, "-P", "-m", "dspyui.adapters.local_stack.guard"]
        log_start = _rotate(Path(self._spec.log))
        server_lock = self._lock_server()
        with Path(self._spec.log).open("ab") as log:
            process = subprocess.Popen(
                [*guard, *command],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
                pass_fds=(server_lock,),
            )
        os.close(server_lock)
        return _Attempt(process, self._port, log_start, started=time.monotonic())

    def _lock_server(self) -> int:
        """The lock for the guard to inherit; an old guard that is just ending its server is waited for."""
        lock = open_lock(self._spec.server_lock)
        _within(STOP_SECONDS, lambda: try_lock(lock, fcntl.LOCK_EX))
        return lock

    def _is_lost(self, attempt: _Attempt) -> bool:
        """Look whether it answers; True when it has been silent for too long."""
        now = time.monotonic()
        if attempt.ready and now - attempt.looked < HEALTH_EVERY:
            return False
        attempt.looked = now
        if self._answers(attempt):
            attempt.answered = time.monotonic()
            if not attempt.ready:
                attempt.ready = True
                remember_port(self._spec, attempt.port)
                self._tell(
                    status="ready", address=f"http://{LOOPBACK}:{attempt.port}", server=attempt.process.pid
                )
            return False
        if attempt.ready:
            return now - attempt.answered > self._spec.hang_seconds
        return now - attempt.started > self._spec.ready_seconds

    def _answers(self, attempt: _Attempt) -> bool:
        connection = http.client.HTTPConnection(LOOPBACK, attempt.port, timeout=HEALTH_TIMEOUT)
        try:
            connection.request("GET", self._spec.health)
            healthy = connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()
        # Another server may have taken the port in the meantime, and ours may be just about to notice.
        return healthy and (attempt.ready or listens(attempt.process.pid, attempt.port))

    def _unneeded(self) -> bool:
        return self._stop.is_set() or try_lock(self._users_lock, fcntl.LOCK_EX)

    def _last_words(self, attempt: _Attempt) -> str:
        with Path(self._spec.log).open("rb") as log:
            log.seek(attempt.log_start)
            lines = log.read().decode(errors="replace").strip().splitlines()
        return "\n".join(lines[-REASON_LINES:])

    def _tell(self, **changes: object) -> None:
        self._state = replace(self._state, at=time.time(), **changes)  # pyright: ignore[reportArgumentType]
        write_state(self._spec, self._state)


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End the guard, which ends the server; whatever then is left of its group is killed."""
    if process.stdin:
        process.stdin.close()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return  # the usual case: the guard took all with it


def _rotate(log: Path) -> int:
    """Set a log that has grown too long aside. Returns the size of the one that is written on."""
    size = log.stat().st_size if log.exists() else 0
    if size <= LOG_LIMIT_BYTES:
        return size
    log.replace(log.with_name(f"{log.name}.1"))
    return 0


def _within(seconds: float, done: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            return False
        time.sleep(STARTING_POLL)
    return True


def main() -> None:
    """Keep the server described on stdin, unless another keeper does already."""
    spec = KeptSpec.from_json(sys.stdin.read())
    stop = threading.Event()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    keeper_lock = open_lock(spec.keeper_lock)
    # Users look at this lock, each for a moment; only another keeper holds it longer.
    if _within(TAKE_OVER_SECONDS, lambda: try_lock(keeper_lock, fcntl.LOCK_EX)):
        Keeper(spec, stop).run()


if __name__ == "__main__":
    main()
