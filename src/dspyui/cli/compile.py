"""`dspyui compile SPEC`, or `--from-run RUN`: run a compile here and tell what it gained."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import typer
from typer.core import TyperCommand

from dspyui.cli.console import Console
from dspyui.cli.flags import Flags
from dspyui.cli.narrator import narrator
from dspyui.cli.session import load_settings, opened, wait_for_mlflow
from dspyui.cli.stop import Stopped
from dspyui.domain.compiles import CompileSpec
from dspyui.domain.datasets import DataSpec, FileSource
from dspyui.domain.jobs import Job
from dspyui.errors import BadRequestError, DSPyUIError, NotFoundError
from dspyui.services import Services
from dspyui.services.demo import check_done
from dspyui.services.documents import dump_spec, parse_spec
from dspyui.services.estimates import data_warnings, forecast
from dspyui.services.follow import Nobody, follow
from dspyui.services.reuse import Loaded
from dspyui.services.summary import CompileSummary, summarise
from dspyui.settings import Settings

# How long a stopped job may take to end, and how long the record may take once MLflow answers, in seconds.
CANCEL_SECONDS = 10.0
RECORD_SECONDS = 60.0


def add(app: typer.Typer, flags: Flags, cls: type[TyperCommand]) -> None:
    """Add the command."""
    text = flags.text
    spec_file = typer.Argument(None, metavar="SPEC", help=text("cli.compile.spec"), show_default=False)
    run_option = typer.Option(
        None, "--from-run", metavar="RUN", help=text("cli.compile.from_run"), show_default=False
    )
    save_option = typer.Option(
        None, "--save-spec", metavar="FILE", help=text("cli.compile.save_spec"), show_default=False
    )
    estimate_option = typer.Option(False, "--estimate", help=text("cli.compile.estimate"), show_default=False)
    json_flag, lang_flag, mlflow_flag = flags.json, flags.lang, flags.mlflow

    @app.command("compile", cls=cls, help=text("cli.compile.about"))
    def compile_(
        spec: Path | None = spec_file,
        from_run: str | None = run_option,
        save_spec: Path | None = save_option,
        only_estimate: bool = estimate_option,
        mlflow: bool = mlflow_flag,
        as_json: bool = json_flag,
        lang: str | None = lang_flag,
    ) -> int:
        console = flags.console(as_json=as_json, lang=lang)
        wanted = source(console, spec, from_run)
        settings = load_settings(console, mlflow=mlflow)
        if save_spec is not None:
            return save(console, wanted, settings, save_spec)
        if only_estimate:
            return reckon(console, wanted, settings, asks_mlflow=from_run is not None)
        return run(console, wanted, settings)


Source = Callable[[Services], Loaded]


def source(console: Console, file: Path | None, run_id: str | None) -> Source:
    """How the spec is found once the services are there; a file is read at once.

    Raises BadRequestError unless there is exactly one of the two.
    """
    if file is not None and run_id is None:
        spec = read_spec(file)
        return lambda services: of_file(console, services, spec)
    if run_id is not None and file is None:
        return lambda services: of_run(console, services, run_id)
    raise BadRequestError("cli.compile_source")


def of_file(console: Console, services: Services, spec: CompileSpec) -> Loaded:
    """The spec of a file, with it said what has changed since it was written down."""
    return said_of(console, Loaded(spec, services.reuse.metric_notices(spec)))


def said_of(console: Console, loaded: Loaded) -> Loaded:
    """A spec that was loaded, with what is to be known of it said."""
    for notice in loaded.notices:
        console.note(notice.sentence(console.language))
    return loaded


def of_run(console: Console, services: Services, run_id: str) -> Loaded:
    """The spec of a Run, with what is to be known of it said. Raises what `ReuseService.run` raises."""
    wait_for_mlflow(services)
    return said_of(console, services.reuse.run(run_id))


def save(console: Console, wanted: Source, settings: Settings, file: Path) -> int:
    """Write the spec down and compile nothing. Returns the exit code."""
    from dspyui.bootstrap import make_app

    app = make_app(settings)
    try:
        app.services.tracking.start()
        text = dump_spec(wanted(app.services).spec)
    finally:
        app.close()
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as exc:
        raise BadRequestError("cli.save", path=str(file), problem=exc.strerror or str(exc)) from exc
    console.answer({"spec_path": str(file.resolve())}, (console.text("cli.compile.saved", path=str(file)),))
    return 0


def reckon(console: Console, wanted: Source, settings: Settings, *, asks_mlflow: bool) -> int:
    """Say what the compile would ask of models, and compile nothing. Returns the exit code."""
    from dspyui.bootstrap import make_app

    app = make_app(settings)
    try:
        if asks_mlflow:
            app.services.tracking.start()
        services, loaded = app.services, wanted(app.services)
        check_data(loaded)
        found = forecast(loaded.spec, services.data, services.lms)
    finally:
        app.close()
    document = {**found.model_dump(exclude={"warnings"}), "warnings": console.warn(found.warnings)}
    tokens = found.input_tokens_about + found.output_tokens_about
    known = found.cost_about_at_most
    cost = "cost_unknown" if known is None else "cost_at_most"
    said = (
        console.text("cli.compile.calls_at_most", calls=found.lm_calls_at_most, tokens=tokens),
        console.text(f"cli.compile.{cost}", cost=f"{known or 0:.4f}"),
    )
    console.answer(document, said)
    return 0


def read_spec(file: Path) -> CompileSpec:
    """Read a spec file; a relative data path in it is relative to the file.

    Raises NotFoundError when there is no such file, BadRequestError when it is no spec.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as exc:
        raise NotFoundError("cli.spec_missing", path=str(file)) from exc
    except (OSError, UnicodeDecodeError) as exc:
        raise BadRequestError("cli.spec_unreadable", path=str(file), problem=str(exc)) from exc
    spec = parse_spec(text)
    data = spec.data
    others = {name: _beside(file, source) for name, source in data.own_files.items()}
    return spec.model_copy(update={"data": _beside(file, data).model_copy(update=others)})


Files = TypeVar("Files", DataSpec, FileSource)


def _beside(file: Path, source: Files) -> Files:
    if source.path is None:
        return source
    return source.model_copy(update={"path": str((file.parent / source.path).resolve())})


def run(console: Console, wanted: Source, settings: Settings) -> int:
    """Compile, wait for the record, answer. Returns the exit code."""
    from dspyui.bootstrap import system_user

    with opened(settings) as app:
        services = app.services
        loaded = wanted(services)
        check_data(loaded)
        spec = loaded.spec
        preview = services.data.preview(spec.program.signature, spec.data)
        warnings = console.warn(data_warnings(spec, preview))
        job = services.jobs.start_here(spec, who=system_user())
        job = watch(console, services, job)
        if job.status == "done":
            wait_for_record(console, services, job.id)
        summary = summarise(services.jobs.view(job.id), services.programs)
    return answer(console, job, summary, warnings)


def check_data(loaded: Loaded) -> None:
    """Raise BadRequestError when the Run's data is not there."""
    if not loaded.has_data:
        raise BadRequestError("cli.data_to_choose", run_id=loaded.notices[0].values["run_id"])


def watch(console: Console, services: Services, job: Job) -> Job:
    """Follow the job to its end; Ctrl-C and SIGTERM cancel it."""
    try:
        with narrator(console) as watcher:
            return follow(services.jobs, job.id, watcher)
    except Stopped:
        console.note(console.text("cli.compile.stopping"))
        services.jobs.cancel(job.id)
        return follow(services.jobs, job.id, Nobody(), seconds=CANCEL_SECONDS, interval=0.05)


def wait_for_record(
    console: Console, services: Services, job_id: str, *, seconds: float = RECORD_SECONDS
) -> None:
    """Wait for the Run in MLflow, so long at most; it is said when there is none yet. Ctrl-C ends the waiting."""
    if services.job_store.record(job_id).status != "pending":
        return
    try:
        wait_for_mlflow(services)
        state = services.record.wait_sent(job_id, seconds=seconds)
    except Stopped:
        state = services.job_store.record(job_id)
    if state.status == "pending":
        console.note(console.text("cli.compile.record_waits"))
    if state.status == "refused":
        console.note(console.text("cli.compile.record_refused", problem=state.last_error))


def answer(console: Console, job: Job, summary: CompileSummary, warnings: Sequence[Mapping[str, str]]) -> int:
    """Say how it went. Returns the exit code."""
    document: dict[str, Any] = {**summary.model_dump(mode="json"), "warnings": warnings}
    try:
        check_done(job)
    except DSPyUIError as exc:
        return console.failure(exc, document)
    console.answer(document, lines(console, summary))
    return 0


def lines(console: Console, summary: CompileSummary) -> tuple[str, ...]:
    """The answer for people."""
    text = console.text
    said = [
        text(
            "cli.compile.scores",
            baseline=f"{summary.baseline_score:.2f}",
            optimised=f"{summary.evaluation_score:.2f}",
            difference=f"{summary.score_improvement:+.2f}",
        ),
        *_certainty(console, summary),
        text(
            "cli.compile.took",
            seconds=f"{summary.duration_seconds or 0:.1f}",
            calls=summary.lm_calls,
            hits=summary.lm_cache_hits,
            tokens=summary.total_tokens,
        ),
    ]
    if summary.embedding_calls:
        said.append(
            text("cli.compile.embedded", calls=summary.embedding_calls, tokens=summary.embedding_tokens)
        )
    if summary.cost is not None:
        said.append(text("cli.compile.cost", cost=f"{summary.cost:.4f}"))
    said.append(text("cli.compile.job", job_id=summary.job_id))
    if summary.program_path:
        said.append(text("cli.compile.program", path=summary.program_path))
    if summary.run_id:
        said.append(text("cli.compile.run", run_id=summary.run_id, url=summary.run_url or "—"))
    return tuple(said)


def _certainty(console: Console, summary: CompileSummary) -> Iterator[str]:
    """How sure one can be of the difference, and what is missing in it."""
    text = console.text
    low, high = summary.score_improvement_ci_low, summary.score_improvement_ci_high
    if summary.verdict is not None:
        word = text(f"ui.result.{summary.verdict}")
        if summary.verdict == "too_few" or low is None or high is None:
            yield text("cli.compile.too_few", word=word, differing=summary.differing, pairs=summary.pairs)
        else:
            yield text(
                "cli.compile.interval", word=word, low=f"{low:+.2f}", high=f"{high:+.2f}", pairs=summary.pairs
            )
    if len(summary.by_field) > 1:
        # Of one field alone, the means are the scores above.
        fields = [
            f"{name} {means.baseline_score:.2f} → {means.evaluation_score:.2f}"
            for name, means in summary.by_field.items()
        ]
        yield text("cli.compile.by_field", fields=", ".join(fields))
    if summary.repeats > 1:
        yield text("cli.compile.repeats", repeats=summary.repeats)
    if summary.unreadable:
        yield text("cli.compile.unreadable", replies=summary.unreadable)
    if summary.failed or summary.score_errors:
        yield text("cli.compile.missing", failed=summary.failed, score_errors=summary.score_errors)
    if summary.uncounted:
        yield text("cli.compile.uncounted", rows=summary.uncounted)
