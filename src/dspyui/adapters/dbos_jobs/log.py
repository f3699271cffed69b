"""A child's log: what it writes to stderr, kept without secrets."""

import os
import re
import selectors
import threading
from contextlib import suppress
from pathlib import Path

from dspyui.settings import Redactor

_CHUNK = 65536
# A line that grows beyond this is written in parts.
_LINE_CHARACTERS = 256 * 1024
# A line is over at a line feed, or at the carriage return of a bar that redraws itself.
_LINE_END = re.compile(rb"[\n\r]")
_LOOK_SECONDS = 0.2


class RedactedLog:
    """Reads a pipe in a thread of its own and appends it to a file, line by line, every secret blotted out.

    In the parent, so that it also covers what native code prints, and what a child that crashes leaves behind.
    """

    def __init__(self, path: Path, redact: Redactor) -> None:
        # Unbuffered: what a full disk has refused must not come up again when the file is closed.
        self._log = path.open("ab", buffering=0)
        self._reading, self._writing = os.pipe()
        self._redact = redact
        self._rest = b""
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"log-{path.parent.name}", daemon=True)
        self._thread.start()

    @property
    def writing_end(self) -> int:
        """What the child gets as its stderr."""
        return self._writing

    def child_started(self) -> None:
        """The child has its own copy of the writing end; without ours the pipe ends with the child."""
        os.close(self._writing)
        self._writing = -1

    def close(self) -> None:
        """Write what is still in the pipe and return.

        Not at the end of the pipe: something that the child has left behind may hold it open.
        """
        if self._writing >= 0:
            self.child_started()
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        with self._log, selectors.DefaultSelector() as selector:
            selector.register(self._reading, selectors.EVENT_READ)
            while True:
                # Asked first: what was written before the end is there to be read after.
                ended = self._ended.is_set()
                is_readable = bool(selector.select(0 if ended else _LOOK_SECONDS))
                data = os.read(self._reading, _CHUNK) if is_readable else b""
                if data:
                    self._write(self._ready(data))
                elif ended or is_readable:
                    break
            self._write(self._clean(self._rest))
        os.close(self._reading)

    def _write(self, data: bytes) -> None:
        # A disk that is full costs lines of the log. The pipe is read on, else the child would wait for it for ever.
        with suppress(OSError):
            while data:
                data = data[self._log.write(data) :]

    def _ready(self, data: bytes) -> bytes:
        """The lines that are whole now, redacted."""
        given = self._rest + data
        ends = [found.end() for found in _LINE_END.finditer(data)]
        if ends:
            cut = len(self._rest) + ends[-1]
            self._rest = given[cut:]
            return self._clean(given[:cut])
        self._rest = given
        if len(given) <= _LINE_CHARACTERS:
            return b""
        # A secret may be half there; what stays back is long enough to hold it whole.
        cleaned = self._clean(given)
        cut = max(0, len(cleaned) - 4 * self._redact.longest - 1)
        self._rest = cleaned[cut:]
        return cleaned[:cut]

    def _clean(self, data: bytes) -> bytes:
        return self._redact(data.decode(errors="surrogateescape")).encode(errors="surrogateescape")
