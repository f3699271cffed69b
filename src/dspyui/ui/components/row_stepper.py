"""Goes through the rows of a table, one at a time."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from nicegui import ui

from dspyui.domain.signatures import Row, SignatureSpec
from dspyui.errors import DSPyUIError
from dspyui.i18n import Text
from dspyui.services.sample_rows import RowSource, SampleRows
from dspyui.ui import formats
from dspyui.ui.background import off_loop
from dspyui.ui.elements import Region, box, button, control, labelled, marked, problem, sentence, tag


class RowStepper:
    """A choice of tables, and the row of the chosen one that stands in the form."""

    def __init__(
        self, text: Text, samples: SampleRows, signature: SignatureSpec, on_row: Callable[[Row | None], None]
    ) -> None:
        """`on_row` is told of each row that is stepped to; None when no table is chosen any more."""
        self._text = text
        self._samples = samples
        self._signature = signature
        self._on_row = on_row
        self._sources: Sequence[RowSource] = ()
        self._rows: Sequence[Row] = ()
        self._problem: DSPyUIError | None = None
        self.key = ""
        self.index = 0
        self._region = Region(self._draw)

    def offer(self, sources: Sequence[RowSource]) -> None:
        """The tables that can be chosen from now on. The chosen one stays."""
        self._sources = sources
        self._region.draw()

    async def choose(self, key: str, index: int = 0) -> None:
        """Read a table and go to one of its rows, counted from 0."""
        self.key, self.index, self._rows, self._problem = key, 0, (), None
        if key:
            try:
                self._rows = await off_loop(self._samples.rows, key, self._signature)
            except DSPyUIError as exc:
                self._problem = exc
        if self._region.is_gone:
            return
        if self._rows:
            self.index = max(0, min(index, len(self._rows) - 1))
        self._region.draw()
        self._on_row(self._rows[self.index] if self._rows else None)

    def _draw(self) -> None:
        text = self._text
        if not self._sources and not self.key:
            return
        options = {
            source.key: text(f"ui.test.rows_of_{source.of}", name=source.name) for source in self._sources
        }
        if self.key and self.key not in options:
            options[self.key] = self.key
        with labelled(text("ui.test.rows"), text("ui.test.rows_help")):
            select = ui.select(options, value=self.key or None, clearable=True, on_change=self._chosen)
            control(select, text("ui.test.rows"), "test-rows")
        if self._problem is not None:
            problem(text, sentence(self._problem, text), mark="test-rows-problem")
        if self._rows:
            self._draw_steps()

    def _draw_steps(self) -> None:
        text, count = self._text, len(self._rows)
        with box("d-row"):
            for step, icon, key in ((-1, "chevron_left", "previous_row"), (1, "chevron_right", "next_row")):
                made = button(
                    text(f"ui.test.{key}"),
                    partial(self._step, step),
                    mark=f"test-{key.replace('_', '-')}",
                    icon=icon,
                    label_hidden=True,
                )
                made.set_enabled(0 <= self.index + step < count)
            said = text("ui.test.row", row=formats.count(self.index + 1), count=formats.count(count))
            marked(tag("span", said, "d-note"), "test-row")

    async def _chosen(self, event: Any) -> None:
        if (event.value or "") != self.key:
            await self.choose(event.value or "")

    def _step(self, step: int) -> None:
        self.index += step
        self._region.draw()
        self._on_row(self._rows[self.index])
