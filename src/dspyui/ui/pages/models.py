"""Registered models, from MLflow, a page at a time; without tracking, the programs kept in the data folder."""

from collections.abc import Sequence
from functools import partial

from nicegui import ui

from dspyui.domain.registry import (
    MAX_MODEL_NAME,
    MODEL_SORTS,
    ModelPage,
    ModelQuery,
    ModelVersion,
    RegisteredModel,
)
from dspyui.domain.storage import KeptProgram
from dspyui.services import Services
from dspyui.ui.background import Loaded
from dspyui.ui.components.pager import draw_turns
from dspyui.ui.components.register import version_address
from dspyui.ui.components.table import Column, Table
from dspyui.ui.elements import (
    Region,
    beside,
    box,
    button,
    card,
    chip,
    control,
    empty,
    folding,
    link,
    link_button,
    marked,
    tag,
    time_of,
)
from dspyui.ui.frame import Page, framed
from dspyui.ui.model_views import AskedModels, model_path, models_address, scores_of


def models_page(services: Services, asked: AskedModels) -> None:
    """Models from MLflow, or kept programs. The address holds what is looked for."""
    with framed(services, "models") as page:
        if services.settings.mlflow_enabled:
            _ModelList(page, asked.query())
        else:
            tag("p", page.text("ui.models.off"), "d-hint")
            Loaded(page.text, services.programs.search, partial(_draw_programs, page))


class _ModelList:
    """What is looked for, and the page that is shown."""

    def __init__(self, page: Page, query: ModelQuery) -> None:
        self._page = page
        self._text = page.text
        self._query = query
        # What each page is asked with: the first with nothing, each other with what the one before it told.
        self._tokens: list[str | None] = [None]
        self._at = 0
        self._filters = Region(self._draw_filters, "d-row d-filters")
        self._loaded = Loaded(page.text, self._read, self._draw)

    def _read(self) -> ModelPage:
        """In a thread; when something else was asked for meanwhile, that is read instead."""
        while True:
            asked = (self._query, self._tokens[self._at])
            found = self._page.services.models.page(*asked)
            if asked == (self._query, self._tokens[self._at]):
                return found

    async def _ask(self, **changes: object) -> None:
        self._query = self._query.model_copy(update=changes)
        self._at = 0
        del self._tokens[1:]
        ui.navigate.history.replace(models_address(self._query))
        await self._loaded.reload()

    async def _ask_all(self) -> None:
        self._query = ModelQuery(sort=self._query.sort)
        self._filters.draw()
        await self._ask()

    async def _turn(self, step: int) -> None:
        self._at = min(max(self._at + step, 0), len(self._tokens) - 1)
        await self._loaded.reload()

    def _draw_filters(self) -> None:
        text = self._text
        made = ui.input(value=self._query.name, placeholder=text("ui.models.search"))
        control(made, text("ui.models.search"), "models-name").props(
            f"debounce=300 clearable maxlength={MAX_MODEL_NAME}"
        )
        made.on_value_change(lambda event: self._ask(name=(event.value or "")[:MAX_MODEL_NAME]))
        sorts = {name: text(f"ui.models.sort_{name}") for name in MODEL_SORTS}
        with beside(text("ui.runs.sort")):
            chosen = ui.select(sorts, value=self._query.sort)
            control(chosen, text("ui.runs.sort"), "models-sort").on_value_change(
                lambda event: self._ask(sort=event.value)
            )

    def _draw(self, found: ModelPage) -> None:
        if found.next_token is not None and self._at + 1 == len(self._tokens):
            self._tokens.append(found.next_token)
        if not found.models and self._at == 0:
            self._draw_none()
            return
        with card(mark="models"):
            self._draw_table(found)
            self._draw_pager(found)

    def _draw_none(self) -> None:
        text = self._text
        if self._query.name:
            with marked(box("d-card"), "no-fit"), box("d-empty"):
                tag("p", text("ui.models.none_fit"))
                button(text("ui.runs.show_all"), self._ask_all, mark="show-all")
            return
        with empty("inventory_2", text("ui.models.empty"), text("ui.models.empty_lead")):
            link_button(text("ui.job.all"), "/jobs", mark="to-jobs", kind="primary", icon="list_alt")

    def _draw_table(self, found: ModelPage) -> None:
        text = self._text
        table = Table(
            [
                Column(text("ui.models.name")),
                Column(text("ui.models.newest")),
                Column(text("stage.Staging")),
                Column(text("stage.Production")),
                Column(text("ui.models.aliases")),
                Column(text("ui.models.updated")),
            ],
            pairs=True,
        )
        for model in found.models:
            with table.row():
                self._row(table, model)

    def _row(self, table: Table, model: RegisteredModel) -> None:
        table.cell(partial(self._name, model))
        for version in (model.newest, model.staging, model.production):
            table.cell("–" if version is None else partial(self._version, version))
        free = {
            alias: number for alias, number in model.aliases.items() if alias not in {"staging", "production"}
        }
        table.cell(", ".join(f"{alias} → {number}" for alias, number in sorted(free.items())) or "–")
        table.cell(partial(time_of, model.updated_at, self._page.visitor))

    def _name(self, model: RegisteredModel) -> None:
        link(model.name, model_path(model.name), mark=f"model-{model.name}").classes("d-break")
        if model.description:
            folding(model.description).classes("d-note")

    def _version(self, version: ModelVersion) -> None:
        text = self._text
        label = text("ui.models.number", version=version.version)
        link(label, version_address(version))
        score, gained = scores_of(version, text)
        if score != "–":
            tag("div", text("ui.models.scored", score=score), "d-note")
            tag("div", gained, "d-note")
        if version.is_changed_outside:
            chip(text("ui.models.outside"), "warn")

    def _draw_pager(self, found: ModelPage) -> None:
        draw_turns(
            self._text,
            self._at * self._query.size + 1,
            len(found.models),
            self._turn,
            has_more=found.next_token is not None,
            noun="models",
            mark="models",
        )


def _draw_programs(page: Page, programs: Sequence[KeptProgram]) -> None:
    text = page.text
    if not programs:
        with empty("inventory_2", text("ui.models.no_programs"), text("ui.models.no_programs_lead")):
            link_button(text("ui.jobs.new"), "/", mark="first-compile", kind="primary", icon="bolt")
        return
    with card(text("ui.models.programs"), mark="programs"):
        table = Table([Column(text("ui.program.name")), Column(text("ui.jobs.when")), Column("")])
        for program in programs:
            with table.row():
                table.cell(partial(link, program.name, f"/jobs/{program.job_id}"))
                table.cell(partial(time_of, program.at, page.visitor))
                address = f"/api/jobs/{program.job_id}/program"
                table.cell(
                    partial(
                        link_button,
                        text("ui.download.program"),
                        address,
                        mark=f"download-{program.job_id}",
                        kind="quiet",
                        icon="download",
                    )
                )
