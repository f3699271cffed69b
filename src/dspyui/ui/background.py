"""Work that must not hold up the pages."""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final, ParamSpec, TypeVar, cast

from nicegui import app, run, ui

from dspyui.errors import DSPyUIError, UnavailableError
from dspyui.i18n import Text
from dspyui.ui.elements import box, problem, sentence, skeleton

# How soon something that was away is tried again, in seconds.
AGAIN_SECONDS: Final = 3.0
_log = logging.getLogger(__name__)
_patient = ThreadPoolExecutor(max_workers=64, thread_name_prefix="patient")
P = ParamSpec("P")
T = TypeVar("T")


async def off_loop(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a service call in a thread and wait for it. Raises what the call raises."""
    found = await run.io_bound(call, *args, **kwargs)
    if app.is_stopping:
        # NiceGUI gives None then, whatever the call's type; there is nobody left to show anything to.
        raise asyncio.CancelledError
    return cast(T, found)


def notify_error(error: Exception, text: Text) -> None:
    """An error as a notice that stays long enough to be read."""
    ui.notify(
        sentence(error, text),
        type="negative",
        multi_line=True,
        timeout=10000,
        close_button=text("ui.common.close"),
    )


async def patiently(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """The same for a call that may take minutes: in threads of its own, so that nobody else's reading waits for it."""
    found = await asyncio.get_running_loop().run_in_executor(_patient, partial(call, *args, **kwargs))
    if app.is_stopping:
        raise asyncio.CancelledError
    return found


class Loaded:
    """A part of a page that needs something slow: a skeleton first, then what was read or why it was not."""

    def __init__(
        self,
        text: Text,
        read: Callable[[], Any],
        build: Callable[[Any], object],
        *,
        lines: int = 5,
        framed: bool = True,
    ) -> None:
        """`framed`: the skeleton has a frame, as a card of its own; a part of a card has none."""
        self._framed = framed
        self._text = text
        self._read = read
        self._build = build
        self._lines = lines
        self._waiting_for = ""
        self._box = box("d-stack-16")
        with self._box:
            skeleton(lines, framed=framed)
        ui.timer(0.01, self.reload, once=True)
        ui.timer(AGAIN_SECONDS, self._look)

    async def reload(self) -> None:
        """Read again."""
        try:
            found = await off_loop(self._read)
        except Exception as exc:  # noqa: BLE001 - a skeleton that stays would hide what went wrong
            if not isinstance(exc, DSPyUIError):
                _log.exception("A part of a page could not be read")
            self._show_error(exc)
            return
        self._waiting_for = ""
        self._box.clear()
        with self._box:
            self._build(found)

    async def _look(self) -> None:
        """What is away may be back: a server that was starting has started."""
        if self._waiting_for:
            await self.reload()

    def _show_error(self, error: Exception) -> None:
        said = sentence(error, self._text)
        if said == self._waiting_for:
            return
        self._waiting_for = said if isinstance(error, UnavailableError) else ""
        self._box.clear()
        with self._box:
            problem(self._text, said, retry=self._again, mark="load-problem")

    async def _again(self) -> None:
        self._waiting_for = ""
        self._box.clear()
        with self._box:
            skeleton(self._lines, framed=self._framed)
        await self.reload()
