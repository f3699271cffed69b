"""Pydantic documents on disk, and a memory of those that have not changed since they were read."""

from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from pydantic import BaseModel, ValidationError

from dspyui.errors import FailedError

Document = TypeVar("Document", bound=BaseModel)
Kept = TypeVar("Kept")


def read_document(path: Path, model: type[Document]) -> Document:
    """Read one document. Raises FileNotFoundError, or FailedError when it cannot be understood."""
    content = path.read_bytes()
    try:
        return model.model_validate_json(content)
    except ValidationError as exc:
        problem = str(exc.errors()[0]["msg"])
        raise FailedError("storage.unreadable", path=str(path), problem=problem) from exc


class ReadCache(Generic[Kept]):
    """What was made of files, kept as long as they are the same files.

    Every write makes a new inode (`write_atomic`), so inode, size and time together tell any change, and
    thousands of jobs can be listed at the price of a `stat` each.
    """

    def __init__(self, read: Callable[[Path], Kept]) -> None:
        self._read = read
        self._kept: dict[Path, tuple[tuple[int, int, int], Kept]] = {}

    def get(self, path: Path) -> Kept:
        """What the file holds. Raises FileNotFoundError and whatever reading it raises."""
        try:
            stat = path.stat()
        except FileNotFoundError:
            self._kept.pop(path, None)
            raise
        stamp = (stat.st_ino, stat.st_size, stat.st_mtime_ns)
        known = self._kept.get(path)
        if known is not None and known[0] == stamp:
            return known[1]
        value = self._read(path)
        self._kept[path] = (stamp, value)
        return value
