"""Where the results of a batch go: JSONL, CSV or Parquet, in one step and from one batch at a time."""

import csv
import fcntl
import io
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from dspyui.adapters.files.atomic import said_when_full, sync_folder
from dspyui.domain.batches import OWN_COLUMNS, OutputFormat
from dspyui.errors import BadRequestError, ConflictError

if TYPE_CHECKING:
    import pyarrow as pa

_log = logging.getLogger(__name__)

_GROUP_ROWS: Final = 5_000
_INT64: Final = 2**63


@contextmanager
def output_target(path: Path, kind: OutputFormat) -> Iterator["FileOutputTarget"]:
    """A locked file beside `path`; it is gone afterwards unless it has taken its place.

    Raises ConflictError while another batch, of whatever process, writes there; BadRequestError when the folder is
    not there or may not be written to.
    """
    draft = _draft_of(path)
    file = _locked(draft, path)
    try:
        yield FileOutputTarget(path, draft, file, kind)
    finally:
        # Once it has taken its place, the name may be another batch's already.
        if _is_same(file, draft):
            draft.unlink()
        os.close(file)


def clear_target(path: Path) -> None:
    """Remove the file that a batch which was killed has left beside `path`; one that somebody writes to stays."""
    draft = _draft_of(path)
    try:
        file = os.open(draft, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return  # the usual case: there is none, or the folder is not there any more
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _is_same(file, draft):
            draft.unlink()
    except OSError as exc:
        _log.info("%s stays: %s", draft, exc)
    finally:
        os.close(file)


def _draft_of(path: Path) -> Path:
    return path.with_name(f".{path.name}.part")


def _locked(draft: Path, path: Path) -> int:
    while True:
        try:
            file = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except FileNotFoundError as exc:
            raise BadRequestError("batch.output_folder", path=str(path)) from exc
        except (PermissionError, IsADirectoryError, NotADirectoryError) as exc:
            raise BadRequestError("batch.output_forbidden", path=str(path)) from exc
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            os.close(file)
            raise ConflictError("batch.output_busy", path=str(path)) from exc
        if _is_same(file, draft):
            return file
        # Its holder has just moved or removed it; the name is free again.
        os.close(file)


def _is_same(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False


class FileOutputTarget:
    """Implements `domain.batches.OutputTarget`."""

    def __init__(self, path: Path, draft: Path, file: int, kind: OutputFormat) -> None:
        self._path = path
        self._draft = draft
        self._file = file
        self._kind: OutputFormat = kind

    def publish(self, results: Path) -> None:
        """Write the results out and put the file in its place, on the disk for certain."""
        with said_when_full(self._draft):
            os.ftruncate(self._file, 0)
            with os.fdopen(os.dup(self._file), "wb") as out:
                out.seek(0)
                _WRITERS[self._kind](results, out)
                out.flush()
                os.fsync(out.fileno())
            self._draft.replace(self._path)
        sync_folder(self._path.parent)


def write_results(results: Path, kind: OutputFormat, out: io.BufferedWriter) -> None:
    """Write results (JSON lines) in a format."""
    _WRITERS[kind](results, out)


def _write_jsonl(results: Path, out: io.BufferedWriter) -> None:
    with results.open("rb") as lines:
        shutil.copyfileobj(lines, out, 1024 * 1024)


def _rows(results: Path) -> Iterator[dict[str, Any]]:
    with results.open("rb") as lines:
        yield from map(json.loads, lines)


def _columns(results: Path) -> dict[str, set[str]]:
    """Every column with the kinds of values in it, ours last."""
    found: dict[str, set[str]] = {}
    for row in _rows(results):
        for name, value in row.items():
            found.setdefault(name, set()).add(_kind_of(value))
    own = {name: found.pop(name) for name in OWN_COLUMNS if name in found}
    return found | own


_KINDS: Mapping[type, str] = {type(None): "null", bool: "bool", int: "int", float: "float", str: "str"}


def _kind_of(value: Any) -> str:
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return "list"
    if type(value) is int and not -_INT64 <= value < _INT64:
        return "text"
    return _KINDS.get(type(value), "text")


def _write_csv(results: Path, out: io.BufferedWriter) -> None:
    columns = list(_columns(results))
    text = io.TextIOWrapper(out, encoding="utf-8", newline="")
    writer = csv.writer(text)
    writer.writerow(columns)
    for row in _rows(results):
        writer.writerow([_cell(row.get(name)) for name in columns])
    # Its buffer is written, and the file stays open for whoever gave it.
    text.detach()


def _cell(value: Any) -> str:
    match value:
        case None:
            return ""
        case str():
            return value
        case _:
            return json.dumps(value, ensure_ascii=False)


def _write_parquet(results: Path, out: io.BufferedWriter) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = {name: _type_of(name, kinds) for name, kinds in _columns(results).items()}
    schema = pa.schema([pa.field(name, kind) for name, kind in types.items()])
    with pq.ParquetWriter(out, schema) as writer:
        for group in _groups(_rows(results)):
            arrays = [_array(name, kind, group) for name, kind in types.items()]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))


def _groups(rows: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    group: list[dict[str, Any]] = []
    for row in rows:
        group.append(row)
        if len(group) == _GROUP_ROWS:
            yield group
            group = []
    if group:
        yield group


def _type_of(name: str, kinds: set[str]) -> "pa.DataType":
    import pyarrow as pa

    fixed = {
        "_latency_ms": pa.float64(),
        "_cost": pa.float64(),
        "_score": pa.float64(),
        "_tokens": pa.int64(),
    }
    if name in fixed:
        return fixed[name]
    match kinds - {"null"}:
        case found if found == {"bool"}:
            return pa.bool_()
        case found if found == {"int"}:
            return pa.int64()
        case found if found and found <= {"int", "float"}:
            return pa.float64()
        case found if found == {"list"}:
            return pa.list_(pa.string())
        case _:
            return pa.string()


def _array(name: str, kind: "pa.DataType", group: list[dict[str, Any]]) -> "pa.Array":
    import pyarrow as pa

    values = [row.get(name) for row in group]
    if pa.types.is_string(kind):
        values = [value if value is None else _cell(value) for value in values]
    return pa.array(values, kind)


_WRITERS: Mapping[OutputFormat, Callable[[Path, io.BufferedWriter], None]] = {
    "jsonl": _write_jsonl,
    "csv": _write_csv,
    "parquet": _write_parquet,
}
