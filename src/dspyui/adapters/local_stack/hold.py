"""A process's hold on a kept server: as long as one process holds it, the server runs."""

import fcntl
import os
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from dspyui.adapters.files.atomic import private_folder
from dspyui.adapters.local_stack.kept import (
    KeptSpec,
    KeptState,
    could_lock,
    is_gone,
    is_kept,
    open_lock,
    read_state,
    try_lock,
)

# All in seconds.
POLL = 0.05
TAKE_SECONDS = 20.0
RELEASE_SECONDS = 10.0
# A keeper that has to be started more often than this in so many seconds is not started again.
STARTS, START_SECONDS = 3, 60.0


class Hold:
    """Use it as `take()`, then `look()` as often as wanted, then `release()`. For one thread at a time."""

    def __init__(self, spec: KeptSpec, environment: Mapping[str, str]) -> None:
        self._spec = spec
        self._environment = dict(environment)
        self._lock: int | None = None
        self._keeper: subprocess.Popen[bytes] | None = None
        self._starts: deque[float] = deque(maxlen=STARTS)
        self._asked = 0.0

    def is_running(self) -> bool:
        """Whether some process keeps the server now; starts nothing and takes nothing."""
        return is_kept(self._spec)

    def take(self, stop: threading.Event | None = None) -> bool:
        """Hold the server from now on. A keeper that is just giving up is waited for, unless `stop` is set."""
        if self._lock is not None:
            return True
        self._asked = time.time()
        private_folder(Path(self._spec.folder))
        lock = open_lock(self._spec.lock)
        deadline = time.monotonic() + TAKE_SECONDS
        while not try_lock(lock, fcntl.LOCK_SH):
            if time.monotonic() > deadline or (stop is not None and stop.is_set()):
                os.close(lock)
                return False
            time.sleep(POLL)
        self._lock = lock
        return True

    def retry(self) -> None:
        """Forget earlier failures: the next look starts a keeper again."""
        self._asked = time.time()
        self._starts.clear()

    def look(self) -> KeptState:
        """How the server stands now; starts a keeper if there is none. Only for who holds it."""
        is_running, state = self.is_running(), read_state(self._spec)
        if state is not None and state.status == "failed":
            if state.at >= self._asked:
                return state
            state = None  # told to somebody before; its keeper is gone, or just about to be
        if is_running:
            return state or KeptState(status="starting")
        if self._keeper is None or self._keeper.poll() is not None:
            recent = [start for start in self._starts if time.monotonic() - start < START_SECONDS]
            if len(recent) == STARTS:
                return KeptState(
                    status="failed", reason=f"It ended {STARTS} times within {START_SECONDS:.0f} s."
                )
            self._start_keeper()
        return KeptState(status="starting")

    def _start_keeper(self) -> None:
        self._starts.append(time.monotonic())
        Path(self._spec.log).parent.mkdir(parents=True, exist_ok=True)
        with Path(self._spec.log).open("ab") as log:
            keeper = subprocess.Popen(
                [sys.executable, "-P", "-m", "dspyui.adapters.local_stack.keeper"],
                cwd=self._spec.folder,
                env={**self._environment, "PYTHONSAFEPATH": "1"},
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._keeper = keeper
        # Reaped whenever it ends, be it long after this process let go.
        threading.Thread(target=keeper.wait, name=f"reap-{self._spec.name}", daemon=True).start()
        if keeper.stdin is not None:
            with suppress(BrokenPipeError), keeper.stdin as stdin:
                stdin.write(self._spec.to_json().encode())

    def release(self) -> None:
        """Let go. Whoever is the last waits, for some seconds at most, until the server is gone."""
        if self._lock is None:
            return
        os.close(self._lock)
        self._lock = None
        deadline = time.monotonic() + RELEASE_SECONDS
        while not is_gone(self._spec) and not self._is_held() and time.monotonic() < deadline:
            time.sleep(POLL)

    def _is_held(self) -> bool:
        """Whether some other process uses the server. The keeper holds the lock alone when it gives up."""
        alone = could_lock(self._spec.lock, fcntl.LOCK_EX)
        return not alone and could_lock(self._spec.lock, fcntl.LOCK_SH)
