"""Sends traces from their segments to the server's OTLP endpoint, and links them to their Run.

The endpoint takes 250 traces a second in batches, where MLflow's own exporter reaches 20 and loses some under
load. It answers 200 even when it could not link the traces to the Run, so linking is a call of its own here,
whose failure shows, and what is linked is counted afterwards. Sending a trace twice is harmless. MLflow also
links to a Run that does not exist, so that is looked at first.
"""

import gzip
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dspyui.adapters.mlflow_store.client import Connection
from dspyui.adapters.mlflow_store.spool import (
    MAX_BYTES,
    MAX_TRACES,
    REFUSED,
    closed_segments,
    read_frames,
    to_frame,
)
from dspyui.domain.runs import RunLink
from dspyui.errors import FailedError

if TYPE_CHECKING:
    from mlflow import MlflowClient

_POST_SECONDS = 60
# The server says with these that the batch itself is at fault; any other status is about the server or the way.
_BAD_BATCH = {400, 413, 422}
_PAGE = 500


@dataclass(frozen=True, slots=True)
class _Payload:
    """One trace as an ExportTraceServiceRequest; several of them one after the other are one valid request."""

    trace_id: str
    content: bytes


def send_segments(
    connection: Connection, folder: Path, link: RunLink, stop: Callable[[], bool] | None = None
) -> tuple[int, int]:
    """Post every closed segment of the folder; a segment is deleted when all of it is stored or set aside.

    After each segment but the last `stop` may say that this is enough for now. A link whose `run_id` is empty says
    the experiment alone: such traces belong to no Run. Returns (stored, refused). Raises UnavailableError when the
    server goes away, and FailedError when it takes the traces but does not link them to the Run.
    """
    segments = closed_segments(folder)
    if not segments:
        return 0, 0
    if link.run_id:
        connection.client.get_run(link.run_id)
    sender = _Sender(connection, folder, link)
    stored: list[str] = []
    refused = 0
    for number, segment in enumerate(segments, start=1):
        payloads = [_to_payload(content) for content in read_frames(segment.read_bytes())]
        for batch in _batches(payloads):
            taken = sender.post(batch)
            stored += taken
            refused += len(batch) - len(taken)
        segment.unlink()
        if stop is not None and number < len(segments) and stop():
            break
    if link.run_id:
        _check_links(connection.client, link, stored)
    return len(stored), refused


class _Sender:
    def __init__(self, connection: Connection, folder: Path, link: RunLink) -> None:
        self._connection = connection
        self._folder = folder
        self._link = link

    def post(self, batch: Sequence[_Payload]) -> list[str]:
        """The ids of the traces that are stored and linked; a refused one is found by halving and set aside."""
        response = self._connection.request(
            "POST",
            "/v1/traces",
            timeout=_POST_SECONDS,
            data=gzip.compress(b"".join(payload.content for payload in batch), 1),
            extra_headers={
                "Content-Type": "application/x-protobuf",
                "Content-Encoding": "gzip",
                "x-mlflow-experiment-id": self._link.experiment_id,
            },
        )
        if response.status_code in _BAD_BATCH:
            return self._halve(batch, f"{response.status_code} {response.text[:200]}")
        response.raise_for_status()
        ids = [payload.trace_id for payload in batch]
        if self._link.run_id:
            self._connection.client.link_traces_to_run(ids, self._link.run_id)
        return ids

    def _halve(self, batch: Sequence[_Payload], answer: str) -> list[str]:
        if len(batch) == 1:
            self._set_aside(batch[0], answer)
            return []
        middle = len(batch) // 2
        return [*self.post(batch[:middle]), *self.post(batch[middle:])]

    def _set_aside(self, payload: _Payload, answer: str) -> None:
        name = payload.trace_id or f"{abs(hash(payload.content)):x}"
        (self._folder / f"{name}{REFUSED}").write_bytes(to_frame(payload.content))
        (self._folder / f"{name}{REFUSED}.txt").write_text(answer + "\n", encoding="utf-8")


def _to_payload(content: bytes) -> _Payload:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    request = ExportTraceServiceRequest.FromString(content)
    ids = {
        span.trace_id.hex()
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    }
    return _Payload(trace_id=f"tr-{min(ids)}" if ids else "", content=content)


def _batches(payloads: Sequence[_Payload]) -> Iterator[list[_Payload]]:
    batch: list[_Payload] = []
    size = 0
    for payload in payloads:
        if batch and (len(batch) >= MAX_TRACES or size + len(payload.content) > MAX_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(payload)
        size += len(payload.content)
    if batch:
        yield batch


def _check_links(client: "MlflowClient", link: RunLink, stored: Sequence[str]) -> None:
    missing = _unlinked(client, link, stored)
    for start in range(0, len(missing), MAX_TRACES):
        client.link_traces_to_run(missing[start : start + MAX_TRACES], link.run_id)
    if missing and (left := _unlinked(client, link, missing)):
        raise FailedError("trace.unlinked", count=len(left), run_id=link.run_id, first=left[0])


def _unlinked(client: "MlflowClient", link: RunLink, ids: Sequence[str]) -> list[str]:
    if not ids:
        return []
    left = set(ids)
    token = None
    while left:
        page = client.search_traces(
            locations=[link.experiment_id],
            run_id=link.run_id,
            include_spans=False,
            max_results=_PAGE,
            page_token=token,
        )
        left -= {trace.info.trace_id for trace in page}
        token = page.token
        if not token:
            break
    return sorted(left)
