"""How data is shown before it is used: what a file holds, and what becomes of it."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from dspyui.domain.splits import SplitName
from dspyui.i18n import Text
from dspyui.services.data import DataPreview, FileGlance
from dspyui.ui import formats
from dspyui.ui.elements import box, fact, facts, figure, folding, marked, tag

# More of a cell, or of a wide table, is no use on a page and slow to send.
CELL_CHARACTERS: Final = 2_000
SHOWN_COLUMNS: Final = 40


def draw_glance(text: Text, glance: FileGlance, *, duplicates: int | None) -> None:
    """A file as it was read; `duplicates` is None until they are counted."""
    with marked(box("d-stack"), "file-glance"):
        with facts():
            fact(text("ui.data.rows"), formats.count(glance.rows))
            fact(text("ui.data.column_names"), named_columns(text, glance.columns))
            if read := format_label(glance.format, glance.encoding):
                marked(fact(text("ui.data.read_as"), read), "read-as")
            if duplicates is not None:
                marked(fact(text("ui.data.duplicates"), formats.count(duplicates)), "file-duplicates")
            digest = fact(text("ui.data.file_digest"), formats.fingerprint(glance.digest))
            digest.props["title"] = glance.digest
        head_table(text, glance.head, glance.columns)


def draw_preview(text: Text, preview: DataPreview) -> None:
    """What a compile would get: the splits, and what they can and cannot show."""
    with box("d-figures"):
        figure(text("ui.data.rows"), formats.count(preview.rows))
        for name, size in preview.split_sizes.items():
            figure(text(f"split.{name}"), formats.count(size), dot=name)
    split_bar(text, preview.split_sizes)
    for notice in preview.notices:
        marked(tag("p", notice.sentence(text.language), "d-warning"), f"notice-{notice.code}")
    if fewest := preview.fewest_better:
        rows = preview.split_sizes["test"]
        told = text("ui.data.can_show", rows=formats.count(rows), fewest=fewest, gain=f"{fewest / rows:.2f}")
        marked(tag("p", told, "d-note"), "can-show")
    digest = tag("p", text("ui.data.digest", digest=formats.fingerprint(preview.digest)), "d-note")
    digest.props["title"] = preview.digest


def named_columns(text: Text, columns: Sequence[str]) -> str:
    """The names of the columns; of a very wide table the first ones, and how many more there are."""
    shown = ", ".join(columns[:SHOWN_COLUMNS])
    more = len(columns) - SHOWN_COLUMNS
    return text("ui.data.more_columns", shown=shown, count=more) if more > 0 else shown


def shown_value(value: Any) -> str:
    """A value as a page shows it: text as it is, anything else as JSON, a very long one without its end."""
    said = value if isinstance(value, str) else "" if value is None else json.dumps(value, ensure_ascii=False)
    cut = said if len(said) <= CELL_CHARACTERS else f"{said[:CELL_CHARACTERS]}…"
    # Half an emoji is valid in JSON and cannot be sent to a browser.
    return cut.encode(errors="replace").decode()


def format_label(kind: str | None, encoding: str) -> str:
    """A file's format, and its encoding when it is text."""
    named = "Parquet" if kind == "parquet" else (kind or "").upper()
    return " · ".join(part for part in (named, encoding) if part)


def split_bar(text: Text, sizes: Mapping[SplitName, int]) -> None:
    """The splits as parts of one bar; the numbers above it say the same."""
    told = ", ".join(f"{text(f'split.{name}')} {formats.count(size)}" for name, size in sizes.items())
    with marked(box("d-splitbar").props("role=img"), "split-bar") as bar:
        bar.props["aria-label"] = told
        for name, size in sizes.items():
            if size:
                box(f"d-part {name}").style(f"flex-grow: {size}").props["title"] = (
                    f"{text(f'split.{name}')} {formats.count(size)}"
                )


def head_table(text: Text, rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """The first rows, as they were read."""
    shown = columns[:SHOWN_COLUMNS]
    with box("d-table-box"), box("d-table stacks", "table"):
        with box(name="thead"), box(name="tr"):
            for column in shown:
                tag("th", column)
        with box(name="tbody"):
            for row in rows:
                with box(name="tr"):
                    for column in shown:
                        with box("d-cell", "td") as cell:
                            cell.props["data-label"] = column
                            folding(shown_value(row.get(column)))
    if len(columns) > len(shown):
        tag("p", text("ui.data.columns_left", count=len(columns) - len(shown)), "d-note")
