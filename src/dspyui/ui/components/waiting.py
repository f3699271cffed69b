"""What waits on disk for MLflow, and the button that sends it now."""

from dspyui.errors import DSPyUIError
from dspyui.services.waiting import Sent, Waiting
from dspyui.ui import formats
from dspyui.ui.background import notify_error, off_loop
from dspyui.ui.elements import Region, box, button, card, fact, facts, marked, tag, time_of
from dspyui.ui.frame import Page


class WaitingCard:
    """Draws what was found; sending tells what was sent, what was not, and why."""

    def __init__(self, page: Page, found: Waiting) -> None:
        self._page = page
        self._text = page.text
        self._found = found
        self._sent: Sent | None = None
        text = page.text
        with card(text("ui.waiting.title"), note=text("ui.waiting.lead"), mark="waiting"):
            self._facts = Region(self._draw_facts, "d-stack-16")
            with box("d-row"):
                self._button = button(text("ui.waiting.send"), self._send, mark="send-now", icon="send")
                button(
                    text("ui.waiting.look"),
                    self._look,
                    mark="waiting-look",
                    kind="quiet",
                    icon="refresh",
                    label_hidden=True,
                )
            self._outcome = Region(self._draw_outcome)
        self._allow()

    def _draw_facts(self) -> None:
        text, found = self._text, self._found
        if found.is_empty:
            marked(tag("p", text("ui.waiting.none"), "d-note"), "waiting-none")
        if found.is_full:
            said = text("ui.waiting.full", budget=formats.size(found.budget))
            marked(tag("p", said, "d-warning"), "waiting-full")
        if found.later_traces:
            said = text("ui.waiting.later", count=found.later_traces)
            marked(tag("p", said, "d-hint"), "waiting-later")
        with facts():
            fact(text("ui.waiting.records"), formats.count(found.records))
            fact(text("ui.waiting.traces"), formats.count(found.traces))
            tag("span", text("ui.waiting.oldest"), "k")
            with marked(box("v"), "waiting-oldest"):
                time_of(found.oldest, self._page.visitor)
            size = formats.size(found.size)
            if found.budget:
                size = text("ui.waiting.size_of", size=size, budget=formats.size(found.budget))
            fact(text("ui.waiting.size"), size)
            if found.refused_records or found.refused_traces:
                counts = {"records": found.refused_records, "traces": found.refused_traces}
                fact(text("ui.waiting.refused"), text("ui.waiting.counts", **counts))

    def _draw_outcome(self) -> None:
        text, sent = self._text, self._sent
        if sent is None:
            return
        with marked(box("d-stack").props("role=status"), "waiting-outcome"):
            tag("p", text("waiting.sent", records=sent.records, traces=sent.traces))
            if not sent.left.is_empty:
                tag("p", text("waiting.left", records=sent.left.records, traces=sent.left.traces))
            for reason in sent.reasons:
                tag("p", reason.sentence(text.language), "d-warning d-break")

    def _allow(self) -> None:
        self._button.set_enabled(self._found.can_be_sent)

    async def _look(self) -> None:
        try:
            self._found = await off_loop(self._page.services.waiting.look)
        except (DSPyUIError, OSError) as exc:
            notify_error(exc, self._text)
        self._facts.draw()
        self._allow()

    async def _send(self) -> None:
        self._button.disable()
        self._button.props("loading")
        try:
            self._sent = await off_loop(self._page.services.waiting.send_now)
            self._found = self._sent.left
        except (DSPyUIError, OSError) as exc:
            # Something in the data folder cannot be read.
            notify_error(exc, self._text)
        finally:
            self._button.props(remove="loading")
        self._facts.draw()
        self._outcome.draw()
        self._allow()
