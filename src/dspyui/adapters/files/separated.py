"""Tables whose cells stand between separators: CSV and TSV."""

import csv
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from dspyui.adapters.files.encodings import Encoding
from dspyui.adapters.files.source import MEGABYTE, DataFile, Lines, check_columns
from dspyui.domain.tables import DataFormat, PackedRows, RawTable
from dspyui.errors import BadRequestError

# A cell is never larger; a quotation mark that is not closed would make one of all the rest.
CELL_BYTES: Final = 16 * MEGABYTE
_MARKS: Final = (",", ";", "\t", "|")
# What spreadsheets write above the header to say which separator they took.
_HINT: Final = re.compile(r"\"?sep=(.)\"?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class _Dialect:
    """The separator; and whether the first line only says which one it is."""

    mark: str
    is_told: bool = False


def read_csv(file: DataFile, encoding: Encoding) -> RawTable:
    """A line of column names, then rows; the separator is a comma, unless the header shows another one."""
    return _separated(file, encoding, "csv", _dialect(file, encoding))


def read_tsv(file: DataFile, encoding: Encoding) -> RawTable:
    """The same with tabs."""
    return _separated(file, encoding, "tsv", _Dialect("\t"))


def _separated(file: DataFile, encoding: Encoding, kind: DataFormat, dialect: _Dialect) -> RawTable:
    # The default limit of 131,072 characters a cell is less than a long document.
    csv.field_size_limit(min(CELL_BYTES, sys.maxsize))
    lines = Lines(file)
    with file.text(encoding.codec, newline="") as text:
        records = _records(file.name, csv.reader(text, delimiter=dialect.mark, strict=True))
        if dialect.is_told:
            next(records)
        number, header = next(records, (1, []))
        if not header:
            raise BadRequestError("file.empty", name=file.name)
        # Spreadsheets leave empty columns beside a table, and rows of nothing but separators below it.
        _trim(header, 0)
        columns = check_columns(file.name, [cell.strip() for cell in header], line=number)
        for line, cells in records:
            if len(cells) != len(columns):
                _trim(cells, len(columns))
            if len(cells) != len(columns):
                raise BadRequestError(
                    "file.ragged",
                    name=file.name,
                    line=line,
                    row=len(lines.kept) + 1,
                    found=len(cells),
                    expected=len(columns),
                )
            # No cell holds the separator: text with that character is refused as no text.
            lines.add("\0".join(cells).encode())
    rows = PackedRows(lines.kept, lambda line: dict(zip(columns, line.decode().split("\0"), strict=True)))
    return RawTable(columns=columns, rows=rows, format=kind, encoding=encoding.label)


def _records(name: str, reader: Any) -> Iterator[tuple[int, list[str]]]:
    """Records with any text, each with the number of the line it starts on."""
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as exc:
            raise BadRequestError("file.csv", name=name, line=line, problem=str(exc)) from exc
        if any(cell.strip() for cell in cells):
            yield line, cells


def _trim(cells: list[str], wanted: int) -> None:
    """Cut empty cells off the end, down to as many as are wanted."""
    while len(cells) > wanted and not cells[-1].strip():
        cells.pop()


def _dialect(file: DataFile, encoding: Encoding) -> _Dialect:
    """The separator that stands most often in the header, outside of quotation marks; a comma, if none does."""
    with file.text(encoding.codec, newline=None) as text:
        header = next((line for line in text if line.strip()), "").strip("\r\n")
    if told := _HINT.fullmatch(header.strip(" ")):
        return _Dialect(told[1], is_told=True)
    bare = re.sub(r'"[^"]*"', "", header)
    return _Dialect(max(_MARKS, key=bare.count) if any(mark in bare for mark in _MARKS) else ",")
