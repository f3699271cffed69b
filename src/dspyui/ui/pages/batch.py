"""Batches: the form that starts one, five rows to try first, and the list of those there are."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final

from nicegui import ui
from nicegui.events import UploadEventArguments

from dspyui.domain.batches import OUTPUT_FORMATS, BatchModel, BatchProgress, BatchSpec
from dspyui.domain.jobs import Job
from dspyui.errors import DSPyUIError
from dspyui.services import Services
from dspyui.ui import formats
from dspyui.ui.background import Loaded, notify_error, off_loop
from dspyui.ui.batch_draft import BatchDraft, plain_metrics
from dspyui.ui.components.batch_rows import rows_table
from dspyui.ui.components.file_picker import ENDINGS
from dspyui.ui.components.program_chooser import ProgramChooser
from dspyui.ui.components.table import Column, Table
from dspyui.ui.elements import (
    Region,
    box,
    button,
    card,
    chip,
    control,
    labelled,
    link,
    marked,
    problem,
    sentence,
    tag,
    time_of,
)
from dspyui.ui.frame import Page, framed
from dspyui.ui.job_views import STATUS_ICONS, STATUS_TONES
from dspyui.ui.visitor import who

TRY_SECONDS: Final = 0.5
LISTED: Final = 50
_NUMBERS: Final = {
    "concurrency": "ui.batch.concurrency",
    "requests": "ui.batch.requests",
    "tokens": "ui.batch.tokens_limit",
    "sample": "ui.batch.sample",
}


def batch_page(services: Services, model: str) -> None:
    """The form, with a model chosen when the address names one, and the list."""
    with framed(services, "batch") as page:
        _Form(page, BatchDraft(model=model))
        Loaded(page.text, partial(_read, services), partial(_list, page), lines=3)


class _Form:
    """Writes what is chosen into the draft."""

    def __init__(self, page: Page, draft: BatchDraft) -> None:
        self._page = page
        self._services = page.services
        self._text = page.text
        self._draft = draft
        self._tried: Job | None = None
        self._busy = False
        with page.actions:
            button(self._text("ui.batch.try"), self._try, mark="batch-try", icon="science")
            self._start_button = button(
                self._text("ui.batch.start"),
                self._start,
                mark="batch-start",
                kind="primary",
                icon="play_arrow",
            )
        with card(self._text("ui.batch.what"), mark="batch-form"), box("d-stack-16"):
            self._draw_model()
            self._draw_file()
            self._draw_numbers()
        self._said = box("d-stack-16").props("aria-live=polite")
        # In a part that is never drawn anew.
        self._timer = ui.timer(TRY_SECONDS, self._look, active=False)

    def _set(self, name: str, event: Any) -> None:
        value = event.value
        setattr(
            self._draft, name, "" if value is None and isinstance(getattr(self._draft, name), str) else value
        )

    def _draw_model(self) -> None:
        text = self._text
        with marked(box("d-stack"), "batch-program"):
            tag("h3", text("ui.batch.model"), "d-h3")
            self._chooser = ProgramChooser(self._page, asked=self._draft.model)

    async def _spec(self) -> BatchSpec:
        """What is asked for; a program that was uploaded is kept, for the batch to find it whenever it runs."""
        chosen = self._chooser.chosen
        if isinstance(chosen, BatchModel):
            chosen = f"program:{await off_loop(self._services.programs.keep_uploaded, chosen.program)}"
        self._draft.model = chosen
        return self._draft.to_spec()

    def _draw_file(self) -> None:
        text = self._text
        limit = self._services.settings.max_upload_mb
        upload = ui.upload(
            label=text("ui.data.upload", limit=limit),
            auto_upload=True,
            max_file_size=limit * 1024**2,
            on_upload=self._uploaded,
            on_rejected=lambda: ui.notify(text("ui.data.rejected", limit=limit), type="negative"),
        )
        marked(upload.props(f"accept={ENDINGS} flat"), "batch-upload")
        self._chosen = Region(self._draw_chosen)
        with labelled(text("ui.data.path"), text("ui.batch.path_help")):
            made = ui.input(value=self._draft.path, placeholder="data/rows.parquet", on_change=self._typed)
            control(made, text("ui.data.path"), "batch-path").props("spellcheck=false")

        label = text("ui.batch.columns")
        with labelled(label, text("ui.batch.columns_help")):
            made = ui.input(value=self._draft.columns, on_change=partial(self._set, "columns"))
            control(made, label, "batch-columns").props("spellcheck=false")

    def _draw_chosen(self) -> None:
        if self._draft.upload:
            tag("p", self._text("ui.data.uploaded", name=self._draft.upload_name), "d-note")

    def _typed(self, event: Any) -> None:
        self._draft.path, self._draft.upload = event.value or "", ""
        self._chosen.draw()

    async def _uploaded(self, event: UploadEventArguments) -> None:
        content = await event.file.read()
        try:
            info = await off_loop(self._services.batches.keep_file, event.file.name, content)
        except DSPyUIError as exc:
            notify_error(exc, self._text)
            return
        self._draft.path, self._draft.upload, self._draft.upload_name = "", info.digest, info.name
        self._chosen.draw()

    def _draw_numbers(self) -> None:
        text = self._text
        with box("d-grid"):
            with labelled(text("ui.batch.format")):
                select = ui.select(
                    list(OUTPUT_FORMATS), value=self._draft.format, on_change=partial(self._set, "format")
                )
                control(select, text("ui.batch.format"), "batch-format")
            self._draw_metric()
            self._number("concurrency", minimum=1, maximum=256)
            self._number("requests", minimum=1)
            self._number("tokens", minimum=1)
            self._number("sample", minimum=0, maximum=1, step=0.05)

    def _draw_metric(self) -> None:
        text, label = self._text, self._text("ui.batch.metric")
        options = {kind: text(f"metric.{kind}.label") for kind in plain_metrics()}
        with labelled(label, text("ui.batch.metric_help")):
            made = ui.select(
                options, value=self._draft.metric, clearable=True, on_change=partial(self._set, "metric")
            )
            control(made, label, "batch-metric")

    def _number(self, name: str, *, minimum: float, maximum: float | None = None, step: float = 1) -> None:
        label, note = self._text(_NUMBERS[name]), self._text(f"ui.batch.{name}_help")
        with labelled(label, note):
            made = ui.number(
                value=getattr(self._draft, name),
                min=minimum,
                max=maximum,
                step=step,
                on_change=partial(self._set, name),
            )
            control(made, label, f"batch-{name}")

    def _problem(self, error: DSPyUIError) -> None:
        self._said.clear()
        with self._said:
            problem(self._text, sentence(error, self._text), mark="batch-problem")

    async def _start(self) -> None:
        user = who()
        self._start_button.props("loading")
        try:
            job = await off_loop(self._services.batches.submit, await self._spec(), who=user)
        except DSPyUIError as exc:
            self._problem(exc)
            return
        finally:
            self._start_button.props(remove="loading")
        ui.navigate.to(f"/batch/{job.id}")

    async def _try(self) -> None:
        if self._tried is not None:
            return
        user = who()
        try:
            self._tried = await off_loop(self._services.batches.try_rows, await self._spec(), who=user)
        except DSPyUIError as exc:
            self._problem(exc)
            return
        self._said.clear()
        with self._said, marked(box("d-row"), "batch-trying"):
            ui.spinner()
            tag("span", self._text("ui.batch.trying"))
        self._timer.activate()

    async def _look(self) -> None:
        job = self._tried
        if job is None or self._busy:
            return
        self._busy = True
        try:
            job = await off_loop(self._services.batches.get, job.id)
            if not job.is_terminal:
                return
            rows = await off_loop(self._services.batches.head, job.id)
            await off_loop(self._services.batches.delete, job.id)
        except DSPyUIError as exc:
            self._problem(exc)
            rows = ()
        finally:
            self._busy = False
        self._timer.deactivate()
        self._tried = None
        self._show_tried(job, rows)

    def _show_tried(self, job: Job, rows: Sequence[Mapping[str, Any]]) -> None:
        text = self._text
        self._said.clear()
        with self._said:
            if job.failure is not None:
                said = job.failure.sentence(text.language)
                problem(text, said, details=job.failure.detail, mark="batch-problem")
            if rows:
                with card(text("ui.batch.tried"), note=text("ui.batch.tried_lead"), mark="batch-tried"):
                    rows_table(text, rows)


# The list.


def _read(services: Services) -> list[tuple[Job, BatchProgress]]:
    found: list[tuple[Job, BatchProgress]] = []
    for job in services.batches.search()[:LISTED]:
        try:
            found.append((job, services.batches.progress(job.id)))
        except DSPyUIError:
            continue  # deleted since the list was read
    return found


def _list(page: Page, batches: list[tuple[Job, BatchProgress]]) -> None:
    text = page.text
    if not batches:
        return
    with card(text("ui.batch.list"), mark="batches"):
        table = Table(
            [
                Column(text("ui.jobs.title_column")),
                Column(text("ui.jobs.status")),
                Column(text("ui.batch.rows"), number=True),
                Column(text("ui.batch.failed"), number=True),
                Column(text("ui.jobs.when")),
            ],
            pairs=True,
        )
        for job, progress in batches:
            _row(page, table, job, progress)


def _row(page: Page, table: Table, job: Job, progress: BatchProgress) -> None:
    with table.row():
        table.cell(lambda: link(job.title, f"/batch/{job.id}", mark=f"open-{job.id}"))
        said, tone, icon = (
            page.text(f"status.{job.status}"),
            STATUS_TONES[job.status],
            STATUS_ICONS[job.status],
        )
        table.cell(lambda: chip(said, tone, icon=icon))
        table.cell(f"{formats.count(progress.done)} / {formats.count(progress.total)}")
        table.cell(formats.count(progress.failed))
        table.cell(lambda: time_of(job.created_at, page.visitor))
