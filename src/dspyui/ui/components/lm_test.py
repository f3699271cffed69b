"""The Test button: one real call, and what came of it. Leaving the page ends the call."""

from collections.abc import Callable
from threading import Event

from nicegui import ui
from nicegui.context import context

from dspyui.domain.engine import LMReply
from dspyui.domain.lms import LMSpec
from dspyui.errors import CancelledError, DSPyUIError
from dspyui.i18n import Text
from dspyui.services.lms import LMService
from dspyui.ui import formats
from dspyui.ui.background import off_loop
from dspyui.ui.elements import Region, box, button, code, marked, problem, sentence, tag


class LMTest:
    """`spec` gives the model as it stands in the form; it may raise DSPyUIError."""

    def __init__(self, service: LMService, text: Text, spec: Callable[[], LMSpec], mark: str) -> None:
        self._service = service
        self._text = text
        self._spec = spec
        self._mark = mark
        self._cancelled: Event | None = None
        self._found: LMReply | DSPyUIError | None = None
        context.client.on_delete(self._stop)
        self._region = Region(self._draw)

    def _draw(self) -> None:
        text = self._text
        with box("d-row"):
            if self._cancelled is None:
                button(text("ui.lm.test"), self._test, mark=f"{self._mark}-test", icon="bolt")
            else:
                button(text("ui.lm.test_stop"), self._stop, mark=f"{self._mark}-test-stop", icon="stop")
                ui.spinner(size="sm").props("aria-hidden=true")
                tag("span", text("ui.lm.testing"), "d-note").props("role=status")
        found = self._found
        if isinstance(found, LMReply):
            self._draw_reply(found)
        elif found is not None:
            problem(text, sentence(found, text), mark=f"{self._mark}-test-problem")

    def _draw_reply(self, reply: LMReply) -> None:
        text, used = self._text, reply.usage
        with marked(box("d-stack").props("role=status"), f"{self._mark}-test-reply"):
            said = text(
                "ui.lm.test_done",
                seconds=formats.duration(reply.seconds, text),
                tokens=formats.count(used.total_tokens),
                cost=text("ui.lm.cost_unknown") if used.cost is None else formats.cost(used.cost),
            )
            tag("p", said, "d-note")
            code(reply.text)

    async def _test(self) -> None:
        if self._cancelled is not None:
            return
        cancelled = self._cancelled = Event()
        self._found = None
        self._region.draw()
        try:
            self._found = await off_loop(self._service.test, self._spec(), cancelled)
        except CancelledError:
            self._found = None
        except DSPyUIError as exc:
            self._found = exc
        finally:
            self._cancelled = None
        if not self._region.is_gone:
            self._region.draw()

    def _stop(self) -> None:
        if self._cancelled is not None:
            self._cancelled.set()
