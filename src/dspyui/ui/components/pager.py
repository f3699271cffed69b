"""Pages of a long list: which rows are shown, and the buttons that turn the page."""

from collections.abc import Callable

from dspyui.i18n import Text
from dspyui.ui.elements import button, tag


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

    def draw(self, text: Text, count: int, on_turn: Callable[[], object], *, mark: str) -> None:
        """Where we are, and back and forth."""
        first, last = self.bounds(count)

        def turn(step: int) -> object:
            self.page += step
            return on_turn()

        tag(
            "span", text("ui.common.range", first=first + 1 if count else 0, last=last, count=count), "d-note"
        )
        if count <= self._size:
            return
        for step, icon, key, enabled in (
            (-1, "chevron_left", "ui.common.previous", first > 0),
            (1, "chevron_right", "ui.common.next", last < count),
        ):
            name = f"{mark}-{'previous' if step < 0 else 'next'}"
            made = button(
                text(key), lambda step=step: turn(step), mark=name, kind="quiet", icon=icon, label_hidden=True
            )
            made.set_enabled(enabled)
