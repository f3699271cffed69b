"""Keys and the default model; and where things stand: MLflow, the data folder, the settings in force."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from nicegui import app, ui
from pydantic import SecretStr

from dspyui import __version__
from dspyui.domain.lms import LMSpec
from dspyui.domain.storage import FolderUsage
from dspyui.errors import DSPyUIError
from dspyui.services import Services
from dspyui.services.documents import part_of
from dspyui.settings import Settings
from dspyui.ui import formats
from dspyui.ui.background import Loaded, notify_error, off_loop
from dspyui.ui.components.form import Form
from dspyui.ui.components.keys import KeysCard
from dspyui.ui.components.lm import LMControl
from dspyui.ui.components.table import Column, Table
from dspyui.ui.components.waiting import WaitingCard
from dspyui.ui.drafts import CompileDraft
from dspyui.ui.elements import (
    Region,
    box,
    button,
    card,
    chip,
    code,
    confirmed,
    fact,
    facts,
    help_link,
    link,
    link_button,
    tag,
)
from dspyui.ui.form_start import DEFAULT_KEY, default_lm
from dspyui.ui.frame import HEADER_SECONDS, LANGUAGE_NAMES, TRACKING, Page, framed


def settings_page(services: Services) -> None:
    """Everything about this installation; no secret is shown."""
    with framed(services, "settings") as page:
        KeysCard(services.lms, page.text)
        _default_card(page)
        with box("d-cols"):
            _mlflow_card(page)
            _program_card(page)
        Loaded(page.text, services.waiting.look, partial(WaitingCard, page))
        Loaded(page.text, partial(_read_disk, services), partial(_DiskCard, page))
        _settings_card(page)


def _default_card(page: Page) -> None:
    text = page.text
    form = Form(page.services, page.visitor, CompileDraft(task=default_lm(page.services)))
    with card(text("ui.default_lm.title"), note=text("ui.default_lm.lead"), mark="default-lm"):
        LMControl(form, form.draft.task, "default-lm", on_settings=True)
        with box("d-row"):
            button(
                text("ui.default_lm.keep"), partial(_keep_default, form), mark="default-lm-keep", icon="check"
            )
            button(text("ui.default_lm.forget"), _forget_default, mark="default-lm-forget", kind="quiet")


def _keep_default(form: Form) -> None:
    document = form.draft.task.embedder_document()
    try:
        part_of(LMSpec, document)
    except DSPyUIError as exc:
        notify_error(exc, form.text)
        return
    app.storage.user[DEFAULT_KEY] = document
    ui.notify(form.text("ui.default_lm.kept", model=document["model"]), type="positive")


def _forget_default() -> None:
    app.storage.user.pop(DEFAULT_KEY, None)
    ui.navigate.reload()


def _mlflow_card(page: Page) -> None:
    with card("MLflow", mark="mlflow-card"):
        region = Region(partial(_mlflow_facts, page))
    shown = page.services.tracking.state()

    def look() -> None:
        nonlocal shown
        if (state := page.services.tracking.state()) != shown:
            shown = state
            region.draw()

    ui.timer(HEADER_SECONDS, look)


def _mlflow_facts(page: Page) -> None:
    text, state = page.text, page.services.tracking.state()
    with facts():
        tag("span", text("ui.settings.state"), "k")
        with box("v"):
            tone, icon = TRACKING[state.status]
            chip(text(f"ui.tracking.{state.status}"), tone, icon=icon)
        if state.address:
            tag("span", text("ui.settings.address"), "k")
            with box("v"):
                link(state.address, state.address, mark="mlflow-address", outside=True)
        if state.origin:
            fact(text("ui.settings.origin"), text(f"ui.settings.origin_{state.origin}"))
        if state.version:
            fact(text("ui.settings.version"), state.version)
        fact(text("ui.settings.experiment"), page.services.settings.mlflow_experiment_name)
        fact(text("ui.settings.login"), text(f"ui.settings.login_{state.login}"))
    if state.problem:
        tag("p", text(f"tracking.problem.{state.problem}"), "d-note")
    if state.detail:
        code(state.detail)


def _program_card(page: Page) -> None:
    text = page.text
    with card(text("ui.settings.program"), mark="program-card"), facts():
        fact(text("ui.settings.version"), __version__)
        fact(text("ui.settings.language"), LANGUAGE_NAMES[page.visitor.language])
        local = page.services.local_lm.state()
        fact(text("ui.settings.local_lm"), text(f"local_lm.{local.status}"))
        if local.detail:
            fact("", local.detail)
        fact(text("ui.settings.home"), str(page.services.settings.home))


@dataclass(frozen=True, slots=True)
class _Disk:
    usage: Sequence[FolderUsage]
    free: int


def _read_disk(services: Services) -> _Disk:
    return _Disk(services.folder.usage(), services.folder.free())


class _DiskCard:
    """The data folder by its parts, and what can be deleted there."""

    def __init__(self, page: Page, disk: _Disk) -> None:
        self._page = page
        self._text = page.text
        self._disk = disk
        with card(self._text("ui.disk.title"), note=self._text("ui.disk.lead"), mark="disk"):
            self._region = Region(self._draw, "d-stack-16")

    async def _reload(self) -> None:
        self._disk = await off_loop(_read_disk, self._page.services)
        self._region.draw()

    def _draw(self) -> None:
        text = self._text
        table = Table(
            [
                Column(text("ui.disk.part")),
                Column(text("ui.disk.size"), number=True),
                Column(text("ui.disk.files"), number=True),
                Column(""),
            ],
            pairs=True,
        )
        for part in self._disk.usage:
            with table.row():
                table.cell(text(f"ui.disk.{part.name}"))
                table.cell(formats.size(part.size))
                table.cell(formats.count(part.files))
                table.cell(partial(self._action, part), tools=True)
        tag("p", text("ui.disk.free", free=formats.size(self._disk.free)), "d-note")

    def _action(self, part: FolderUsage) -> None:
        text = self._text
        if part.name == "jobs" and part.files:
            link_button(text("ui.disk.to_jobs"), "/jobs", mark="to-jobs", kind="quiet", icon="list_alt")
        if part.name == "uploads" and part.files:
            link_button(text("ui.disk.to_data"), "/data", mark="to-data", kind="quiet", icon="dataset")
        if part.name == "cache" and part.files:
            button(
                text("ui.disk.clear_cache"),
                self._clear_cache,
                mark="clear-cache",
                kind="quiet",
                icon="delete_outline",
            )

    async def _clear_cache(self) -> None:
        text = self._text
        await self._after(text("ui.disk.cache_body"), self._page.services.folder.clear_cache)

    async def _after(self, body: str, call: Callable[[], None]) -> None:
        text = self._text
        if not await confirmed(text, text("ui.disk.delete_title"), body, text("ui.common.delete")):
            return
        try:
            await off_loop(call)
        except DSPyUIError as exc:
            notify_error(exc, text)
        await self._reload()


def _settings_card(page: Page) -> None:
    text = page.text
    with card(text("ui.settings.in_force"), note=text("ui.settings.in_force_lead"), mark="settings") as aside:
        with aside:
            help_link(text, "settings")
        lines = [f"{name}={value}" for name, value in shown_settings(page.services.settings)]
        code("\n".join(lines))


def shown_settings(settings: Settings) -> list[tuple[str, str]]:
    """Every setting by its variable, with the value in force; of a secret only whether it is set."""
    shown: list[tuple[str, str]] = []
    for name, field in Settings.model_fields.items():
        if field.alias is None:
            continue
        value = getattr(settings, name)
        if isinstance(value, SecretStr):
            value = "***"
        if isinstance(value, bool):
            value = str(value).lower()
        shown.append((field.alias, settings.redact("" if value is None else str(value))))
    return shown
