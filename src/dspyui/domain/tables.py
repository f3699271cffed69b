"""A file's rows before they are parsed, and what reads them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, overload

DataFormat = Literal["csv", "tsv", "json", "jsonl", "parquet"]


class PackedRows(Sequence[dict[str, Any]]):
    """Rows kept as lines of UTF-8, each made into a dictionary when it is looked at.

    A file of two million short rows takes 0.3 GB so, against 1 GB as dictionaries.
    """

    def __init__(self, lines: Sequence[bytes], unpack: Callable[[bytes], dict[str, Any]]) -> None:
        self._lines = lines
        self._unpack = unpack

    def __len__(self) -> int:
        return len(self._lines)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return map(self._unpack, self._lines)

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> "PackedRows": ...
    def __getitem__(self, index: int | slice) -> "dict[str, Any] | PackedRows":
        if isinstance(index, slice):
            return PackedRows(self._lines[index], self._unpack)
        return self._unpack(self._lines[index])

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(
            mine == theirs for mine, theirs in zip(self, other, strict=True)
        )

    __hash__ = None  # type: ignore[assignment]

    @property
    def size(self) -> int:
        """The room the lines take, in bytes."""
        return sum(map(len, self._lines))


@dataclass(frozen=True)
class RawTable:
    """What a file held: column names in order, and rows of unparsed values.

    `encoding` as a person calls it; `digest` is the SHA-256 (hex) of the file's bytes. Both are empty for rows that
    come from no file, `encoding` also for a format that has none.
    """

    columns: tuple[str, ...]
    rows: Sequence[dict[str, Any]]
    format: DataFormat | None = None
    encoding: str = ""
    digest: str = ""


class TableReader(Protocol):
    """Reads data files."""

    def read(self, name: str, content: bytes) -> RawTable:
        """Parse a file by its name's ending. Raises BadRequestError with line and remedy."""
        ...

    def read_path(self, path: str, *, kind: DataFormat | None = None, name: str = "") -> RawTable:
        """The same for a file on this machine, which may be larger; read once as long as it does not change.

        `kind` and `name` go before what the path says. Raises NotFoundError when there is no such file.
        """
        ...
