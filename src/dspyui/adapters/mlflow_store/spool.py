"""Finished traces on disk: each is written at once, so that a killed process loses none that was finished.

A segment is a sequence of frames: the payload's length and CRC-32 (both 4 bytes, big-endian), then the payload,
one OTLP ExportTraceServiceRequest with one trace. A frame that a kill tore in two is seen by its length or its
sum and left out. A segment being written ends in `.part` and is locked by its writer; a full or closed one ends
in `.otlp`. This module imports neither MLflow nor DSPy: it runs in the child that works.
"""

import fcntl
import os
import secrets
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Final

from dspyui.adapters.mlflow_store.otlp import to_otlp
from dspyui.domain.traces import FULL_MARK, SpoolState, Trace

PART, SEGMENT, REFUSED = ".part", ".otlp", ".refused"
# A segment in the moment before its writer has locked it; it is empty.
_UNLOCKED: Final = ".new"
# How long a look at all folders counts, in seconds, and how often somebody who waits for room looks again.
_LOOK_SECONDS: Final = 2.0
_WAIT_SECONDS: Final = 0.5
# MLflow links the traces of one POST to their Run only up to a hundred.
MAX_TRACES = 100
MAX_BYTES = 4 * 1024 * 1024
_HEADER = struct.Struct(">II")


class FileTraceSink:
    """Implements `domain.traces.TraceSink`: appends traces to segments in a folder. Thread-safe.

    With a `room`, a full one holds up whoever writes, until some of what waits was sent.
    """

    def __init__(self, folder: Path, room: "TraceRoom | None" = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._room = room
        self._lock = threading.Lock()
        self._open: _Segment | None = None

    def write(self, trace: Trace) -> None:
        """Put the trace on disk; when this returns, killing the process does not lose it."""
        frame = to_frame(to_otlp(trace))
        with self._lock:
            if self._open is None:
                if self._room is not None:
                    self._room.wait(self._folder)
                self._open = _Segment(self._folder)
            self._open.append(frame)
            if self._room is not None:
                self._room.took(len(frame))
            if self._open.is_full:
                self._open.close()
                self._open = None

    def close(self) -> None:
        """Close the segment that is open."""
        with self._lock:
            if self._open is not None:
                self._open.close()
                self._open = None


class TraceRoom:
    """The disk that traces may take while they wait for MLflow: so many bytes, over all folders together.

    Who writes more is held up, so that nothing is dropped and the disk is not filled. Only closed segments count:
    an open one cannot be sent, so nobody may wait for it. `folders` gives those that will be sent from; `on_change`
    is told how many bytes there are when somebody begins to wait, and None when it goes on. A budget of 0 is none.
    Thread-safe: several sinks of one process share it.
    """

    def __init__(
        self, budget: int, folders: Callable[[], Iterable[Path]], on_change: Callable[[int | None], None]
    ) -> None:
        self._budget = budget
        self._folders = folders
        self._on_change = on_change
        self._lock = threading.Lock()
        self._size = 0
        self._looked = -_LOOK_SECONDS

    def took(self, size: int) -> None:
        """So much may have come since the last look."""
        with self._lock:
            self._size += size

    def wait(self, folder: Path) -> None:
        """Return when there is room.

        While there is none, a mark says so to whoever sends, in `folder` and in all others that take up the room:
        it may be another one's traces that have to go.
        """
        if not self._budget or not self._is_full(_LOOK_SECONDS):
            return
        marks: set[Path] = set()
        self._on_change(self._size)
        try:
            while self._is_full(0):
                # Again each time: another one who waited may have taken them away.
                marks |= self._mark(folder)
                time.sleep(_WAIT_SECONDS)
        finally:
            for mark in marks:
                mark.unlink(missing_ok=True)
        self._on_change(None)

    def _mark(self, folder: Path) -> set[Path]:
        marked = set()
        for each in (folder, *self._folders()):
            # One of a job that has written no trace yet, or was deleted.
            with suppress(FileNotFoundError):
                (each / FULL_MARK).touch()
                marked.add(each / FULL_MARK)
        return marked

    def _is_full(self, seconds: float) -> bool:
        with self._lock:
            now = time.monotonic()
            # Some of what came may have been sent since: before anybody is held up, it is looked again.
            if now - self._looked >= seconds or self._size >= self._budget:
                self._looked = now
                self._size = sum(map(closed_size, self._folders()))
            return self._size >= self._budget


class _Segment:
    def __init__(self, folder: Path) -> None:
        draft = folder / f"{os.getpid()}-{secrets.token_hex(6)}{_UNLOCKED}"
        self._file = draft.open("xb", buffering=0)
        fcntl.flock(self._file, fcntl.LOCK_EX)
        # Only now: whoever sends takes an unlocked `.part` for one that a dead process has left.
        self._path = draft.rename(draft.with_suffix(PART))
        self._traces = 0
        self._bytes = 0

    def append(self, frame: bytes) -> None:
        rest = memoryview(frame)
        while rest:
            # A disk that fills up takes a part; the next write says so, and a torn frame is left out when read.
            rest = rest[self._file.write(rest) :]
        self._traces += 1
        self._bytes += len(frame)

    @property
    def is_full(self) -> bool:
        return self._traces >= MAX_TRACES or self._bytes >= MAX_BYTES

    def close(self) -> None:
        self._path.rename(self._path.with_suffix(SEGMENT))
        self._file.close()


def to_frame(payload: bytes) -> bytes:
    """The payload with its length and sum before it."""
    return _HEADER.pack(len(payload), zlib.crc32(payload)) + payload


def read_frames(content: bytes) -> Iterator[bytes]:
    """The whole payloads of a segment; stops at a torn one."""
    position = 0
    while position + _HEADER.size <= len(content):
        length, checksum = _HEADER.unpack_from(content, position)
        start = position + _HEADER.size
        payload = content[start : start + length]
        if len(payload) != length or zlib.crc32(payload) != checksum:
            return
        yield payload
        position = start + length


class FileTraceSpool:
    """Implements `domain.traces.TraceSpool`."""

    def measure(self, folder: Path) -> SpoolState:
        """A segment that is being written counts as far as it is written."""
        traces = size = refused = 0
        oldest: float | None = None
        for path in _files(folder):
            # One that was just sent is gone.
            with suppress(FileNotFoundError):
                if path.suffix == REFUSED:
                    refused += 1
                elif path.suffix in {PART, SEGMENT}:
                    with path.open("rb") as file:
                        found = os.fstat(file.fileno())
                        traces += _count(file, found.st_size)
                    size += found.st_size
                    oldest = min(found.st_mtime, found.st_mtime if oldest is None else oldest)
        return SpoolState(
            traces=traces,
            refused=refused,
            size=size,
            oldest=None if oldest is None else datetime.fromtimestamp(oldest, tz=UTC),
        )


def _files(folder: Path) -> Sequence[Path]:
    try:
        return list(folder.iterdir())
    except FileNotFoundError:
        return ()


def _count(file: BinaryIO, size: int) -> int:
    """The whole frames of a segment, by their heads alone."""
    count = position = 0
    while position + _HEADER.size <= size:
        file.seek(position)
        length, _checksum = _HEADER.unpack(file.read(_HEADER.size))
        position += _HEADER.size + length
        count += position <= size
    return count


def closed_size(folder: Path) -> int:
    """The bytes of the folder's closed segments, which can be sent."""
    total = 0
    for path in _files(folder):
        if path.suffix == SEGMENT:
            with suppress(FileNotFoundError):
                total += path.stat().st_size
    return total


def closed_segments(folder: Path) -> Sequence[Path]:
    """The segments that can be sent, those included that a dead process left open."""
    for part in folder.glob(f"*{PART}"):
        # Its writer may close it, and so rename it, while it is looked at.
        with suppress(FileNotFoundError):
            if _is_abandoned(part):
                part.rename(part.with_suffix(SEGMENT))
    return sorted(folder.glob(f"*{SEGMENT}"))


def _is_abandoned(part: Path) -> bool:
    with part.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True
