"""Rows of a batch's results as a table: what came of each, its mistakes in words."""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from dspyui.domain.batches import OWN_COLUMNS
from dspyui.i18n import Text
from dspyui.ui import formats
from dspyui.ui.components.table import Column, Table
from dspyui.ui.elements import box, chip, folding, link

# A table with more columns cannot be read on any screen; the file has all of them.
MAX_COLUMNS = 6


# Where a trace is shown; None while nobody can say.
TraceAddress = Callable[[str], str | None]


def rows_table(
    text: Text, rows: Sequence[Mapping[str, Any]], *, trace_address: TraceAddress | None = None
) -> None:
    """The last columns of each row (answers stand last), its error or its tokens and latency, and its trace."""
    names = [name for name in dict.fromkeys(name for row in rows for name in row) if name not in OWN_COLUMNS]
    shown = names[-MAX_COLUMNS:]
    heads = [Column(name) for name in shown]
    has_score = any("_score" in row for row in rows)
    table = Table(
        [
            *heads,
            *([Column(text("ui.batch.score"), number=True)] if has_score else []),
            Column(text("ui.batch.error")),
            Column(text("ui.batch.tokens"), number=True),
            Column(text("ui.batch.latency"), number=True),
        ]
    )
    for row in rows:
        with table.row():
            for name in shown:
                table.cell(partial(folding, _shown(row.get(name))))
            if has_score:
                table.cell(formats.score(row.get("_score")))
            trace_id = row.get("_trace_id")
            address = trace_address(trace_id) if trace_address is not None and trace_id else None
            table.cell(partial(_outcome, text, row.get("_error"), trace_id, address))
            table.cell(formats.count(int(row.get("_tokens") or 0)))
            latency = row.get("_latency_ms")
            table.cell("–" if latency is None else formats.duration(latency / 1000, text))


def _outcome(text: Text, error: Any, trace_id: Any, address: str | None) -> None:
    if error:
        folding(str(error))
    else:
        # Whether the answer is right is for the score to say.
        chip(text("ui.batch.fine"))
    if address is not None:
        with box("d-note"):
            link(text("ui.batch.trace"), address, mark=f"trace-{trace_id}", outside=True)


def _shown(value: Any) -> str:
    if value is None:
        return "–"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
