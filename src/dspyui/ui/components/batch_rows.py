"""Rows of a batch's results as a table: what came of each, its mistakes in words."""

import json
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from dspyui.domain.batches import OWN_COLUMNS
from dspyui.i18n import Text
from dspyui.ui import formats
from dspyui.ui.components.table import Column, Table
from dspyui.ui.elements import chip, folding

# A table with more columns cannot be read on any screen; the file has all of them.
MAX_COLUMNS = 6


def rows_table(text: Text, rows: Sequence[Mapping[str, Any]]) -> None:
    """The last columns of each row (answers stand last), its error or its tokens and latency."""
    names = [name for name in dict.fromkeys(name for row in rows for name in row) if name not in OWN_COLUMNS]
    shown = names[-MAX_COLUMNS:]
    heads = [Column(name) for name in shown]
    table = Table(
        [
            *heads,
            Column(text("ui.batch.error")),
            Column(text("ui.batch.tokens"), number=True),
            Column(text("ui.batch.latency"), number=True),
        ]
    )
    for row in rows:
        with table.row():
            for name in shown:
                table.cell(partial(folding, _shown(row.get(name))))
            error = row.get("_error")
            if error:
                table.cell(partial(folding, str(error)))
            else:
                table.cell(lambda: chip(text("ui.batch.fine"), "good", icon="check"))
            table.cell(formats.count(int(row.get("_tokens") or 0)))
            latency = row.get("_latency_ms")
            table.cell("–" if latency is None else formats.duration(latency / 1000, text))


def _shown(value: Any) -> str:
    if value is None:
        return "–"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
