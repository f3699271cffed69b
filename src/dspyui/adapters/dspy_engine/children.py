"""A child process that answers requests, one after the other, a line of JSON each way."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from io import BufferedIOBase
from queue import Empty, SimpleQueue
from typing import Any, Final, cast

from dspyui.domain.engine import Patience
from dspyui.errors import FailedError

COMMAND: Final = (sys.executable, "-m", "dspyui.bootstrap", "answer")
_LOOK_SECONDS: Final = 0.1
# What is kept of what it says on stderr, in bytes, and how much of that a person is shown, in characters.
_LOG_BYTES, _SHOWN = 16_384, 500


class Child:
    """One process. `ask` is for one thread at a time; `kill` may come from any."""

    def __init__(self, environment: Mapping[str, str], redact: Callable[[str], str]) -> None:
        """Start it with this environment. `redact` takes secrets out of what it says when it breaks."""
        self.environment = dict(environment)
        self._redact = redact
        self._process = subprocess.Popen(
            COMMAND,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self.environment,
            start_new_session=True,
        )
        pipes = (self._process.stdin, self._process.stdout, self._process.stderr)
        self._stdin, self._stdout, self._stderr = (cast(BufferedIOBase, pipe) for pipe in pipes)
        self._is_ready = False
        self._lines: SimpleQueue[bytes | None] = SimpleQueue()
        self._log = bytearray()
        self._readers = [
            threading.Thread(target=read, name="child-reader", daemon=True)
            for read in (self._read_lines, self._read_log)
        ]
        for reader in self._readers:
            reader.start()

    @property
    def is_gone(self) -> bool:
        """Whether it has ended."""
        return self._process.poll() is not None

    def ask(self, request: Mapping[str, Any], patience: Patience, end: float) -> dict[str, Any]:
        """What it answers, until `end` (by the monotonic clock).

        Raises FailedError when it ends without an answer or time is up, CancelledError when nobody waits any more;
        it is of no more use then.
        """
        if not self._is_ready:
            patience.on_phase("starting")
            self._next_line(patience, end)
            self._is_ready = True
        patience.on_phase("asking")
        with suppress(BrokenPipeError):
            self._stdin.write(json.dumps(request).encode() + b"\n")
            self._stdin.flush()
        return json.loads(self._next_line(patience, end))

    def kill(self) -> None:
        """End it and whatever it started, now; whoever asks it is told."""
        # One that was reaped already has no id of its own any more.
        if self._process.returncode is None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def end(self) -> None:
        """Kill it, and wait until nothing of it is left."""
        self.kill()
        self._process.wait()
        for reader in self._readers:
            reader.join()
        for pipe in (self._stdin, self._stdout, self._stderr):
            with suppress(BrokenPipeError):  # what it was not told any more
                pipe.close()

    def _next_line(self, patience: Patience, end: float) -> bytes:
        while True:
            patience.check(end)
            try:
                line = self._lines.get(timeout=_LOOK_SECONDS)
            except Empty:
                continue
            if line is None:
                raise self._broken()
            return line

    def _broken(self) -> FailedError:
        self._process.wait()
        for reader in self._readers:
            reader.join()
        problem = self._redact(self._log.decode(errors="replace").strip())[-_SHOWN:]
        return FailedError("predict.died", code=self._process.returncode, problem=problem)

    def _read_lines(self) -> None:
        for line in self._stdout:
            if line.endswith(b"\n"):
                self._lines.put(line)
        self._lines.put(None)

    def _read_log(self) -> None:
        while chunk := self._stderr.read1(_LOG_BYTES):
            self._log += chunk
            del self._log[:-_LOG_BYTES]
