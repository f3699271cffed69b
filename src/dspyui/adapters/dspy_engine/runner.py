"""Predictions and tests in processes of their own: the asking side, which imports no DSPy, and the answering side.

A process that answers predictions stays for the next one: importing DSPy costs two to three seconds. It answers one
call at a time, so that a call that is cancelled, or takes too long, ends with its process and harms no other.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, Literal, Protocol

from dspyui.adapters.dspy_engine.children import Child
from dspyui.domain.base import Fault
from dspyui.domain.compiles import Usage
from dspyui.domain.engine import Engine, LMReply, Patience, Prediction, PredictOutcome, ProgramCall
from dspyui.domain.jobs import JobFailure
from dspyui.domain.lms import LMRoles, LMSpec, LocalLM
from dspyui.domain.providers import secret_variables
from dspyui.domain.traces import TraceSink
from dspyui.errors import CancelledError, FailedError
from dspyui.settings import Settings

# A person is waiting: the model gets this long to answer a test, its process some more to start and end.
TEST_SECONDS, START_SECONDS = 60.0, 60.0
TEST_PROMPT = "Reply with the word OK and nothing else."
# The bundled model would go on talking.
_LOCAL_TEST_TOKENS = 16
# Each process takes about 0.1 GB. So many answer at once (four programs side by side, at least) and stay for the
# next call, for so many seconds.
MOST_CHILDREN: Final = max(4, min(16, os.cpu_count() or 1))
KEPT_CHILDREN: Final = 4
IDLE_SECONDS: Final = 300.0
_LOOK_SECONDS = 0.1

Deed = Literal["predict", "test-lm"]


class ChildRunner:
    """Implements `domain.engine.ProgramRunner` and `domain.engine.LMTester`. Thread-safe."""

    def __init__(self, settings: Settings, local_lm: LocalLM, *, idle_seconds: float = IDLE_SECONDS) -> None:
        """`idle_seconds`: how long a process waits for its next call before it is ended."""
        self._settings = settings
        self._local_lm = local_lm
        self._idle_seconds = idle_seconds
        self._places = threading.Semaphore(MOST_CHILDREN)
        self._lock = threading.Lock()
        self._all: set[Child] = set()
        # Those that wait for a call, the one that waits the longest first, and since when.
        self._idle: dict[Child, float] = {}
        self._reaper: threading.Timer | None = None
        self._closed = False

    def predict(self, call: ProgramCall, patience: Patience) -> PredictOutcome:
        """See the protocol."""
        end = time.monotonic() + patience.seconds
        request = {"deed": "predict", **call.model_dump(mode="json"), "local_url": None}
        self._settings.keys.mark_secret(secret_variables(call.lms))
        with self._place(patience, end):
            if call.lms.uses_local:
                patience.on_phase("starting_lm")
                request["local_url"] = self._local_lm.ensure()
            child = self._take()
            # One whose call failed in whatever way but by answering is of no more use.
            try:
                reply = child.ask(request, patience, end)
            except BaseException:
                self._end(child)
                raise
            # A person's own code stays in the process that ran it: an older file, and whatever it changed there.
            if any(metric.kind == "custom" for metric in call.program.metrics):
                self._end(child)
            else:
                self._give_back(child)
        return PredictOutcome.model_validate(_answer_in(reply)["outcome"])

    def warm(self) -> None:
        """See the protocol."""
        with self._lock:
            if self._all or self._closed:
                return
        try:
            self._give_back(self._take())
        except FailedError:
            return  # it was closed meanwhile

    def test(self, lm: LMSpec, cancelled: threading.Event) -> LMReply:
        """See the protocol."""
        limits: dict[str, Any] = {"cache": False, "num_retries": 0, "timeout": min(lm.timeout, TEST_SECONDS)}
        if lm.is_local and lm.max_tokens is None:
            limits["max_tokens"] = _LOCAL_TEST_TOKENS
        asked = lm.model_copy(update=limits)
        self._settings.keys.mark_secret(secret_variables(LMRoles(task=lm)))
        request = {
            "deed": "test-lm",
            "lm": asked.model_dump(mode="json"),
            "local_url": self._local_lm.ensure() if lm.is_local else None,
        }
        patience = Patience(seconds=asked.timeout + START_SECONDS, cancelled=cancelled)
        child = self._start(self._settings.worker_environment())
        try:
            reply = child.ask(request, patience, time.monotonic() + patience.seconds)
        finally:
            self._end(child)
        return LMReply.model_validate(_answer_in(reply)["reply"])

    def close(self) -> None:
        """Kill what still runs; whoever waits for it gets FailedError."""
        with self._lock:
            self._closed = True
            idle, busy = list(self._idle), self._all - set(self._idle)
            if self._reaper is not None:
                self._reaper.cancel()
        for child in busy:
            child.kill()  # whoever asked it ends it
        for child in idle:
            self._end(child)

    @contextmanager
    def _place(self, patience: Patience, end: float) -> Iterator[None]:
        """One of the places for calls at once; waits for it as long as the caller does."""
        patience.on_phase("queued")
        while not self._places.acquire(timeout=_LOOK_SECONDS):
            patience.check(end)
        try:
            yield
        finally:
            self._places.release()

    def _take(self) -> Child:
        """A process that waits, else a new one. Those that were started with other keys are ended."""
        environment = self._settings.worker_environment()
        with self._lock:
            old = [child for child in self._idle if child.is_gone or child.environment != environment]
            fitting = [child for child in self._idle if child not in old]
            for child in old:
                del self._idle[child]
            if fitting:
                del self._idle[fitting[-1]]
        for child in old:
            self._end(child)
        return fitting[-1] if fitting else self._start(environment)

    def _start(self, environment: Mapping[str, str]) -> Child:
        with self._lock:
            if self._closed:
                raise FailedError("predict.died", code=0, problem="shutdown")
            child = Child(environment, self._settings.redact)
            self._all.add(child)
        return child

    def _give_back(self, child: Child) -> None:
        with self._lock:
            keeps = not self._closed and len(self._idle) < KEPT_CHILDREN
            if keeps:
                self._idle[child] = time.monotonic()
                self._reap_later()
        if not keeps:
            self._end(child)

    def _reap_later(self) -> None:
        if self._reaper is None:
            self._reaper = threading.Timer(self._idle_seconds, self._reap)
            self._reaper.daemon = True
            self._reaper.start()

    def _reap(self) -> None:
        with self._lock:
            self._reaper = None
            before = time.monotonic() - self._idle_seconds
            old = [child for child, since in self._idle.items() if since <= before]
            for child in old:
                del self._idle[child]
            if self._idle and not self._closed:
                self._reap_later()
        for child in old:
            self._end(child)

    def _end(self, child: Child) -> None:
        child.end()
        with self._lock:
            self._all.discard(child)
            self._idle.pop(child, None)


def _answer_in(reply: Mapping[str, Any]) -> Mapping[str, Any]:
    """The reply. Raises the error that it tells of."""
    if failure := reply.get("failure"):
        known = JobFailure.model_validate(failure)
        kind = CancelledError if known.code == "predict.cancelled" else FailedError
        raise kind(known.code, **known.values)
    return reply


# The answering side.


class Asking(Engine, Protocol):
    """What an engine can do that a test needs."""

    def ask(self, prompt: str) -> str: ...


def answer(
    request: Mapping[str, Any], make_engine: Callable[[LMRoles], Asking], open_sink: Callable[[], TraceSink]
) -> dict[str, Any]:
    """Do what was asked. Raises DSPyUIError as the engine does."""
    if request["deed"] == "test-lm":
        return {"reply": _test(LMSpec.model_validate(request["lm"]), make_engine).model_dump(mode="json")}
    call = ProgramCall.model_validate({name: request[name] for name in ProgramCall.model_fields})
    return {"outcome": _predict(call, make_engine(call.lms), open_sink).model_dump(mode="json")}


def _predict(call: ProgramCall, engine: Engine, open_sink: Callable[[], TraceSink]) -> PredictOutcome:
    live = engine.load(call.program)
    started = time.monotonic()
    with engine.asking(live) as ask:
        prediction = ask(call.inputs, call.tags)
    seconds, usage = time.monotonic() - started, engine.usage()
    return PredictOutcome(
        outputs=prediction.outputs or {},
        fault=_fault(prediction),
        prompt=prediction.prompt,
        usage=usage,
        seconds=seconds,
        trace_id=_keep(prediction, usage, open_sink()) if call.traced else None,
    )


def _fault(prediction: Prediction) -> Fault | None:
    if prediction.failure is not None:
        return Fault.of(prediction.failure)
    if prediction.outputs is None:
        return Fault(code="predict.unreadable", values={"problem": prediction.error or ""})
    return None


def _keep(prediction: Prediction, usage: Usage, sink: TraceSink) -> str:
    """Write the trace down, with what the whole call has cost; gives its name in MLflow."""
    trace = prediction.trace
    if usage.cost is not None:
        trace = trace.model_copy(update={"tags": {**trace.tags, "dspyui.cost": f"{usage.cost:.8f}"}})
    try:
        sink.write(trace)
    finally:
        sink.close()
    return trace.mlflow_id


def _test(lm: LMSpec, make_engine: Callable[[LMRoles], Asking]) -> LMReply:
    engine = make_engine(LMRoles(task=lm))
    started = time.monotonic()
    text = engine.ask(TEST_PROMPT).strip()
    return LMReply(text=text[:2000], seconds=time.monotonic() - started, usage=engine.usage())
