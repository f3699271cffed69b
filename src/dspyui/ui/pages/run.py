"""One Run: everything its job recorded, read back from MLflow; one made on another machine shows the same."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Final, get_args

from nicegui import ui

from dspyui.domain.runs import NOTE_TAG
from dspyui.errors import DSPyUIError, NotFoundError
from dspyui.services import Services
from dspyui.services.runs import RunDetail
from dspyui.ui import formats
from dspyui.ui.background import Loaded, notify_error, off_loop
from dspyui.ui.components.progress import trial_label
from dspyui.ui.components.prompts import PromptsCard
from dspyui.ui.components.result import RowsCard, scores_card
from dspyui.ui.components.table import Column, Table
from dspyui.ui.components.traces import TracesCard
from dspyui.ui.components.try_it import test_address
from dspyui.ui.elements import (
    box,
    button,
    card,
    confirmed,
    delete_button,
    fact,
    facts,
    figure,
    folding,
    link,
    link_button,
    marked,
    problem,
    tag,
    time_of,
)
from dspyui.ui.frame import Page, framed
from dspyui.ui.job_views import Filter
from dspyui.ui.pages.runs import registered, state_chip
from dspyui.ui.run_views import batch_address, batch_score, difference, optimizer_name, seconds
from dspyui.ui.visitor import find_visitor

SHORT_ID: Final = 8
# Shown in places of their own, or of no use to people.
HIDDEN_TAGS: Final = (NOTE_TAG, "mlflow.loggedArtifacts", "dspyui.error")


def run_page(services: Services, run_id: str, rows: str) -> None:
    """The page; what it shows is read from MLflow. `rows` is the filter of the test rows that is chosen first."""
    chosen: Filter = next((name for name in get_args(Filter) if name == rows), "all")
    text = find_visitor(services.settings).text
    title = f"Run {run_id[:SHORT_ID]}"
    with framed(services, "runs", title=title, lead=text("ui.run.lead")) as page:
        Loaded(page.text, partial(_read, services, run_id), partial(_Run, page, chosen), lines=8)


def _read(services: Services, run_id: str) -> tuple[RunDetail, bool]:
    """The Run, and whether its job is on this machine."""
    found = services.run_list.detail(run_id)
    try:
        services.jobs.get(found.info.job_id or "")
    except NotFoundError:
        return found, False
    return found, True


class _Run:
    """Draws the Run."""

    def __init__(self, page: Page, rows: Filter, found: tuple[RunDetail, bool]) -> None:
        self._page = page
        self._services = page.services
        self._text = page.text
        self._run, self._has_job = found
        self._info = self._run.info
        if self._info.name:
            page.entitle(self._info.name)
        page.actions.clear()
        with page.actions:
            self._draw_actions()
        self._draw_about()
        for notice in self._run.notices:
            marked(tag("p", notice.sentence(self._text.language), "d-warning"), "run-notice")
        self._draw_result(rows)
        self._draw_params()
        TracesCard(page, "run", partial(self._services.traces.of_run, self._info.run_id))
        self._draw_record()

    # What can be done.

    def _draw_actions(self) -> None:
        text, info = self._text, self._info
        if info.deleted:
            button(text("ui.runs.restore"), self._restore, mark="restore", kind="primary", icon="restore")
            return
        delete_button(text, text("ui.run.delete"), self._delete, mark="delete")
        if self._run.spec is not None:
            link_button(text("ui.runs.load"), f"/?run={info.run_id}", mark="load-run", icon="edit")
        if "program.json" in self._run.files:
            link_button(
                text("ui.test.nav"),
                test_address(f"runs:/{info.run_id}"),
                mark="test-run-program",
                kind="primary",
                icon="science",
            )
        if info.kind == "batch" and (address := batch_address(info)):
            link_button(text("ui.runs.batch_again"), address, mark="batch-again", icon="table_rows")

    async def _delete(self) -> None:
        text, info = self._text, self._info
        said = [text("ui.run.delete_body", name=info.name)]
        if made := self._run.registrations:
            names = ", ".join(f"{version.name} {version.version}" for version in made)
            said.append(text("ui.run.delete_versions", names=names))
        if not await confirmed(text, text("ui.run.delete_title"), text.in_a_row(said), text("ui.run.delete")):
            return
        await self._change(self._services.run_list.delete)

    async def _restore(self) -> None:
        await self._change(self._services.run_list.restore)

    async def _change(self, change: Callable[[str], None]) -> None:
        try:
            await off_loop(change, self._info.run_id)
        except DSPyUIError as exc:
            notify_error(exc, self._text)
            return
        ui.navigate.reload()

    # What it is.

    def _draw_about(self) -> None:
        text, info = self._text, self._info
        if info.deleted:
            marked(tag("p", text("ui.run.is_deleted"), "d-warning"), "is-deleted")
        if note := info.tags.get(NOTE_TAG):
            marked(tag("p", note, "d-hint d-break").style("white-space: pre-wrap"), "note")
        if said := info.tags.get("dspyui.error"):
            problem(text, said, mark="run-failure")
        if info.kind == "batch":
            marked(tag("p", text("ui.run.is_batch"), "d-hint"), "is-batch")
        with card(text("ui.run.about"), mark="run"), facts():
            if info.kind is not None:
                fact(text("ui.runs.kind"), text(f"ui.runs.kind_{info.kind}"))
            self._cell(text("ui.jobs.status"), "run-state", partial(state_chip, self._page, info))
            self._cell(
                text("ui.jobs.when"), "run-when", partial(time_of, info.started_at, self._page.visitor)
            )
            fact(text("ui.job.duration"), formats.duration(seconds(info), text))
            if who := info.tags.get("dspyui.user") or info.tags.get("mlflow.user"):
                fact(text("ui.run.who"), who)
            fact(text("ui.version.program"), info.tags.get("dspyui.program", "–"))
            fact(text("ui.program.module"), info.params.get("module", "–"))
            fact(text("ui.optimizer.kind"), optimizer_name(info.params.get("optimizer"), text))
            fact(text("ui.lm.title"), info.params.get("lm.task.model", "–"))
            if info.job_id:
                self._cell(text("ui.version.job"), "run-job", self._job)
            if self._run.registrations:
                self._cell(
                    text("ui.runs.registered_as"),
                    "run-versions",
                    partial(registered, self._page, self._run.registrations),
                )
            self._cell("MLflow", "run-in-mlflow", self._mlflow)

    def _cell(self, label: str, mark: str, draw: Callable[[], object]) -> None:
        tag("span", label, "k")
        with marked(box("v"), mark):
            draw()

    def _job(self) -> None:
        job_id = self._info.job_id or ""
        if self._has_job:
            link(job_id, f"/jobs/{job_id}", mark="job-link")
        else:
            tag("span", self._text("ui.run.job_elsewhere", job=job_id), "d-soft")

    def _mlflow(self) -> None:
        link(self._text("ui.common.in_mlflow"), self._info.url, mark="mlflow-link", outside=True)

    # What came of it.

    def _draw_result(self, rows: Filter) -> None:
        result, spec, text = self._run.result, self._run.spec, self._text
        if result is None or spec is None:
            self._draw_figures()
        if result is None:
            return
        if spec is not None:
            scores_card(text, result, spec)
        RowsCard(text, result, rows)
        PromptsCard(text, result)
        if result.trials:
            with card(text("ui.job.trials"), mark="trials"):
                table = Table([Column("#", number=True), Column(text("ui.run.candidate")),
                               Column(text("ui.rows.score"), number=True)])  # fmt: skip
                for trial in result.trials:
                    with table.row():
                        table.cell(str(trial.step))
                        table.cell(trial_label(text, trial.label))
                        table.cell(formats.score(trial.score))

    def _draw_figures(self) -> None:
        metrics, text = self._info.metrics, self._text
        if self._info.kind == "batch":
            self._draw_batch()
            return
        if "evaluation_score" not in metrics:
            return
        with card(text("ui.result.title"), mark="figures"), box("d-figures"):
            figure(text("ui.job.baseline"), formats.score(metrics.get("baseline_score")), big=True)
            figure(text("ui.job.optimised"), formats.score(metrics["evaluation_score"]), big=True)
            gained, sure = difference(self._info)
            figure(
                text("ui.result.difference"),
                "–" if gained is None else formats.signed(gained),
                word=sure.words(text) if sure else "",
                tone=sure.tone if sure else "",
                big=True,
            )

    def _draw_batch(self) -> None:
        metrics, text = self._info.metrics, self._text
        if "total_rows" not in metrics:
            return
        score, interval = batch_score(self._info)
        with card(text("ui.result.title"), mark="batch-figures"), box("d-figures"):
            figure(text("ui.batch.rows"), formats.count(int(metrics["total_rows"])), big=True)
            figure(text("ui.batch.failed"), formats.count(int(metrics.get("error_count", 0))), big=True)
            figure(text("ui.batch.score"), score, word=interval, big=True)
            for name in ("p50", "p95"):
                found = metrics.get(f"latency_ms_{name}")
                said = "–" if found is None else formats.duration(found / 1000, text)
                figure(f"{text('ui.batch.latency')} {name}", said, big=True)

    # What was asked, and what it took.

    def _draw_params(self) -> None:
        params = self._info.params
        if params:
            with card(self._text("ui.run.params"), note=self._text("ui.run.params_lead"), mark="params"):
                _pairs(params)

    def _draw_record(self) -> None:
        text, info = self._text, self._info
        with card(text("ui.run.recorded"), mark="recorded"):
            with facts():
                for name, value in sorted(info.metrics.items()):
                    fact(name, f"{value:.6g}")
            tags = {name: value for name, value in info.tags.items() if name not in HIDDEN_TAGS}
            with ui.expansion(text("ui.run.tags")):
                _pairs(tags)
            if self._run.files:
                with box("d-row"):
                    for name in self._run.files:
                        address = f"/api/runs/{info.run_id}/files/{name}"
                        link_button(name, address, mark=f"file-{name}", kind="quiet", icon="download")


def _pairs(values: Mapping[str, str]) -> None:
    with facts():
        for name, value in sorted(values.items()):
            tag("span", name, "k")
            with box("v"):
                folding(value)
