"""Traces of single calls on their way to MLflow, and people's opinions on them."""

import json
from typing import Any

from dspyui.domain.base import Fault
from dspyui.domain.feedback import OUTPUTS_TAG, CallTrace, Feedback, FeedbackStore
from dspyui.domain.runs import TrackingServer
from dspyui.domain.signatures import FieldSpec, parse_value
from dspyui.errors import BadRequestError, NotFoundError, UnavailableError
from dspyui.services.sender import Sender, Stop
from dspyui.settings import Settings


class FeedbackService(Sender):
    """Sends the traces of single calls, and keeps what people say of a call with its trace.

    Nothing is said to be stored before MLflow holds it: a trace that still waits on disk is sent first.
    """

    def __init__(self, settings: Settings, tracking: TrackingServer, store: FeedbackStore) -> None:
        super().__init__(settings, tracking, name="call-trace-sender")
        self._store = store

    @property
    def is_tracing(self) -> bool:
        """Whether calls are traced at all."""
        return self._settings.mlflow_enabled and self._settings.mlflow_log_traces

    def _send_pending(self) -> bool:
        try:
            self._store.send_waiting(self._is_over)
        except UnavailableError:
            return False  # the banner tells of a server that is away; the traces wait
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
