"""Reading data files: CSV, TSV, JSON, JSONL and Parquet."""

import hashlib
import io
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import Final

from dspyui.adapters.files.encodings import Encoding, find_encoding
from dspyui.adapters.files.json_tables import read_json, read_jsonl
from dspyui.adapters.files.parquet import read_parquet
from dspyui.adapters.files.separated import read_csv, read_tsv
from dspyui.adapters.files.source import MEGABYTE, DataFile
from dspyui.domain.tables import DataFormat, PackedRows, RawTable
from dspyui.errors import BadRequestError, NotFoundError

# A file on this machine may be larger than an upload: it is streamed, and takes about 1.4 times its size here.
PATH_BYTES: Final = 512 * MEGABYTE
# Tables are kept as long as they are together no larger; the one that was read last always is.
CACHE_BYTES: Final = 256 * MEGABYTE
CACHE_TABLES: Final = 8

FORMATS: Final[Mapping[str, DataFormat]] = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
}
_WORKBOOKS = frozenset({".xlsx", ".xls", ".xlsm", ".ods", ".zip"})
_PACKED = frozenset({".gz", ".bz2", ".xz", ".7z", ".rar", ".tar", ".zst"})
# What a file begins with that is none of ours, whatever its name says.
_MAGIC: Final[tuple[tuple[bytes, str], ...]] = (
    (b"PK\x03\x04", "file.archive"),
    (b"\xd0\xcf\x11\xe0", "file.archive"),
    (b"\x1f\x8b", "file.packed"),
    (b"BZh", "file.packed"),
    (b"\xfd7zXZ\x00", "file.packed"),
    (b"7z\xbc\xaf\x27\x1c", "file.packed"),
    (b"\x28\xb5\x2f\xfd", "file.packed"),
    (b"Rar!\x1a\x07", "file.packed"),
    (b"PAR1", "file.is_parquet"),
)
# Text that is no table, by how it begins; in small letters.
_BEGINNINGS: Final[tuple[tuple[str, str], ...]] = (
    ("<!doctype", "file.web_page"),
    ("<html", "file.web_page"),
    ("<?xml", "file.web_page"),
    ("version https://git-lfs", "file.lfs_pointer"),
)
_JSON_IN_CSV: Final = re.compile(r'\{\s*"[^"]*"\s*:|\[\s*\{')
_BEGINNING: Final = 1024
# A file that is written to while it is read is read again, this often.
_ATTEMPTS: Final = 3
_Stamp = tuple[int, int, int, int]


class FileTableReader:
    """Reads CSV and TSV (a header, then rows of text), JSON, JSONL (an object a line) and Parquet.

    Text is UTF-8, with or without a mark at its start, UTF-16 with one, or GB18030. Files over `max_bytes` are
    refused, files by path over `path_bytes`, if that is more. Tables read by path are kept: the same file is not
    read twice.
    """

    def __init__(self, max_bytes: int, path_bytes: int = PATH_BYTES) -> None:
        self._max_bytes = max_bytes
        self._path_bytes = max(max_bytes, path_bytes)
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[str, DataFormat], tuple[_Stamp, RawTable, int]] = OrderedDict()

    def read(self, name: str, content: bytes) -> RawTable:
        """Parse a file by its name's ending. Raises BadRequestError that names the line and the remedy."""
        file = DataFile(name, len(content), partial(io.BytesIO, content), self._max_bytes, self._max_bytes)
        kind = _format_of(name)
        if file.size > self._max_bytes:
            raise BadRequestError("file.large", **file.told(self._max_bytes))
        return _read(file, kind)

    def read_path(self, path: str, *, kind: DataFormat | None = None, name: str = "") -> RawTable:
        """The same for a file on this machine; it is read again only when it has changed.

        Raises NotFoundError when there is none, BadRequestError for a folder or a file that may not be read.
        """
        for _attempt in range(_ATTEMPTS):
            table = self._read_path(path, kind, name)
            if table is not None:
                return table
        raise BadRequestError("file.changing", path=path)

    def _read_path(self, path: str, kind: DataFormat | None, name: str) -> RawTable | None:
        """The table; None when the file was written to while it was read."""
        found, stamp = _found(path)
        kind = kind or _format_of(name or found.name)
        file = DataFile(
            name or found.name, stamp[2], partial(found.open, "rb"), self._path_bytes, self._max_bytes
        )
        if file.size > self._path_bytes:
            raise BadRequestError("file.large_path", **file.told(self._path_bytes))
        key = (str(found), kind)
        with self._lock:
            known = self._kept.get(key)
            if known is not None and known[0] == stamp:
                self._kept.move_to_end(key)
                return known[1]
        try:
            table = _read(file, kind)
        except PermissionError as exc:
            raise BadRequestError("file.forbidden", path=path) from exc
        if _found(path)[1] != stamp:
            return None
        self._keep(key, stamp, table)
        return table

    def _keep(self, key: tuple[str, DataFormat], stamp: _Stamp, table: RawTable) -> None:
        size = table.rows.size if isinstance(table.rows, PackedRows) else 0
        with self._lock:
            self._kept[key] = (stamp, table, size)
            self._kept.move_to_end(key)
            while len(self._kept) > 1 and (
                len(self._kept) > CACHE_TABLES or sum(kept[2] for kept in self._kept.values()) > CACHE_BYTES
            ):
                self._kept.popitem(last=False)


def _found(path: str) -> tuple[Path, _Stamp]:
    try:
        file = Path(path).expanduser()
        stat = file.stat()
    except (OSError, ValueError, RuntimeError) as exc:
        if isinstance(exc, PermissionError):
            raise BadRequestError("file.forbidden", path=path) from exc
        raise NotFoundError("file.missing", path=path) from exc
    if S_ISDIR(stat.st_mode):
        raise BadRequestError("file.folder", path=path)
    if not S_ISREG(stat.st_mode):
        raise BadRequestError("file.special", path=path)
    return file, (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns)


def _format_of(name: str) -> DataFormat:
    ending = Path(name).suffix.lower()
    if ending in _WORKBOOKS or ending in _PACKED:
        raise BadRequestError("file.archive" if ending in _WORKBOOKS else "file.packed", name=name)
    if ending not in FORMATS:
        raise BadRequestError("file.ending", name=name)
    return FORMATS[ending]


def _read(file: DataFile, kind: DataFormat) -> RawTable:
    with file.open() as opened:
        start = opened.read(8)
    if not start:
        raise BadRequestError("file.empty", name=file.name)
    if kind == "parquet":
        table = read_parquet(file)
    else:
        for magic, code in _MAGIC:
            if start.startswith(magic):
                raise BadRequestError(code, name=file.name)
        encoding = find_encoding(file)
        _check_beginning(file, encoding, kind)
        table = _READERS[kind](file, encoding)
    if not table.rows:
        raise BadRequestError("file.no_rows", name=file.name)
    return replace(table, digest=_digest(file))


def _digest(file: DataFile) -> str:
    sha = hashlib.sha256()
    with file.open() as opened:
        while block := opened.read(MEGABYTE):
            sha.update(block)
    return sha.hexdigest()


def _check_beginning(file: DataFile, encoding: Encoding, kind: DataFormat) -> None:
    """Raises BadRequestError for text that would be read as a table without being one."""
    with file.text(encoding.codec, newline=None) as text:
        start = text.read(_BEGINNING).lstrip().lower()
    for beginning, code in _BEGINNINGS:
        if start.startswith(beginning):
            raise BadRequestError(code, name=file.name)
    if kind in {"csv", "tsv"} and _JSON_IN_CSV.match(start):
        raise BadRequestError("file.is_json", name=file.name)


_READERS: Mapping[DataFormat, Callable[[DataFile, Encoding], RawTable]] = {
    "csv": read_csv,
    "tsv": read_tsv,
    "json": read_json,
    "jsonl": read_jsonl,
}
