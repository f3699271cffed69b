"""Names of columns, and what they probably mean."""

import re
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from itertools import chain, count

from dspyui.domain.signatures import check_field_name
from dspyui.errors import BadRequestError


def guess_column(name: str, columns: Sequence[str]) -> str | None:
    """The column that a field probably means: the one whose name is equal but for case, spaces and signs."""
    wanted = _plain(name)
    return next((column for column in columns if _plain(column) == wanted), None)


def propose_columns(fields: Sequence[str], columns: Sequence[str]) -> Mapping[str, str]:
    """A column for each of these fields, none of which has a column of its own name; no column twice.

    Names that are equal but for case, spaces and signs come first. What is left goes by position, if as many columns
    are left as fields; else it stays without.
    """
    free = list(columns)
    found: dict[str, str] = {}
    for name in fields:
        if guess := guess_column(name, free):
            found[name] = guess
            free.remove(guess)
    left = [name for name in fields if name not in found]
    if len(left) == len(free):
        found |= zip(left, free, strict=True)
    return found


def guess_split_column(columns: Sequence[str]) -> str | None:
    """The column that probably says which split a row is in."""
    usual = ("split", "subset", "partition", "划分", "数据划分")
    return next((column for column in columns if _plain(column) in usual), None)


def field_name_for(column: str, taken: Collection[str]) -> str:
    """The column's own name where a field can have it, else one like it; never one of `taken`."""
    base = re.sub(r"\W+", "_", unicodedata.normalize("NFKC", column)).strip("_")
    tried = (column, base, f"{base}_value", f"column_{base}", f"column_{len(taken) + 1}")
    names = chain(tried, (f"column_{number}" for number in count(len(taken) + 2)))
    return next(name for name in names if _is_free(name, taken))


def _is_free(name: str, taken: Collection[str]) -> bool:
    try:
        check_field_name(name)
    except BadRequestError:
        return False
    return name not in taken


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "", unicodedata.normalize("NFKC", name).casefold())
