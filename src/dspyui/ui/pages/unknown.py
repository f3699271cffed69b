"""An address that leads nowhere."""

from dspyui.services import Services
from dspyui.ui.elements import empty, link_button, marked
from dspyui.ui.frame import framed

_SHOWN = 200


def unknown_page(services: Services, path: str) -> None:
    """Say that nothing is there, and offer ways on."""
    with framed(services, "unknown") as page:
        text = page.text
        shown = path if len(path) <= _SHOWN else path[:_SHOWN] + "…"
        with marked(empty("search_off", shown, text("ui.unknown.help")), "unknown-page"):
            link_button(text("ui.unknown.home"), "/", mark="unknown-home", kind="primary", icon="bolt")
            link_button(text("ui.job.all"), "/jobs", mark="unknown-jobs", icon="list_alt")
