"""A data file that is being read: uploaded bytes or a file on disk, opened as often as needed."""

import io
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, Final

from dspyui.errors import BadRequestError

MEGABYTE: Final = 1024 * 1024
# Each row costs about 0.5 kB beyond its text while it is previewed; no optimizer asks for as many.
MAX_ROWS: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class DataFile:
    """Its name for messages, its size in bytes, and a way to open it.

    What is read of it may take `table_bytes`; a format that must be read as a whole takes files up to `whole_bytes`.
    """

    name: str
    size: int
    open: Callable[[], BinaryIO]
    table_bytes: int
    whole_bytes: int

    def text(self, codec: str, *, newline: str | None) -> io.TextIOWrapper:
        """The file as text."""
        return io.TextIOWrapper(self.open(), encoding=codec, newline=newline)

    def told(self, limit: int) -> dict[str, str]:
        """Name, size and limit in megabytes, for a message."""
        return {"name": self.name, "size": f"{self.size / MEGABYTE:.1f}", "limit": f"{limit / MEGABYTE:g}"}


class Lines:
    """The rows of a table as they are packed. Raises BadRequestError when there are too many of them."""

    def __init__(self, file: DataFile) -> None:
        self._file = file
        self._size = 0
        self.kept: list[bytes] = []

    def add(self, line: bytes) -> None:
        """Add a row."""
        if len(self.kept) >= MAX_ROWS:
            raise BadRequestError("file.many_rows", name=self._file.name, limit=f"{MAX_ROWS:,}")
        self._size += len(line)
        if self._size > self._file.table_bytes:
            raise BadRequestError("file.large_unpacked", **self._file.told(self._file.table_bytes))
        self.kept.append(line)


def _is_text(name: str) -> bool:
    # Half an emoji (`"\ud83d"`) is valid in JSON, and neither a page nor a file can hold it.
    return not any("\ud800" <= char <= "\udfff" for char in name)


def check_columns(name: str, columns: Sequence[Any], *, line: int | None = None) -> tuple[str, ...]:
    """The names of the columns. Raises BadRequestError for one that is empty, no text, or stands twice."""
    for number, column in enumerate(columns, start=1):
        if not str(column).strip():
            if line is None:
                raise BadRequestError("file.unnamed", name=name, number=number)
            raise BadRequestError("file.column_unnamed", name=name, line=line, number=number)
        if not _is_text(str(column)):
            raise BadRequestError("file.column_broken", name=name, number=number)
    twice = ", ".join(str(column) for column, count in Counter(columns).items() if count > 1)
    if twice and line is None:
        raise BadRequestError("file.twice", name=name, columns=twice)
    if twice:
        raise BadRequestError("file.column_twice", name=name, line=line, columns=twice)
    return tuple(map(str, columns))
