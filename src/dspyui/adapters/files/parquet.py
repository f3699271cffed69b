"""Tables in Parquet, read in batches."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, time
from typing import Any, Final

from dspyui.adapters.files.source import DataFile, Lines, check_columns
from dspyui.domain.tables import PackedRows, RawTable
from dspyui.errors import BadRequestError

_BATCH_ROWS: Final = 4096
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def read_parquet(file: DataFile) -> RawTable:
    """Every column of the file. Times become ISO 8601 text, decimals text, bytes text if they are UTF-8.

    Raises BadRequestError when it is cut off or no Parquet, names a column twice, holds bytes that are no text,
    or is larger unpacked than a table may be.
    """
    import pyarrow.parquet as pq

    lines = Lines(file)
    with file.open() as opened, _mapped(file.name), pq.ParquetFile(opened) as parquet:
        columns = check_columns(file.name, parquet.schema_arrow.names)
        for batch in parquet.iter_batches(batch_size=_BATCH_ROWS):
            for row in batch.to_pylist():
                cells = [_plain(file.name, column, row[column]) for column in columns]
                lines.add(_encode(cells).encode())
    rows = PackedRows(lines.kept, lambda line: dict(zip(columns, json.loads(line), strict=True)))
    return RawTable(columns=columns, rows=rows, format="parquet")


@contextmanager
def _mapped(name: str) -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError, ValueError, OverflowError) as exc:
        problem = " ".join(str(exc).split())[:200]
        raise BadRequestError("file.parquet", name=name, problem=problem) from exc


def _plain(name: str, column: str, value: Any) -> Any:
    """The value as JSON can hold it."""
    match value:
        case None | bool() | int() | float() | str():
            return value
        case date() | time():  # a datetime is a date
            return value.isoformat()
        case bytes():
            return _text(name, column, value)
        case list() | tuple():
            return [_plain(name, column, item) for item in value]
        case dict():
            return {str(key): _plain(name, column, item) for key, item in value.items()}
        case _:  # decimals, durations, UUIDs
            return str(value)


def _text(name: str, column: str, value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError as exc:
        raise BadRequestError("file.parquet_bytes", name=name, column=column) from exc
