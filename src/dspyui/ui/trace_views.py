"""What a list of traces shows, worked out from the domain. Pure."""

import json
from collections.abc import Mapping
from typing import Any, Final, get_args

from dspyui.domain.trace_list import (
    MAX_TRACE_FILTER,
    TRACE_PHASES,
    AssessmentKind,
    TraceAssessment,
    TraceQuery,
    TraceState,
)

# Before the names of our parameters in an address: the page around the list has some of its own.
_PREFIX: Final = "trace_"
# A number says nothing: 1 of 5 stars is no praise.
_GOOD: Final = ("true", "yes", "pass")
_BAD: Final = ("false", "no", "fail")


def trace_query(given: Mapping[str, str]) -> TraceQuery:
    """The query that stands in an address; what is not known, or is no number, is left out."""
    asked = {name.removeprefix(_PREFIX): value for name, value in given.items() if name.startswith(_PREFIX)}
    name = asked.get("assessment", "")[:MAX_TRACE_FILTER]
    return TraceQuery(
        status=next((state for state in get_args(TraceState) if state == asked.get("status")), None),
        phase=next((phase for phase in TRACE_PHASES if phase == asked.get("phase")), None),
        text=asked.get("text", "")[:MAX_TRACE_FILTER],
        min_ms=_whole(asked.get("min_ms")),
        min_tokens=_whole(asked.get("min_tokens")),
        assessment=name,
        assessed=next(
            (kind for kind in get_args(AssessmentKind) if kind == asked.get("assessed")), "feedback"
        ),
        value=asked.get("value", "")[:MAX_TRACE_FILTER] if name.strip() else "",
    )


def trace_parameters(query: TraceQuery) -> dict[str, str | None]:
    """What the query puts into an address; None takes a parameter out of it."""
    plain = TraceQuery()
    names = ("status", "phase", "text", "min_ms", "min_tokens", "assessment", "assessed", "value")
    return {
        f"{_PREFIX}{name}": None if value == getattr(plain, name) else str(value)
        for name in names
        for value in [getattr(query, name)]
    }


def _whole(text: str | None) -> int:
    return int(text) if text and text.isascii() and text.isdecimal() and len(text) < 16 else 0


def readable(preview: str) -> str:
    """Inputs or outputs for people: a line for each field; what is no whole object stays as it is."""
    try:
        found = json.loads(preview)
    except ValueError:
        return preview
    if isinstance(found, dict):
        return "\n".join(f"{name}: {plain(value)}" for name, value in found.items())
    return "" if found is None else plain(found)


def said_in_short(said: TraceAssessment) -> str:
    """An assessment's value on one line; several fields with their names."""
    if isinstance(said.value, dict):
        return ", ".join(f"{name}: {plain(value)}" for name, value in said.value.items())
    return plain(said.value)


def plain(value: Any) -> str:
    """A value as a person writes it."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def verdict(said: TraceAssessment) -> bool | None:
    """Whether it speaks well of the call; None when that cannot be told."""
    if said.kind != "feedback":
        return None
    word = plain(said.value).strip().lower()
    return True if word in _GOOD else False if word in _BAD else None
