"""Traces: what happened inside one call of a program."""

from collections.abc import Mapping
from typing import Any, Literal, Protocol

from dspyui.domain.base import Frozen
from dspyui.domain.compiles import Usage

SpanKind = Literal["CHAIN", "LLM", "PARSER", "EVALUATOR", "UNKNOWN"]


class Span(Frozen):
    """One timed step. `span_id` and `parent_id` are 16 hex digits; times are nanoseconds since the epoch."""

    span_id: str
    parent_id: str | None
    name: str
    kind: SpanKind
    start_ns: int
    end_ns: int
    inputs: Any = None
    outputs: Any = None
    error: str | None = None
    attributes: Mapping[str, Any] = {}
    usage: Usage | None = None


class Trace(Frozen):
    """All spans of one call, the root first. `trace_id` is 32 hex digits; MLflow shows it as `tr-` + that."""

    trace_id: str
    spans: tuple[Span, ...]
    tags: Mapping[str, str] = {}

    @property
    def mlflow_id(self) -> str:
        """The id under which MLflow knows it."""
        return f"tr-{self.trace_id}"


class TraceSink(Protocol):
    """Takes finished traces and puts them on disk before it returns."""

    def write(self, trace: Trace) -> None: ...

    def close(self) -> None: ...
