"""Traces of single calls, which belong to no Run, and people's opinions on them as MLflow assessments."""

import fcntl
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dspyui.adapters.files.atomic import private_folder
from dspyui.adapters.mlflow_store.client import Connection, MlflowAccess
from dspyui.adapters.mlflow_store.runs import ensure_experiment
from dspyui.adapters.mlflow_store.spool import PART, REFUSED, SEGMENT, FileTraceSink, closed_segments
from dspyui.adapters.mlflow_store.traces import send_segments
from dspyui.domain.feedback import CORRECTION, THUMBS, CallTrace, Feedback
from dspyui.domain.runs import RunLink, TrackingServer
from dspyui.errors import FailedError, NotFoundError
from dspyui.settings import Settings

if TYPE_CHECKING:
    from mlflow.entities import Assessment, TraceInfo
    from mlflow.tracing.client import TracingClient

# What stands in an address must not lead elsewhere.
_TRACE_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_PREFIX = "tr-"


def calls_folder(home: Path) -> Path:
    """Where the traces of single calls wait; each call writes a segment of its own."""
    return home / "spool" / "calls"


def open_calls(home: Path) -> FileTraceSink:
    """A sink for them."""
    private_folder(home / "spool")
    return FileTraceSink(calls_folder(home))


class MlflowFeedbackStore:
    """Implements `domain.feedback.FeedbackStore`."""

    def __init__(self, settings: Settings, tracking: TrackingServer) -> None:
        self._access = MlflowAccess(settings, tracking)
        self._experiment_name = settings.mlflow_experiment_name
        self._folder = calls_folder(settings.home)
        # A double click must not make two assessments.
        self._writing = threading.Lock()

    def waiting(self) -> int:
        """See the protocol."""
        return len({segment.stem for segment in self._segments()})

    def send_waiting(self, stop: Callable[[], bool] | None = None) -> int:
        """See the protocol. One process at a time; whoever waits for it then finds nothing left."""
        if not self.waiting():
            return 0
        with self._access.connected() as connection, _locked(self._folder):
            if not closed_segments(self._folder):
                return 0
            experiment_id = ensure_experiment(connection.client, self._experiment_name)
            link = RunLink(run_id="", experiment_id=experiment_id, url="")
            stored, _refused = send_segments(connection, self._folder, link, stop)
        return stored

    def state(self, trace_id: str) -> CallTrace:
        """See the protocol."""
        if self._is_waiting(trace_id):
            return CallTrace(status="waiting")
        if (self._folder / f"{_checked(trace_id)}{REFUSED}").is_file():
            return CallTrace(status="refused")
        with self._access.connected() as connection:
            info = _info(_client(connection), connection, trace_id)
            return CallTrace(status="stored", url=_url(connection, info))

    def tags(self, trace_id: str) -> dict[str, str]:
        """See the protocol."""
        with self._access.connected() as connection:
            return dict(_info(_client(connection), connection, trace_id).tags)

    def give(self, trace_id: str, feedback: Feedback, *, who: str) -> Feedback:
        """See the protocol."""
        with self._writing, self._access.connected() as connection:
            client = _client(connection)
            info = _info(client, connection, trace_id)
            for made in _to_mlflow(feedback, who):
                _put(client, info, made, who)
            # Read back: a client that drops an assessment in silence must not look like one that stored it.
            held = _said_by(_info(client, connection, trace_id), who)
        if not _holds(held, feedback):
            raise FailedError("feedback.not_stored", trace_id=trace_id, address=connection.address)
        return held

    def get(self, trace_id: str, *, who: str) -> Feedback:
        """See the protocol."""
        with self._access.connected() as connection:
            return _said_by(_info(_client(connection), connection, trace_id), who)

    def _segments(self) -> Iterator[Path]:
        # In this order: one that is closed in between is seen twice, and never missed.
        for ending in (PART, SEGMENT):
            yield from self._folder.glob(f"*{ending}")

    def _is_waiting(self, trace_id: str) -> bool:
        try:
            wanted = bytes.fromhex(trace_id.removeprefix(_PREFIX))
        except ValueError:
            return False
        return len(wanted) == 16 and any(wanted in _content(segment) for segment in self._segments())


def _content(segment: Path) -> bytes:
    try:
        return segment.read_bytes()
    except FileNotFoundError:
        return b""  # sent since it was listed


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with (folder / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _client(connection: Connection) -> "TracingClient":
    from mlflow.tracing.client import TracingClient

    return TracingClient(connection.address)


def _checked(trace_id: str) -> str:
    if not _TRACE_ID.fullmatch(trace_id):
        raise NotFoundError("feedback.no_trace", trace_id=trace_id[:80])
    return trace_id


def _info(client: "TracingClient", connection: Connection, trace_id: str) -> "TraceInfo":
    try:
        with connection.mapped_errors():
            return client.get_trace_info(_checked(trace_id))
    except (NotFoundError, FailedError) as exc:
        # An id that cannot be one is refused as a bad parameter, not as missing.
        if exc.code in {"mlflow.not_found", "mlflow.refused"}:
            raise NotFoundError("feedback.no_trace", trace_id=trace_id) from exc
        raise


def _url(connection: Connection, info: "TraceInfo") -> str:
    base = f"{connection.address}/#/experiments/{info.experiment_id}/traces"
    return f"{base}?selectedEvaluationId={info.trace_id}"


def _to_mlflow(feedback: Feedback, who: str) -> "Iterator[Assessment]":
    from mlflow import entities

    source = entities.AssessmentSource(source_type=entities.AssessmentSourceType.HUMAN, source_id=who)
    if feedback.thumbs_up is not None:
        yield entities.Feedback(
            name=THUMBS, value=feedback.thumbs_up, rationale=feedback.comment, source=source
        )
    if feedback.correction:
        yield entities.Expectation(name=CORRECTION, value=dict(feedback.correction), source=source)


def _mine(info: "TraceInfo", name: str, who: str) -> "Assessment | None":
    """The newest of this person's of that name that still counts."""
    found = [
        made
        for made in info.assessments
        if made.name == name
        and made.source.source_type == "HUMAN"
        and made.source.source_id == who
        and made.valid is not False
    ]
    return max(found, key=lambda made: made.create_time_ms or 0, default=None)


def _put(client: "TracingClient", info: "TraceInfo", made: "Assessment", who: str) -> None:
    before = _mine(info, made.name, who)
    if before is None or before.assessment_id is None:
        client.log_assessment(info.trace_id, made)
    else:
        client.update_assessment(info.trace_id, before.assessment_id, made)


def _said_by(info: "TraceInfo", who: str) -> Feedback:
    thumb, correction = (_mine(info, name, who) for name in (THUMBS, CORRECTION))
    value: Any = thumb.feedback.value if thumb is not None and thumb.feedback is not None else None
    should: Any = correction.expectation.value if correction is not None and correction.expectation else None
    has_thumb = isinstance(value, bool)
    return Feedback(
        thumbs_up=value if has_thumb else None,
        comment=(thumb.rationale or "") if thumb is not None and has_thumb else "",
        correction=should if isinstance(should, dict) else None,
    )


def _holds(held: Feedback, given: Feedback) -> bool:
    has_thumb = given.thumbs_up is None or (held.thumbs_up, held.comment) == (given.thumbs_up, given.comment)
    return has_thumb and (not given.correction or _json(held.correction) == _json(given.correction))


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
