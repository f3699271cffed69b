"""What stands around every page: header, sidebar, the banner about MLflow, title and main action."""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from functools import partial
from typing import Final

from nicegui import app, ui
from nicegui.context import context

from dspyui.domain.jobs import TERMINAL
from dspyui.domain.runs import TrackingState, TrackingStatus
from dspyui.errors import DSPyUIError
from dspyui.i18n import LANGUAGES, Language, Text
from dspyui.services import Services
from dspyui.ui import formats, theme
from dspyui.ui.background import notify_error, off_loop
from dspyui.ui.elements import Region, Tag, Tone, box, button, link, marked, tag
from dspyui.ui.visitor import DARK, HTML_LANG, Colours, Visitor, find_visitor

# How often the header looks at MLflow and the jobs, in seconds.
HEADER_SECONDS: Final = 2.0

NAV: Final = (
    ("compile", "/", "bolt"),
    ("datasets", "/data", "dataset"),
    ("jobs", "/jobs", "list_alt"),
    ("runs", "/runs", "timeline"),
    ("models", "/models", "inventory_2"),
    ("test", "/test", "science"),
    ("batch", "/batch", "table_rows"),
    ("settings", "/settings", "tune"),
    ("help", "/help", "help_outline"),
)
TRACKING: Final[dict[TrackingStatus, tuple[Tone, str]]] = {
    "off": ("", "cloud_off"),
    "starting": ("warn", "hourglass_top"),
    "ready": ("good", "check_circle"),
    "unreachable": ("bad", "error"),
}
LANGUAGE_NAMES: Final[dict[Language, str]] = {"zh_CN": "中文", "en_US": "English"}
# The visitor's time zone, for every next answer. The first one tells this machine's times: where these are others, it
# is asked for once more before anything is drawn. Without cookies it would be asked for ever.
_TIME_ZONE = """<script>(() => {
  const isKnown = () => document.cookie.includes('dspyui_tz=');
  const isNew = !isKnown();
  document.cookie = 'dspyui_tz=' + Intl.DateTimeFormat().resolvedOptions().timeZone
    + ';path=/;max-age=31536000;samesite=lax';
  if (isNew && isKnown() && new Date().getTimezoneOffset() !== %d) location.reload();
})()</script>"""
_LOG_OUT = "fetch('/logout', {method: 'POST'}).then(() => { location.href = '/login' })"
_RELOAD = "const to = new URL(location.href); to.searchParams.delete('lang'); location.replace(to)"


@dataclass(frozen=True, slots=True)
class Page:
    """What every page function works with: the services, the visitor, where its main action goes, and its title."""

    services: Services
    visitor: Visitor
    actions: ui.element
    heading: Tag

    def entitle(self, title: str) -> None:
        """Give the page the title that is known once it has been read."""
        self.heading.text = title
        ui.page_title(f"{title} · {self.text('app.name')}")

    @property
    def text(self) -> Text:
        """The words, in the visitor's language."""
        return self.visitor.text


@contextmanager
def framed(services: Services, active: str, title: str = "", lead: str = "") -> Iterator[Page]:
    """Frame a page. `active` is the sidebar's entry; its title and sentence are the page's unless others are given."""
    visitor = find_visitor(services.settings)
    text = visitor.text
    shown = title or text(f"ui.{active}.title")
    _prepare(visitor, shown)
    colours = ui.dark_mode(DARK[visitor.colours])
    header = _Header(services, visitor, colours)
    header.draw(active)
    with box("d-page", "main").props("id=main"):
        with box("d-title"):
            with box():
                heading = tag("h1", shown)
                if said := lead or ("" if title else text(f"ui.{active}.lead")):
                    tag("p", said, "d-lead")
            actions = box("d-actions")
        yield Page(services, visitor, actions, heading)


def _prepare(visitor: Visitor, title: str) -> None:
    """Language, colours and title, in the very first answer: nothing flashes, and readers hear the language."""
    client = context.client
    page = copy(client.page)
    page.language = HTML_LANG[visitor.language]
    page.dark = DARK[visitor.colours]
    page.title = f"{title} · {visitor.text('app.name')}"
    client.page = page
    first = theme.first_paint(dark=page.dark, words=visitor.text("ui.common.loading"))
    ui.add_head_html(f"<style>{first}</style>{_TIME_ZONE % formats.minutes_to_utc()}")
    ui.colors(**theme.BRAND)


class _Header:
    """Header, sidebar and banner; they follow MLflow and the jobs by a timer."""

    def __init__(self, services: Services, visitor: Visitor, colours: ui.dark_mode) -> None:
        self._services = services
        self._visitor = visitor
        self._text = visitor.text
        self._colours = colours
        self._state = services.tracking.state()
        self._running = 0

    def draw(self, active: str) -> None:
        drawer = self._sidebar(active)
        with ui.header(elevated=False).classes("d-header"):
            link(self._text("ui.header.skip"), "#main").classes("d-skip")
            button(
                self._text("ui.header.menu"),
                drawer.toggle,
                mark="menu",
                kind="quiet",
                icon="menu",
                label_hidden=True,
            )
            with ui.link(target="/").classes("d-brand").props(f'aria-label="{self._text("app.name")}"'):
                ui.html(theme.FAVICON, sanitize=False).props("aria-hidden=true")
                tag("span", self._text("app.name"), "d-wide")
            box("d-grow")
            self._jobs = Region(self._draw_jobs, "d-row")
            self._chip = Region(self._draw_chip, "d-row")
            self._draw_colours()
            self._draw_language()
            self._draw_user()
        self._banner = Region(self._draw_banner, "")
        ui.timer(HEADER_SECONDS, self._look)
        ui.timer(0.05, self._look, once=True)

    def _sidebar(self, active: str) -> ui.left_drawer:
        with (
            ui.left_drawer(bordered=False)
            .props(f"breakpoint={theme.DRAWER_BREAKPOINT} show-if-above width={theme.DRAWER_WIDTH}")
            .classes("d-drawer") as drawer,
            box("d-stack", "nav").props(f'aria-label="{self._text("ui.header.menu")}"').style("gap: 2px"),
        ):
            for name, target, icon in NAV:
                with marked(ui.link(target=target).classes("d-nav"), f"nav-{name}") as entry:
                    ui.icon(icon).props("aria-hidden=true")
                    tag("span", self._text(f"ui.{name}.nav"))
                if name == active:
                    entry.props("aria-current=page")
        return drawer

    async def _look(self) -> None:
        state = self._services.tracking.state()
        jobs = await off_loop(self._services.jobs.search)
        running = sum(job.status not in TERMINAL for job in jobs)
        if running != self._running:
            self._running = running
            self._jobs.draw()
        if state != self._state:
            self._state = state
            self._chip.draw()
            self._banner.draw()

    def _draw_jobs(self) -> None:
        if self._running:
            with marked(ui.link(target="/jobs").classes("d-chip accent"), "running-jobs"):
                ui.icon("sync").props("aria-hidden=true")
                tag("span", self._text("ui.header.running", count=self._running))

    def _draw_chip(self) -> None:
        state = self._state
        tone, icon = TRACKING[state.status]
        said = self._text(f"ui.tracking.{state.status}")
        label = f"MLflow {said}" + (f" · {short_address(state.address)}" if state.address else "")
        if state.status == "ready" and state.address:
            made = ui.link(target=state.address, new_tab=True).props("rel=noopener")
        else:
            made = ui.link(target="/settings")
        made.props["aria-label"] = label
        with marked(made.classes(f"d-chip {tone}"), "mlflow-state"):
            ui.icon(icon).props("aria-hidden=true")
            tag("span", "MLflow")
            tag("span", label.removeprefix("MLflow "), "d-wide")
        with made:
            ui.tooltip(label)

    def _draw_colours(self) -> None:
        icons: dict[Colours, str] = {"auto": "brightness_auto", "light": "light_mode", "dark": "dark_mode"}
        label = self._text("ui.header.colours")
        with (
            button(
                label, mark="colours", kind="quiet", icon=icons[self._visitor.colours], label_hidden=True
            ) as opener,
            ui.menu(),
        ):
            for colours in DARK:
                entry = ui.menu_item(
                    self._text(f"ui.header.{colours}"), partial(self._set_colours, opener, icons, colours)
                )
                marked(entry, f"colours-{colours}")

    def _set_colours(self, opener: ui.button, icons: dict[Colours, str], colours: Colours) -> None:
        app.storage.user["colours"] = colours
        self._colours.value = DARK[colours]
        opener.set_icon(icons[colours])

    def _draw_language(self) -> None:
        with (
            button(
                self._text("ui.header.language"),
                mark="language",
                kind="quiet",
                icon="translate",
                label_hidden=True,
            ),
            ui.menu(),
        ):
            for language in LANGUAGES:
                marked(
                    ui.menu_item(LANGUAGE_NAMES[language], partial(_set_language, language)),
                    f"language-{language}",
                )

    def _draw_user(self) -> None:
        if user := getattr(context.client.request.state, "user", None):
            with button(str(user), mark="user", kind="quiet", icon="person"), ui.menu():
                marked(
                    ui.menu_item(self._text("ui.header.logout"), lambda: ui.run_javascript(_LOG_OUT)),
                    "logout",
                )

    def _draw_banner(self) -> None:
        state = self._state
        if state.status != "unreachable":
            return
        with marked(box("d-banner").props("role=alert"), "mlflow-banner"):
            ui.icon("error").props("aria-hidden=true")
            tag("p", banner_text(state, self._text))
            if state.can_start_local:
                button(
                    self._text("ui.tracking.start_local"),
                    self._start_local,
                    mark="start-local-mlflow",
                    icon="play_arrow",
                )

    async def _start_local(self) -> None:
        try:
            await off_loop(self._services.tracking.start_local)
        except DSPyUIError as exc:
            notify_error(exc, self._text)
        await self._look()


def banner_text(state: TrackingState, text: Text) -> str:
    """What is wrong with MLflow, where, and what to check."""
    key = "ui.tracking.banner_denied" if state.problem == "denied" else "ui.tracking.banner"
    parts = [text(key, address=state.address or "–")]
    if state.problem:
        parts.append(text(f"tracking.problem.{state.problem}"))
    said = text.in_a_row(parts)
    return f"{said} ({state.detail[-200:]})" if state.detail else said


def short_address(address: str | None) -> str:
    """An address without its scheme."""
    return (address or "").removeprefix("http://").removeprefix("https://")


def _set_language(language: Language) -> None:
    app.storage.user["language"] = language
    # The choice is stored; a `lang` in the address would outrank it. Filters in the address stay.
    ui.run_javascript(_RELOAD)
