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
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from dspyui.adapters.mlflow_store.otlp import to_otlp
from dspyui.domain.traces import Trace

PART, SEGMENT, REFUSED = ".part", ".otlp", ".refused"
# MLflow links the traces of one POST to their Run only up to a hundred.
MAX_TRACES = 100
MAX_BYTES = 4 * 1024 * 1024
_HEADER = struct.Struct(">II")


class FileTraceSink:
    """Implements `domain.traces.TraceSink`: appends traces to segments in a folder. Thread-safe."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._lock = threading.Lock()
        self._open: _Segment | None = None

    def write(self, trace: Trace) -> None:
        """Put the trace on disk; when this returns, killing the process does not lose it."""
        frame = to_frame(to_otlp(trace))
        with self._lock:
            if self._open is None:
                self._open = _Segment(self._folder)
            self._open.append(frame)
            if self._open.is_full:
                self._open.close()
                self._open = None

    def close(self) -> None:
        """Close the segment that is open."""
        with self._lock:
            if self._open is not None:
                self._open.close()
                self._open = None


class _Segment:
    def __init__(self, folder: Path) -> None:
        self._path = folder / f"{os.getpid()}-{secrets.token_hex(6)}{PART}"
        self._file = self._path.open("xb", buffering=0)
        fcntl.flock(self._file, fcntl.LOCK_EX)
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


def closed_segments(folder: Path) -> Sequence[Path]:
    """The segments that can be sent, those included that a dead process left open."""
    for part in folder.glob(f"*{PART}"):
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
