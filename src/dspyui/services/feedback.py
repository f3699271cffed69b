"""Traces of single calls on their way to MLflow, and people's opinions on them."""

import json
import logging
import threading
import time
from typing import Any

from dspyui.domain.base import Fault
from dspyui.domain.feedback import OUTPUTS_TAG, CallTrace, Feedback, FeedbackStore
from dspyui.domain.runs import TrackingServer
from dspyui.domain.signatures import FieldSpec, parse_value
from dspyui.errors import BadRequestError, NotFoundError, UnavailableError
from dspyui.services.record import CLOSE_SECONDS, FIRST_DELAY, FLUSH_SECONDS, LONGEST_DELAY, Stop
from dspyui.settings import Settings

_log = logging.getLogger(__name__)


class FeedbackService:
    """Sends the traces of single calls, and keeps what people say of a call with its trace.

    Nothing is said to be stored before MLflow holds it: a trace that still waits on disk is sent first.
    """

    def __init__(self, settings: Settings, tracking: TrackingServer, store: FeedbackStore) -> None:
        self._settings = settings
        self._tracking = tracking
        self._store = store
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self._flush_until = 0.0

    @property
    def is_tracing(self) -> bool:
        """Whether calls are traced at all."""
        return self._settings.mlflow_enabled and self._settings.mlflow_log_traces

    def start(self) -> None:
        """Send in the background whatever waits, now and whenever something new does."""
        if self._settings.mlflow_enabled and self._thread is None:
            self._thread = threading.Thread(target=self._loop, name="call-trace-sender", daemon=True)
            self._thread.start()

    def wake(self) -> None:
        """Look at once: a call has left a trace."""
        self._wake.set()

    def close(self) -> None:
        """Send for a few seconds more what waits, if MLflow is there; the rest is sent by the next start."""
        self._flush_until = time.monotonic() + FLUSH_SECONDS
        self._closing.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(timeout=CLOSE_SECONDS)

    def _is_over(self) -> bool:
        return self._closing.is_set() and time.monotonic() > self._flush_until

    def _loop(self) -> None:
        delay = FIRST_DELAY
        while True:
            self._wake.clear()
            # After the clear: a close that comes in between has set it, and must not be slept over.
            if self._closing.is_set():
                break
            delay = FIRST_DELAY if self._send_quietly() else min(delay * 2, LONGEST_DELAY)
            # While the server comes up or is away, its own watcher knows first; looking often costs nothing.
            self._wake.wait(FIRST_DELAY if self._tracking.state().status != "ready" else delay)
        # What the last calls have left.
        self._send_quietly()

    def _send_quietly(self) -> bool:
        """Whether everything that could be tried went well."""
        if self._tracking.state().status != "ready":
            return True
        try:
            self._store.send_waiting(self._is_over)
        except UnavailableError:
            return False  # the banner tells of a server that is away; the traces wait
        except Exception:  # noqa: BLE001 - a sender that ends would leave all later traces waiting without a word
            _log.exception("The traces of single calls could not be sent")
            return False
        return True

    def waiting(self) -> int:
        """How many traces of single calls wait on disk."""
        return self._store.waiting()

    def send(self, stop: Stop | None = None) -> int:
        """Send what waits, now, for no longer than `stop` lets it; how many were taken. Raises UnavailableError."""
        return self._store.send_waiting(stop)

    def trace(self, trace_id: str) -> CallTrace:
        """Where a call's trace is. Raises NotFoundError, and UnavailableError when only MLflow could tell."""
        return self._store.state(trace_id)

    def give(self, trace_id: str, feedback: Feedback, *, who: str) -> Feedback:
        """Keep an opinion with its trace; what the same person said before is changed. Returns what MLflow holds.

        Raises BadRequestError when nothing is said or a correction does not fit the program's outputs, NotFoundError
        for a trace that does not exist, UnavailableError when MLflow is away: nothing is stored then.
        """
        if not self._settings.mlflow_enabled:
            raise UnavailableError("feedback.off")
        if feedback.is_empty:
            raise BadRequestError("feedback.empty")
        self._bring(trace_id)
        if feedback.correction:
            tags = self._store.tags(trace_id)
            feedback = feedback.model_copy(update={"correction": _checked(feedback.correction, tags)})
        return self._store.give(trace_id, feedback, who=who)

    def get(self, trace_id: str, *, who: str) -> Feedback:
        """What a person said of a call. Raises NotFoundError, UnavailableError."""
        return self._store.get(trace_id, who=who)

    def _bring(self, trace_id: str) -> None:
        """Have the trace in MLflow, where an opinion on it has its place."""
        try:
            state = self._store.state(trace_id)
            if state.status == "waiting":
                self._store.send_waiting()
                state = self._store.state(trace_id)
        except UnavailableError as exc:
            raise UnavailableError("feedback.waits", problem=Fault.of(exc).model_dump()) from exc
        if state.status == "refused":
            raise NotFoundError("feedback.refused", trace_id=trace_id)


def _checked(correction: dict[str, Any], tags: dict[str, str]) -> dict[str, Any]:
    """The corrected values in the types of their fields. A trace that names no fields takes any."""
    fields = _fields(tags)
    if fields is None:
        return correction
    if unknown := [name for name in correction if name not in fields]:
        raise BadRequestError("feedback.field", field=unknown[0][:80], known=", ".join(fields))
    return {name: parse_value(fields[name], value, where=name) for name, value in correction.items()}


def _fields(tags: dict[str, str]) -> dict[str, FieldSpec] | None:
    try:
        found = [FieldSpec.model_validate(field) for field in json.loads(tags[OUTPUTS_TAG])]
    except (KeyError, ValueError, TypeError, BadRequestError):
        return None  # another program's trace, or a list of fields too long for a tag
    return {field.name: field for field in found}
