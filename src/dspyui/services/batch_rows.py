"""One row of a batch: from what stands in the file to the line that is written."""

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dspyui.domain.base import Fault
from dspyui.domain.batches import (
    OWN_COLUMNS,
    BatchModel,
    BatchSpec,
    EarlierRows,
    InputRow,
    RowOutcome,
    content_key,
    is_sampled,
    output_names,
)
from dspyui.domain.compiles import Usage
from dspyui.domain.engine import Ask, Prediction
from dspyui.domain.metrics import ScoreTools, score_row
from dspyui.domain.signatures import Row, parse_row
from dspyui.domain.traces import Trace, TraceSink
from dspyui.errors import BadRequestError, DSPyUIError, FailedError, RefusedError

# A request that a provider will not take is one row less; any other refusal meets every row.
_ONE_ROW = "engine.invalid_request"


def row_key(row: InputRow) -> bytes:
    """The content key of a row; of one that cannot be read, of why not. One that has travelled brings its own."""
    return row.key or content_key(row.values if row.fault is None else row.fault.model_dump())


def trace_tags(job_id: str, model: BatchModel) -> dict[str, str]:
    """What every trace of a batch is tagged with."""
    return {"dspyui.job_id": job_id, **model_tags(model)}


def model_tags(model: BatchModel) -> dict[str, str]:
    """What says in a trace which program was called."""
    tags = {
        "dspyui.model": model.uri,
        "dspyui.model_name": model.name,
        "dspyui.model_digest": model.digest,
    }
    return tags if model.version is None else {**tags, "dspyui.model_version": str(model.version)}


@dataclass(frozen=True, slots=True)
class Tracing:
    """Where traces go, and the share of rows that have one."""

    sink: TraceSink
    share: float


class RowAsker:
    """Makes outcomes of rows. Any number of threads may use it at once; where the rows come from is nothing to it."""

    def __init__(
        self,
        spec: BatchSpec,
        model: BatchModel,
        columns: Sequence[str],
        *,
        tags: Mapping[str, str],
        tools: ScoreTools,
        tracing: Tracing | None,
        earlier: EarlierRows | None,
    ) -> None:
        signature = model.program.spec.signature
        self._spec = spec
        self._signature = signature
        self._tags = tags
        self._tools = tools
        self._tracing = tracing
        self._earlier = earlier
        self._columns = {field.name: spec.columns.get(field.name, field.name) for field in signature.fields}
        self._names = output_names(columns, [*(field.name for field in signature.outputs), "reasoning"])

    def settled(self, row: InputRow) -> RowOutcome | None:
        """The outcome of a row for which no model needs to be asked; None for all others."""
        key = row_key(row)
        if row.fault is not None:
            return self._failed(row, key, row.fault)
        if self._earlier is not None and (known := self._earlier.find(row.index, key)):
            return known
        try:
            self._parsed(row, self._signature.inputs)
        except BadRequestError as exc:
            return self._failed(row, key, Fault.of(exc))
        return None

    def asked(self, ask: Ask, row: InputRow) -> RowOutcome:
        """The outcome of a row that is not settled.

        One at which the program itself breaks has failed, and must not cost all the others. Raises RefusedError when
        the model will answer no row, and what the trace sink raises.
        """
        try:
            return self._asked(ask, row)
        except (DSPyUIError, OSError):
            raise
        except Exception as exc:  # noqa: BLE001 - see above
            problem = f"{type(exc).__name__}: {exc}"[:500]
            return self._failed(row, row_key(row), Fault(code="batch.row_broke", values={"problem": problem}))

    def _asked(self, ask: Ask, row: InputRow) -> RowOutcome:
        inputs = self._parsed(row, self._signature.inputs)
        started = time.perf_counter()
        prediction = ask(inputs, {**self._tags, "dspyui.row": str(row.index)})
        latency = (time.perf_counter() - started) * 1000
        if isinstance(prediction.failure, RefusedError) and prediction.failure.code != _ONE_ROW:
            raise prediction.failure
        return self._answered(row, row_key(row), inputs, prediction, latency)

    def _parsed(self, row: InputRow, fields: tuple) -> Row:
        given = {field.name: row.values.get(self._columns[field.name]) for field in fields}
        return parse_row(fields, given, where=f"#{row.index + 1}")

    def _answered(
        self, row: InputRow, key: bytes, inputs: Row, prediction: Prediction, latency: float
    ) -> RowOutcome:
        fault = _fault(prediction)
        score, unscored = self._score(row, inputs, prediction)
        usage = prediction.trace.usage
        traced = self._tracing is not None and is_sampled(key, self._tracing.share)
        if traced and self._tracing is not None:
            self._tracing.sink.write(_scored(prediction.trace, score))
        own = {
            "_error": _said(fault or unscored),
            "_latency_ms": round(latency, 3),
            "_tokens": usage.total_tokens,
            "_cost": usage.cost,
            "_trace_id": prediction.trace.mlflow_id if traced else None,
        }
        line = self._line(row, prediction.outputs or {}, own, score)
        code = fault.code if fault else None
        return RowOutcome(row.index, key, line, code, latency, usage, score, traced)

    def _failed(self, row: InputRow, key: bytes, fault: Fault) -> RowOutcome:
        own = {"_error": _said(fault), "_latency_ms": None, "_tokens": 0, "_cost": None, "_trace_id": None}
        return RowOutcome(row.index, key, self._line(row, {}, own, None), fault.code, math.nan, Usage())

    def _line(self, row: InputRow, outputs: Row, own: dict[str, Any], score: float | None) -> str:
        line = {name: value for name, value in row.values.items() if name not in OWN_COLUMNS}
        names = [field.name for field in self._signature.outputs]
        more = [name for name in outputs if name not in names]
        for name in (*more, *names):
            column = self._names.get(name, name)
            while column in row.values:
                column = f"predicted_{column}"
            line[column] = outputs.get(name)
        if self._spec.metric is not None:
            own = {**own, "_score": score}
        return to_json(line | own)

    def _score(self, row: InputRow, inputs: Row, prediction: Prediction) -> tuple[float | None, Fault | None]:
        metric = self._spec.metric
        if metric is None or prediction.failure is not None:
            return None, None
        try:
            expected = self._parsed(row, self._signature.outputs) if metric.info.needs_expected else None
            found = score_row(
                metric, self._signature, inputs=inputs, expected=expected, predicted=prediction.outputs,
                tools=self._tools,
            )  # fmt: skip
        except BadRequestError as exc:
            return None, Fault.of(exc)
        return (found.value, None) if found.is_scored else (None, found.problems[0])


def _fault(prediction: Prediction) -> Fault | None:
    if prediction.failure is not None:
        return Fault.of(prediction.failure)
    if prediction.outputs is None:
        return Fault(code="batch.unreadable", values={"problem": prediction.error or ""})
    return None


def _said(fault: Fault | None) -> str | None:
    """What stands in `_error`: the code, which stays the same, then the sentence in English."""
    if fault is None:
        return None
    said = f"{fault.code}: {FailedError(fault.code, **fault.values).text('en_US')}"
    # A row that could not be read has no cells to be told by.
    return f"{said} It reads: {fault.values['raw']}" if "raw" in fault.values else said


def _scored(trace: Trace, score: float | None) -> Trace:
    if score is None:
        return trace
    return trace.model_copy(update={"tags": {**trace.tags, "dspyui.score": f"{score:.4f}"}})


def to_json(line: Mapping[str, Any]) -> str:
    """One line of strict JSON: what JSON has no number for (NaN, infinity) becomes null, all else its text."""
    try:
        return json.dumps(line, ensure_ascii=False, allow_nan=False, default=str)
    except ValueError:
        return json.dumps(_finite(dict(line)), ensure_ascii=False, default=str)


def _finite(value: Any) -> Any:
    match value:
        case float():
            return value if math.isfinite(value) else None
        case dict():
            return {str(key): _finite(item) for key, item in value.items()}
        case list() | tuple():
            return [_finite(item) for item in value]
        case _:
            return value
