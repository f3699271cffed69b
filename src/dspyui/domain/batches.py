"""Batches: one program over all rows of a file, read and written as streams, so that a file may have any size."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, Final, Literal, Protocol, Self, get_args

from pydantic import Field, model_validator

from dspyui.domain.base import Fault, Frozen
from dspyui.domain.compiles import Usage
from dspyui.domain.jobs import Job
from dspyui.domain.lms import LMRoles, LMSpec
from dspyui.domain.metrics import MetricSpec
from dspyui.domain.programs import CompiledProgram
from dspyui.domain.rows import row_key
from dspyui.domain.tables import DataFormat
from dspyui.errors import BadRequestError

OutputFormat = Literal["jsonl", "parquet", "csv"]
OUTPUT_FORMATS: Final[tuple[OutputFormat, ...]] = get_args(OutputFormat)
# What a batch adds to each row. Columns of an input that are called so (it is another batch's output) are left out.
OWN_COLUMNS: Final = ("_error", "_latency_ms", "_tokens", "_cost", "_trace_id", "_score")
# How often a call is made again that met a rate limit or a fault of the server, unless the LM asks for more: with
# DSPy's doubling waits that bridges three minutes.
RETRIES: Final = 8
KEY_BYTES: Final = 16


class BatchSpec(Frozen):
    """The whole request.

    `model` is `models:/NAME/VERSION`, `models:/NAME/STAGE`, `runs:/RUN_ID`, `job:JOB_ID`, a program file's path, or
    `program:SHA256` for a program that was uploaded.
    The input is a path or a kept data set's digest; `columns` maps a field to its column where the names differ.
    `output` is the file to write, its format told by its ending unless `format` says it; without one the results stay
    in the job's folder. `lm` answers instead of the LM the program was compiled for. `concurrency` is the number of LM
    calls at once; the two limits are per minute. `trace_sample` is the share of rows that are traced, None the
    setting's. A `metric` scores rows against the expected outputs in the file. `limit` takes the first rows alone.
    `earlier` is a batch whose finished rows are taken over: only failed and missing ones are asked. `upload_name` is
    what the kept file is called, filled in when the batch is made.
    """

    model: str = Field(min_length=1)
    path: str | None = None
    upload: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    upload_name: str | None = None
    output: str | None = None
    format: OutputFormat | None = None
    columns: dict[str, str] = {}
    lm: LMSpec | None = None
    concurrency: int = Field(default=8, ge=1, le=256)
    requests_per_minute: int | None = Field(default=None, ge=1)
    tokens_per_minute: int | None = Field(default=None, ge=1)
    trace_sample: float | None = Field(default=None, ge=0, le=1)
    metric: MetricSpec | None = None
    limit: int | None = Field(default=None, ge=1)
    overwrite: bool = False
    earlier: str | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.path is None) == (self.upload is None):
            raise BadRequestError("batch.one_input")
        if self.output is not None:
            output_format(self.output, self.format)
        return self

    @property
    def written_format(self) -> OutputFormat:
        """The format of the results."""
        return self.format or "jsonl" if self.output is None else output_format(self.output, self.format)

    def lms(self, program: CompiledProgram) -> LMRoles:
        """Who answers: the program's own models, or the other LM for the task; they wait out a busy provider."""
        roles = program.roles(self.lm)
        patient = roles.task.model_copy(update={"num_retries": max(RETRIES, roles.task.num_retries)})
        return roles.model_copy(update={"task": patient})


def output_format(path: str, given: OutputFormat | None = None) -> OutputFormat:
    """The format that is given, else the one the path ends in. Raises BadRequestError for any other."""
    if given is not None:
        return given
    ending = PurePath(path).suffix.lower().removeprefix(".")
    if ending == "ndjson":
        return "jsonl"
    for known in OUTPUT_FORMATS:
        if ending == known:
            return known
    raise BadRequestError("batch.output_ending", path=path)


def content_key(inputs: Mapping[str, Any]) -> bytes:
    """16 bytes that tell a row's inputs from all others: what was answered once is known again by them."""
    return hashlib.blake2b(row_key(inputs).encode("utf-8", "surrogatepass"), digest_size=KEY_BYTES).digest()


def is_sampled(key: bytes, share: float) -> bool:
    """Whether a row is traced: the same rows again, whenever and wherever the batch is run."""
    return int.from_bytes(key[:8], "big") < share * 2**64


def output_names(inputs: Sequence[str], outputs: Sequence[str]) -> dict[str, str]:
    """The column of each output: its own name, unless the input has a column of that name (the expected output).

    It is then `predicted_` before the name, as often as that takes.
    """
    taken = {*inputs, *OWN_COLUMNS}
    names: dict[str, str] = {}
    for name in outputs:
        column = name
        while column in taken:
            column = f"predicted_{column}"
        names[name] = column
        taken.add(column)
    return names


class BatchModel(Frozen):
    """The program of a batch and where it came from: the model version, when it is one, and the program's digest."""

    program: CompiledProgram
    uri: str
    name: str
    version: int | None = None
    run_id: str | None = None

    @property
    def digest(self) -> str:
        """SHA-256 (hex) over the program's document."""
        return hashlib.sha256(self.program.to_json().encode()).hexdigest()


BatchPhase = Literal["queued", "starting_lm", "reading", "running", "writing"]


class BatchProgress(Frozen):
    """Where a batch stands. `done` of `total` rows (0 until they are counted), `failed` among them.

    `reused` were taken over from an earlier attempt or batch. `seconds` are those in which this attempt has been
    asking, and `asked` the rows it has finished in them. `errors` counts failed rows by the code of their error. When
    machines share the batch, `workers` are the processes that ask at the moment; else 0.
    """

    phase: BatchPhase = "queued"
    total: int = 0
    done: int = 0
    failed: int = 0
    reused: int = 0
    asked: int = 0
    seconds: float = 0.0
    usage: Usage = Usage()
    errors: dict[str, int] = {}
    workers: int = 0

    @property
    def rows_per_second(self) -> float:
        """The mean rate of this attempt."""
        return self.asked / self.seconds if self.seconds > 0 else 0.0

    @property
    def seconds_left(self) -> float | None:
        """At that rate; None when nothing can be said yet."""
        rate = self.rows_per_second
        return (self.total - self.done) / rate if rate > 0 and self.total else None


class ScoreSummary(Frozen):
    """The mean of the rows' scores (0.0 to 1.0) with its 95 % interval; `rows` counts those that have one."""

    value: float
    low: float
    high: float
    rows: int


class BatchResult(Frozen):
    """What came of a batch. Latencies are milliseconds of the rows that were answered; `usage` is over all rows.

    `seconds` are those of the last attempt, `rows_per_second` its rate. `traced` counts the rows with a trace.
    `input_digest` is the SHA-256 of the file's bytes.
    """

    total_rows: int
    success_count: int
    error_count: int
    reused: int
    usage: Usage
    latency_ms_mean: float | None
    latency_ms_p50: float | None
    latency_ms_p95: float | None
    latency_ms_p99: float | None
    seconds: float
    rows_per_second: float
    traced: int
    trace_sample: float
    errors: dict[str, int]
    score: ScoreSummary | None = None
    input_digest: str
    output: str
    versions: dict[str, str]


# Rows on their way through.


@dataclass(frozen=True, slots=True)
class InputRow:
    """A row of the file, counted from 0. One that could not be read has no values, and `fault` says why.

    `key` is the content key of a row that has come from another machine, whose values are plain JSON by now.
    """

    index: int
    values: dict[str, Any]
    fault: Fault | None = None
    key: bytes | None = None


class InputStream(Protocol):
    """A file that is read row by row, as often as it is asked for. Memory does not grow with the file."""

    @property
    def format(self) -> DataFormat: ...

    @property
    def encoding(self) -> str:
        """As a person calls it; empty for Parquet."""
        ...

    def columns(self) -> tuple[str, ...]:
        """The columns, as its head, or its first rows, tell. Raises BadRequestError when there is no row."""
        ...

    def count(self) -> int:
        """How many rows there are, broken ones included."""
        ...

    def digest(self) -> str:
        """SHA-256 (hex) of its bytes."""
        ...

    def __iter__(self) -> Iterator[InputRow]:
        """All rows. What cannot be read is a row with a fault, and the rest goes on."""
        ...


class InputReader(Protocol):
    """Opens data files for reading row by row."""

    def open(self, path: str, *, name: str = "", kind: DataFormat | None = None) -> InputStream:
        """Raises NotFoundError, BadRequestError for what is no data file. `name` and `kind` go before the path's."""
        ...


@dataclass(frozen=True, slots=True)
class RowOutcome:
    """A finished row: its output line (a JSON object), and the figures that are summed up.

    `error` is the code of what went wrong, None for an answer. `score` is None when there is none. One that is
    `reused` was another batch's, and was not asked.
    """

    index: int
    key: bytes
    line: str
    error: str | None
    latency_ms: float
    usage: Usage
    score: float | None = None
    traced: bool = False
    reused: bool = False

    def is_whole(self, *, scored: bool) -> bool:
        """Whether it has an answer, and a score when it is to have one. Anything less may come of a stop."""
        return self.error is None and (self.score is not None or not scored)


class BatchTotals(Frozen):
    """The figures over all rows of a log, exact however often it was taken up again."""

    rows: int
    failed: int
    usage: Usage
    traced: int
    latency_ms_mean: float | None = None
    latency_ms_p50: float | None = None
    latency_ms_p95: float | None = None
    latency_ms_p99: float | None = None
    score: ScoreSummary | None = None


class ResultLog(Protocol):
    """The finished rows of a batch on disk, in the input's order. One process writes; a killed one loses none.

    Rows may be finished in any order. Those before the first that is missing stand in the results; the others wait
    in a journal. Every row that `add` has returned for survives the process.
    """

    @property
    def count(self) -> int:
        """Rows in their order without a gap, from the first on."""
        ...

    @property
    def finished(self) -> int:
        """All finished rows, those in the journal included."""
        ...

    def known(self, index: int) -> bytes | None:
        """The content key of a finished row; None when the row is not finished."""
        ...

    def add(self, outcome: RowOutcome) -> int:
        """Put the row on disk. Gives how many rows have found their place by it. Raises FailedError on a full disk."""
        ...

    def errors(self) -> dict[str, int]:
        """Failed rows by the code of their error."""
        ...

    def totals(self) -> BatchTotals: ...

    def write_errors(self) -> None:
        """The lines of the failed rows, into `errors.jsonl`; nothing when there are none."""
        ...

    def close(self) -> None: ...


class EarlierRows(Protocol):
    """The finished rows of another batch, looked up in the order of their place."""

    def find(self, index: int, key: bytes) -> RowOutcome | None:
        """The answer at that place if it was answered without an error for the same content; else None."""
        ...

    def close(self) -> None: ...


class OutputTarget(Protocol):
    """Where the results go: a file beside its final place, locked, that takes that place in one step."""

    def publish(self, results: Path) -> None:
        """Write the results (JSON lines) out in the output's format. Raises FailedError on a full disk."""
        ...


class BatchStore(Protocol):
    """Keeps what only a batch has, in the job's folder beside what every job has.

    Files, by fixed names only: `batch.json`, `model.json`, `progress.json`, `result.json`, `results.jsonl`,
    `results.index`, `results.journal`, `errors.jsonl`, `output.{jsonl,csv,parquet}`.
    """

    def create(self, spec: BatchSpec, model: BatchModel, *, title: str, who: str) -> Job: ...

    def spec(self, job_id: str) -> BatchSpec:
        """Raises NotFoundError, also when the job is no batch."""
        ...

    def model(self, job_id: str) -> BatchModel: ...

    def progress(self, job_id: str) -> BatchProgress: ...

    def write_progress(self, job_id: str, progress: BatchProgress) -> None: ...

    def find_result(self, job_id: str) -> BatchResult | None: ...

    def write_result(self, job_id: str, result: BatchResult) -> None: ...

    def results(self, job_id: str) -> Path:
        """The file of results, as far as they are; it grows while the batch runs."""
        ...

    def open_log(self, job_id: str) -> ResultLog:
        """For writing, by the batch's own process alone."""
        ...

    def open_earlier(self, job_id: str) -> EarlierRows: ...

    def output(self, spec: BatchSpec, job_id: str) -> Path:
        """Where the output will be."""
        ...

    def open_target(self, spec: BatchSpec, job_id: str) -> AbstractContextManager[OutputTarget]:
        """Raises ConflictError when another batch writes there, BadRequestError when nobody can."""
        ...

    def clear_target(self, job_id: str) -> None:
        """Remove what a killed attempt has left beside its output, unless another batch writes there by now."""
        ...
