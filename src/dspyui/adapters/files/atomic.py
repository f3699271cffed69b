"""Writing so that a reader never sees half a file, and locking so that two processes never write at once.

A write that finds no room raises FailedError (`storage.full`), which says where, and how much is free there.
"""

import errno
import fcntl
import os
import secrets
import shutil
import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from dspyui.errors import FailedError

_POLL_SECONDS = 0.02


# No room on the disk; beyond the account's quota; beyond the size a file may have here (`ulimit -f`).
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def find_no_room(problem: BaseException, path: Path) -> FailedError | None:
    """Our error when a write failed for want of room, the causes of `problem` looked through; else None.

    `path` is where it was tried to write; the name in the system's own error, if it has one, is nearer.
    """
    link: BaseException | None = problem
    while link is not None:
        if isinstance(link, FailedError) and link.code == "storage.full":
            return link
        if isinstance(link, OSError) and link.errno in _NO_ROOM:
            return _full(Path(os.fsdecode(link.filename)) if link.filename else path, link.strerror or "")
        if isinstance(link, sqlite3.OperationalError) and "is full" in str(link):
            return _full(path, str(link))
        link = link.__cause__ or link.__context__
    return None


def _full(path: Path, problem: str) -> FailedError:
    place = next((folder for folder in (path, *path.parents) if folder.exists()), Path("/"))
    free = f"{shutil.disk_usage(place).free / 1e6:,.1f} MB"
    return FailedError("storage.full", path=str(path), free=free, problem=problem)


@contextmanager
def said_when_full(path: Path) -> Iterator[None]:
    """Turn the system's "no room" into our error; everything else passes."""
    try:
        yield
    except OSError as exc:
        if full := find_no_room(exc, path):
            raise full from exc
        raise


def private_folder(path: Path) -> Path:
    """Make the folder and what is missing above it, readable by its owner alone, and return it."""
    missing = [path, *path.parents]
    for folder in reversed([folder for folder in missing if not folder.exists()]):
        folder.mkdir(mode=0o700, exist_ok=True)
    return path


def write_atomic(path: Path, content: str | bytes | Iterable[bytes], *, durable: bool) -> None:
    """Replace the file in one step. With `durable` it is on the disk when this returns, whatever happens next.

    What need not be in memory at once may come in pieces.
    """
    data = content.encode() if isinstance(content, str) else content
    pieces = (data,) if isinstance(data, bytes) else data
    with said_when_full(path.parent):
        _replace(path, pieces, durable=durable)


def _replace(path: Path, pieces: Iterable[bytes], *, durable: bool) -> None:
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.writelines(pieces)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    if durable:
        sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Bring the folder's list of names to the disk; a rename may otherwise be lost with the power."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def append_line(path: Path, line: str) -> None:
    """Append one line in one write. A half line that a crash or a full disk left behind is ended first."""
    with said_when_full(path.parent):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            size = os.fstat(descriptor).st_size
            torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
            data = (("\n" if torn else "") + line + "\n").encode()
            while data:
                # All of it at once, but for a disk that fills up in the middle: then the next write says so.
                data = data[os.write(descriptor, data) :]
        finally:
            os.close(descriptor)


@contextmanager
def file_lock(path: Path, *, seconds: float | None = None) -> Iterator[bool]:
    """Hold an exclusive lock on the file; the system frees it when the process dies.

    Waits for ever, or at most `seconds` (0: not at all), and gives False when the lock was not had by then.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        yield _acquired(descriptor, seconds)
    finally:
        os.close(descriptor)


def _acquired(descriptor: int, seconds: float | None) -> bool:
    if seconds is None:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        return True
    deadline = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(_POLL_SECONDS)
        else:
            return True
