"""What the API tells of traces."""

import math
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
        said.model_copy(update={"value": None if _is_odd(said.value) else said.value})
        for said in trace.assessments
    )
    return trace.model_copy(
        update={"assessments": assessments, "cost": None if _is_odd(trace.cost) else trace.cost}
    )


def _is_odd(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)
