"""All jobs, newest first."""

from collections.abc import Sequence
from functools import partial
from typing import Final, get_args
from urllib.parse import urlencode

from nicegui import ui

from dspyui.domain.compiles import CompileResult, CompileSpec
from dspyui.domain.jobs import Job, JobStatus
from dspyui.errors import DSPyUIError, NotFoundError
from dspyui.i18n import Text
from dspyui.services import Services
from dspyui.services.jobs import JobFilter
from dspyui.services.summary import duration_seconds
from dspyui.ui import formats
from dspyui.ui.background import Loaded, off_loop
from dspyui.ui.components.job_actions import delete_job
from dspyui.ui.components.pager import Pager
from dspyui.ui.components.table import Column, Table
from dspyui.ui.elements import (
    Region,
    box,
    button,
    card,
    chip,
    control,
    empty,
    link,
    link_button,
    marked,
    tag,
    time_of,
)
from dspyui.ui.frame import Page, framed
from dspyui.ui.job_views import STATUS_ICONS, STATUS_TONES, optimizer_label

REFRESH_SECONDS: Final = 2.0
PAGE_ROWS: Final = 25
# Of what is looked for, and of a note in the list.
MAX_SEARCH: Final = 200
NOTE_CHARACTERS: Final = 120
# A job with its spec and its result; None for what is not there or cannot be read.
_Row = tuple[Job, CompileSpec | None, CompileResult | None]


def jobs_page(services: Services, state: str, text: str) -> None:
    """The list; it follows the jobs while it is open. The address holds what is looked for: `?state=` and `?text=`."""
    known: Sequence[JobStatus] = get_args(JobStatus)
    asked = JobFilter(status=next((name for name in known if name == state), None), text=text[:MAX_SEARCH])
    with framed(services, "jobs") as page:
        with page.actions:
            link_button(page.text("ui.jobs.new"), "/", mark="new-compile", kind="primary", icon="add")
        Loaded(page.text, services.jobs.search, partial(_JobList, page, asked))


class _JobList:
    """Draws one page of the jobs; specs and results are read for those rows alone."""

    def __init__(self, page: Page, asked: JobFilter, jobs: Sequence[Job]) -> None:
        self._page = page
        self._asked = asked
        self._jobs = list(jobs)
        self._fitting = [job for job in jobs if asked.fits(job)]
        self._shown: list[_Row] = []
        self._pager = Pager(PAGE_ROWS)
        if self._jobs:
            self._filters = Region(self._draw_filters, "d-row")
        self._region = Region(self._draw)
        ui.timer(0.01, self._read, once=True)
        ui.timer(REFRESH_SECONDS, self._look)

    async def _look(self) -> None:
        jobs = list(await off_loop(self._page.services.jobs.search))
        if jobs != self._jobs:
            self._jobs = jobs
            await self._read()

    async def _read(self) -> None:
        self._fitting = [job for job in self._jobs if self._asked.fits(job)]
        first, last = self._pager.bounds(len(self._fitting))
        self._shown = await off_loop(_details, self._page.services, self._fitting[first:last])
        self._region.draw()

    def _draw_filters(self) -> None:
        text, asked = self._page.text, self._asked
        states = {"": text("ui.jobs.any_state")}
        states |= {name: text(f"status.{name}") for name in get_args(JobStatus)}
        chosen = ui.select(states, value=asked.status or "")
        control(chosen, text("ui.jobs.state"), "jobs-state").on_value_change(
            lambda event: self._ask(status=event.value or None)
        )
        search = ui.input(value=asked.text, placeholder=text("ui.jobs.search_short"))
        search.props["title"] = text("ui.jobs.search")
        control(search, text("ui.jobs.search"), "jobs-search").classes("d-grow").props(
            f"debounce=300 clearable maxlength={MAX_SEARCH}"
        )
        search.on_value_change(lambda event: self._ask(text=event.value or ""))

    async def _ask(self, **changes: object) -> None:
        """Look for something else; the address follows, so that the view can be shared."""
        self._asked = self._asked.model_copy(update=changes)
        self._pager.page = 0
        wanted = {"state": self._asked.status or "", "text": self._asked.text}
        query = urlencode({name: value for name, value in wanted.items() if value})
        ui.navigate.history.replace(f"/jobs?{query}" if query else "/jobs")
        await self._read()

    async def _ask_all(self) -> None:
        await self._ask(status=None, text="")
        self._filters.draw()

    def _draw(self) -> None:
        text = self._page.text
        if self._jobs and not self._fitting:
            with marked(box("d-card"), "no-fit"), box("d-empty"):
                tag("p", text("ui.jobs.none_fit"))
                button(text("ui.jobs.show_all"), self._ask_all, mark="show-all")
            return
        if not self._jobs:
            with marked(empty("list_alt", text("ui.jobs.empty"), text("ui.jobs.empty_lead")), "no-jobs"):
                link_button(text("ui.jobs.new"), "/", mark="first-compile", kind="primary", icon="bolt")
            return
        with card(mark="jobs"):
            table = Table(
                [
                    Column(text("ui.jobs.title_column")),
                    Column(text("ui.jobs.status")),
                    Column(text("ui.optimizer.kind")),
                    Column(text("ui.jobs.scores"), number=True),
                    Column(text("ui.jobs.when")),
                    Column(text("ui.job.duration"), number=True),
                    Column(""),
                ],
                pairs=True,
            )
            for job, spec, result in self._shown:
                self._row(table, job, spec, result)
            with box("d-row"):
                self._pager.draw(text, len(self._fitting), self._turn, mark="jobs", noun="jobs")

    async def _turn(self) -> None:
        await self._read()

    def _row(self, table: Table, job: Job, spec: CompileSpec | None, result: CompileResult | None) -> None:
        text, visitor = self._page.text, self._page.visitor
        with table.row() as row:
            marked(row, f"job-{job.id}")
            table.cell(partial(_title, job))
            table.cell(
                lambda: chip(
                    text(f"status.{job.status}"), STATUS_TONES[job.status], icon=STATUS_ICONS[job.status]
                )
            )
            table.cell(_optimizer(text, spec))
            scores = "–"
            if result is not None:
                scores = f"{formats.score(result.baseline.score)} → {formats.score(result.optimised.score)}"
            table.cell(scores)
            table.cell(lambda: time_of(job.created_at, visitor))
            table.cell(formats.duration(duration_seconds(job), text))
            table.cell(partial(self._delete_button, job), tools=True)

    def _delete_button(self, job: Job) -> None:
        made = button(
            self._page.text("ui.common.delete"),
            partial(self._delete, job),
            mark=f"delete-{job.id}",
            kind="quiet",
            icon="delete_outline",
            label_hidden=True,
        )
        made.set_enabled(job.is_terminal)

    async def _delete(self, job: Job) -> None:
        await delete_job(self._page.services, self._page.text, job)
        await self._look()


def _title(job: Job) -> None:
    link(job.title, f"/jobs/{job.id}", mark=f"open-{job.id}")
    if job.note:
        tag("div", job.note.partition("\n")[0][:NOTE_CHARACTERS], "d-note")


def _optimizer(text: Text, spec: CompileSpec | None) -> str:
    if spec is None:
        return "–"
    return optimizer_label(spec.optimizer.info, text)


def _details(services: Services, jobs: Sequence[Job]) -> list[_Row]:
    found: list[_Row] = []
    for job in jobs:
        try:
            result = services.job_store.find_result(job.id) if job.status == "done" else None
            found.append((job, services.job_store.spec(job.id), result))
        except NotFoundError:
            # Deleted since the list was read; the next look leaves it out.
            continue
        except DSPyUIError:
            # A file in its folder is damaged: it stays in the list, so that it can be opened and deleted.
            found.append((job, None, None))
    return found
