"""Who is alive: each process that has joined the queue holds a lock on a file named after it."""

import fcntl
import os
from contextlib import suppress
from pathlib import Path

_SUFFIX = ".lease"


class Lease:
    """A held lock. The system lets go of it when the process dies, however it dies: no clocks, no heartbeats."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor

    def is_held(self) -> bool:
        """Whether the others still see it; false after the data folder was deleted under us."""
        return _is_file_of(self._path, self._descriptor)

    def release(self) -> None:
        """Leave."""
        self._path.unlink(missing_ok=True)
        os.close(self._descriptor)


class Leases:
    """The leases of one data folder. An executor's id is used once, so a lease that is free stays free."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def take(self, executor: str) -> Lease:
        """Take the lease of this process."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._path(executor)
        while True:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            # Another process may have cleaned the file away between the two calls.
            if _is_file_of(path, descriptor):
                return Lease(path, descriptor)
            os.close(descriptor)

    def is_dead(self, executor: str) -> bool:
        """Whether the process has ended; it took its lease before it took any job."""
        return _is_free(self._path(executor))

    def clean(self) -> None:
        """Remove what dead processes left."""
        for path in self._folder.glob(f"*{_SUFFIX}"):
            _remove_free(path)

    def _path(self, executor: str) -> Path:
        return self._folder / f"{executor}{_SUFFIX}"


def _is_free(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        # Shared, so that two who look at once do not take each other for the owner.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    else:
        return True
    finally:
        os.close(descriptor)


def _remove_free(path: Path) -> None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return
    else:
        # With the lock held, whoever is just taking the lease waits, and sees then that its file is gone. Another
        # who cleans may have been faster, and the file may by now be a new one, which somebody holds.
        if _is_file_of(path, descriptor):
            path.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def _is_file_of(path: Path, descriptor: int) -> bool:
    with suppress(FileNotFoundError):
        return path.stat().st_ino == os.fstat(descriptor).st_ino
    return False
