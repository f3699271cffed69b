"""Tables in JSON: an object a line (JSONL), or one document that holds a table in one of the usual shapes."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from dspyui.adapters.files.encodings import Encoding
from dspyui.adapters.files.source import DataFile, Lines, check_columns
from dspyui.domain.tables import DataFormat, PackedRows, RawTable
from dspyui.errors import BadRequestError

_encode = json.JSONEncoder(ensure_ascii=True, separators=(",", ":")).encode


class _TwiceError(ValueError):
    """An object names a key twice; JSON parsers keep the last without a word."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        seen: set[str] = set()
        for name, _value in pairs:
            if name in seen:
                raise _TwiceError(name)
            seen.add(name)
    return made


_DECODER = json.JSONDecoder(object_pairs_hook=_object)


def read_jsonl(file: DataFile, encoding: Encoding) -> RawTable:
    """An object on each line that is not blank; a list of objects is read as JSON, whatever its name says."""
    if _begins_with(file, encoding) == "[":
        return read_json(file, encoding)
    rows = _Objects(file, "jsonl", encoding)
    # Lines end at "\n" alone: U+2028 may stand inside a string.
    with file.text(encoding.codec, newline="\n") as lines:
        for number, line in enumerate(lines, start=1):
            if stripped := line.strip():
                rows.add(number, stripped, _parsed(file.name, number, stripped))
    table = rows.table()
    if not table.rows:
        raise BadRequestError("file.empty", name=file.name)
    return table


def read_json(file: DataFile, encoding: Encoding) -> RawTable:
    """An array of objects, an object of columns, pandas' `split` shape, or an object around one of an array."""
    if file.size > file.whole_bytes:
        raise BadRequestError("file.large_json", **file.told(file.whole_bytes))
    with file.text(encoding.codec, newline="\n") as opened:
        text = opened.read()
    body = text.lstrip()
    if not body:
        raise BadRequestError("file.empty", name=file.name)
    if body.startswith("["):
        rows = _Objects(file, "json", encoding)
        for number, element, value in _elements(file.name, text):
            rows.add(number, element, value)
        return rows.table()
    try:
        value = _DECODER.decode(body)
    except json.JSONDecodeError as exc:
        if exc.msg == "Extra data" and "\n" in body[: exc.pos]:
            # An object a line: many a JSONL file is called .json.
            return read_jsonl(file, encoding)
        value = _parsed(file.name, 1, text)
    except (ValueError, RecursionError) as exc:
        raise _said(file.name, 1, exc) from exc
    return _shaped(file, encoding, value)


def _begins_with(file: DataFile, encoding: Encoding) -> str:
    with file.text(encoding.codec, newline="\n") as opened:
        return next((line.strip()[0] for line in opened if line.strip()), "")


class _Objects:
    """Collects objects as their own text, and their columns."""

    def __init__(self, file: DataFile, kind: DataFormat, encoding: Encoding) -> None:
        self._file = file
        self._kind: DataFormat = kind
        self._encoding = encoding
        self._columns: dict[str, None] = {}
        self._lines = Lines(file)

    def add(self, number: int, text: str, value: Any) -> None:
        """Add one; `number` is the line it begins on. Raises BadRequestError when it is no object."""
        if not isinstance(value, dict):
            raise BadRequestError("file.json_object", name=self._file.name, line=number)
        if not self._columns.keys() >= value.keys():
            self._columns.update(dict.fromkeys(value))
            check_columns(self._file.name, list(self._columns), line=number)
        self._lines.add(text.encode())

    def table(self) -> RawTable:
        """All of them."""
        return RawTable(
            columns=tuple(self._columns),
            rows=PackedRows(self._lines.kept, json.loads),
            format=self._kind,
            encoding=self._encoding.label,
        )


def _parsed(name: str, line: int, text: str) -> Any:
    try:
        return _DECODER.decode(text)
    except (ValueError, RecursionError) as exc:
        raise _said(name, line, exc) from exc


def _said(name: str, line: int, exc: Exception) -> BadRequestError:
    if isinstance(exc, _TwiceError):
        return BadRequestError("file.column_twice", name=name, line=line, columns=str(exc))
    if isinstance(exc, json.JSONDecodeError):
        return BadRequestError("file.json", name=name, line=line + exc.lineno - 1, problem=exc.msg)
    return BadRequestError("file.json", name=name, line=line, problem=str(exc))


def _elements(name: str, text: str) -> Iterator[tuple[int, str, Any]]:
    """The elements of the array, one at a time, each with the line it begins on and its own text."""
    at, line, counted = text.index("[") + 1, 1, 0
    at = _after_blanks(text, at)
    while not text.startswith("]", at):
        line, counted = line + text.count("\n", counted, at), at
        try:
            value, end = _DECODER.raw_decode(text, at)
        except json.JSONDecodeError as exc:
            raise BadRequestError("file.json", name=name, line=exc.lineno, problem=exc.msg) from exc
        except (ValueError, RecursionError) as exc:
            raise _said(name, line, exc) from exc
        yield line, text[at:end], value
        at = _after_blanks(text, end)
        if text.startswith(",", at):
            at = _after_blanks(text, at + 1)
        elif not text.startswith("]", at):
            # Let the parser itself say what it misses.
            raise BadRequestError(
                "file.json", name=name, line=text.count("\n", 0, at) + 1, problem="Expecting ',' or ']'"
            )
    if text[at + 1 :].strip():
        raise BadRequestError(
            "file.json", name=name, line=text.count("\n", 0, at) + 1, problem="Extra data after ']'"
        )


def _after_blanks(text: str, at: int) -> int:
    while text[at : at + 1] in {" ", "\n", "\r", "\t"}:
        at += 1
    return at


def _shaped(file: DataFile, encoding: Encoding, value: Any) -> RawTable:
    found = _columnar(value) if isinstance(value, dict) else None
    if found is None:
        raise BadRequestError("file.json_shape", name=file.name)
    columns, rows = found
    if isinstance(rows, dict):
        rows = list(rows.values())
    names = check_columns(file.name, columns)
    lines = Lines(file)
    for cells in rows:
        lines.add(_encode(cells).encode())
    return RawTable(
        columns=names,
        rows=PackedRows(lines.kept, lambda line: _named(names, json.loads(line))),
        format="json",
        encoding=encoding.label,
    )


def _named(names: Sequence[str], cells: Any) -> dict[str, Any]:
    return cells if isinstance(cells, dict) else dict(zip(names, cells, strict=True))


def _columnar(value: dict[str, Any]) -> tuple[Sequence[Any], Sequence[Any]] | None:
    """Columns and rows of cells (or of objects); None when the object has none of the shapes."""
    return _split_shape(value) or _wrapped(value) or _lists(value) or _indexed(value)


def _split_shape(value: dict[str, Any]) -> tuple[Sequence[Any], Sequence[Any]] | None:
    # The shape that pandas calls `split`.
    columns, rows = value.get("columns"), value.get("data")
    if not value.keys() <= {"columns", "data", "index", "name"} or not isinstance(columns, list):
        return None
    fits = isinstance(rows, list) and all(isinstance(row, list) and len(row) == len(columns) for row in rows)
    return (columns, rows or []) if fits else None


def _wrapped(value: dict[str, Any]) -> tuple[Sequence[Any], Sequence[Any]] | None:
    # {"data": [{…}, …], "version": 1}: whatever it is called, one list of objects and no second one.
    lists = [part for part in value.values() if isinstance(part, list) and part and _all(part, dict)]
    if len(lists) != 1:
        return None
    return list(dict.fromkeys(name for row in lists[0] for name in row)), lists[0]


def _lists(value: dict[str, Any]) -> tuple[Sequence[Any], Sequence[Any]] | None:
    # {"question": […], "answer": […]}
    columns = list(value.values())
    if not columns or not _all(columns, list) or len(set(map(len, columns))) != 1:
        return None
    return list(value), list(zip(*columns, strict=True))


def _indexed(value: dict[str, Any]) -> tuple[Sequence[Any], Sequence[Any]] | None:
    # pandas' default: {"question": {"0": …, "1": …}, "answer": {"0": …, "1": …}}
    columns = list(value.values())
    if not columns or not _all(columns, dict) or not columns[0]:
        return None
    index = columns[0].keys()
    if any(column.keys() != index for column in columns) or not all(key.isdigit() for key in index):
        return None
    return list(value), [[column[key] for column in columns] for key in index]


def _all(values: Sequence[Any], kind: type) -> bool:
    return all(isinstance(value, kind) for value in values)
