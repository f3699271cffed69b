"""Pages of a long list: which rows are shown, how many there are of what, and the buttons that turn the page."""

from collections.abc import Callable
from functools import partial
from typing import Literal

from dspyui.i18n import Text
from dspyui.ui import formats
from dspyui.ui.elements import box, button, marked, tag

# What a list is of.
Noun = Literal["rows", "jobs", "datasets", "runs", "models", "versions", "traces"]


class Pager:
    """Keeps the number of the page; it is mended when the list got shorter."""

    def __init__(self, size: int) -> None:
        self._size = size
        self.page = 0

    def bounds(self, count: int) -> tuple[int, int]:
        """The first index shown, and the one after the last."""
        self.page = max(0, min(self.page, (count - 1) // self._size))
        first = self.page * self._size
        return first, min(first + self._size, count)

    def show_last(self, count: int) -> None:
        """Go to the end."""
        self.page = max(0, (count - 1) // self._size)

    def draw(
        self, text: Text, count: int, on_turn: Callable[[], object], *, mark: str, noun: Noun = "rows"
    ) -> None:
        """Where we are, and back and forth."""
        first, last = self.bounds(count)

        def turn(step: int) -> object:
            self.page += step
            return on_turn()

        tag("span", _range(text, noun, first + 1, last, count), "d-note")
        if count > self._size:
            _buttons(text, turn, back=first > 0, forth=last < count, mark=mark)


def draw_turns(
    text: Text,
    first: int,
    shown: int,
    on_turn: Callable[[int], object],
    *,
    has_more: bool,
    noun: Noun,
    mark: str,
) -> None:
    """The same for a list whose length is not known before its last page: `shown` of it stand here, the first one as
    number `first`; the buttons call `on_turn(-1)` and `on_turn(1)`."""
    last = first + shown - 1
    if has_more:
        said = text("ui.pager.more", first=formats.count(first), last=formats.count(last))
    else:
        said = _range(text, noun, first, last, last) if shown else text("ui.pager.none")
    with box("d-row"):
        marked(tag("span", said, "d-note"), f"{mark}-range")
        if first > 1 or has_more:
            _buttons(text, on_turn, back=first > 1, forth=has_more, mark=mark)


def _range(text: Text, noun: Noun, first: int, last: int, count: int) -> str:
    total = text(f"ui.pager.{noun}", count=formats.count(count))
    if (first, last) == (1, count) or not count:
        return total
    return text("ui.pager.of", first=formats.count(first), last=formats.count(last), total=total)


def _buttons(text: Text, on_turn: Callable[[int], object], *, back: bool, forth: bool, mark: str) -> None:
    for step, icon, name, enabled in (
        (-1, "chevron_left", "previous", back),
        (1, "chevron_right", "next", forth),
    ):
        made = button(
            text(f"ui.common.{name}"),
            partial(on_turn, step),
            mark=f"{mark}-{name}",
            kind="quiet",
            icon=icon,
            label_hidden=True,
        )
        made.set_enabled(enabled)
