"""What the batch form holds while a person fills it in, and how it becomes a `BatchSpec`."""

import re
from dataclasses import dataclass
from typing import Any

from dspyui.domain.batches import BatchSpec, OutputFormat
from dspyui.domain.metrics import METRICS, MetricKind
from dspyui.errors import BadRequestError
from dspyui.services.documents import part_of


@dataclass(slots=True)
class BatchDraft:
    """Empty numbers are None. `columns` is text: `FIELD=COLUMN, …` where the names differ."""

    model: str = ""
    path: str = ""
    upload: str = ""
    upload_name: str = ""
    columns: str = ""
    metric: MetricKind | None = None
    format: OutputFormat = "jsonl"
    concurrency: float | None = 8
    requests: float | None = None
    tokens: float | None = None
    sample: float | None = None

    def to_spec(self) -> BatchSpec:
        """Raises BadRequestError that says what is missing or does not fit."""
        if not self.model.strip():
            raise BadRequestError("batch.no_model")
        if not self.path.strip() and not self.upload:
            raise BadRequestError("batch.no_input")
        document: dict[str, Any] = {
            "model": self.model.strip(),
            "path": self.path.strip() or None,
            "upload": self.upload or None,
            "columns": column_map(self.columns),
            "metric": {"kind": self.metric} if self.metric else None,
            "format": self.format,
            "concurrency": self.concurrency,
            "requests_per_minute": self.requests,
            "tokens_per_minute": self.tokens,
            "trace_sample": self.sample,
        }
        given = {name: _whole(value) for name, value in document.items() if value is not None}
        return part_of(BatchSpec, given)


def column_map(text: str) -> dict[str, str]:
    """`FIELD=COLUMN, …`. Raises BadRequestError for a part that says no column."""
    found: dict[str, str] = {}
    for part in re.split(r"[,，\n]", text):
        field, sign, column = part.partition("=")
        if field.strip() and sign and column.strip():
            found[field.strip()] = column.strip()
        elif part.strip():
            raise BadRequestError("batch.map", value=part.strip())
    return found


def plain_metrics() -> list[MetricKind]:
    """The metrics that need nothing to be said about them."""
    return [kind for kind, info in METRICS.items() if info.check is None]


def _whole(value: Any) -> Any:
    """A number input gives 8.0 for 8."""
    return int(value) if isinstance(value, float) and value.is_integer() else value
