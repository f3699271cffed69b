"""A plain table: heads, rows of cells; below 700 px each row becomes a block with its labels."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from nicegui import ui

from dspyui.ui.elements import Tag, box, tag


@dataclass(frozen=True, slots=True)
class Column:
    """A head; numbers stand at the right. A `whole` cell is as wide as its words, which are not broken."""

    label: str
    number: bool = False
    whole: bool = False


def two(first: str | None, second: str | None) -> None:
    """One under the other, in a cell; the second is the smaller one, and may be missing."""
    tag("div", first or "–")
    if second:
        tag("div", second, "d-note")


class Table:
    """Used with `with table.row(): …`, one `cell` a column."""

    def __init__(self, columns: Sequence[Column], *, pairs: bool = False) -> None:
        """`pairs`: on a phone a row is a name with short facts, two beside each other."""
        self._columns = columns
        self._at = 0
        with box("d-table-box"), box(f"d-table stacks {'pairs' if pairs else ''}", "table"):
            with box(name="thead"), box(name="tr"):
                for column in columns:
                    tag("th", column.label, "d-num" if column.number else "")
            self._body = box(name="tbody")

    @contextmanager
    def row(self) -> Iterator[ui.element]:
        """A row."""
        self._at = 0
        with self._body, box(name="tr") as made:
            yield made

    def cell(self, content: str | Callable[[], object], *, tools: bool = False) -> Tag | None:
        """The next cell: text, or a function that draws into it; `tools`, when that is a small button."""
        column = self._columns[self._at]
        self._at += 1
        look = "d-num" if column.number else "d-last" if tools else "d-cell d-break"
        if column.whole:
            look = "d-whole"
        with box(look, "td") as made:
            if column.label:
                made.props["data-label"] = column.label
            if isinstance(content, str):
                return tag("span", content)
            content()
            return None
