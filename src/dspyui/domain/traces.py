"""Traces: what happened inside one call of a program."""

import json
from collections.abc import Mapping
from datetime import datetime
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any, Literal, Protocol

from dspyui.domain.base import Frozen
from dspyui.domain.compiles import Usage

# A file of this name lies in a folder of traces while whoever writes there waits for room.
FULL_MARK = "full"
# Tags by which a scored call can be told: in which step of a compile it was made, its score, what was expected of it.
PHASE_TAG, SCORE_TAG, EXPECTED_TAG = "dspyui.phase", "dspyui.score", "dspyui.expected"
# As long as MLflow's own previews of inputs and outputs, in characters.
MAX_EXPECTED = 1000
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

    @property
    def usage(self) -> Usage:
        """What its calls have used."""
        return reduce(add, (span.usage for span in self.spans if span.usage is not None), Usage())


def expected_tags(expected: Mapping[str, Any]) -> dict[str, str]:
    """The outputs that were expected of a call, as the tag that stands beside its own; cut when they are long."""
    return {EXPECTED_TAG: json.dumps(expected, ensure_ascii=False, default=str)[:MAX_EXPECTED]}


class TraceSink(Protocol):
    """Takes finished traces and puts them on disk before it returns."""

    def write(self, trace: Trace) -> None: ...

    def close(self) -> None: ...


class SpoolState(Frozen):
    """Traces in a folder: how many wait to be sent, how many were refused by MLflow and set aside.

    `size` is what those that wait take, in bytes; `oldest` is when the first of them was written, UTC.
    """

    traces: int = 0
    refused: int = 0
    size: int = 0
    oldest: datetime | None = None


class TraceSpool(Protocol):
    """Looks at folders that a `TraceSink` has written to."""

    def measure(self, folder: Path) -> SpoolState:
        """What lies there now; nothing when there is no such folder."""
        ...
