"""Our traces as OTLP, with the attributes that MLflow's pages show.

Attribute names are those of MLflow's own DSPy autologging (mlflow/tracing/constant.py, 3.17).
"""

import json
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dspyui.domain.traces import Span, Trace

if TYPE_CHECKING:
    from opentelemetry.proto.common.v1.common_pb2 import AnyValue
    from opentelemetry.proto.trace.v1.trace_pb2 import Span as OtlpSpan

TAG_PREFIX = "mlflow.traceTag."
# MLflow filters traces by tags, and by no token count.
TOKENS_TAG = "dspyui.tokens"
_INT64 = 2**63
# MLflow refuses longer ones.
_MAX_TAG_KEY, _MAX_TAG_VALUE = 250, 8000


def to_otlp(trace: Trace) -> bytes:
    """The trace as one serialised ExportTraceServiceRequest."""
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    request = ExportTraceServiceRequest()
    spans = request.resource_spans.add().scope_spans.add().spans
    for span in trace.spans:
        _fill(spans.add(), trace, span)
    return request.SerializeToString()


def _fill(out: "OtlpSpan", trace: Trace, span: Span) -> None:
    out.trace_id = bytes.fromhex(trace.trace_id)
    out.span_id = bytes.fromhex(span.span_id)
    if span.parent_id is not None:
        out.parent_span_id = bytes.fromhex(span.parent_id)
    out.name = _clean(span.name)
    out.start_time_unix_nano = span.start_ns
    out.end_time_unix_nano = span.end_ns
    for key, value in _attributes(trace, span).items():
        attribute = out.attributes.add()
        attribute.key = _clean(key)
        _set(attribute.value, value)
    _set_status(out, span)


def _attributes(trace: Trace, span: Span) -> dict[str, Any]:
    attributes: dict[str, Any] = {
        **_plain(dict(span.attributes)),
        "mlflow.traceRequestId": trace.mlflow_id,
        "mlflow.spanType": span.kind,
    }
    if span.kind == "LLM":
        attributes |= _lm_attributes(span)
    if span.parent_id is None:
        tags = {"mlflow.traceName": span.name, TOKENS_TAG: str(trace.usage.total_tokens), **trace.tags}
        attributes |= {
            f"{TAG_PREFIX}{key[:_MAX_TAG_KEY]}": value[:_MAX_TAG_VALUE] for key, value in tags.items()
        }
    # Last: whoever looks for text in what stands from the inputs on finds nothing but inputs and outputs.
    return attributes | {
        "mlflow.spanInputs": _plain(span.inputs),
        "mlflow.spanOutputs": _plain(span.outputs),
    }


def _lm_attributes(span: Span) -> dict[str, Any]:
    # The format tells MLflow's page to draw the messages as a conversation.
    found: dict[str, Any] = {"mlflow.message.format": "dspy"}
    model = str(span.attributes.get("model", ""))
    if model:
        found["mlflow.llm.model"] = model
        provider, slash, _ = model.partition("/")
        if slash:
            found["mlflow.llm.provider"] = provider
    if span.usage is not None and span.usage.total_tokens:
        found["mlflow.chat.tokenUsage"] = {
            "input_tokens": span.usage.input_tokens,
            "output_tokens": span.usage.output_tokens,
            "total_tokens": span.usage.total_tokens,
        }
    if span.usage is not None and span.usage.cost is not None:
        # MLflow knows no price of our calls; this it sums up over the trace and shows.
        found["mlflow.llm.cost"] = {"total_cost": span.usage.cost}
    return found


def _set_status(out: "OtlpSpan", span: Span) -> None:
    if span.error is None:
        out.status.code = out.status.STATUS_CODE_OK
        return
    out.status.code = out.status.STATUS_CODE_ERROR
    out.status.message = _clean(span.error)
    kind, _, message = span.error.partition(": ")
    event = out.events.add()
    event.name = "exception"
    event.time_unix_nano = span.end_ns
    for key, value in (("exception.type", kind), ("exception.message", message or span.error)):
        attribute = event.attributes.add()
        attribute.key = key
        attribute.value.string_value = _clean(value)


def _plain(value: Any) -> Any:
    """The value as JSON would give it back; whatever JSON does not know becomes its text."""
    return json.loads(json.dumps(value, default=str, skipkeys=True))


def _set(out: "AnyValue", value: Any) -> None:
    match value:
        case None:
            return
        case bool():
            out.bool_value = value
        case int() if -_INT64 <= value < _INT64:
            out.int_value = value
        case float() if math.isfinite(value):
            out.double_value = value
        case list():
            out.array_value.SetInParent()
            for item in value:
                _set(out.array_value.values.add(), item)
        case Mapping():
            out.kvlist_value.SetInParent()
            for key, item in value.items():
                entry = out.kvlist_value.values.add()
                entry.key = _clean(key)
                _set(entry.value, item)
        case _:
            # Also whole numbers beyond 64 bits, and NaN, which the server's JSON could not carry.
            out.string_value = _clean(str(value))


def _clean(text: str) -> str:
    """Lone surrogates cannot be encoded; NUL cannot be stored in PostgreSQL."""
    return text.encode("utf-8", "replace").decode().replace("\x00", "�")
