"""One job, live and afterwards. Everything is read from the job's folder, so a reload changes nothing."""

from collections.abc import Sequence
from functools import partial
from typing import Final, get_args

from nicegui import ui
from nicegui.context import context

from dspyui.domain.intervals import Word
from dspyui.domain.jobs import JobEvent, JobFailure
from dspyui.domain.registry import model_name_from
from dspyui.domain.runs import TrackingStatus
from dspyui.errors import DSPyUIError, NotFoundError
from dspyui.services import Services
from dspyui.services.jobs import JobView
from dspyui.ui import formats
from dspyui.ui.background import notify_error, off_loop
from dspyui.ui.components.job_actions import DescribeDialog, delete_job
from dspyui.ui.components.progress import LogPanel, ProgressPanel
from dspyui.ui.components.prompts import PromptsCard
from dspyui.ui.components.register import Registration
from dspyui.ui.components.result import RowsCard, asked_cost, cost_in_words, scores_card
from dspyui.ui.components.try_it import TryCard, test_address
from dspyui.ui.elements import (
    Region,
    box,
    button,
    card,
    chip,
    code,
    confirmed,
    copy_button,
    delete_button,
    empty,
    fact,
    facts,
    link,
    link_button,
    marked,
    problem,
    sentence,
    tag,
    time_of,
)
from dspyui.ui.frame import Page, framed
from dspyui.ui.job_views import STATUS_ICONS, STATUS_TONES, Filter, elapsed, optimizer_label
from dspyui.ui.snippet import program_snippet
from dspyui.ui.visitor import find_visitor, who

LIVE_SECONDS: Final = 0.7
# After the end only the record in MLflow may still change.
RECORD_SECONDS: Final = 2.0


async def job_page(services: Services, job_id: str, rows: str) -> None:
    """The page of a job, or one that says there is none."""
    try:
        view = await off_loop(services.jobs.view, job_id)
        events, position = await off_loop(services.jobs.events, job_id)
    except NotFoundError as exc:
        _unknown(services, exc)
        return
    except DSPyUIError as exc:
        _broken(services, exc)
        return
    chosen: Filter = next((name for name in get_args(Filter) if name == rows), "all")
    with framed(services, "jobs", title=view.job.title, lead=_lead(services, view)) as page:
        live = _Live(page, view, chosen)
        live.take(events, position)
        live.follow()


def _lead(services: Services, view: JobView) -> str:
    optimizer = optimizer_label(view.spec.optimizer.info, find_visitor(services.settings).text)
    labels = (view.spec.program.module.info.label, optimizer, view.spec.lms.task.model)
    return " · ".join(labels)


def _unknown(services: Services, error: NotFoundError) -> None:
    context.client.status_code = 404
    with framed(services, "jobs") as page:
        text = page.text
        with marked(empty("search_off", text("ui.job.unknown"), sentence(error, text)), "unknown-job"):
            link_button(text("ui.job.all"), "/jobs", mark="all-jobs")


def _broken(services: Services, error: DSPyUIError) -> None:
    with framed(services, "jobs") as page:
        problem(page.text, sentence(error, page.text), retry=ui.navigate.reload)


class _Live:
    """The job's page: what is read again and again, and what is drawn when the job has ended."""

    def __init__(self, page: Page, view: JobView, chosen: Filter) -> None:
        self._page = page
        self._services = page.services
        self._text = page.text
        self._view = view
        self._chosen: Filter = chosen
        self._position = 0
        self._busy = False
        self._starting = False
        self._registration = Registration(
            self._services, self._text, self._id, model_name_from(view.job.title), self._gained
        )
        self._timer: ui.timer | None = None
        self._draw()

    @property
    def _id(self) -> str:
        return self._view.job.id

    def _draw(self) -> None:
        with self._page.actions:
            self._actions = Region(self._draw_actions, "d-actions")
        self._status = Region(self._draw_status, "d-row")
        if self._view.job.note:
            marked(tag("p", self._view.job.note, "d-hint d-break").style("white-space: pre-wrap"), "note")
        self._outcome = Region(self._draw_outcome, "d-stack-16")
        with box("d-stack-16") as self._course:
            self._progress = ProgressPanel(self._page.visitor, self._view)
            self._log = LogPanel(self._page.visitor)
        self._details = Region(self._draw_details, "d-stack-16")
        self._record = Region(self._draw_record, "d-stack-16")
        self._put_course_last()

    def follow(self) -> None:
        """Look again and again until nothing will change any more."""
        if not self._settled:
            seconds = RECORD_SECONDS if self._view.job.is_terminal else LIVE_SECONDS
            # In a part that is never drawn anew: a timer goes with what it stands in.
            with self._course:
                self._timer = ui.timer(seconds, self._look)

    def take(self, events: Sequence[JobEvent], position: int) -> None:
        """Show what is new in the log, which has been read up to `position`."""
        self._position = position
        self._log.add(events)
        self._progress.read(events)

    def _put_course_last(self) -> None:
        """While it runs, how it goes comes first; afterwards, what came of it."""
        if self._view.job.is_terminal:
            self._course.move(target_index=-1)

    @property
    def _settled(self) -> bool:
        job, record = self._view.job, self._view.record
        return job.is_terminal and record.status != "pending" and not record.is_behind(job)

    async def _look(self) -> None:
        if self._busy:
            return
        self._busy = True
        try:
            before = self._view
            self._view = await off_loop(self._services.jobs.view, self._id)
            self.take(*await off_loop(self._services.jobs.events, self._id, after=self._position))
        except NotFoundError:
            # Deleted meanwhile, from another page.
            self._stop()
            ui.navigate.reload()
            return
        finally:
            self._busy = False
        self._redraw(before)

    def _redraw(self, before: JobView) -> None:
        view = self._view
        self._progress.show(view)
        changed = (before.job.status, before.job.cancel_requested) != (
            view.job.status,
            view.job.cancel_requested,
        )
        if before.place != view.place and not changed:
            self._status.draw()
        if changed:
            self._status.draw()
            self._actions.draw()
            self._outcome.draw()
            self._put_course_last()
            self._details.draw()
        if changed or before.record != view.record:
            self._record.draw()
        if self._settled:
            self._stop()
        elif view.job.is_terminal and self._timer is not None:
            self._timer.interval = RECORD_SECONDS

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    # Head.

    def _draw_status(self) -> None:
        text, job = self._text, self._view.job
        name = text(f"status.{job.status}")
        if job.cancel_requested and not job.is_terminal:
            name = text("ui.job.cancelling")
        chip(name, STATUS_TONES[job.status], icon=STATUS_ICONS[job.status], mark="job-status")
        tag("span", job.id, "d-note")
        with box("d-row d-together"):
            tag("span", text("ui.job.by", who=job.who), "d-note")
            time_of(job.created_at, self._page.visitor).classes("d-note")
        if self._view.place is not None:
            marked(tag("span", text("ui.job.place", place=self._view.place), "d-note"), "job-place")
        if job.attempt > 1:
            tag("span", text("ui.job.attempt", attempt=job.attempt), "d-note")

    def _draw_actions(self) -> None:
        text, job = self._text, self._view.job
        button(
            text("ui.job.edit"),
            self._describe,
            mark="describe",
            kind="quiet",
            icon="edit_note",
            label_hidden=True,
        )
        if not job.is_terminal:
            made = button(text("ui.job.cancel"), self._cancel, mark="cancel", kind="danger", icon="stop")
            made.set_enabled(not job.cancel_requested)
            return
        delete_button(text, text("ui.jobs.delete_yes"), self._delete, mark="delete")
        link_button(text("ui.job.load"), f"/?job={job.id}", mark="load-job", icon="edit")
        button(text("ui.job.again"), self._again, mark="run-again", icon="replay")
        if job.status == "done":
            self._draw_register()

    def _draw_register(self) -> None:
        text = self._text
        made = button(
            text("ui.register.button"), self._register, mark="register", kind="primary", icon="inventory_2"
        )
        status = self._services.tracking.state().status
        if status != "ready":
            reason = text(f"ui.register.why_{status}")
            made.props["title"] = reason
            made.set_enabled(False)
            tag("p", reason, "d-note d-under")
            if status != "off":
                ui.timer(RECORD_SECONDS, partial(self._look_at_tracking, status))

    def _look_at_tracking(self, shown: TrackingStatus) -> None:
        # Only for a change: drawing anew takes the keyboard's focus away.
        if self._services.tracking.state().status != shown:
            self._actions.draw()

    def _gained(self) -> Word | None:
        result = self._view.result
        return result.difference.word if result is not None and result.difference is not None else None

    def _register(self) -> None:
        self._registration.open()

    def _describe(self) -> None:
        DescribeDialog(self._services, self._text, self._view.job)

    async def _delete(self) -> None:
        if await delete_job(self._services, self._text, self._view.job):
            self._stop()
            ui.navigate.to("/jobs")

    async def _cancel(self) -> None:
        text = self._text
        title = self._view.job.title
        if not await confirmed(
            text,
            text("ui.job.cancel_title"),
            text("ui.job.cancel_body", title=title),
            text("ui.job.cancel_yes"),
        ):
            return
        try:
            await off_loop(self._services.jobs.cancel, self._id)
        except DSPyUIError as exc:
            notify_error(exc, text)
        await self._look()

    async def _again(self) -> None:
        if self._starting:
            return
        self._starting = True
        try:
            # With the rows that the job kept, when its file is gone.
            loaded = await off_loop(self._services.reuse.job, self._id)
            job = await off_loop(partial(self._services.jobs.submit, loaded.spec, who=who()))
        except DSPyUIError as exc:
            notify_error(exc, self._text)
            return
        finally:
            self._starting = False
        ui.navigate.to(f"/jobs/{job.id}")

    # What came of it.

    def _draw_outcome(self) -> None:
        view, text = self._view, self._text
        if view.job.status == "failed":
            self._draw_failure(view.job.failure)
        if view.job.status == "cancelled":
            marked(tag("p", text("ui.job.cancelled"), "d-warning"), "cancelled")
        if view.result is not None and view.job.status == "done":
            scores_card(text, view.result, view.spec)

    def _draw_failure(self, failure: JobFailure | None) -> None:
        if failure is None:
            return
        problem(self._text, failure.sentence(self._text.language), details=failure.detail, mark="job-failure")

    def _draw_details(self) -> None:
        view = self._view
        if view.result is None or view.job.status != "done":
            return
        RowsCard(self._text, view.result, self._chosen)
        PromptsCard(self._text, view.result)
        with box("d-cols d-top"):
            example = view.result.optimised.rows[0].inputs
            TryCard(
                self._text,
                view.spec.program.signature,
                partial(self._services.predict.with_job, self._id),
                example,
                more=test_address(f"job:{self._id}"),
            )
            self._draw_download()

    def _draw_record(self) -> None:
        view, text = self._view, self._text
        if not view.job.is_terminal:
            return
        usage = view.result.usage if view.result else view.progress.usage
        seconds = elapsed(view.job, view.job.ended_at or view.job.created_at)
        with card(text("ui.record.title"), mark="record"), facts():
            fact(text("ui.job.duration"), formats.duration(seconds, text))
            fact(text("ui.job.lm_calls"), formats.count(usage.lm_calls))
            fact(text("ui.job.cache_hits"), formats.count(usage.lm_cache_hits))
            tokens = text(
                "ui.record.tokens",
                total=formats.count(usage.total_tokens),
                input=formats.count(usage.input_tokens),
                output=formats.count(usage.output_tokens),
            )
            fact(text("ui.job.tokens"), tokens)
            if usage.embedding_calls:
                embedded = text(
                    "ui.record.embedded",
                    calls=formats.count(usage.embedding_calls),
                    tokens=formats.count(usage.embedding_tokens),
                )
                fact(text("ui.record.embeddings"), embedded)
            fact(text("ui.job.cost"), cost_in_words(text, asked_cost(usage)))
            self._draw_run()

    def _draw_run(self) -> None:
        record, text = self._view.record, self._text
        tag("span", "MLflow", "k")
        with box("v"):
            if record.run_id:
                with box():
                    link(text("ui.record.run_page"), f"/runs/{record.run_id}", mark="run-page")
            if record.run_url:
                link(text("ui.record.run"), record.run_url, mark="run-link", outside=True)
            # As long as nothing went wrong, it is no matter how often it was tried.
            waits = record.status == "pending" and not record.last_error
            said = text("ui.record.waiting" if waits else f"ui.record.{record.status}", tries=record.tries)
            marked(tag("p", said, "d-note"), "record-state")
            if record.last_error:
                tag("p", record.last_error, "d-note")
            if record.status == "refused":
                button(text("ui.record.resend"), self._resend, mark="resend", icon="send")
            if record.traces_sent or record.traces_refused:
                traces = text("ui.record.traces", sent=record.traces_sent, refused=record.traces_refused)
                tag("p", traces, "d-note")

    async def _resend(self) -> None:
        try:
            await off_loop(self._services.record.resend, self._id)
        except DSPyUIError as exc:
            notify_error(exc, self._text)
        await self._look()
        self.follow()

    def _draw_download(self) -> None:
        text = self._text
        example = self._view.result.optimised.rows[0].inputs if self._view.result else {}
        snippet = program_snippet(self._view.spec, example)
        lead = text("ui.download.not_alone")
        if snippet:
            is_local = self._view.spec.lms.task.is_local
            lead = text("ui.download.lead_local" if is_local else "ui.download.lead")
        with card(text("ui.download.title"), note=lead, mark="download") as aside:
            if snippet:
                with aside:
                    copy_button(text, snippet, mark="copy-snippet")
            with box("d-row"):
                base = f"/api/jobs/{self._id}"
                link_button(
                    text("ui.download.program"), f"{base}/program", mark="download-program", icon="download"
                )
            if snippet:
                code(snippet, mark="snippet", is_program=True)
