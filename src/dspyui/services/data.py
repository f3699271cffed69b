"""Data sets: keep, read, preview, split."""

import codecs
import io
import json
import re
import weakref
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

from dspyui.domain.base import Frozen, Notice
from dspyui.domain.datasets import DataSpec, FileSource
from dspyui.domain.estimates import mean_tokens
from dspyui.domain.intervals import fewest_better
from dspyui.domain.jobs import Job, JobStore
from dspyui.domain.parsing import Dataset, parse_dataset
from dspyui.domain.rows import row_key, short_digest
from dspyui.domain.signatures import FieldSpec, SignatureSpec
from dspyui.domain.splits import SplitName
from dspyui.domain.tables import RawTable, TableReader
from dspyui.domain.uploads import UploadInfo, UploadStore
from dspyui.errors import BadRequestError, DSPyUIError, NotFoundError

# A form asks for the same preview at every change of something else.
_PREVIEWS: Final = 8
HEAD_ROWS: Final = 5
# A digest is known by its beginning, from so many characters on; so many of it are shown.
FEWEST_CHARACTERS: Final = 4
SHORT_DIGEST: Final = 12
# What is shown of a file that cannot be read.
_LINES: Final = 12
_LINES_BEFORE: Final = 5
_LINE_CHARACTERS: Final = 500
_DIGEST: Final = re.compile("[0-9a-f]{64}")


class FileGlance(Frozen):
    """What a person sees of a file whether or not it fits the fields: its size, how it was read, its first rows.

    `digest` is the SHA-256 of the file.
    """

    rows: int
    columns: tuple[str, ...]
    digest: str
    head: tuple[dict[str, object], ...]
    format: str | None = None
    encoding: str = ""


class DataPreview(Frozen):
    """What a person sees before compiling: sizes, digest, notices, the first rows, how the file was read.

    `mean_tokens` says of each field about how long it is. `fingerprint` tells whether a compile would still get these
    rows in these splits, `files` holds the digests of the files that were read. `fewest_better` is how many test rows
    must get better before that shows (see `intervals`).
    """

    rows: int
    digest: str
    duplicates: int
    split_sizes: dict[SplitName, int]
    mean_tokens: dict[str, float]
    head: tuple[dict[str, object], ...]
    fingerprint: str
    files: tuple[str, ...] = ()
    fewest_better: int | None = None
    notices: tuple[Notice, ...] = ()
    format: str | None = None
    encoding: str = ""


@dataclass(frozen=True, slots=True)
class _Made:
    """A preview, and what it was made of. Of the files' tables it only knows that they are still the same."""

    signature: tuple[tuple[FieldSpec, ...], ...]
    data: DataSpec
    files: tuple[weakref.ref[RawTable], ...]
    preview: DataPreview

    def fits(self, signature: SignatureSpec, data: DataSpec, files: Sequence[RawTable]) -> bool:
        """Whether it is what would be made of these."""
        same_files = len(files) == len(self.files) and all(
            known() is file for known, file in zip(self.files, files, strict=True)
        )
        return same_files and self.signature == (signature.inputs, signature.outputs) and self.data == data


class DataService:
    """Keeps data sets, and reads the rows a `DataSpec` names."""

    def __init__(self, reader: TableReader, uploads: UploadStore) -> None:
        self._reader = reader
        self._uploads = uploads
        self._made: deque[_Made] = deque(maxlen=_PREVIEWS)
        self._counted: deque[tuple[weakref.ref[RawTable], int]] = deque(maxlen=_PREVIEWS)
        self._needed: dict[str, tuple[str, ...]] = {}

    def keep_upload(self, name: str, content: bytes) -> tuple[UploadInfo, RawTable]:
        """Check that the file can be read, then keep it. Raises BadRequestError."""
        table = self._reader.read(name, content)
        return self._uploads.keep(name, content, table), table

    def keep_rows(self, name: str, rows: Sequence[Mapping[str, Any]]) -> UploadInfo:
        """Keep rows that were typed as a data set of their own. Raises BadRequestError when there are none."""
        if not rows:
            raise BadRequestError("data.empty")
        if not name.strip():
            raise BadRequestError("upload.name")
        content = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
        table = self._reader.read("rows.jsonl", content)
        return self._uploads.keep(name, content, table)

    def named(self, asked: str) -> UploadInfo:
        """The kept data set that a person means: by its digest, the beginning of that, or its name.

        Raises NotFoundError, and BadRequestError when several fit.
        """
        if _DIGEST.fullmatch(asked):
            return self._uploads.get(asked)
        is_long = len(asked) >= FEWEST_CHARACTERS
        found = [
            info
            for info in self._uploads.search()
            if info.name == asked or (is_long and info.digest.startswith(asked))
        ]
        if not found:
            raise NotFoundError("upload.unknown", digest=asked[:100])
        if len(found) > 1:
            digests = ", ".join(info.digest[:SHORT_DIGEST] for info in found)
            raise BadRequestError("upload.several", asked=asked[:100], digests=digests)
        return found[0]

    def kept_table(self, info: UploadInfo) -> RawTable:
        """What stands in a kept data set. Raises NotFoundError, or BadRequestError when it is not what was kept."""
        table = self._reader.read_path(self._uploads.path(info.digest), kind=info.format, name=info.name)
        if table.digest != info.digest:
            raise BadRequestError("upload.changed", name=info.name)
        return table

    def raw_lines(self, info: UploadInfo, *, near: int) -> tuple[tuple[int, str], ...]:
        """The lines of a kept text file around line `near`, counted from 1, each with its number and cut when it is
        long; nothing of a file that has no lines. Raises NotFoundError.
        """
        if info.format == "parquet":
            return ()
        first = max(1, near - _LINES_BEFORE)
        with Path(self._uploads.path(info.digest)).open("rb") as file:
            if file.peek(2)[:2] in {codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE}:
                lines: Iterator[str] = io.TextIOWrapper(file, "utf-16", errors="replace", newline="\n")
            else:
                lines = map(_decoded, file)
            shown = enumerate(islice(lines, first - 1, first - 1 + _LINES), start=first)
            return tuple((number, line.rstrip("\r\n")[:_LINE_CHARACTERS]) for number, line in shown)

    def table(self, data: DataSpec | FileSource) -> RawTable:
        """The (main) rows before they are parsed. Raises BadRequestError or NotFoundError."""
        if isinstance(data, DataSpec) and data.rows is not None:
            columns = tuple(dict.fromkeys(name for row in data.rows for name in row))
            return RawTable(columns=columns, rows=data.rows)
        if data.upload is not None:
            return self.kept_table(self._uploads.get(data.upload))
        return self._reader.read_path(data.path or "")

    def other_tables(self, data: DataSpec) -> dict[SplitName, tuple[str, RawTable]]:
        """The splits with a file of their own, each with the name it goes by. Raises what `table` raises."""
        return {
            name: (self._source_name(source), self.table(source)) for name, source in data.own_files.items()
        }

    def _source_name(self, source: FileSource) -> str:
        return Path(source.path).name if source.path else self._uploads.get(source.upload or "").name

    def load(self, signature: SignatureSpec, data: DataSpec) -> Dataset:
        """Rows parsed, and the split of each. Raises BadRequestError."""
        return parse_dataset(signature, data, self.table(data), self.other_tables(data))

    def duplicates(self, table: RawTable) -> int:
        """How many rows stand before them already, as the file has them; counted once for the same table."""
        known = next((count for of, count in tuple(self._counted) if of() is table), None)
        if known is None:
            # Half an emoji is valid in a JSON file, and told when the row is parsed.
            keys = (row_key(row).encode(errors="surrogatepass") for row in table.rows)
            known = len(table.rows) - len(set(map(short_digest, keys)))
            self._counted.append((weakref.ref(table), known))
        return known

    def preview(self, signature: SignatureSpec, data: DataSpec) -> DataPreview:
        """What `load` would give, in short. Raises what it raises.

        Made once for the same fields, data and files.
        """
        main, others = self.table(data), self.other_tables(data)
        files = [table for _name, table in others.values()]
        if data.rows is None:
            files.insert(0, main)
        known = next((made for made in tuple(self._made) if made.fits(signature, data, files)), None)
        if known is not None:
            return known.preview
        preview = _preview(parse_dataset(signature, data, main, others), main, files)
        fields = (signature.inputs, signature.outputs)
        self._made.append(_Made(fields, data, tuple(map(weakref.ref, files)), preview))
        return preview

    def uses(self, jobs: JobStore, of_batch: Callable[[str], str | None]) -> Mapping[str, int]:
        """How many jobs were started on each kept data set, by its digest; `of_batch` tells which one a batch reads."""
        counts: Counter[str] = Counter()
        for job in jobs.search():
            if job.id not in self._needed:
                try:
                    self._needed[job.id] = _digests(jobs, job, of_batch)
                except DSPyUIError:
                    # Deleted meanwhile, or damaged: it uses nothing that could be told.
                    self._needed[job.id] = ()
            counts.update(self._needed[job.id])
        return counts


def _digests(jobs: JobStore, job: Job, of_batch: Callable[[str], str | None]) -> tuple[str, ...]:
    if job.kind == "batch":
        upload = of_batch(job.id)
        return () if upload is None else (upload,)
    return tuple(set(jobs.spec(job.id).data.digests()))


def _decoded(line: bytes) -> str:
    """As far as one line alone tells; what is no text shows as such."""
    try:
        return line.decode("utf-8-sig")
    except UnicodeDecodeError:
        return line.decode("gb18030", "replace")


def glance(table: RawTable) -> FileGlance:
    """What can be said of a file before its rows are parsed."""
    return FileGlance(
        rows=len(table.rows),
        columns=table.columns,
        digest=table.digest,
        head=tuple(table.rows[:HEAD_ROWS]),
        format=table.format,
        encoding=table.encoding,
    )


def _preview(dataset: Dataset, main: RawTable, files: Sequence[RawTable]) -> DataPreview:
    return DataPreview(
        rows=len(dataset.rows),
        digest=dataset.digest,
        duplicates=dataset.duplicates,
        split_sizes=dataset.sizes(),
        mean_tokens=mean_tokens(dataset.rows),
        head=tuple(dataset.rows[:HEAD_ROWS]),
        fingerprint=dataset.fingerprint(),
        files=tuple(file.digest for file in files),
        fewest_better=fewest_better(dataset.sizes()["test"]),
        notices=dataset.notices(),
        format=main.format,
        encoding=main.encoding,
    )
