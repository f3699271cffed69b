"""The small pieces all pages are made of: marked, labelled and styled by the theme's classes."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Literal, TypeVar

from nicegui import ui
from nicegui.context import context
from nicegui.elements.mixins.text_element import TextElement

from dspyui.errors import DSPyUIError
from dspyui.i18n import Text
from dspyui.ui import formats
from dspyui.ui.visitor import Visitor

ButtonKind = Literal["primary", "plain", "danger", "quiet"]
Tone = Literal["", "good", "warn", "bad", "accent"]
Handler = Callable[..., Any]
E_ = TypeVar("E_", bound=ui.element)


class Tag(TextElement):
    """A plain HTML element with text, escaped."""

    def __init__(self, name: str, text: str = "") -> None:
        super().__init__(tag=name, text=text)


def tag(name: str, text: str = "", classes: str = "") -> Tag:
    """An element such as `h2` or `p`."""
    return Tag(name, text).classes(classes)


def box(classes: str = "", name: str = "div") -> ui.element:
    """An element that holds others."""
    return ui.element(name).classes(classes)


def marked(element: E_, name: str) -> E_:
    """Name an element for tests: in NiceGUI's own way and in the page (`data-testid`)."""
    element.mark(name)
    element.props["data-testid"] = name
    return element


def button(
    label: str,
    on_click: Handler | None = None,
    *,
    mark: str,
    kind: ButtonKind = "plain",
    icon: str | None = None,
    label_hidden: bool = False,
) -> ui.button:
    """A button. With `label_hidden` it shows its icon alone and keeps the label for readers and on hover."""
    shown = "" if label_hidden else label
    made = ui.button(shown, icon=icon, on_click=on_click, color=None)
    made.props("unelevated no-caps").classes(f"d-btn d-{kind}")
    if label_hidden:
        made.props["aria-label"] = label
        made.tooltip(label)
    return marked(made, mark)


def delete_button(text: Text, label: str, on_click: Handler, *, mark: str) -> ui.button:
    """The button in a page's head that deletes what the page shows; `label` names it for readers and on hover."""
    made = button(text("ui.common.delete"), on_click, mark=mark, kind="quiet", icon="delete_outline")
    made.props["aria-label"] = made.props["title"] = label
    return made


def link(label: str, target: str, *, mark: str | None = None, outside: bool = False) -> ui.link:
    """A link; `outside` opens a new tab."""
    made = ui.link(label, target, new_tab=outside)
    if outside:
        made.props("rel=noopener")
    return marked(made, mark) if mark else made


def link_button(
    label: str, target: str, *, mark: str, kind: ButtonKind = "plain", icon: str | None = None
) -> ui.button:
    """A link that looks like a button."""
    made = button(label, mark=mark, kind=kind, icon=icon)
    made.props["href"] = target
    return made


def help_link(text: Text, topic: str) -> ui.button:
    """A small link to the help on a part of a page; it opens beside it, so that nothing typed is left."""
    made = button(
        text("ui.help.about"), mark=f"about-{topic}", kind="quiet", icon="help_outline", label_hidden=True
    )
    made.props(f"href=/help/{topic} target=_blank rel=noopener")
    return made


def chip(label: str, tone: Tone = "", *, icon: str | None = None, mark: str | None = None) -> ui.element:
    """A small rounded label."""
    with box(f"d-chip {tone}", "span") as made:
        if icon:
            ui.icon(icon).props("aria-hidden=true")
        tag("span", label)
    return marked(made, mark) if mark else made


@contextmanager
def card(title: str = "", *, note: str = "", mark: str | None = None) -> Iterator[ui.element]:
    """A framed section with a title; gives the right end of its head for chips and buttons."""
    with box("d-card", "section") as made:
        with box("d-card-head") as head:
            with box("d-grow"):
                if title:
                    tag("h2", title)
                if note:
                    tag("p", note, "d-note")
            aside = box("d-row")
        head.set_visibility(bool(title or note))
        if title:
            made.props["aria-label"] = title
        if mark:
            marked(made, mark)
        yield aside


@contextmanager
def labelled(label: str, note: str = "") -> Iterator[ui.element]:
    """A label above a control and a note below it."""
    with box("d-field") as made:
        if label:
            tag("span", label, "d-label")
        yield made
        if note:
            tag("p", note, "d-note").style("margin-top: var(--s4)")


@contextmanager
def beside(label: str) -> Iterator[ui.element]:
    """A label with the controls that belong to it, which stay together."""
    with box("d-row d-together").props("role=group") as made:
        made.props["aria-label"] = label
        tag("span", label, "d-note").props("aria-hidden=true")
        yield made


def control(element: E_, label: str, mark: str) -> E_:
    """Give a Quasar control our looks, its name for readers and its mark."""
    element.props("outlined dense hide-bottom-space")
    element.props["aria-label"] = label
    return marked(element, mark)


def figure(
    label: str, value: str, *, word: str = "", tone: Tone = "", big: bool = False, dot: str = ""
) -> Tag:
    """A number with what it is, and a `dot` of that class's colour; returns the number, to be changed later."""
    with box(f"d-figure {tone} {'big' if big else ''}"):
        with box("k", "span"):
            if dot:
                box(f"d-dot {dot}", "span").props("aria-hidden=true")
            tag("span", label)
        shown = tag("span", value, "v")
        if word:
            tag("span", word, "w")
    return shown


@contextmanager
def facts() -> Iterator[None]:
    """A list of names and values; see `fact`."""
    with box("d-facts"):
        yield


def fact(label: str, value: str) -> Tag:
    """A line of `facts`."""
    tag("span", label, "k")
    return tag("span", value, "v")


def time_of(at: datetime | None, visitor: Visitor) -> Tag:
    """A local time, with the exact one on hover."""
    if at is None:
        return tag("span", "–")
    made = tag("time", formats.moment(at, visitor.where))
    made.props["datetime"] = at.isoformat()
    made.props["title"] = formats.exact_moment(at, visitor.where)
    return made


def folding(content: str) -> Tag:
    """Text that shows three lines, and all of them when clicked or pressed."""
    made = tag("div", content, "d-fold")
    if len(content) > 120 or content.count("\n") > 2:
        made.props("tabindex=0 role=button aria-expanded=false")
        script = (
            f"() => {{ const cell = document.getElementById('{made.html_id}');"
            " cell.setAttribute('aria-expanded', cell.classList.toggle('open')); }"
        )
        made.on("click", js_handler=script)
        made.on("keydown.enter", js_handler=script)
    return made


def code(content: str, *, mark: str | None = None, is_program: bool = False) -> Tag:
    """Text in the code font. The lines of a program are not broken: it scrolls."""
    made = tag("pre", content, "d-code d-program" if is_program else "d-code")
    made.props("tabindex=0")
    return marked(made, mark) if mark else made


# navigator.clipboard exists with https and on loopback only.
_COPY = """() => {
  const text = %s;
  if (navigator.clipboard && window.isSecureContext) { navigator.clipboard.writeText(text); return; }
  const area = Object.assign(document.createElement('textarea'), {value: text});
  document.body.append(area); area.select(); document.execCommand('copy'); area.remove();
}"""


def copy_button(text: Text, content: str, *, mark: str = "copy") -> ui.button:
    """Copies `content`; works without https too, where browsers have no clipboard interface."""
    made = button(
        text("ui.common.copy"),
        lambda: ui.notify(text("ui.common.copied")),
        mark=mark,
        kind="quiet",
        icon="content_copy",
    )
    # In the browser, within the click itself: elsewhere it would not be allowed.
    made.on("click", js_handler=_COPY % json.dumps(content))
    return made


def empty(icon: str, title: str, lead: str) -> ui.element:
    """What would be here; put the button that makes it so inside."""
    with box("d-card"), box("d-empty") as made:
        ui.icon(icon).props("aria-hidden=true")
        tag("h2", title)
        tag("p", lead)
    return made


def sentence(error: Exception, text: Text) -> str:
    """An error for a person; one that is not ours says its kind."""
    if isinstance(error, DSPyUIError):
        return error.text(text.language)
    return text("ui.common.unexpected", problem=f"{type(error).__name__}: {error}")


def problem(
    text: Text, said: str, *, details: str = "", retry: Handler | None = None, mark: str = "problem"
) -> ui.element:
    """Cause and remedy in one sentence, details folded, a copy button, and a button to try again."""
    with marked(box("d-problem").props("role=alert"), mark) as made:
        tag("div", said)
        if details:
            with ui.expansion(text("ui.common.details")):
                code(details)
        with box("d-row"):
            if retry is not None:
                button(text("ui.common.retry"), retry, mark=f"{mark}-retry", icon="refresh")
            copy_button(text, f"{said}\n\n{details}".strip(), mark=f"{mark}-copy")
    return made


def skeleton(lines: int = 4, *, framed: bool = True) -> None:
    """The rough shape of what is being loaded."""
    with box("d-card" if framed else "").props("aria-busy=true"):
        for index in range(lines):
            ui.skeleton(type="rect", height="20px", width="40%" if index == 0 else "100%")


@contextmanager
def dialog() -> Iterator[ui.dialog]:
    """An open dialog with a card in it, deleted once it is closed.

    It stands beside the page's content: what opened it may be drawn again while it is open.
    """
    with context.client.content, ui.dialog(value=True) as made, box("d-card"):
        yield made
    made.on("hide", made.delete)


def dialog_actions(
    text: Text, opened: ui.dialog, action: str, on_click: Handler, *, mark: str, kind: ButtonKind = "primary"
) -> ui.button:
    """The last line of a dialog that asks for something: out of it, and the button that does it (returned)."""
    with box("d-actions"):
        button(text("ui.common.cancel"), opened.close, mark=f"{mark}-cancel")
        return button(action, on_click, mark=f"{mark}-confirm", kind=kind)


async def confirmed(text: Text, title: str, body: str, action: str) -> bool:
    """Ask once, in words that name what goes."""
    with dialog() as made:
        tag("h2", title)
        tag("p", body, "d-break")
        with box("d-actions"):
            button(text("ui.common.keep"), lambda: made.submit(False), mark="confirm-no")
            button(action, lambda: made.submit(True), mark="confirm-yes", kind="danger")
    made.props("role=alertdialog")
    return bool(await made)


class Region:
    """A part of a page that is drawn again from its data. The data is the truth, not the drawing."""

    def __init__(self, build: Callable[[], None], classes: str = "d-stack") -> None:
        self._build = build
        self._box = box(classes)
        self.draw()

    @property
    def is_gone(self) -> bool:
        """Whether the page, or this part of it, is no longer there."""
        return self._box.is_deleted

    def draw(self) -> None:
        """Draw it anew."""
        self._box.clear()
        with self._box:
            self._build()
