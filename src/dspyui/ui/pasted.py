"""Cells that were copied from a spreadsheet: tabs between columns, line ends between rows. Pure."""

import re
from collections.abc import Sequence
from typing import Final

# A cell in quotes is one whose closing quote ends it; a quote inside it stands twice.
_CELL: Final = re.compile(r'(?:"((?:[^"]|"")*)"|([^\t\n]*))([\t\n]|\Z)')
_NEEDS_QUOTES: Final = re.compile(r'[\t\n]|""')


def cells_of_text(content: str) -> list[list[str]]:
    """The rows of copied cells. Spreadsheets quote a cell only when it holds a tab, a line end or a quote; other quotes
    are the cell's own."""
    content = content.replace("\r\n", "\n").replace("\r", "\n").removesuffix("\n")
    rows: list[list[str]] = [[]]
    for found in _CELL.finditer(content):
        quoted, plain, after = found.groups()
        rows[-1].append(_unquoted(quoted) if plain is None else plain)
        if not after:
            break
        if after == "\n":
            rows.append([])
    return rows


def _unquoted(inside: str) -> str:
    return inside.replace('""', '"') if _NEEDS_QUOTES.search(inside) else f'"{inside}"'


def paste(
    rows: list[dict[str, str]], keys: Sequence[str], cells: Sequence[Sequence[str]], *, row: int, column: int
) -> int:
    """Write the cells into `rows`, whose columns are `keys`, from this row and column on; rows are added as needed.

    Returns how many columns found no place.
    """
    while len(rows) < row + len(cells):
        rows.append({})
    places = keys[column:]
    for target, values in zip(rows[row:], cells, strict=False):
        target.update(zip(places, values, strict=False))
    return max(0, max(map(len, cells)) - len(places))
