"""`dspyui batch`: run a program over all rows of a file here, and tell how it went."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import typer
from typer.core import TyperCommand

from dspyui.cli.compile import CANCEL_SECONDS, RECORD_SECONDS, wait_for_record
from dspyui.cli.console import Console
from dspyui.cli.flags import Flags
from dspyui.cli.narrator import narrator
from dspyui.cli.session import load_settings, opened, wait_for_mlflow
from dspyui.cli.stop import Stopped
from dspyui.domain.batches import OUTPUT_FORMATS, BatchSpec
from dspyui.domain.jobs import Job
from dspyui.domain.lms import LMSpec
from dspyui.domain.metrics import METRICS, MetricSpec
from dspyui.errors import BadRequestError, DSPyUIError
from dspyui.services import Services
from dspyui.services.batches import BatchChanges, BatchSummary, error_kind, summarise
from dspyui.services.demo import check_done
from dspyui.services.documents import part_of
from dspyui.services.follow import Nobody, follow
from dspyui.settings import Settings

# MLflow takes at least so many traces a second; whoever waits for them waits no longer than that takes.
_TRACES_A_SECOND = 50


def add(app: typer.Typer, flags: Flags, cls: type[TyperCommand]) -> None:
    """Add the command."""
    text = flags.text

    def option(*names: str, default: Any = None, meta: str | None = None, key: str, **more: Any) -> Any:
        return typer.Option(
            default, *names, metavar=meta, help=text(f"cli.batch.{key}"), show_default=False, **more
        )

    model_option = option("--model", meta="MODEL", key="model")
    input_option = option("--input", meta="FILE", key="input")
    output_option = option("--output", meta="FILE", key="output")
    format_option = option("--format", meta="|".join(OUTPUT_FORMATS), key="format")
    map_option = option("--map", default=[], meta="FIELD=COLUMN", key="map")
    concurrency_option = option("--concurrency", meta="N", key="concurrency", min=1, max=256)
    rate_option = option("--rate-limit", meta="REQUESTS[,TOKENS]", key="rate_limit")
    lm_option = option("--lm", meta="MODEL", key="lm")
    base_option = option("--api-base", meta="URL", key="api_base")
    metric_option = option("--metric", meta="METRIC", key="metric")
    sample_option = option("--trace-sample", meta="SHARE", key="trace_sample", min=0.0, max=1.0)
    limit_option = option("--limit", meta="N", key="limit", min=1)
    overwrite_flag = option("--overwrite", default=False, key="overwrite")
    retry_option = option("--retry", meta="JOB", key="retry")
    json_flag, lang_flag, mlflow_flag = flags.json, flags.lang, flags.mlflow

    @app.command("batch", cls=cls, help=text("cli.batch.about"))
    def batch(  # noqa: PLR0913, PLR0917 - one parameter for each option
        model: str | None = model_option,
        input_: str | None = input_option,
        output: str | None = output_option,
        format_: str | None = format_option,
        mapped: list[str] = map_option,
        concurrency: int | None = concurrency_option,
        rate_limit: str | None = rate_option,
        lm: str | None = lm_option,
        api_base: str | None = base_option,
        metric: str | None = metric_option,
        trace_sample: float | None = sample_option,
        limit: int | None = limit_option,
        overwrite: bool = overwrite_flag,
        retry: str | None = retry_option,
        mlflow: bool = mlflow_flag,
        as_json: bool = json_flag,
        lang: str | None = lang_flag,
    ) -> int:
        console = flags.console(as_json=as_json, lang=lang)
        how = given(
            output=output,
            format=format_,
            concurrency=concurrency,
            trace_sample=trace_sample,
            overwrite=overwrite,
        ) | limits(rate_limit)
        if retry is not None:
            refuse_others(model, input_, mapped, lm, api_base, metric, limit)
            wanted = Retry(retry, part_of(BatchChanges, how))
        elif model is None or input_ is None:
            raise BadRequestError("cli.batch_source")
        else:
            what = given(
                model=model,
                path=input_,
                columns=dict(map(pair, mapped)),
                lm=other_lm(lm, api_base),
                metric=MetricSpec.model_validate({"kind": known_metric(metric)}) if metric else None,
                limit=limit,
            )
            wanted = part_of(BatchSpec, what | how)
        return run(console, load_settings(console, mlflow=mlflow), wanted)


@dataclass(frozen=True, slots=True)
class Retry:
    """A batch that is to be taken up again, and what is to be another way."""

    job_id: str
    changes: BatchChanges | None = None


def given(**options: Any) -> dict[str, Any]:
    """Those options that were given."""
    return {name: value for name, value in options.items() if value is not None and value is not False}


# What the answers that are taken over come from, in the order in which `refuse_others` is given it.
_SETTLED = ("--model", "--input", "--map", "--lm", "--api-base", "--metric", "--limit")


def refuse_others(*values: object) -> None:
    """Raise BadRequestError when an option is given that an earlier batch has settled."""
    if found := [name for name, value in zip(_SETTLED, values, strict=True) if value not in (None, [])]:
        raise BadRequestError("cli.batch_retry", options=", ".join(found))


def pair(text: str) -> tuple[str, str]:
    """`FIELD=COLUMN`. Raises BadRequestError."""
    field, sign, column = text.partition("=")
    if not (field.strip() and sign and column):
        raise BadRequestError("cli.batch_map", value=text)
    return field.strip(), column


def limits(text: str | None) -> dict[str, int | None]:
    """`REQUESTS[,TOKENS]` a minute; either may be empty. Nothing when it is not given. Raises BadRequestError."""
    if text is None:
        return {}
    parts = [part.strip() for part in text.split(",")]
    if len(parts) > 2 or any(part and not (part.isdecimal() and int(part)) for part in parts):
        raise BadRequestError("cli.batch_rate", value=text)
    found = [int(part) if part else None for part in parts]
    return {"requests_per_minute": found[0], "tokens_per_minute": found[1] if len(found) == 2 else None}


def other_lm(model: str | None, api_base: str | None) -> LMSpec | None:
    """The LM that is to answer instead of the program's own. Raises BadRequestError for an address alone."""
    if model is None and api_base is not None:
        raise BadRequestError("cli.batch_api_base")
    return LMSpec(model=model, api_base=api_base) if model else None


def known_metric(kind: str) -> str:
    """Raises BadRequestError for a metric that there is not."""
    if kind not in METRICS:
        raise BadRequestError("cli.batch_metric", value=kind, known=", ".join(METRICS))
    return kind


def run(console: Console, settings: Settings, wanted: BatchSpec | Retry) -> int:
    """Run the batch, wait for its record, answer. Returns the exit code."""
    from dspyui.bootstrap import system_user

    with opened(settings) as app:
        services = app.services
        if isinstance(wanted, Retry):
            spec = services.batches.again(wanted.job_id, wanted.changes)
        else:
            spec = wanted
            if _needs_mlflow(spec):
                wait_for_mlflow(services)
        job = services.batches.start_here(spec, who=system_user())
        job = _watch(console, services, job)
        if job.is_terminal and job.status != "cancelled":
            _wait_for_record(console, services, job.id)
        summary = summarise(services.batches.view(job.id), services.batches.waiting_traces(job.id))
    return answer(console, job, summary)


def _needs_mlflow(spec: BatchSpec) -> bool:
    return spec.model.startswith(("models:/", "runs:/"))


def _watch(console: Console, services: Services, job: Job) -> Job:
    """Follow the batch to its end; Ctrl-C and SIGTERM cancel it."""
    try:
        with narrator(console) as watcher:
            return follow(services.batches, job.id, watcher)
    except Stopped:
        console.note(console.text("cli.compile.stopping"))
        services.batches.cancel(job.id)
        return follow(services.batches, job.id, Nobody(), seconds=CANCEL_SECONDS, interval=0.05)


def _wait_for_record(console: Console, services: Services, job_id: str) -> None:
    """Wait for the Run and for its traces, which take the longer the more there are."""
    traces = services.batches.waiting_traces(job_id)
    wait_for_record(console, services, job_id, seconds=RECORD_SECONDS + traces / _TRACES_A_SECOND)


def answer(console: Console, job: Job, summary: BatchSummary) -> int:
    """Say how it went. Returns the exit code: rows that failed are no failure of the batch."""
    document: dict[str, Any] = summary.model_dump(mode="json")
    try:
        check_done(job)
    except DSPyUIError as exc:
        console.note(console.text("cli.batch.again", job_id=job.id))
        return console.failure(exc, document)
    console.answer(document, tuple(lines(console, summary)))
    return 0


def lines(console: Console, summary: BatchSummary) -> Sequence[str]:
    """The answer for people."""
    text = console.text
    said = [
        text(
            "cli.batch.rows",
            total=summary.total_rows,
            success=summary.success_count,
            failed=summary.error_count,
            rate=f"{summary.rows_per_second:.1f}",
        ),
        text("cli.batch.tokens", tokens=summary.tokens),
    ]
    if summary.lm_cache_hits:
        said.append(text("cli.batch.cached", count=summary.lm_cache_hits))
    said += [
        text("cli.batch.errors", words=error_kind(text, code), code=code, count=count)
        for code, count in summary.errors.items()
    ]
    if summary.error_count:
        said.append(text("cli.batch.again", job_id=summary.job_id))
    if summary.cost is not None:
        said.append(text("cli.compile.cost", cost=f"{summary.cost:.4f}"))
    if summary.score is not None:
        low, high = summary.score_ci_low or 0.0, summary.score_ci_high or 0.0
        said.append(
            text("cli.batch.score", score=f"{summary.score:.2f}", low=f"{low:.2f}", high=f"{high:.2f}")
        )
    said += [text("cli.batch.written", path=summary.output), text("cli.compile.job", job_id=summary.job_id)]
    if summary.run_id:
        said.append(text("cli.compile.run", run_id=summary.run_id, url=summary.run_url or "—"))
        logged = {
            "logged": summary.traces_logged,
            "waiting": summary.traces_waiting,
            "lost": summary.traces_lost,
        }
        said.append(text("cli.batch.traces", **logged))
    return said
