"""The Runs of the experiment, from MLflow, a page at a time."""

from functools import partial
from typing import Final

from nicegui import ui

from dspyui.domain.run_list import MAX_FILTER, SORTS, Registration, RunQuery
from dspyui.domain.runs import RUN_KINDS, RunInfo
from dspyui.errors import DSPyUIError
from dspyui.i18n import Text
from dspyui.services import Services
from dspyui.services.runs import MAX_COMPARED, ListedRun, RunListing
from dspyui.ui import formats
from dspyui.ui.background import Loaded, notify_error, off_loop
from dspyui.ui.components.pager import draw_turns
from dspyui.ui.components.table import Column, Table, two
from dspyui.ui.elements import (
    Region,
    Tone,
    beside,
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
from dspyui.ui.job_views import difference_in_words
from dspyui.ui.run_views import (
    MODULE_LABELS,
    OPTIMIZER_LABELS,
    STATES,
    AskedRuns,
    address_of,
    batch_address,
    batch_score,
    compare_address,
    difference,
    optimizer_name,
    seconds,
    short_name,
    version_path,
)

RUN_TONES: Final[dict[str, Tone]] = {
    "FINISHED": "good",
    "FAILED": "bad",
    "KILLED": "warn",
    "RUNNING": "accent",
}
# How often MLflow is asked again while a Run of the page is going on.
LOOK_SECONDS: Final = 10.0


def runs_page(services: Services, asked: AskedRuns) -> None:
    """The list, or why there is none. The address holds what is looked for."""
    with framed(services, "runs") as page:
        if not services.settings.mlflow_enabled:
            empty("cloud_off", page.text("ui.runs.off"), page.text("ui.runs.off_lead"))
            return
        _RunList(page, asked.query())


def state_chip(page: Page, info: RunInfo, *, mark: str | None = None) -> None:
    """The state that MLflow tells; one that we do not know in its own word."""
    key = f"run_status.{info.status}"
    said = page.text(key) if page.text.has(key) else info.status
    chip(said, RUN_TONES.get(info.status, ""), mark=mark)
    if info.deleted:
        chip(page.text("ui.runs.deleted_one"), "warn")


def registered(page: Page, made: tuple[Registration, ...]) -> None:
    """Links to the versions that were made of a Run."""
    for version in made:
        label = page.text("ui.runs.version", name=version.name, version=version.version)
        target = version_path(version.name, version.version)
        with box():  # a line for each, or their names run together
            shown = link(label, target, mark=f"version-{version.name}-{version.version}")
            shown.classes("d-name").props["title"] = label


class _RunList:
    """Filters, the page that is shown, and which Runs are chosen to be compared."""

    def __init__(self, page: Page, query: RunQuery) -> None:
        self._page = page
        self._text = page.text
        self._query = query
        # What each page is asked with: the first with nothing, each other with what the one before it told.
        self._tokens: list[str | None] = [None]
        self._at = 0
        self._listing: RunListing | None = None
        self._chosen: dict[str, str] = {}
        with page.actions:
            self._actions = Region(self._draw_actions, "d-actions")
        self._filters = Region(self._draw_filters, "d-row d-filters")
        self._loaded = Loaded(page.text, self._read, self._draw)
        ui.timer(LOOK_SECONDS, self._look)

    # Reading.

    def _read(self) -> RunListing:
        """In a thread; when something else was asked for meanwhile, that is read instead."""
        while True:
            asked = (self._query, self._tokens[self._at])
            found = self._page.services.run_list.page(*asked)
            if asked == (self._query, self._tokens[self._at]):
                return found

    async def _look(self) -> None:
        shown = self._listing
        if shown is None or all(run.info.status != "RUNNING" for run in shown.runs):
            return
        try:
            found = await off_loop(self._read)
        except DSPyUIError:
            # What is shown stays true as of when it was read; the header tells that MLflow is away.
            return
        # Only for a change: drawing anew takes the keyboard's focus away.
        if found != self._listing:
            await self._loaded.reload()

    async def _ask(self, **changes: object) -> None:
        """Look for something else; the address follows, so that the view can be shared."""
        self._query = self._query.model_copy(update=changes)
        # In this order: a thread may just be reading.
        self._at = 0
        del self._tokens[1:]
        ui.navigate.history.replace(address_of(self._query))
        await self._loaded.reload()

    async def _ask_all(self) -> None:
        self._query = RunQuery(sort=self._query.sort, descending=self._query.descending)
        self._filters.draw()
        await self._ask()

    async def _turn(self, step: int) -> None:
        # The buttons of a page that is just being left can be clicked once more.
        self._at = min(max(self._at + step, 0), len(self._tokens) - 1)
        await self._loaded.reload()

    # What stands above the list.

    def _draw_actions(self) -> None:
        count = len(self._chosen)
        label = self._text("ui.runs.compare", count=count)
        made = button(label, self._compare, mark="compare", kind="primary", icon="compare_arrows")
        made.set_enabled(2 <= count <= MAX_COMPARED)
        made.props["title"] = self._text("ui.runs.compare_help", limit=MAX_COMPARED)

    def _compare(self) -> None:
        ui.navigate.to(compare_address(list(self._chosen)))

    def _draw_filters(self) -> None:
        text = self._text
        kinds: dict[str, str] = {kind: text(f"ui.runs.kind_{kind}") for kind in RUN_KINDS}
        self._select("kind", text("ui.runs.kind"), text("ui.runs.any_kind"), kinds)
        states = {name: text(f"run_status.{name}") for name in STATES}
        self._select("state", text("ui.jobs.state"), text("ui.jobs.any_state"), states)
        modules = {label: label for label in MODULE_LABELS}
        self._select("module", text("ui.program.module"), text("ui.runs.any_module"), modules)
        optimizers = {label: optimizer_name(label, text) for label in OPTIMIZER_LABELS}
        self._select("optimizer", text("ui.optimizer.kind"), text("ui.runs.any_optimizer"), optimizers)
        self._search("name", text("ui.runs.search_name"))
        self._search("program", text("ui.runs.search_program"))
        self._search("lm", text("ui.runs.search_lm"))
        sorts = {name: text(f"ui.runs.sort_{name}") for name in SORTS}
        with beside(text("ui.runs.sort")):
            chosen = ui.select(sorts, value=self._query.sort)
            control(chosen, text("ui.runs.sort"), "runs-sort").on_value_change(
                lambda event: self._ask(sort=event.value)
            )
            self._draw_order()
        switch = ui.switch(text("ui.runs.deleted"), value=self._query.deleted)
        marked(switch, "runs-deleted").on_value_change(lambda event: self._ask(deleted=bool(event.value)))

    def _draw_order(self) -> None:
        descending = self._query.descending
        made = button(
            self._text("ui.runs.descending" if descending else "ui.runs.ascending"),
            self._reverse,
            mark="runs-order",
            kind="quiet",
            icon="arrow_downward" if descending else "arrow_upward",
            label_hidden=True,
        )
        made.props["aria-pressed"] = "false" if descending else "true"

    async def _reverse(self) -> None:
        self._query = self._query.model_copy(update={"descending": not self._query.descending})
        # In this order: the button that was pressed goes when the filters are drawn anew.
        await self._ask()
        self._filters.draw()

    def _select(self, name: str, label: str, any_label: str, options: dict[str, str]) -> None:
        chosen = ui.select({"": any_label, **options}, value=getattr(self._query, name) or "")
        control(chosen, label, f"runs-{name}").on_value_change(
            lambda event: self._ask(**{name: event.value or None})
        )

    def _search(self, name: str, label: str) -> None:
        made = ui.input(value=getattr(self._query, name), placeholder=label)
        control(made, label, f"runs-{name}").props(f"debounce=300 clearable maxlength={MAX_FILTER}")
        made.on_value_change(lambda event: self._ask(**{name: (event.value or "")[:MAX_FILTER]}))

    # The list.

    def _draw(self, listing: RunListing) -> None:
        self._listing = listing
        if listing.next_token is not None and self._at + 1 == len(self._tokens):
            self._tokens.append(listing.next_token)
        if not listing.runs and self._at == 0:
            self._draw_none()
            return
        name = self._page.services.settings.mlflow_experiment_name
        with card(note=self._text("ui.runs.experiment", name=name), mark="runs"):
            self._draw_table(listing)
            self._draw_pager(listing)

    def _draw_none(self) -> None:
        text = self._text
        if self._query.is_filtered:
            with marked(box("d-card"), "no-fit"), box("d-empty"):
                tag("p", text("ui.runs.none_fit"))
                button(text("ui.runs.show_all"), self._ask_all, mark="show-all")
            return
        with empty("timeline", text("ui.runs.empty"), text("ui.runs.empty_lead")):
            link_button(text("ui.jobs.new"), "/", mark="first-compile", kind="primary", icon="bolt")

    def _draw_table(self, listing: RunListing) -> None:
        text = self._text
        table = Table(
            [
                Column(text("ui.runs.name")),
                Column(text("ui.jobs.status")),
                Column(text("ui.runs.program_module")),
                Column(text("ui.runs.optimizer_lm"), whole=True),
                Column(text("ui.runs.score_difference"), number=True),
                Column(text("ui.runs.cost_time"), number=True),
                Column(text("ui.runs.registered_as")),
                Column(""),
            ],
            pairs=True,
        )
        for run in listing.runs:
            with table.row():
                self._row(table, run)

    def _row(self, table: Table, run: ListedRun) -> None:
        info, text = run.info, self._text
        table.cell(partial(self._name, info))
        table.cell(partial(state_chip, self._page, info))
        table.cell(partial(two, info.tags.get("dspyui.program"), info.params.get("module")))
        optimizer = optimizer_name(info.params.get("optimizer"), text)
        table.cell(partial(two, optimizer, info.params.get("lm.task.model")))
        table.cell(partial(two, *(batch_score(info) if info.kind == "batch" else _scores(info, text))))
        cost = formats.cost(info.metrics.get("cost"))
        table.cell(partial(two, cost, formats.duration(seconds(info), text)))
        table.cell(partial(registered, self._page, run.registrations) if run.registrations else "–")
        table.cell(partial(self._tool, info), tools=True)

    def _name(self, info: RunInfo) -> None:
        with box("d-row d-pick"):
            made = ui.checkbox(
                value=info.run_id in self._chosen,
                on_change=lambda event: self._choose(info, bool(event.value)),
            )
            made.props("dense")
            made.props["aria-label"] = self._text("ui.runs.choose", name=info.name)
            marked(made, f"choose-{info.run_id}")
            with box():
                shown = link(short_name(info), f"/runs/{info.run_id}", mark=f"run-{info.run_id}")
                if shown.text != info.name:
                    shown.props["title"] = info.name
                with box("d-note"):
                    if info.kind is not None:
                        marked(
                            tag("span", f"{self._text(f'ui.runs.kind_{info.kind}')} · "),
                            f"kind-{info.run_id}",
                        )
                    time_of(info.started_at, self._page.visitor)

    def _choose(self, info: RunInfo, chosen: bool) -> None:
        if chosen:
            self._chosen[info.run_id] = info.name
        else:
            self._chosen.pop(info.run_id, None)
        self._actions.draw()

    def _tool(self, info: RunInfo) -> None:
        text = self._text
        if info.deleted:
            button(text("ui.runs.restore"), partial(self._restore, info), mark=f"restore-{info.run_id}")
        # While it runs, a Run holds no spec yet; one that DSPyUI did not make never does.
        elif info.kind == "batch":
            if address := batch_address(info):
                self._link_icon(text("ui.runs.batch_again"), address, f"batch-{info.run_id}", "table_rows")
        elif info.job_id and info.status != "RUNNING":
            self._link_icon(text("ui.runs.load"), f"/?run={info.run_id}", f"load-{info.run_id}", "edit")

    def _link_icon(self, label: str, address: str, mark: str, icon: str) -> None:
        made = button(label, mark=mark, kind="quiet", icon=icon, label_hidden=True)
        made.props["href"] = address

    async def _restore(self, info: RunInfo) -> None:
        try:
            await off_loop(self._page.services.run_list.restore, info.run_id)
        except DSPyUIError as exc:
            notify_error(exc, self._text)
            return
        ui.notify(self._text("ui.runs.restored", name=info.name))
        await self._loaded.reload()

    def _draw_pager(self, listing: RunListing) -> None:
        draw_turns(
            self._text,
            self._at * self._query.size + 1,
            len(listing.runs),
            self._turn,
            has_more=listing.next_token is not None,
            noun="runs",
            mark="runs",
        )


def _scores(info: RunInfo, text: Text) -> tuple[str, str]:
    """Before and after, and what was gained with its interval and a word."""
    before, after = (info.metrics.get(f"{name}_score") for name in ("baseline", "evaluation"))
    if after is None:
        return "–", ""
    return f"{formats.score(before)} → {formats.score(after)}", difference_in_words(*difference(info), text)
