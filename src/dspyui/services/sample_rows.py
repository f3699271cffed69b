"""Rows to try a program on: those of kept data sets, and those that a Run or a job was scored on."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, overload

from dspyui.domain.base import Frozen
from dspyui.domain.batches import BatchModel
from dspyui.domain.columns import propose_columns
from dspyui.domain.datasets import FileSource
from dspyui.domain.jobs import JobStore
from dspyui.domain.runs import RunStore
from dspyui.domain.signatures import Row, SignatureSpec
from dspyui.domain.splits import SPLITS
from dspyui.domain.uploads import UploadStore
from dspyui.errors import BadRequestError, NotFoundError
from dspyui.services.data import DataService

RowsOf = Literal["data", "run", "job"]


class RowSource(Frozen):
    """A table of rows: `key` is what it is asked for by, `name` a data set's name, or a Run's or job's id."""

    key: str
    of: RowsOf
    name: str


class NamedRows(Sequence[Row]):
    """Rows of a table under the names of a signature's fields; columns that are no field's are left out."""

    def __init__(self, rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> None:
        """`columns` is the column of each field that has one."""
        self._rows = rows
        self._columns = columns

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> "NamedRows": ...
    def __getitem__(self, index: int | slice) -> "Row | NamedRows":
        if isinstance(index, slice):
            return NamedRows(self._rows[index], self._columns)
        row = self._rows[index]
        return {field: row[column] for field, column in self._columns.items() if column in row}


class SampleRows:
    """Finds them."""

    def __init__(self, data: DataService, uploads: UploadStore, runs: RunStore, jobs: JobStore) -> None:
        self._data = data
        self._uploads = uploads
        self._runs = runs
        self._jobs = jobs

    def sources(self, models: Sequence[BatchModel]) -> Sequence[RowSource]:
        """The tables there are: what these programs were scored on, as far as they say it, then all kept data sets."""
        found = [source for model in models if (source := _own(model))]
        kept = [
            RowSource(key=f"data:{info.digest}", of="data", name=info.name) for info in self._uploads.search()
        ]
        return list({source.key: source for source in [*found, *kept]}.values())

    def rows(self, key: str, signature: SignatureSpec) -> Sequence[Row]:
        """The rows of a table, not parsed; those of a Run or a job are its test rows.

        Raises NotFoundError, UnavailableError, and BadRequestError when an input has no column.
        """
        kind, _, name = key.partition(":")
        if kind == "data":
            table = self._data.table(FileSource(upload=name)) if len(name) == 64 else None
            if table is None:
                raise NotFoundError("upload.unknown", digest=name[:12])
            return NamedRows(table.rows, _columns(signature, table.columns))
        rows = self._of_run(name) if kind == "run" else self._of_job(name)
        return NamedRows(rows, _columns(signature, tuple(rows[0]) if rows else ()))

    def _of_run(self, run_id: str) -> Sequence[Row]:
        splits = self._runs.splits(run_id)
        # A Run that has no test rows has others.
        return next(rows for name in reversed(SPLITS) if (rows := getattr(splits, name)))

    def _of_job(self, job_id: str) -> Sequence[Row]:
        result = self._jobs.find_result(job_id)
        if result is None:
            raise NotFoundError("bench.no_rows", job_id=job_id)
        return [{**row.inputs, **row.expected} for row in result.optimised.rows]


def _own(model: BatchModel) -> RowSource | None:
    if model.run_id is not None:
        return RowSource(key=f"run:{model.run_id}", of="run", name=model.run_id)
    if model.uri.startswith("job:"):
        name = model.uri.removeprefix("job:")
        return RowSource(key=f"job:{name}", of="job", name=name)
    return None


def _columns(signature: SignatureSpec, columns: Sequence[str]) -> dict[str, str]:
    """The column of each field: of its own name, else one that probably means it. Every input needs one."""
    own = {field.name: field.name for field in signature.fields if field.name in columns}
    missing = [field.name for field in signature.fields if field.name not in own]
    free = [column for column in columns if column not in own]
    found = own | dict(propose_columns(missing, free))
    if lacking := [field.name for field in signature.inputs if field.name not in found]:
        raise BadRequestError(
            "bench.columns", missing=", ".join(lacking), found=", ".join(columns)[:400] or "—"
        )
    return found
