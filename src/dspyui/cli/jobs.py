"""`dspyui jobs`: what can be done to jobs from their pages, from the command line."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, get_args

import typer
from typer.core import TyperCommand

from dspyui.cli import batch
from dspyui.cli import compile as compiling
from dspyui.cli.console import Console
from dspyui.cli.flags import Flags
from dspyui.cli.layout import width
from dspyui.cli.session import load_settings, opened_quietly
from dspyui.domain.base import Fault, Frozen
from dspyui.domain.batches import BatchProgress
from dspyui.domain.compiles import Progress
from dspyui.domain.jobs import Job, JobKind, JobStatus
from dspyui.errors import BadRequestError, ConflictError, FailedError
from dspyui.services import Services
from dspyui.services.batches import BatchSummary
from dspyui.services.batches import summarise as summarise_batch
from dspyui.services.follow import Followed, Nobody, follow
from dspyui.services.jobs import JobFilter
from dspyui.services.summary import CompileSummary, summarise
from dspyui.settings import Settings

_TOLD: Final = {"id", "kind", "title", "note", "who", "status", "created_at", "started_at", "ended_at", "attempt",
                "cancel_requested"}  # fmt: skip


def add(app: typer.Typer, flags: Flags, cls: type[TyperCommand]) -> None:
    """Add the commands."""
    for add_one in (_add_list, _add_show, _add_rename, _add_note, _add_again, _add_cancel, _add_delete):
        add_one(app, flags, cls)


def _job_argument(flags: Flags) -> Any:
    return typer.Argument(..., metavar="JOB", help=flags.text("cli.jobs.job"))


def document(job: Job) -> dict[str, Any]:
    """A job, for programs; times are UTC."""
    return job.model_dump(mode="json", include=_TOLD)


# Looking.


def _add_list(app: typer.Typer, flags: Flags, cls: type[TyperCommand]) -> None:
    states = "|".join(get_args(JobStatus))
    state_option = typer.Option(None, "--state", metavar=states, help=flags.text("cli.jobs.state"))
    search_option = typer.Option(
        "", "--search", metavar="WORDS", help=flags.text("cli.jobs.search"), show_default=False
    )
    json_flag, lang_flag = flags.json, flags.lang

    @app.command("list", cls=cls, help=flags.text("cli.jobs.list"))
    def list_(
        state: str | None = state_option,
        search: str = search_option,
        as_json: bool = json_flag,
        lang: str | None = lang_flag,
    ) -> int:
        console = flags.console(as_json=as_json, lang=lang)
        asked = JobFilter(status=known_state(state), text=search)
        with opened_quietly(load_settings(console)) as services:
            jobs = services.jobs.search(asked)
            left = {job.id for job in jobs if services.jobs.is_interrupted(job)}
        said = [_line(console, job, interrupted=job.id in left) for job in jobs]
        if left:
            said.append(console.text("cli.jobs.interrupted_note"))
        answer = [{**document(job), "interrupted": job.id in left} for job in jobs]
        console.answer({"jobs": answer}, tuple(said) or (console.text("cli.jobs.none"),))
        return 0


def known_state(state: str | None) -> JobStatus | None:
    """Raises BadRequestError for a state that no job has."""
    known = {status: status for status in get_args(JobStatus)}
    if state is None or state in known:
        return known.get(state or "")
    raise BadRequestError("cli.jobs_state", value=state, known=", ".join(known))


def _status(console: Console, job: Job, *, interrupted: bool) -> str:
    return console.text("cli.jobs.interrupted" if interrupted else f"status.{job.status}")


def _line(console: Console, job: Job, *, interrupted: bool) -> str:
    status, kind = _status(console, job, interrupted=interrupted), console.text(f"cli.jobs.kind.{job.kind}")
    cells = ((job.id, 24), (status, 11), (kind, 8))
    return "  ".join([*(cell + " " * (room - width(cell)) for cell, room in cells), job.title])


def _add_show(app: typer.Typer, flags: Flags, cls: type[TyperCommand]) -> None:
    job_argument, json_flag, lang_flag = _job_argument(flags), flags.json, flags.lang

    @app.command("show", cls=cls, help=flags.text("cli.jobs.show"))
    def show(job_id: str = job_argument, as_json: bool = json_flag, lang: str | None = lang_flag) -> int:
        console = flags.console(as_json=as_json, lang=lang)
        with opened_quietly(load_settings(console)) as services:
            job = services.jobs.get(job_id)
            shown = _KINDS[job.kind]
            summary, progress = shown.summary(services, job.id), shown.follow(services).progress(job.id)
            place, interrupted = services.jobs.place(job), services.jobs.is_interrupted(job)
        failure = job.failure
        answer = {
            "job": {**document(job), "interrupted": interrupted},
            "place": place,
            "progress": {"phase": progress.phase, "done": progress.done, "total": progress.total},
            "summary": summary.model_dump(mode="json"),
            # Not `error`: that is what the command itself failed of.
            "failure": {"code": failure.code, "message": _why(console, failure)} if failure else None,
        }
        said = [*_head(console, job, place, interrupted=interrupted)]
        if job.status == "running":
            said.append(_progress(console, progress))
        if job.status == "done":
            said += shown.lines(console, summary)
        console.answer(answer, tuple(said))
        return 0


def _head(console: Console, job: Job, place: int | None, *, interrupted: bool = False) -> Iterator[str]:
    text = console.text
    yield job.title
    yield text(
        "cli.jobs.about_one",
        kind=text(f"cli.jobs.kind.{job.kind}"),
        job_id=job.id,
        status=_status(console, job, interrupted=interrupted),
        who=job.who,
        when=f"{job.created_at.astimezone():%Y-%m-%d %H:%M}",
    )
    if interrupted:
        yield text("cli.jobs.interrupted_note")
    if place is not None:
        yield text("cli.jobs.place", place=place)
    if job.note:
        yield job.note
    if job.failure is not None:
        yield _why(console, job.failure)


def _progress(console: Console, progress: Progress | BatchProgress) -> str:
    phase = console.text(f"phase.{progress.phase}")
    if not progress.total:
        # An optimizer does not say beforehand how much it will do.
        return phase
    return console.text("cli.jobs.progress", phase=phase, done=progress.done, total=progress.total)


def _why(console: Console, failure: Fault) -> str:
    return console.sentence(FailedError(failure.code, **failure.values))


# Words for people.


def _add_rename(app: typer.Typer, flags: Flags, cls: type[TyperCommand]) -> None:
    job_argument, json_flag, lang_flag = _job_argument(flags), flags.json, flags.lang
    title_argument = typer.Argument(..., metavar="TITLE", help=flags.text("cli.jobs.title"))

    @app.command("rename", cls=cls, help=flags.text("cli.jobs.rename"))
    def rename(
        job_id: str = job_argument,
        title: str = title_argument,
        as_json: bool = json_flag,
        lang: str | None = lang_flag,
    ) -> int:
        return _describe(flags.console(as_json=as_json, lang=lang), job_id, title=title)


def _add_note(app: typer.Typer, flags: Flags, cls: type[TyperCommand]) -> None:
    job_argument, json_flag, lang_flag = _job_argument(flags), flags.json, flags.lang
    note_argument = typer.Argument(..., metavar="TEXT", help=flags.text("cli.jobs.text"))

    @app.command("note", cls=cls, help=flags.text("cli.jobs.note"))
    def note(
        job_id: str = job_argument,
        words: str = note_argument,
        as_json: bool = json_flag,
        lang: str | None = lang_flag,
    ) -> int:
        return _describe(flags.console(as_json=as_json, lang=lang), job_id, note=words)


def _describe(console: Console, job_id: str, *, title: str | None = None, note: str | None = None) -> int:
    with opened_quietly(load_settings(console)) as services:
        job = services.jobs.describe(job_id, title=title, note=note)
        has_run = services.jobs.record(job_id).run_id is not None
    if has_run:
        console.note(console.text("cli.jobs.run_follows"))
    console.answer({"job": document(job)}, tuple(_head(console, job, None)))
    return 0


# Again, and to an end.


def _add_again(app: typer.Typer, flags: Flags, cls: type[TyperCommand]) -> None:
    job_argument, mlflow_flag = _job_argument(flags), flags.mlflow
    json_flag, lang_flag = flags.json, flags.lang

    @app.command("again", cls=cls, help=flags.text("cli.jobs.again"))
    def again(
        job_id: str = job_argument,
        mlflow: bool = mlflow_flag,
        as_json: bool = json_flag,
        lang: str | None = lang_flag,
    ) -> int:
        console = flags.console(as_json=as_json, lang=lang)
        settings = load_settings(console, mlflow=mlflow)
        with opened_quietly(settings) as services:
            kind = services.jobs.get(job_id).kind
        return _KINDS[kind].again(console, settings, job_id)


def _compile_again(console: Console, settings: Settings, job_id: str) -> int:
    return compiling.run(
        console, lambda services: compiling.said_of(console, services.reuse.job(job_id)), settings
    )


def _batch_again(console: Console, settings: Settings, job_id: str) -> int:
    return batch.run(console, settings, batch.Retry(job_id))


def _add_cancel(app: typer.Typer, flags: Flags, cls: type[TyperCommand]) -> None:
    job_argument, json_flag, lang_flag = _job_argument(flags), flags.json, flags.lang

    @app.command("cancel", cls=cls, help=flags.text("cli.jobs.cancel"))
    def cancel(job_id: str = job_argument, as_json: bool = json_flag, lang: str | None = lang_flag) -> int:
        console = flags.console(as_json=as_json, lang=lang)
        with opened_quietly(load_settings(console)) as services:
            job = stop(services, job_id)
        if not job.is_terminal:
            console.note(console.text("cli.jobs.cancelling"))
        console.answer({"job": document(job)}, tuple(_head(console, job, None)))
        return 0


def stop(services: Services, job_id: str) -> Job:
    """Ask whichever process runs the job to stop it, and wait a while for that; the job as it then stands.

    The request stands in the job's folder, where its process looks. Raises NotFoundError, and ConflictError when the
    job came to an end of its own.
    """
    job = services.jobs.get(job_id)
    if not job.is_terminal:
        services.jobs.cancel(job_id)
        job = follow(
            _KINDS[job.kind].follow(services),
            job_id,
            Nobody(),
            seconds=compiling.CANCEL_SECONDS,
            interval=0.05,
        )
    if job.status in {"done", "failed"}:
        raise ConflictError("cli.job_ended", job_id=job_id)
    return job


def _add_delete(app: typer.Typer, flags: Flags, cls: type[TyperCommand]) -> None:
    job_argument, json_flag, lang_flag, yes_flag = _job_argument(flags), flags.json, flags.lang, flags.yes
    unsent_flag = typer.Option(False, "--even-unsent", help=flags.text("cli.jobs.even_unsent"))

    @app.command("delete", cls=cls, help=flags.text("cli.jobs.delete"))
    def delete(
        job_id: str = job_argument,
        yes: bool = yes_flag,
        even_unsent: bool = unsent_flag,
        as_json: bool = json_flag,
        lang: str | None = lang_flag,
    ) -> int:
        console = flags.console(as_json=as_json, lang=lang)
        with opened_quietly(load_settings(console)) as services:
            remove(console, services, job_id, yes=yes, even_unsent=even_unsent)
        console.answer({"deleted": job_id}, (console.text("cli.jobs.deleted", job_id=job_id),))
        return 0


def remove(console: Console, services: Services, job_id: str, *, yes: bool, even_unsent: bool) -> None:
    """Ask, and delete. Whoever is asked is told of a record that would be lost; `--yes` alone does not agree to that.

    Raises NotFoundError, ConflictError, and what `Console.confirm` raises.
    """
    text, job, record = console.text, services.jobs.get(job_id), services.jobs.record(job_id)
    if not job.is_terminal:
        raise ConflictError("job.delete_running", job_id=job_id)
    said = [text("ui.jobs.delete_body", title=job.title, job=job_id)]
    if record.status == "pending":
        half = record.run_id is not None
        lost = text("ui.jobs.delete_half", run_id=record.run_id) if half else text("ui.jobs.delete_lost")
        said.append(lost)
    console.confirm(text.in_a_row(said), yes=yes)
    services.jobs.delete(job_id, even_unsent=even_unsent or not yes)


# What differs between the kinds.


@dataclass(frozen=True, slots=True)
class _Kind:
    """How jobs of a kind are followed, told of, and run again. `lines` tell the summary of one that is done."""

    follow: Callable[[Services], Followed[Progress] | Followed[BatchProgress]]
    summary: Callable[[Services, str], Frozen]
    lines: Callable[[Console, Any], Sequence[str]]
    again: Callable[[Console, Settings, str], int]


def _compile_summary(services: Services, job_id: str) -> CompileSummary:
    return summarise(services.jobs.view(job_id), services.programs)


def _batch_summary(services: Services, job_id: str) -> BatchSummary:
    return summarise_batch(services.batches.view(job_id), services.batches.waiting_traces(job_id))


_KINDS: Mapping[JobKind, _Kind] = {
    "compile": _Kind(lambda services: services.jobs, _compile_summary, compiling.lines, _compile_again),
    "batch": _Kind(lambda services: services.batches, _batch_summary, batch.lines, _batch_again),
}
