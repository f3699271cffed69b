"""What the API tells of traces."""

import math
from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict

from dspyui.domain.trace_list import ListedTrace, TracePage


class TraceListResponse(BaseModel):
    """A page of traces; `next_page_token` asks for the one after it, None when there is none."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    traces: tuple[ListedTrace, ...]
    next_page_token: str | None

    @classmethod
    def of(cls, page: TracePage) -> Self:
        """From the service."""
        return cls(traces=tuple(map(_finite, page.traces)), next_page_token=page.next_token)


def _finite(trace: ListedTrace) -> ListedTrace:
    # Other programs record what they like, and JSON has no such numbers.
    assessments = tuple(
        said.model_copy(update={"value": _without_odd(said.value)}) for said in trace.assessments
    )
    return trace.model_copy(update={"assessments": assessments, "cost": _without_odd(trace.cost)})


def _without_odd(value: Any) -> Any:
    """The same, with None in the place of each number that is none or has no end."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _without_odd(each) for key, each in value.items()}
    return [_without_odd(each) for each in value] if isinstance(value, list | tuple) else value
