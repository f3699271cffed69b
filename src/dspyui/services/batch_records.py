"""What MLflow gets of a batch: its Run, put together from the job's folder."""

import re
from pathlib import Path
from typing import Final

from dspyui.domain.batches import BatchModel, BatchProgress, BatchResult, BatchSpec, BatchStore
from dspyui.domain.jobs import Job, JobStore
from dspyui.domain.runs import KIND_TAG, NOTE_TAG, ArtifactFile, DatasetInput, RunRecord
from dspyui.services.run_records import RUN_STATUS

ERRORS: Final = "errors.jsonl"


def batch_record(job: Job, jobs: JobStore, batches: BatchStore) -> RunRecord:
    """The record as far as the batch has come."""
    spec, model = batches.spec(job.id), batches.model(job.id)
    result = batches.find_result(job.id)
    record = RunRecord(
        job_id=job.id,
        name=_name(job, model),
        status=RUN_STATUS[job.status],
        started_at=job.started_at or job.created_at,
        ended_at=job.ended_at,
        params=_params(spec, model, result),
        tags=_tags(job, model, result),
    )
    if record.status == "RUNNING":
        return record
    folder = jobs.folder(job.id)
    return record.model_copy(
        update={
            "metrics": _metrics(job, batches.progress(job.id), result),
            "artifacts": tuple(_artifacts(folder, result)),
            "datasets": _datasets(spec, result, folder),
        }
    )


def _name(job: Job, model: BatchModel) -> str:
    if job.title != model.name:
        return job.title  # a person has named it
    plain = re.sub(r"[\s/\\:*?\"'`<>|]+", "-", model.name).strip("-") or "program"
    return f"{plain}-batch-{job.created_at:%Y%m%d-%H%M%S}"


def _params(spec: BatchSpec, model: BatchModel, result: BatchResult | None) -> dict[str, str]:
    program = model.program
    params: dict[str, object] = {
        "model": model.uri,
        "model_name": model.name,
        "model_digest": model.digest,
        "program": program.spec.name,
        "module": program.spec.module.info.label,
        "data.source": _source(spec),
        "output.format": spec.written_format,
        "concurrency": spec.concurrency,
    }
    optional = {
        "model_version": model.version,
        "model_run_id": model.run_id,
        "requests_per_minute": spec.requests_per_minute,
        "tokens_per_minute": spec.tokens_per_minute,
        "limit": spec.limit,
        "earlier": spec.earlier,
        "metric": spec.metric.kind if spec.metric else None,
        "trace_sample": result.trace_sample if result else spec.trace_sample,
    }
    params |= {name: value for name, value in optional.items() if value is not None}
    params |= {f"data.column.{field}": column for field, column in spec.columns.items()}
    for role, lm in spec.lms(program).models().items():
        params[f"lm.{role}.model"] = lm.model
        params |= {f"lm.{role}.{name}": value for name, value in lm.settings().items()}
    if result is not None:
        params |= {f"version.{name}": value for name, value in result.versions.items()}
    return {name: str(value) for name, value in params.items()}


def _tags(job: Job, model: BatchModel, result: BatchResult | None) -> dict[str, str]:
    tags = {
        "dspyui.job_id": job.id,
        KIND_TAG: job.kind,
        "dspyui.program": model.program.spec.name,
        "dspyui.model_name": model.name,
        "dspyui.model_digest": model.digest,
        "dspyui.user": job.who,
        "dspyui.attempts": str(job.attempt),
        "mlflow.user": job.who,
        "mlflow.source.name": "dspyui",
        "mlflow.source.type": "LOCAL",
    }
    if model.version is not None:
        tags["dspyui.model_version"] = str(model.version)
    if result is not None:
        tags["dspyui.data_digest"] = result.input_digest
        # Whoever counts traces must know that there are fewer than rows, and why.
        tags["dspyui.trace_sample"] = f"{result.trace_sample:g}"
    if job.note is not None:
        tags[NOTE_TAG] = job.note
    if job.failure is not None:
        tags["dspyui.error_code"] = job.failure.code
        tags["dspyui.error"] = job.failure.sentence("en_US")
    return tags


def _metrics(job: Job, progress: BatchProgress, result: BatchResult | None) -> dict[str, float]:
    usage = result.usage if result else progress.usage
    total, failed = progress.total, progress.failed
    found: dict[str, float | None] = {
        "total_rows": result.total_rows if result else total,
        "success_count": result.success_count if result else progress.done - failed,
        "error_count": result.error_count if result else failed,
        "reused_rows": result.reused if result else progress.reused,
        "lm_calls": usage.lm_calls,
        "lm_cache_hits": usage.lm_cache_hits,
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
        "cost": usage.cost,
        "rows_per_second": result.rows_per_second if result else progress.rows_per_second,
    }
    if job.ended_at is not None:
        found["duration_seconds"] = (job.ended_at - (job.started_at or job.created_at)).total_seconds()
    if result is not None:
        found |= {
            "latency_ms_mean": result.latency_ms_mean,
            "latency_ms_p50": result.latency_ms_p50,
            "latency_ms_p95": result.latency_ms_p95,
            "latency_ms_p99": result.latency_ms_p99,
            "traced_rows": result.traced,
        }
        if result.score is not None:
            score = result.score
            found |= {"score": score.value, "score_ci_low": score.low, "score_ci_high": score.high}
            found["scored_rows"] = score.rows
    return {name: value for name, value in found.items() if value is not None}


def _artifacts(folder: Path, result: BatchResult | None) -> "list[ArtifactFile]":
    # Under its own name: another one would have to be copied first, and a result can be large.
    files = {
        "results": Path(result.output) if result else folder / "results.jsonl",
        "errors": folder / ERRORS,
    }
    found = [ArtifactFile(file=file, artifact_path=f"{place}/{file.name}") for place, file in files.items()]
    spec = ArtifactFile(file=folder / "batch.json", artifact_path="spec/batch.json")
    return [entry for entry in (*found, spec) if entry.file.is_file()]


def _datasets(spec: BatchSpec, result: BatchResult | None, folder: Path) -> tuple[DatasetInput, ...]:
    if result is None:
        return ()
    source = _source(spec)
    return (
        DatasetInput(
            name=spec.upload_name or source,
            context="batch",
            digest=result.input_digest,
            rows=result.total_rows,
            file=folder / "head.jsonl",
            source=source,
        ),
    )


def _source(spec: BatchSpec) -> str:
    """What a Run tells of where the rows came from; a path's folder is nobody else's business."""
    return Path(spec.path).name if spec.path else f"upload:{spec.upload}"
