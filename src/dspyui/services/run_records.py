"""What MLflow gets of a job: its Run, put together from the job's folder."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

from dspyui.domain.compiles import CompileResult, CompileSpec, Progress, TrialRows
from dspyui.domain.datasets import DataSpec, FileSource
from dspyui.domain.jobs import Job, JobStatus
from dspyui.domain.metrics import MetricSpec
from dspyui.domain.run_list import RESULT
from dspyui.domain.runs import (
    KIND_TAG,
    NOTE_TAG,
    ArtifactFile,
    DatasetInput,
    MetricPoint,
    RunRecord,
    RunStatus,
)
from dspyui.domain.signatures import FieldSpec
from dspyui.services.documents import dump_spec

RUN_STATUS: dict[JobStatus, RunStatus] = {
    "queued": "RUNNING",
    "running": "RUNNING",
    "done": "FINISHED",
    "failed": "FAILED",
    "cancelled": "KILLED",
}

# File in the job's folder -> path among the Run's artifacts.
_ARTIFACTS = {
    "program.json": "program/program.json",
    "prompt/optimized_prompt.txt": "prompt/optimized_prompt.txt",
    "prompt/baseline_prompt.txt": "prompt/baseline_prompt.txt",
    "spec/compile.yaml": "spec/compile.yaml",
    "dataset/train.jsonl": "dataset/train.jsonl",
    "dataset/validation.jsonl": "dataset/validation.jsonl",
    "dataset/test.jsonl": "dataset/test.jsonl",
}
_EVALUATION = "evaluation/rows.parquet"
_TRIALS: dict[TrialRows, str] = {
    "validation": "trial_score", "minibatch": "trial_score_minibatch", "train": "trial_score_train",
}  # fmt: skip
# The rows as a table for people and MLflow, and everything that was found as data, to be shown again elsewhere.
_EVALUATIONS = {_EVALUATION: _EVALUATION, "result.json": RESULT}


def run_record(
    job: Job,
    spec: CompileSpec,
    progress: Progress,
    result: CompileResult | None,
    folder: Path,
    *,
    with_evaluations: bool,
) -> RunRecord:
    """The record as far as the job has come. `with_evaluations` False leaves out rows and trial scores.

    Writes `spec/compile.yaml` into the folder when it is not there yet.
    """
    status = RUN_STATUS[job.status]
    started = job.started_at or job.created_at
    record = RunRecord(
        job_id=job.id,
        name=_run_name(job, spec),
        status=status,
        started_at=started,
        ended_at=job.ended_at,
        params=_params(spec, result),
        tags=_tags(job, spec, result),
    )
    if status == "RUNNING":
        return record
    _write_spec(spec, folder)
    evaluation = folder / _EVALUATION
    kept = {**_ARTIFACTS, **(_EVALUATIONS if with_evaluations else {})}
    return record.model_copy(
        update={
            "metrics": _metrics(job, spec, progress, result),
            "series": _series(progress) if with_evaluations else {},
            "artifacts": tuple(
                ArtifactFile(file=folder / name, artifact_path=path)
                for name, path in kept.items()
                if (folder / name).is_file()
            ),
            "tables": {"evaluation/rows.json": evaluation}
            if with_evaluations and evaluation.is_file()
            else {},
            "datasets": _datasets(spec, result, folder),
        }
    )


def _run_name(job: Job, spec: CompileSpec) -> str:
    if job.title != spec.program.name:
        return job.title  # a person has named it
    # A Run's name is shown, searched and exported: without spaces, quotes and signs of paths it is easy to handle.
    program = re.sub(r"[\s/\\:*?\"'`<>|]+", "-", spec.program.name).strip("-") or "program"
    optimizer = spec.optimizer.info.label
    return f"{program}-{optimizer}-{job.created_at:%Y%m%d-%H%M%S}"


def _params(spec: CompileSpec, result: CompileResult | None) -> dict[str, str]:
    signature = spec.program.signature
    params: dict[str, object] = {
        "program": spec.program.name,
        "signature.instructions": signature.instructions,
        "signature.inputs": _fields(signature.inputs),
        "signature.outputs": _fields(signature.outputs),
        "module": spec.program.module.info.label,
        "optimizer": spec.optimizer.info.label,
        "metric": spec.metric.kind,
        "metric.fields": _names(spec.metric.scored_fields(signature)),
        "seed": spec.seed,
        "threads": spec.threads,
        "repeats": spec.repeats,
        "max_errors": spec.max_errors,
    }
    params |= _own_digest("metric", spec.metric, spec)
    params |= {f"metric.weight.{name}": weight for name, weight in spec.metric.weights.items()}
    params |= {f"module.{name}": value for name, value in spec.program.module.resolved().items()}
    if (reward := spec.program.module.reward) is not None:
        params |= {"reward": reward.kind, "reward.fields": _names(reward.scored_fields(signature))}
        params |= {f"reward.weight.{name}": weight for name, weight in reward.weights.items()}
        params |= {f"reward.{name}": value for name, value in reward.resolved().items()}
        params |= _own_digest("reward", reward, spec)
    params |= {f"optimizer.{name}": value for name, value in spec.optimizer.resolved().items()}
    params |= {f"metric.{name}": value for name, value in spec.metric.resolved().items()}
    params |= _data_params(spec.data)
    for role, lm in spec.lms.models().items():
        params[f"lm.{role}.model"] = lm.model
        params |= {f"lm.{role}.{name}": value for name, value in lm.settings().items()}
    if result is not None:
        params |= {f"version.{name}": value for name, value in result.versions.items()}
        params |= {f"rows.{name}": split.rows for name, split in result.splits.items()}
    return {name: str(value) for name, value in params.items()}


def _own_digest(role: str, metric: MetricSpec, spec: CompileSpec) -> dict[str, object]:
    digest = spec.digests.get(metric.own_file or "")
    return {} if digest is None else {f"{role}.digest": digest}


def _data_params(data: DataSpec) -> dict[str, object]:
    """Where the rows came from and how they were split: by a column, by files of their own, else by shares."""
    params: dict[str, object] = {"data.source": _source(data)}
    params |= {f"data.column.{field}": column for field, column in data.columns.items()}
    params |= {f"data.{name}": _source(source) for name, source in data.own_files.items()}
    if data.allow_shared:
        params["data.allow_shared"] = True
    if data.split_column is not None:
        return {**params, "split.column": data.split_column}
    # The shares of splits that have a file of their own decide nothing.
    return (
        params
        | {f"split.{name}": share for name, share in data.shares.items()}
        | {"split.seed": data.split.seed}
    )


def _names(fields: Sequence[FieldSpec]) -> str:
    return ", ".join(field.name for field in fields)


def _fields(fields: tuple) -> str:
    return json.dumps(
        [field.model_dump(mode="json", exclude_defaults=True) for field in fields], ensure_ascii=False
    )


def _tags(job: Job, spec: CompileSpec, result: CompileResult | None) -> dict[str, str]:
    tags = {
        "dspyui.job_id": job.id,
        KIND_TAG: job.kind,
        "dspyui.program": spec.program.name,
        "dspyui.user": job.who,
        "dspyui.attempts": str(job.attempt),
        "mlflow.user": job.who,
        "mlflow.source.name": "dspyui",
        "mlflow.source.type": "LOCAL",
    }
    if result is not None:
        tags["dspyui.data_digest"] = result.data_digest
        if result.difference is not None:
            tags["dspyui.verdict"] = result.difference.word
    if job.note is not None:
        tags[NOTE_TAG] = job.note
    if job.failure is not None:
        tags["dspyui.error_code"] = job.failure.code
        tags["dspyui.error"] = job.failure.sentence("en_US")
    return tags


def _metrics(
    job: Job, spec: CompileSpec, progress: Progress, result: CompileResult | None
) -> dict[str, float]:
    usage = result.usage if result is not None else progress.usage
    metrics: dict[str, float] = {
        "lm_calls": usage.lm_calls,
        "lm_cache_hits": usage.lm_cache_hits,
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
        "embedding_calls": usage.embedding_calls,
        "embedding_tokens": usage.embedding_tokens,
    }
    if usage.cost is not None:
        metrics["cost"] = usage.cost
    if job.ended_at is not None:
        metrics["duration_seconds"] = (job.ended_at - (job.started_at or job.created_at)).total_seconds()
    if result is not None:
        metrics |= {
            "baseline_score": result.baseline.score,
            "evaluation_score": result.optimised.score,
            "score_improvement": result.improvement,
            "baseline_unreadable": result.baseline.unreadable,
            "evaluation_unreadable": result.optimised.unreadable,
            "baseline_failed": result.baseline.failed,
            "evaluation_failed": result.optimised.failed,
            "baseline_score_errors": result.baseline.score_errors,
            "evaluation_score_errors": result.optimised.score_errors,
            "uncounted_rows": result.uncounted,
        }
        metrics |= _field_metrics(result)
        if spec.metric.info.needs == "judge":
            metrics["judge_errors"] = result.baseline.score_errors + result.optimised.score_errors
        if (found := result.difference) is not None and found.low is not None and found.high is not None:
            metrics |= {"score_improvement_ci_low": found.low, "score_improvement_ci_high": found.high}
    return metrics


def _field_metrics(result: CompileResult) -> dict[str, float]:
    """Each field's own score: `baseline_score.FIELD` and `evaluation_score.FIELD`."""
    found: dict[str, float] = {}
    for field, (before, after) in result.by_field.items():
        found |= {f"baseline_score.{field}": before, f"evaluation_score.{field}": after}
    return found


def _series(progress: Progress) -> dict[str, tuple[MetricPoint, ...]]:
    """The trials' scores, a series for each kind of rows: what was scored on other rows cannot be compared."""
    found: dict[str, tuple[MetricPoint, ...]] = {}
    for trial in progress.trials:
        name = _TRIALS[trial.rows]
        found[name] = (*found.get(name, ()), MetricPoint(step=trial.step, value=trial.score))
    return found


def _datasets(spec: CompileSpec, result: CompileResult | None, folder: Path) -> tuple[DatasetInput, ...]:
    if result is None:
        return ()
    own_files = {str(name): source for name, source in spec.data.own_files.items()}
    return tuple(
        DatasetInput(
            name=f"{spec.program.name} ({name})",
            context=name,
            digest=split.digest,
            rows=split.rows,
            file=folder / "dataset" / f"{name}.jsonl",
            source=_source(own_files.get(name, spec.data)),
        )
        for name, split in result.splits.items()
        if split.rows
    )


def _source(data: DataSpec | FileSource) -> str:
    """Where rows came from, as a Run tells it; a path's folders are nobody else's business."""
    if data.path:
        return data.portable().path or ""
    return f"upload:{data.upload}" if data.upload else "typed rows"


def _write_spec(spec: CompileSpec, folder: Path) -> None:
    path = folder / "spec" / "compile.yaml"
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        # In one step: half a spec, of a disk that is full, must never be sent.
        draft = path.with_suffix(".part")
        draft.write_text(dump_spec(spec.portable()), encoding="utf-8")
        draft.replace(path)
