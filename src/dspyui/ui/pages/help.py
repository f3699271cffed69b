"""The documents, in the visitor's language; nothing of them is looked up on the internet."""

from nicegui import ui

from dspyui.errors import DSPyUIError
from dspyui.services import Services
from dspyui.services.help import TOPICS, help_text
from dspyui.ui.elements import box, link, marked, problem, sentence
from dspyui.ui.frame import framed

_EXTRAS = ["fenced-code-blocks", "tables"]


def help_page(services: Services, topic: str) -> None:
    """One document, with the others at hand."""
    with framed(services, "help") as page:
        text = page.text
        with box("d-topics", "nav").props(f'aria-label="{text("ui.help.title")}"'):
            for name in TOPICS:
                entry = link(text(f"ui.help.{name}"), f"/help/{name}", mark=f"help-{name}")
                if name == topic:
                    entry.props("aria-current=page")
        try:
            content = help_text(topic, page.visitor.language)
        except DSPyUIError as exc:
            problem(text, sentence(exc, text))
            return
        with box("d-card"):
            marked(ui.markdown(content, extras=_EXTRAS).classes("d-prose"), "help-text")
