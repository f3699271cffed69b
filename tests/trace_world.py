"""Calls as they are traced, and a list of traces in memory that behaves like MLflow's (see the contract tests)."""

import json
import secrets
from datetime import UTC, datetime

from dspyui.domain.compiles import Usage
from dspyui.domain.trace_list import ListedTrace, TraceAssessment, TracePage
from dspyui.domain.traces import Span, Trace
from dspyui.errors import BadRequestError

START = 1_790_000_000_000_000_000


def call(
    message="My lamp broke",
    *,
    number=0,
    product="lamp",
    ms=20,
    tokens=(10, 3),
    cost=None,
    error=None,
    tags=None,
):
    """A call of Predict with one LM call inside, a second later than the call of the number before."""
    root, start = secrets.token_hex(8), START + number * 1_000_000_000
    end = start + ms * 1_000_000
    inside = {"messages": [{"role": "system", "content": "The prompt names a giraffe."}]}
    return Trace(
        trace_id=secrets.token_hex(16),
        tags=tags or {},
        spans=(
            Span(span_id=root, parent_id=None, name="Predict", kind="CHAIN", start_ns=start, end_ns=end,
                 inputs={"message": message}, outputs=None if error else {"product": product}, error=error),
            Span(span_id=secrets.token_hex(8), parent_id=root, name="LM", kind="LLM", start_ns=start, end_ns=end,
                 inputs=inside, outputs=["…"], attributes={"model": "openai/fake"},
                 usage=Usage(lm_calls=1, input_tokens=tokens[0], output_tokens=tokens[1], cost=cost)),
        ),
    )  # fmt: skip


class MemoryTraces:
    """A TraceLibrary. `get_run` says whether there is a Run; `away` is raised by every question when it is set."""

    def __init__(self, get_run=lambda run_id: None):
        self._get_run = get_run
        self._calls = []
        self.away = None

    def put(self, run_id, trace):
        """What sending a trace leaves; it is linked to the Run."""
        root, usage = trace.spans[0], trace.usage
        url = f"http://127.0.0.1:5000/#/experiments/1/traces?selectedEvaluationId={trace.mlflow_id}"
        shown = ListedTrace(
            trace_id=trace.mlflow_id,
            url=f"{url}&traceId={trace.mlflow_id}",
            state="ERROR" if root.error else "OK",
            started_at=datetime.fromtimestamp(root.start_ns / 1e9, tz=UTC),
            latency_ms=(root.end_ns - root.start_ns) // 1_000_000,
            inputs=json.dumps(root.inputs, ensure_ascii=False),
            outputs="" if root.outputs is None else json.dumps(root.outputs, ensure_ascii=False),
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            total_tokens=usage.total_tokens,
            cost=usage.cost,
            phase=trace.tags.get("dspyui.phase", ""),
            score=float(trace.tags["dspyui.score"]) if "dspyui.score" in trace.tags else None,
            expected=trace.tags.get("dspyui.expected", ""),
        )
        self._calls.append((run_id, trace.tags, shown))

    def assess(self, trace, name, value, *, kind="feedback", rationale=""):
        said = TraceAssessment(
            name=name, kind=kind, value=value, source="HUMAN", source_id="anna", rationale=rationale
        )
        self._calls = [
            (run, tags, shown.model_copy(update={"assessments": (*shown.assessments, said)}))
            if shown.trace_id == trace.mlflow_id
            else (run, tags, shown)
            for run, tags, shown in self._calls
        ]

    def of_run(self, run_id, query, token=None):
        self._reach()
        self._get_run(run_id)
        return self._page([shown for run, _, shown in self._calls if run == run_id], query, token)

    def of_version(self, name, version, query, token=None):
        self._reach()
        wanted = {"dspyui.model_name": name, "dspyui.model_version": str(version)}
        found = [shown for _, tags, shown in self._calls if wanted.items() <= tags.items()]
        return self._page(found, query, token)

    def _reach(self):
        if self.away is not None:
            raise self.away

    @staticmethod
    def _page(traces, query, token):
        if token is not None and not token.startswith("at-"):
            raise BadRequestError("run.page_token", token=token)
        start = int(token.removeprefix("at-")) if token else 0
        found = [trace for trace in traces if _fits(query, trace)]
        found.sort(key=lambda trace: trace.started_at, reverse=True)
        end = start + query.size
        return TracePage(traces=tuple(found[start:end]), next_token=f"at-{end}" if len(found) > end else None)


def _fits(query, trace):
    text, words = query.text.strip().lower(), f"{trace.inputs} {trace.outputs}".lower()
    return (
        query.status in {None, trace.state}
        and query.phase in {None, trace.phase}
        and (not text or text in words or json.dumps(text)[1:-1] in words)
        and (trace.latency_ms or 0) >= query.min_ms
        and (trace.total_tokens or 0) >= query.min_tokens
        and (not query.assessment.strip() or any(_said(query, said) for said in trace.assessments))
    )


def _said(query, said):
    if (said.name, said.kind) != (query.assessment.strip(), query.assessed):
        return False
    value = query.value.strip()
    try:
        number = float(value)
    except ValueError:
        if len(value) > 2 and value[0] == value[-1] == '"':
            return value[1:-1] in {said.value, json.dumps(said.value)}
        return value.lower() in json.dumps(said.value, ensure_ascii=False).lower()
    is_number = isinstance(said.value, int | float) and not isinstance(said.value, bool)
    return said.value == (number if is_number else value)
