"""Batches as people handle them: check, start, look, take up again."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any, Final

from pydantic import Field

from dspyui.domain.base import Frozen
from dspyui.domain.batches import (
    BatchModel,
    BatchPhase,
    BatchProgress,
    BatchResult,
    BatchSpec,
    BatchStore,
    InputReader,
    InputStream,
    OutputFormat,
)
from dspyui.domain.jobs import Job, JobEvent, JobQueue, JobStatus, JobStore, RecordState, RecordStatus
from dspyui.domain.programs import CompiledProgram
from dspyui.domain.uploads import UploadInfo, UploadStore
from dspyui.errors import BadRequestError, ConflictError, NotFoundError
from dspyui.i18n import Text
from dspyui.services.keys import KeyRules
from dspyui.services.metrics import MetricService
from dspyui.services.model_source import ModelSource, check_from_network
from dspyui.settings import Settings

# So many rows are tried before the whole is started, and so many are shown of the results.
TRIED_ROWS: Final = 5
HEAD_ROWS: Final = 20


class BatchChanges(Frozen):
    """What may be another way when a batch is taken up again; what is left out stays as it was."""

    output: str | None = None
    format: OutputFormat | None = None
    overwrite: bool = False
    concurrency: int = Field(default=8, ge=1, le=256)
    requests_per_minute: int | None = Field(default=None, ge=1)
    tokens_per_minute: int | None = Field(default=None, ge=1)
    trace_sample: float | None = Field(default=None, ge=0, le=1)

    def on(self, spec: BatchSpec, *, replaces: bool) -> BatchSpec:
        """The spec with the changes. `replaces`: the file that is at its output is its own, and may be replaced.

        Raises BadRequestError for an output that ends in no format.
        """
        given = self.model_dump(exclude_unset=True)
        for name in ("output", "format"):
            if given.get(name) is None:
                given.pop(name, None)  # said to be nothing, as it is when nothing is said
        output = spec.output if self.output is None else _absolute_path(self.output)
        is_own = output == spec.output
        if not is_own:
            given |= {"output": output, "format": self.format}
        return BatchSpec.model_validate(
            {**dict(spec), **given, "overwrite": self.overwrite or (replaces and is_own)}
        )


class BatchView(Frozen):
    """All a page shows of a batch, read at one moment."""

    job: Job
    spec: BatchSpec
    model: BatchModel
    progress: BatchProgress
    result: BatchResult | None
    record: RecordState


class BatchSummary(Frozen):
    """What the command line and the API tell. `traces_lost` are those that MLflow refused for good.

    `lm_cache_hits` counts the answers that came from the cache, at once and for nothing. The score is the mean of
    `scored_rows`. `phase` and `seconds_left` (at the rate of now) are those of a batch that has not ended.
    `traces_waiting` wait on disk for MLflow. `cost` is in US dollars, None when the price of a call is not known.
    """

    job_id: str
    run_id: str | None
    run_url: str | None
    record: RecordStatus
    status: JobStatus
    phase: BatchPhase | None
    started_at: datetime | None
    seconds_left: float | None
    total_rows: int
    success_count: int
    error_count: int
    reused: int
    errors: dict[str, int]
    lm_cache_hits: int
    tokens: int
    input_tokens: int
    output_tokens: int
    cost: float | None
    rows_per_second: float
    latency_ms_mean: float | None
    latency_ms_p95: float | None
    score: float | None
    score_ci_low: float | None
    score_ci_high: float | None
    scored_rows: int
    traces_logged: int
    traces_lost: int
    traces_waiting: int
    output: str


class BatchService:
    """Starts batches and tells how they stand."""

    def __init__(
        self,
        jobs: JobStore,
        batches: BatchStore,
        queue: JobQueue,
        models: ModelSource,
        files: "BatchFiles",
        metrics: MetricService,
        settings: Settings,
    ) -> None:
        """`files` opens and keeps data files."""
        self._jobs = jobs
        self._batches = batches
        self._queue = queue
        self._models = models
        self._files = files
        self._metrics = metrics
        self._keys = KeyRules.of(settings)
        self._wants_record = settings.mlflow_enabled

    def create(self, spec: BatchSpec, *, who: str, records: bool = True) -> Job:
        """Check the spec against its model, file and keys, and write the job's folder; it does not run yet.

        The program is copied into the folder: a version that is deleted meanwhile changes nothing.
        `records` False makes no Run in MLflow of it. Raises BadRequestError, and ConflictError when another batch
        writes to the same output or the file is there.
        """
        spec = self._named(_absolute(spec))
        self._check_output(spec)
        model = self._model(spec)
        program = model.program
        self._keys.check(spec.lms(program))
        self._metrics.check((*program.metrics, *([spec.metric] if spec.metric else [])))
        if spec.metric is not None:
            spec.metric.check(program.spec.signature)
            if spec.metric.info.needs == "embedder" and spec.lms(program).embedder is None:
                raise BadRequestError("metric.no_embedder")
        check_columns(spec, program, self._files.open(spec).columns())
        job = self._batches.create(spec, model, title=model.name, who=who)
        if not (records and self._wants_record):
            self._jobs.write_record(job.id, RecordState(status="off"))
        return job

    def _named(self, spec: BatchSpec) -> BatchSpec:
        """The spec with the name of its kept file, which may be gone when its Run is written. Raises NotFoundError."""
        name = None if spec.upload is None else self._files.name(spec.upload)
        return spec.model_copy(update={"upload_name": name})

    def _model(self, spec: BatchSpec) -> BatchModel:
        """The program that is named; of a batch that is taken up again the copy that has answered so far.

        The name may lead to another version by now, or to nothing.
        """
        if spec.earlier is None:
            return self._models.get(spec.model, has_own_lm=spec.lm is not None)
        kept = self._models.at_its_address(self._batches.model(spec.earlier))
        check_earlier(self._batches, spec, kept)
        return kept

    def submit(self, spec: BatchSpec, *, who: str) -> Job:
        """Create the batch and queue it. Raises what `create` raises, also for a program's path from the network."""
        self._check_network(spec)
        job = self.create(spec, who=who)
        self._queue.submit(job.id)
        return job

    def try_rows(self, spec: BatchSpec, *, who: str) -> Job:
        """Queue a batch of the first five rows, which leaves no Run behind. Raises what `create` raises."""
        self._check_network(spec)
        few = spec.model_copy(update={"limit": TRIED_ROWS, "output": None, "trace_sample": 0.0})
        job = self.create(few, who=who, records=False)
        self._queue.submit(job.id)
        return job

    def _check_network(self, spec: BatchSpec) -> None:
        """What is queued was asked for over the pages or the API: by somebody elsewhere, where others reach them.

        One that is taken up again opens no file: its program is in the earlier one's folder.
        """
        if self._keys.shared and spec.earlier is None:
            check_from_network(spec.model)

    def keep_file(self, name: str, content: bytes) -> UploadInfo:
        """Keep a data file as it is, broken rows and all. Raises BadRequestError when it is no data file."""
        return self._files.keep(name, content)

    def upload(self, job_id: str) -> str | None:
        """The digest of the kept file that a batch reads; None when it reads another. Raises NotFoundError."""
        return self._batches.spec(job_id).upload

    def head(self, job_id: str) -> Sequence[Mapping[str, Any]]:
        """The first rows of the results, as far as they are. Raises NotFoundError."""
        try:
            with self._batches.results(job_id).open(encoding="utf-8") as lines:
                whole = (line for line in islice(lines, HEAD_ROWS) if line.endswith("\n"))
                return [json.loads(line) for line in whole]
        except FileNotFoundError:
            return []

    def delete(self, job_id: str) -> None:
        """Delete a finished batch. Raises NotFoundError, ConflictError."""
        self._jobs.delete(job_id)

    def start_here(self, spec: BatchSpec, *, who: str) -> Job:
        """Create the batch and run it in this process at once (the command line's way)."""
        job = self.create(spec, who=who)
        self._queue.run_here(job.id)
        return job

    def again(self, job_id: str, changes: BatchChanges | None = None) -> BatchSpec:
        """The spec that takes a batch up again: only rows that failed, or were not reached, are asked.

        The program that has answered so far answers them, whatever its name leads to by now. The output that it has
        written is replaced, unless the changes name another; what somebody else has put there is not.
        One that a dead process left behind is cancelled, so that nobody else takes it up. Raises NotFoundError, and
        ConflictError while it runs.
        """
        spec = self._batches.spec(job_id)
        job = self._jobs.get(job_id)
        if not job.is_terminal:
            self._queue.release(job_id)
            job = self._jobs.get(job_id)
        if not job.is_terminal:
            raise ConflictError("batch.still_runs", job_id=job_id)
        replaces = spec.overwrite or self._batches.find_result(job_id) is not None
        taken_up = (changes or BatchChanges()).on(spec, replaces=replaces)
        return taken_up.model_copy(update={"earlier": job_id})

    def _check_output(self, spec: BatchSpec) -> None:
        if spec.output is None:
            return
        path = Path(spec.output)
        for job in self._jobs.search():
            if (
                job.kind == "batch"
                and not job.is_terminal
                and self._batches.spec(job.id).output == spec.output
            ):
                raise ConflictError("batch.output_taken", path=spec.output, job_id=job.id)
        if path.is_dir():
            raise BadRequestError("batch.output_is_folder", path=spec.output)
        if not path.parent.is_dir():
            raise BadRequestError("batch.output_folder", path=spec.output)
        if path.exists() and not spec.overwrite:
            raise ConflictError("batch.output_exists", path=spec.output)
        if spec.path is not None and path == Path(spec.path):
            raise ConflictError("batch.output_is_input", path=spec.output)

    def view(self, job_id: str) -> BatchView:
        """Raises NotFoundError, also when the job is no batch."""
        return BatchView(
            job=self._jobs.get(job_id),
            spec=self._batches.spec(job_id),
            model=self._batches.model(job_id),
            progress=self._batches.progress(job_id),
            result=self._batches.find_result(job_id),
            record=self._jobs.record(job_id),
        )

    def search(self) -> Sequence[Job]:
        """All batches, newest first."""
        return [job for job in self._jobs.search() if job.kind == "batch"]

    def get(self, job_id: str) -> Job:
        """The job's state alone. Raises NotFoundError."""
        return self._jobs.get(job_id)

    def events(self, job_id: str, *, after: int = 0) -> tuple[Sequence[JobEvent], int]:
        """The log from byte `after` on, and the byte to go on from."""
        return self._jobs.events(job_id, after=after)

    def progress(self, job_id: str) -> BatchProgress:
        """Where it stands. Raises NotFoundError."""
        return self._batches.progress(job_id)

    def cancel(self, job_id: str) -> None:
        """Stop it; returns at once. What is finished stays. Raises NotFoundError."""
        self._jobs.get(job_id)
        self._queue.cancel(job_id)

    def results(self, job_id: str) -> Path:
        """The file of results as far as they are. Raises NotFoundError."""
        return self._batches.results(job_id)

    def download(self, job_id: str) -> Path:
        """The finished output, else the results so far. Raises NotFoundError."""
        if self._batches.find_result(job_id) is None:
            return self._batches.results(job_id)
        return self._batches.output(self._batches.spec(job_id), job_id)

    def errors_file(self, job_id: str) -> Path:
        """The rows that failed; there is none when none did. Raises NotFoundError."""
        return self._jobs.folder(job_id) / "errors.jsonl"

    def waiting_traces(self, job_id: str) -> int:
        """How many traces of it were written down and not sent yet, or refused. Raises NotFoundError."""
        record, result = self._jobs.record(job_id), self._batches.find_result(job_id)
        traced = result.traced if result and record.status != "off" else 0
        return max(0, traced - record.traces_sent - record.traces_refused)


# What the answers of a batch, and their scores, come from.
_ANSWERED_BY: Final = ("model", "path", "upload", "columns", "lm", "metric")


def check_earlier(batches: BatchStore, spec: BatchSpec, model: BatchModel) -> None:
    """Raise ConflictError unless the batch before was answered by the same program and LM, on the same input.

    Else the rows of two programs would stand in one output. Raises NotFoundError when there is no such batch.
    """
    job_id = spec.earlier or ""
    earlier, kept = batches.spec(job_id), batches.model(job_id)
    changed = [name for name in _ANSWERED_BY if getattr(spec, name) != getattr(earlier, name)]
    # Where a server of one's own listens may change; what answers there is still the same program.
    if kept.program.without_addresses() != model.program.without_addresses():
        changed.append("program")
    if changed:
        raise ConflictError("batch.earlier_other", names=", ".join(changed), job_id=job_id)


def check_columns(spec: BatchSpec, program: CompiledProgram, columns: Sequence[str]) -> None:
    """Raise BadRequestError when the file lacks a column that is needed; those beyond are carried along."""
    signature, found = program.spec.signature, ", ".join(columns) or "—"
    names = [field.name for field in signature.fields]
    if unknown := [name for name in spec.columns if name not in names]:
        raise BadRequestError("data.map_field", field=unknown[0], known=", ".join(names))
    lacking = _lacking(spec, [field.name for field in signature.inputs], columns)
    if lacking:
        raise BadRequestError("batch.columns", missing=", ".join(lacking), found=found)
    if spec.metric is not None and spec.metric.info.needs_expected:
        lacking = _lacking(spec, [field.name for field in signature.outputs], columns)
        if lacking:
            raise BadRequestError("batch.no_expected", missing=", ".join(lacking), found=found)


def _lacking(spec: BatchSpec, names: Sequence[str], columns: Sequence[str]) -> list[str]:
    wanted = [spec.columns.get(name, name) for name in names]
    return [column for column in wanted if column not in columns]


class BatchFiles:
    """The data files of batches: read row by row, never as a whole."""

    def __init__(self, reader: InputReader, uploads: UploadStore) -> None:
        self._reader = reader
        self._uploads = uploads

    def open(self, spec: BatchSpec) -> InputStream:
        """The file of a spec. Raises NotFoundError, BadRequestError."""
        if spec.upload is not None:
            kept = self._uploads.get(spec.upload)
            return self._reader.open(self._uploads.path(spec.upload), name=kept.name, kind=kept.format)
        return self._reader.open(spec.path or "")

    def name(self, digest: str) -> str:
        """What a kept file is called. Raises NotFoundError."""
        return self._uploads.get(digest).name

    def keep(self, name: str, content: bytes) -> UploadInfo:
        """Keep a data file. Raises BadRequestError when it is none, or has no row."""
        try:
            return self._uploads.get(hashlib.sha256(content).hexdigest())
        except NotFoundError:
            info = self._uploads.keep(name, content)
        try:
            self._reader.open(self._uploads.path(info.digest), name=info.name).columns()
        except BadRequestError:
            self._uploads.delete(info.digest)
            raise
        return info


def _absolute(spec: BatchSpec) -> BatchSpec:
    """The paths as every process will understand them."""
    changes = {
        name: _absolute_path(path)
        for name, path in (("path", spec.path), ("output", spec.output))
        if path is not None
    }
    return spec.model_copy(update=changes)


def _absolute_path(path: str) -> str:
    return str(Path(path).expanduser().resolve())


def error_kind(text: Text, code: str) -> str:
    """What a code that rows failed with means, in a few words; of one that has none, the code itself."""
    key = f"row_error.{code}"
    return text(key) if text.has(key) else code


def summarise(view: BatchView, waiting: int) -> BatchSummary:
    """The figures of a batch as it stands; of one that has not ended, those up to now."""
    result, progress, record = view.result, view.progress, view.record
    usage = result.usage if result else progress.usage
    done = result.total_rows if result else progress.done
    failed = result.error_count if result else progress.failed
    score = result.score if result else None
    return BatchSummary(
        job_id=view.job.id,
        run_id=record.run_id,
        run_url=record.run_url,
        record=record.status,
        status=view.job.status,
        phase=None if view.job.is_terminal else progress.phase,
        started_at=view.job.started_at,
        seconds_left=None if view.job.is_terminal else progress.seconds_left,
        total_rows=result.total_rows if result else progress.total,
        success_count=done - failed,
        error_count=failed,
        reused=result.reused if result else progress.reused,
        errors=result.errors if result else progress.errors,
        lm_cache_hits=usage.lm_cache_hits,
        tokens=usage.total_tokens,
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cost=usage.cost,
        rows_per_second=round(result.rows_per_second if result else progress.rows_per_second, 3),
        latency_ms_mean=result.latency_ms_mean if result else None,
        latency_ms_p95=result.latency_ms_p95 if result else None,
        score=score.value if score else None,
        score_ci_low=score.low if score else None,
        score_ci_high=score.high if score else None,
        scored_rows=score.rows if score else 0,
        traces_logged=record.traces_sent,
        traces_lost=record.traces_refused,
        traces_waiting=waiting,
        output=result.output if result else view.spec.output or "",
    )
