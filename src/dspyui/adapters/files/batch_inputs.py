"""Data files read row by row: of any size, in flat memory, and a broken row does not end the reading."""

import csv
import hashlib
import io
import json
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import islice
from typing import Any, Final, TextIO

from dspyui.adapters.files.encodings import UTF8, Encoding, find_encoding
from dspyui.adapters.files.parquet import _mapped, _plain
from dspyui.adapters.files.source import MEGABYTE, DataFile, check_columns
from dspyui.adapters.files.tables import _MAGIC, _format_of, _found
from dspyui.domain.base import Fault
from dspyui.domain.batches import InputRow, InputStream
from dspyui.domain.tables import DataFormat
from dspyui.errors import BadRequestError

# Columns of JSON are those of its first rows; a row may have others.
_HEAD_ROWS: Final = 100
_BLOCK: Final = MEGABYTE
# A cell or a value is never larger.
_CELL_BYTES: Final = 16 * MEGABYTE
_PARQUET_ROWS: Final = 512
_BLANK: Final = " \t\r\n"
# A parser that stopped so near the end of what was read may only miss the rest.
_NEAR_END: Final = 16
# How much of a row that cannot be read is told, in characters.
_RAW: Final = 200
# A value and what it is, or the fault of a row that cannot be read.
_Read = tuple[dict[str, Any], Fault | None]


class FileInputReader:
    """Opens CSV, TSV, JSON (an array of objects), JSONL and Parquet files."""

    def open(self, path: str, *, name: str = "", kind: DataFormat | None = None) -> InputStream:
        """Raises NotFoundError, and BadRequestError for what is no data file, is empty, or may not be read."""
        found, stamp = _found(path)
        shown = name or found.name
        kind = kind or _format_of(shown)
        file = DataFile(shown, stamp[2], partial(found.open, "rb"), _CELL_BYTES, _CELL_BYTES)
        try:
            _check_start(file, kind)
            encoding = None if kind == "parquet" else _encoding(file)
        except PermissionError as exc:
            raise BadRequestError("file.forbidden", path=path) from exc
        return FileInput(file, kind, encoding)


def _check_start(file: DataFile, kind: DataFormat) -> None:
    with file.open() as opened:
        start = opened.read(8)
    if not start:
        raise BadRequestError("file.empty", name=file.name)
    for magic, code in _MAGIC if kind != "parquet" else ():
        if start.startswith(magic):
            raise BadRequestError(code, name=file.name)


def _encoding(file: DataFile) -> Encoding:
    try:
        return find_encoding(file)
    except BadRequestError as exc:
        if exc.code != "file.utf8":
            raise
        # Text in UTF-8 with broken places: only the rows that hold them are lost.
        return UTF8


class FileInput:
    """One file; each iteration reads it from its beginning."""

    def __init__(self, file: DataFile, kind: DataFormat, encoding: Encoding | None) -> None:
        self._file = file
        self._kind: DataFormat = kind
        self._codec = encoding

    @property
    def format(self) -> DataFormat:
        """What its name, or whoever opened it, says it is."""
        return self._kind

    @property
    def encoding(self) -> str:
        """As a person calls it; empty for Parquet."""
        return self._codec.label if self._codec else ""

    def columns(self) -> tuple[str, ...]:
        """Those of its first hundred rows. Raises BadRequestError when it has no row."""
        found = list(islice(self, _HEAD_ROWS))
        if not found:
            raise BadRequestError("file.no_rows", name=self._file.name)
        names = dict.fromkeys(name for row in found for name in row.values)
        if not names and (fault := found[0].fault):
            raise BadRequestError(fault.code, **fault.values)
        return tuple(names)

    def count(self) -> int:
        """Reads the whole file, but for Parquet."""
        if self._kind == "parquet":
            import pyarrow.parquet as pq

            with self._file.open() as opened, _mapped(self._file.name):
                return int(pq.read_metadata(opened).num_rows)
        return sum(1 for _row in self)

    def digest(self) -> str:
        """SHA-256 (hex) of its bytes."""
        sha = hashlib.sha256()
        with self._file.open() as opened:
            while block := opened.read(_BLOCK):
                sha.update(block)
        return sha.hexdigest()

    def __iter__(self) -> Iterator[InputRow]:
        for index, (values, problem) in enumerate(self._rows()):
            broken = problem is None and _has_broken_text(values)
            fault = _broken_text(index, values) if broken else problem
            yield InputRow(index, {} if fault else values, fault)

    def _rows(self) -> Iterator[_Read]:
        if self._codec is None:
            yield from _parquet_rows(self._file)
            return
        # Broken bytes come through as lone surrogates, which no text in order has.
        with io.TextIOWrapper(
            self._file.open(),
            encoding=self._codec.codec,
            errors="surrogateescape",
            newline=_NEWLINES[self._kind],
        ) as text:
            yield from _READERS[self._kind](self._file.name, text)


# Not those of universal newlines: U+2028 and "\r" may stand inside a value.
_NEWLINES: Mapping[DataFormat, str] = {"csv": "", "tsv": "", "json": "\n", "jsonl": "\n"}


def _broken_text(index: int, values: Mapping[str, Any]) -> Fault:
    raw = _raw(", ".join(map(str, values.values())))
    return Fault(code="batch.row_text", values={"row": index + 1, "raw": raw})


def _raw(text: str) -> str:
    """The beginning of what cannot be read, for a person to know it by."""
    shown = " ".join(text[: 2 * _RAW].split())
    shown = shown if len(shown) <= _RAW else f"{shown[:_RAW]}…"
    return shown.encode("utf-8", "replace").decode()


def _has_broken_text(value: Any) -> bool:
    match value:
        case str():
            return not value.isascii() and not _is_encodable(value)
        case list():
            return any(map(_has_broken_text, value))
        case dict():
            return any(_has_broken_text(key) or _has_broken_text(item) for key, item in value.items())
        case _:
            return False


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


# CSV and TSV.


def _read_csv(name: str, text: TextIO) -> Iterator[_Read]:
    header = next((line for line in text if line.strip()), "")
    text.seek(0)
    yield from _separated(name, text, next((mark for mark in (",", ";", "\t") if mark in header), ","))


def _read_tsv(name: str, text: TextIO) -> Iterator[_Read]:
    yield from _separated(name, text, "\t")


def _separated(name: str, text: TextIO, delimiter: str) -> Iterator[_Read]:
    csv.field_size_limit(min(_CELL_BYTES, sys.maxsize))
    records = _records(name, text, delimiter)
    line, header = next(
        ((n, cells) for n, cells in records if isinstance(cells, Fault) or any(cells)), (1, [])
    )
    if isinstance(header, Fault):
        raise BadRequestError(header.code, **header.values)
    if not header:
        raise BadRequestError("file.empty", name=name)
    columns = check_columns(name, [cell.strip() for cell in header], line=line)
    for line, cells in records:
        if isinstance(cells, Fault):
            yield {}, cells
        elif len(cells) != len(columns):
            counts = {"found": len(cells), "expected": len(columns)}
            values = {"name": name, "line": line, **counts, "raw": _raw(delimiter.join(cells))}
            yield {}, Fault(code="file.ragged", values=values)
        else:
            yield dict(zip(columns, cells, strict=True)), None


def _records(name: str, text: TextIO, delimiter: str) -> Iterator[tuple[int, list[str] | Fault]]:
    """Records that are not blank, each with the number of the line it starts on.

    A quotation mark that is not closed takes the lines after it in. When that shows, only the line with the mark is
    given up, and those after it are read again.
    """
    lines = _Lines(text)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        start = lines.begin()
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as exc:
            given_up = lines.give_back()
            reader = csv.reader(lines, delimiter=delimiter, strict=True)
            problem = {"problem": str(exc), "raw": _raw(given_up)}
            yield start, Fault(code="file.csv", values={"name": name, "line": start, **problem})
            continue
        if cells:
            yield start, cells


class _Lines:
    """The lines of a text, those of the record that is being read kept so that they can be read again."""

    def __init__(self, text: TextIO) -> None:
        self._text = text
        self._again: deque[str] = deque()
        self._taken: list[str] = []
        self._number = 0

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else next(self._text)
        self._number += 1
        self._taken.append(line)
        return line

    def begin(self) -> int:
        """A record begins; gives the number of its line."""
        self._taken.clear()
        return self._number + 1

    def give_back(self) -> str:
        """All lines of the record but its first are to be read again; gives that one."""
        rest = self._taken[1:]
        self._again.extendleft(reversed(rest))
        self._number -= len(rest)
        return "".join(self._taken[:1])


# Parquet.


def _parquet_rows(file: DataFile) -> Iterator[_Read]:
    import pyarrow.parquet as pq

    # Not read ahead: a row group may be as large as the file.
    with file.open() as opened, _mapped(file.name), pq.ParquetFile(opened, pre_buffer=False) as parquet:
        columns = check_columns(file.name, parquet.schema_arrow.names)
        for batch in parquet.iter_batches(batch_size=_PARQUET_ROWS):
            for row in batch.to_pylist():
                try:
                    values = {column: _plain(file.name, column, row[column]) for column in columns}
                except BadRequestError as exc:
                    yield {}, Fault.of(exc)
                else:
                    yield values, None


# JSON.


def _read_jsonl(name: str, text: TextIO) -> Iterator[_Read]:
    for number, line in enumerate(text, start=1):
        if stripped := line.strip():
            yield _object(name, number, stripped)


def _object(name: str, number: int, text: str) -> _Read:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as exc:
        problem = exc.msg if isinstance(exc, json.JSONDecodeError) else str(exc)
        said = {"name": name, "line": number, "problem": problem, "raw": _raw(text)}
        return {}, Fault(code="file.json", values=said)
    return _checked_object(name, number, value)


def _checked_object(name: str, number: int, value: Any) -> _Read:
    if not isinstance(value, dict):
        raw = _raw(json.dumps(value, ensure_ascii=False))
        return {}, Fault(code="file.json_object", values={"name": name, "line": number, "raw": raw})
    return value, None


def _read_json(name: str, text: TextIO) -> Iterator[_Read]:
    """The elements of an array, as they come. Raises BadRequestError when the document is no array."""
    source = _Buffer(text)
    if source.next_sign() != "[":
        raise BadRequestError("batch.json_array", name=name)
    source.skip(1)
    while (sign := source.next_sign()) not in {"]", ""}:
        if sign == ",":
            source.skip(1)
            continue
        line = source.line
        try:
            value = source.value()
        except json.JSONDecodeError as exc:
            problem = {"name": name, "line": line, "problem": exc.msg, "raw": _raw(source.ahead())}
            yield {}, Fault(code="file.json", values=problem)
            source.skip_broken()
            continue
        yield _checked_object(name, line, value)
    if sign == "":
        problem = {"name": name, "line": source.line, "problem": "Expecting ',' or ']'"}
        yield {}, Fault(code="file.json", values=problem)


class _Buffer:
    """A JSON text of which only a part is in memory."""

    def __init__(self, text: TextIO) -> None:
        self._text = text
        self._held = ""
        self._at = 0
        self._ended = False
        self._decoder = json.JSONDecoder()
        self.line = 1

    def next_sign(self) -> str:
        """The next character that is not blank; empty at the end."""
        while True:
            start = self._at
            while self._at < len(self._held) and self._held[self._at] in _BLANK:
                self._at += 1
            self.line += self._held.count("\n", start, self._at)
            if self._at < len(self._held):
                return self._held[self._at]
            if not self._more():
                return ""

    def skip(self, count: int) -> None:
        self._at += count

    def value(self) -> Any:
        """The value that begins here. Raises JSONDecodeError when it is none, however much more is read."""
        while True:
            try:
                value, end = self._decoder.raw_decode(self._held, self._at)
            except json.JSONDecodeError as exc:
                if self._is_cut(exc) and self._more():
                    continue
                raise
            except RecursionError as exc:
                raise json.JSONDecodeError(str(exc), self._held, self._at) from exc
            if end == len(self._held) and self._more():
                continue  # a number may go on
            self.line += self._held.count("\n", self._at, end)
            self._at = end
            return value

    def ahead(self) -> str:
        """The rest of the line, as far as it is in memory."""
        return self._held[self._at : self._at + 2 * _RAW].partition("\n")[0]

    def skip_broken(self) -> None:
        """Go on at the next line that begins with an object, or at the end."""
        while True:
            at = self._held.find("\n", self._at)
            if at < 0:
                self._at = len(self._held)
                if not self._more():
                    return
                continue
            self.line += 1
            self._at = at + 1
            if self.next_sign() in {"{", "]", ""}:
                return

    def _is_cut(self, exc: json.JSONDecodeError) -> bool:
        near = exc.pos >= len(self._held) - _NEAR_END or exc.msg.startswith("Unterminated string")
        return near and len(self._held) - self._at <= _CELL_BYTES

    def _more(self) -> bool:
        if self._ended:
            return False
        block = self._text.read(_BLOCK)
        self._ended = not block
        # What lies behind is done with.
        self._held, self._at = self._held[self._at :] + block, 0
        return not self._ended


_READERS: Mapping[DataFormat, Callable[[str, TextIO], Iterator[_Read]]] = {
    "csv": _read_csv,
    "tsv": _read_tsv,
    "json": _read_json,
    "jsonl": _read_jsonl,
}
