"""One batch: how far it is, how fast, what failed; its results to fetch, its record in MLflow."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final

from nicegui import ui
from nicegui.context import context

from dspyui.domain.batches import BatchModel
from dspyui.domain.jobs import JobEvent
from dspyui.domain.runs import trace_url_beside
from dspyui.errors import DSPyUIError, NotFoundError
from dspyui.services import Services
from dspyui.services.batches import BatchSummary, BatchView, error_kind, summarise
from dspyui.services.summary import duration_seconds
from dspyui.ui import formats
from dspyui.ui.background import notify_error, off_loop
from dspyui.ui.components.batch_rows import rows_table
from dspyui.ui.components.job_actions import delete_job
from dspyui.ui.components.progress import LogPanel
from dspyui.ui.components.table import Column, Table
from dspyui.ui.elements import (
    Region,
    box,
    button,
    card,
    chip,
    confirmed,
    empty,
    fact,
    facts,
    figure,
    link,
    link_button,
    marked,
    problem,
    sentence,
    tag,
    time_of,
)
from dspyui.ui.frame import Page, framed
from dspyui.ui.job_views import STATUS_ICONS, STATUS_TONES, metric_words
from dspyui.ui.visitor import who

LIVE_SECONDS: Final = 0.5
RECORD_SECONDS: Final = 2.0
_Found = tuple[BatchView, BatchSummary, Sequence[Mapping[str, Any]]]


async def batch_job_page(services: Services, job_id: str) -> None:
    """Everything about one batch, or that there is none."""
    try:
        found = await off_loop(_read, services, job_id)
        events, position = await off_loop(services.batches.events, job_id)
    except NotFoundError as exc:
        context.client.status_code = 404
        with framed(services, "batch") as page:
            title = page.text("ui.batch.unknown")
            with marked(empty("search_off", title, sentence(exc, page.text)), "unknown-batch"):
                link_button(page.text("ui.batch.all"), "/batch", mark="all-batches")
        return
    except DSPyUIError as exc:
        with framed(services, "batch") as page:
            problem(page.text, sentence(exc, page.text), retry=ui.navigate.reload)
        return
    view = found[0]
    lead = " · ".join((_source(view.model), view.spec.lms(view.model.program).task.model))
    with framed(services, "batch", title=view.job.title, lead=lead) as page:
        _Live(page, found).take(events, position)


def _source(model: BatchModel) -> str:
    """Where the program came from; of one that was uploaded the beginning of its digest tells it apart."""
    return f"{model.name} ({model.digest[:12]})" if model.uri.startswith("program:") else model.uri


def is_batch(services: Services, job_id: str) -> bool:
    """Whether the address of a job is that of a batch, which has a page of its own."""
    try:
        return services.jobs.get(job_id).kind == "batch"
    except DSPyUIError:
        return False


def _read(services: Services, job_id: str) -> _Found:
    view = services.batches.view(job_id)
    summary = summarise(view, services.batches.waiting_traces(job_id))
    return view, summary, services.batches.head(job_id)


class _Live:
    """Reads the batch by its id again and again until nothing will change any more."""

    def __init__(self, page: Page, found: _Found) -> None:
        self._page = page
        self._services = page.services
        self._text = page.text
        self._view, self._summary, self._rows = found
        self._position = 0
        self._busy = False
        with page.actions:
            self._actions = Region(self._draw_actions, "d-actions")
        self._status = Region(self._draw_status, "d-row")
        self._failure = Region(self._draw_failure, "d-stack-16")
        with card(self._text("ui.job.progress"), mark="batch-progress"):
            self._bar = ui.linear_progress(value=0, show_value=False)
            self._bar.props["aria-label"] = self._text("ui.job.progress")
            self._figures = Region(self._draw_figures, "d-figures")
        self._errors = Region(self._draw_errors, "d-stack-16")
        self._head = Region(self._draw_rows, "d-stack-16")
        self._record = Region(self._draw_record, "d-stack-16")
        self._log = LogPanel(page.visitor)
        self._bar.set_value(self._share())
        self._timer = ui.timer(LIVE_SECONDS, self._look, active=not self._settled)

    def take(self, events: Sequence[JobEvent], position: int) -> None:
        """Show what is new in the log, which has been read up to `position`."""
        self._position = position
        self._log.add(events)

    @property
    def _settled(self) -> bool:
        return self._view.job.is_terminal and self._view.record.status != "pending"

    def _share(self) -> float:
        progress = self._view.progress
        return progress.done / progress.total if progress.total else 0.0

    async def _look(self) -> None:
        if self._busy:
            return
        self._busy = True
        try:
            before = (self._view, self._summary, self._rows)
            self._view, self._summary, self._rows = await off_loop(_read, self._services, self._view.job.id)
            self.take(*await off_loop(self._services.batches.events, self._view.job.id, after=self._position))
        except NotFoundError:
            self._timer.deactivate()
            ui.navigate.to("/batch")
            return
        finally:
            self._busy = False
        self._redraw(*before)

    def _redraw(self, view: BatchView, summary: BatchSummary, rows: Sequence[Mapping[str, Any]]) -> None:
        self._bar.set_value(self._share())
        if view.progress != self._view.progress or view.job != self._view.job:
            self._figures.draw()
        if summary.errors != self._summary.errors:
            self._errors.draw()
        # The traces have an address once the Run has one.
        if len(rows) != len(self._rows) or view.record.run_url != self._view.record.run_url:
            self._head.draw()
        if (view.job.status, view.job.cancel_requested) != (
            self._view.job.status,
            self._view.job.cancel_requested,
        ):
            self._status.draw()
            self._actions.draw()
            self._failure.draw()
        if view.record != self._view.record:
            self._record.draw()
        if self._settled:
            self._timer.deactivate()
        elif self._view.job.is_terminal:
            self._timer.interval = RECORD_SECONDS

    # What is drawn.

    def _draw_actions(self) -> None:
        text, job = self._text, self._view.job
        if not job.is_terminal:
            made = button(text("ui.job.cancel"), self._cancel, mark="batch-cancel", icon="stop")
            made.set_enabled(not job.cancel_requested)
            return
        button(
            text("ui.common.delete"), self._delete, mark="batch-delete", kind="quiet", icon="delete_outline"
        )
        if self._summary.error_count or job.status != "done":
            button(text("ui.batch.again"), self._again, mark="batch-again", icon="replay")
        if self._summary.error_count and self._view.result is not None:
            link_button(
                text("ui.batch.errors_file"),
                f"/api/batches/{job.id}/errors",
                mark="batch-errors-file",
                icon="download",
            )
        if self._rows:
            link_button(
                text("ui.batch.download"),
                f"/api/batches/{job.id}/output",
                mark="batch-download",
                kind="primary",
                icon="download",
            )

    def _draw_status(self) -> None:
        text, job = self._text, self._view.job
        name = text(f"status.{job.status}")
        if job.cancel_requested and not job.is_terminal:
            name = text("ui.job.cancelling")
        chip(name, STATUS_TONES[job.status], icon=STATUS_ICONS[job.status], mark="batch-status")
        tag("span", job.id, "d-note")
        tag("span", text("ui.job.by", who=job.who), "d-note")
        time_of(job.created_at, self._page.visitor).classes("d-note")

    def _draw_failure(self) -> None:
        failure = self._view.job.failure
        if failure is not None:
            said = failure.sentence(self._text.language)
            problem(self._text, said, details=failure.detail, mark="batch-failure")

    def _draw_figures(self) -> None:
        text, view, summary = self._text, self._view, self._summary
        progress = view.progress
        done = f"{formats.count(summary.success_count + summary.error_count)} / {formats.count(summary.total_rows)}"
        marked(figure(text("ui.batch.rows"), done), "batch-rows")
        marked(figure(text("ui.batch.failed"), formats.count(summary.error_count)), "batch-failed")
        rate = text("ui.batch.per_second", rate=f"{summary.rows_per_second:.1f}")
        figure(text("ui.batch.rate"), rate)
        if view.job.is_terminal:
            figure(text("ui.job.duration"), formats.duration(duration_seconds(view.job), text))
        else:
            marked(figure(text("ui.batch.left"), formats.duration(progress.seconds_left, text)), "batch-left")
        figure(text("ui.job.tokens"), formats.count(summary.tokens))
        if summary.lm_cache_hits:
            # Else a repeat looks like a thousand answers a second for nothing.
            marked(figure(text("ui.batch.cached"), formats.count(summary.lm_cache_hits)), "batch-cached")
        figure(text("ui.batch.cost"), formats.cost(summary.cost))
        if progress.workers and not view.job.is_terminal:
            marked(figure(text("ui.batch.workers"), formats.count(progress.workers)), "batch-workers")
        if summary.reused:
            figure(text("ui.batch.reused"), formats.count(summary.reused))
        if summary.score is not None:
            self._draw_score(summary.score)

    def _draw_score(self, score: float) -> None:
        """With the metric's name, its interval and over how many rows."""
        text, view, summary = self._text, self._view, self._summary
        metric = view.spec.metric
        name = "" if metric is None else metric_words(metric, view.model.program.spec.signature, text)
        word = text(
            "ui.batch.score_word",
            low=formats.score(summary.score_ci_low),
            high=formats.score(summary.score_ci_high),
            rows=formats.count(summary.scored_rows),
        )
        label = text("ui.batch.score_by", metric=name) if name else text("ui.batch.score")
        with marked(box(), "batch-score"):
            figure(label, formats.score(score), word=word)

    def _draw_errors(self) -> None:
        text, errors = self._text, self._summary.errors
        if not errors:
            return
        with card(text("ui.batch.errors"), note=text("ui.batch.errors_lead"), mark="batch-errors"):
            table = Table([Column(text("ui.batch.kind")), Column(text("ui.batch.rows"), number=True)])
            for code, count in sorted(errors.items(), key=lambda entry: -entry[1]):
                with table.row():
                    table.cell(partial(self._draw_kind, code))
                    table.cell(formats.count(count))

    def _draw_kind(self, code: str) -> None:
        if (words := error_kind(self._text, code)) != code:
            tag("span", f"{words} ")
        tag("span", code, "d-note")

    def _draw_rows(self) -> None:
        if self._rows:
            note = self._text("ui.batch.head_lead", count=len(self._rows))
            with card(self._text("ui.batch.head"), note=note, mark="batch-head"):
                url = self._view.record.run_url
                rows_table(
                    self._text, self._rows, trace_address=partial(trace_url_beside, url) if url else None
                )

    def _draw_record(self) -> None:
        text, record = self._text, self._view.record
        with card(text("ui.batch.record"), mark="batch-record"), box("d-stack"):
            if record.status == "pending":
                tag("p", text("ui.record.pending", tries=record.tries))
            else:
                tag("p", text(f"ui.record.{record.status}"))
            if record.last_error:
                problem(text, record.last_error, mark="batch-record-problem")
            if record.run_id:
                link(text("ui.record.run_page"), f"/runs/{record.run_id}", mark="run-page")
            if record.run_url:
                link(text("ui.record.run"), record.run_url, outside=True, mark="batch-run")
            with facts():
                summary = self._summary
                fact(text("ui.batch.traces"), formats.count(summary.traces_logged))
                fact(text("ui.batch.traces_waiting"), formats.count(summary.traces_waiting))
                fact(text("ui.batch.traces_lost"), formats.count(summary.traces_lost))

    # What is done.

    async def _cancel(self) -> None:
        text = self._text
        if not await confirmed(
            text, text("ui.batch.cancel_title"), text("ui.batch.cancel_body"), text("ui.job.cancel")
        ):
            return
        await self._do(partial(self._services.batches.cancel, self._view.job.id))
        await self._look()

    async def _again(self) -> None:
        services = self._services
        user = who()
        try:
            spec = await off_loop(services.batches.again, self._view.job.id)
            job = await off_loop(services.batches.submit, spec, who=user)
        except DSPyUIError as exc:
            notify_error(exc, self._text)
            return
        ui.navigate.to(f"/batch/{job.id}")

    async def _delete(self) -> None:
        if await delete_job(self._services, self._text, self._view.job):
            ui.navigate.to("/batch")

    async def _do(self, call: "partial[None]") -> None:
        try:
            await off_loop(call)
        except DSPyUIError as exc:
            notify_error(exc, self._text)
