"""Watches DSPy work: counts LM calls, cache hits and tokens, and turns calls into traces.

DSPy's callbacks do not say whether a reply came from the cache; the cache and the usage tracker do, and both
run in the context of the LM call, whose id DSPy keeps in `ACTIVE_CALL_ID`.
"""

import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any

import dspy
from dspy.clients.cache import Cache
from dspy.utils.callback import ACTIVE_CALL_ID, BaseCallback

from dspyui.domain.compiles import Usage
from dspyui.domain.engine import CallGate
from dspyui.domain.traces import Span, SpanKind, Trace

TRACE_TAGS: ContextVar[Mapping[str, str]] = ContextVar("dspyui_trace_tags", default=MappingProxyType({}))
FINISHED: ContextVar[Callable[[Trace], None] | None] = ContextVar("dspyui_finished_trace", default=None)


# The names under which DSPy knows the bundled model's server, and servers of people's own: an implementation detail
# that nobody is shown.
LOCAL_ALIAS = "dspyui-local"
OWN_ALIAS = "dspyui-own"


def _ignore(_exception: BaseException) -> None:
    """Nobody wants to know."""


class Meter(BaseCallback):
    """One engine's counter and tracer. Thread-safe; calls nest by DSPy's own call ids.

    `redact` goes over what an LM's failure says before it becomes part of a trace: some providers repeat the key.
    `gate` is asked before each call that goes out (`gate.limit_calls`).
    """

    def __init__(self, redact: Callable[[str], str] = str, gate: CallGate | None = None) -> None:
        self._redact = redact
        self.gate = gate
        self._lock = threading.Lock()
        self._open: dict[str, _OpenSpan] = {}
        self._total = Usage()
        self._hits: set[str] = set()
        self._used: dict[str, Usage] = {}
        self._costs: dict[str, float | None] = {}
        # DSPy's own threads do not take context variables over.
        self._finished: Callable[[Trace], None] | None = None
        self._failed: Callable[[BaseException], None] = _ignore
        self._tags: Mapping[str, str] = MappingProxyType({})
        self.lm_errors = 0

    def __deepcopy__(self, _memo: dict[int, Any]) -> "Meter":
        """Itself: DSPy gives each of its threads a copy of the usage tracker, and what they use counts here."""
        return self

    @contextmanager
    def keeping(
        self,
        finished: Callable[[Trace], None] | None,
        tags: Mapping[str, str],
        failed: Callable[[BaseException], None],
    ) -> Iterator[None]:
        """Hand every trace that ends meanwhile to `finished`, and what it ended with, if it failed, to `failed`;
        whichever thread it ends in.
        """
        before = self._finished, self._tags, self._failed
        self._finished, self._tags, self._failed = finished, tags, failed
        try:
            yield
        finally:
            self._finished, self._tags, self._failed = before

    def usage(self) -> Usage:
        """Everything so far."""
        with self._lock:
            return self._total

    # What the cache and the usage tracker report.

    def cache_hit(self) -> None:
        """The LM call under way was answered from the cache."""
        if call_id := ACTIVE_CALL_ID.get():
            with self._lock:
                self._hits.add(call_id)

    def add_usage(self, _model: str, usage: Mapping[str, Any]) -> None:
        """The LM call under way has cost this; DSPy calls it as it would its own UsageTracker."""
        call_id = ACTIVE_CALL_ID.get() or ""
        spent = Usage(
            input_tokens=int(usage.get("prompt_tokens") or 0),
            output_tokens=int(usage.get("completion_tokens") or 0),
        )
        with self._lock:
            self._used[call_id] = self._used.get(call_id, Usage()) + spent

    def add_cost(self, cost: float | None) -> None:
        """The LM call under way has cost this, in US dollars; None when its price is not known."""
        with self._lock:
            self._costs[ACTIVE_CALL_ID.get() or ""] = cost

    def add_error(self) -> None:
        """A call has ended well for DSPy, and gave nothing."""
        with self._lock:
            self.lm_errors += 1

    def add_embedding(self, tokens: int, cost: float | None) -> None:
        """An embedder was asked once: the tokens that its server tells of, and what they cost in US dollars."""
        with self._lock:
            self._total += Usage(embedding_calls=1, embedding_tokens=tokens, cost=cost)

    # DSPy's callbacks.

    def on_module_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        self._start(call_id, type(instance).__name__, "CHAIN", inputs.get("kwargs", inputs))

    def on_module_end(
        self, call_id: str, outputs: Any | None, exception: BaseException | None = None
    ) -> None:
        shown = outputs.toDict() if isinstance(outputs, dspy.Prediction) else outputs
        self._end(call_id, shown, exception)

    def on_lm_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        shown = {"messages": inputs.get("messages") or inputs.get("prompt")}
        self._start(
            call_id,
            # Ours is a kind of it, whose name says nothing to anybody.
            "LM" if isinstance(instance, dspy.LM) else type(instance).__name__,
            "LLM",
            shown,
            {"model": shown_model(str(getattr(instance, "model", "")))},
        )

    def on_lm_end(
        self, call_id: str, outputs: dict[str, Any] | None, exception: BaseException | None = None
    ) -> None:
        with self._lock:
            hit = call_id in self._hits
            self._hits.discard(call_id)
            spent = self._used.pop(call_id, Usage())
            cost = self._costs.pop(call_id, None)
            if exception is not None and not spent.total_tokens:
                cost = 0.0  # refused or never answered: nothing is billed for it
            # Several answers to one prompt (COPRO asks for them) are as many requests.
            calls = max(1, len(outputs)) if isinstance(outputs, list) else 1
            asked = {"lm_cache_hits": 1, "cost": 0.0} if hit else {"lm_calls": calls, "cost": cost}
            spent = spent.model_copy(update=asked)
            self._total += spent
            self.lm_errors += exception is not None
        self._end(call_id, outputs, exception, spent)

    # Spans.

    def _start(
        self,
        call_id: str,
        name: str,
        kind: SpanKind,
        inputs: Any,
        attributes: Mapping[str, Any] | None = None,
    ) -> None:
        parent = self._open.get(ACTIVE_CALL_ID.get() or "")
        span = _OpenSpan(parent, name, kind, inputs, attributes or {})
        with self._lock:
            self._open[call_id] = span

    def _end(
        self, call_id: str, outputs: Any, exception: BaseException | None, usage: Usage | None = None
    ) -> None:
        with self._lock:
            span = self._open.pop(call_id)
        error = None if exception is None else self._redact(f"{type(exception).__name__}: {exception}")
        span.root.finished.append(span.close(outputs, error, usage))
        finished = FINISHED.get() or self._finished
        if span.parent is None and finished is not None:
            finished(span.to_trace(TRACE_TAGS.get() or self._tags))
        if span.parent is None and exception is not None:
            self._failed(exception)


class _OpenSpan:
    def __init__(
        self,
        parent: "_OpenSpan | None",
        name: str,
        kind: SpanKind,
        inputs: Any,
        attributes: Mapping[str, Any],
    ) -> None:
        self.parent = parent
        self.root: _OpenSpan = parent.root if parent else self
        self.span_id = secrets.token_hex(8)
        self.name = name
        self.kind: SpanKind = kind
        self.inputs = inputs
        self.attributes = attributes
        self.start_ns = time.time_ns()
        self.finished: list[Span] = []

    def close(self, outputs: Any, error: str | None, usage: Usage | None) -> Span:
        return Span(
            span_id=self.span_id,
            parent_id=self.parent.span_id if self.parent else None,
            name=self.name,
            kind=self.kind,
            start_ns=self.start_ns,
            end_ns=time.time_ns(),
            inputs=self.inputs,
            outputs=outputs,
            error=error,
            attributes=self.attributes,
            usage=usage,
        )

    def to_trace(self, tags: Mapping[str, str]) -> Trace:
        spans = sorted(self.finished, key=lambda span: (span.parent_id is not None, span.start_ns))
        return Trace(trace_id=secrets.token_hex(16), spans=tuple(spans), tags=dict(tags))


def shown_model(name: str) -> str:
    """A model's name as people know it."""
    return name.replace(f"{LOCAL_ALIAS}/", "local/").replace(f"{OWN_ALIAS}/", "openai/")


class MeteredCache(Cache):
    """DSPy's cache that tells the meter of every hit, and keeps the replies of different servers apart.

    DSPy leaves the address out of the key: two servers that call their models alike would answer for each other.
    How long one waits for a reply, on the other hand, changes nothing about it.
    """

    def __init__(self, meter: Meter, **options: Any) -> None:
        super().__init__(**options)
        self._meter = meter

    def cache_key(self, request: dict[str, Any], ignored_args_for_cache_key: list[str] | None = None) -> str:
        ignored = set(ignored_args_for_cache_key or ()) - {"api_base", "base_url"} | {"timeout"}
        return super().cache_key(request, sorted(ignored))

    def get(self, request: dict[str, Any], ignored_args_for_cache_key: list[str] | None = None) -> Any:
        found = super().get(request, ignored_args_for_cache_key)
        if found is not None:
            # DSPy has one cache for all: where two engines stand in a process, the call says whose it is.
            tracker = dspy.settings.usage_tracker
            (tracker if isinstance(tracker, Meter) else self._meter).cache_hit()
        return found
