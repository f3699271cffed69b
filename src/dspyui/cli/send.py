"""`dspyui send`: send what waits for MLflow, and tell what still waits and why."""

from collections.abc import Iterator
from typing import Any

import typer
from typer.core import TyperCommand

from dspyui.cli.console import Console
from dspyui.cli.flags import Flags
from dspyui.cli.session import load_settings, opened_for_mlflow
from dspyui.errors import DSPyUIError, FailedError
from dspyui.services.waiting import Sent, WaitingService

FAILED = 1
# What is on its way is told every so many seconds.
PIECE_SECONDS = 20.0


def add(app: typer.Typer, flags: Flags, cls: type[TyperCommand]) -> None:
    """Add the command."""
    json_flag, lang_flag, mlflow_flag = flags.json, flags.lang, flags.mlflow

    @app.command("send", cls=cls, help=flags.text("cli.send.about"))
    def send(mlflow: bool = mlflow_flag, as_json: bool = json_flag, lang: str | None = lang_flag) -> int:
        console = flags.console(as_json=as_json, lang=lang)
        with opened_for_mlflow(load_settings(console, mlflow=mlflow)) as services:
            return answer(console, send_all(console, services.waiting))


def send_all(console: Console, service: WaitingService) -> Sent:
    """Piece by piece, as long as there is more and some of it goes."""
    records = traces = 0
    while True:
        sent = service.send_now(seconds=PIECE_SECONDS)
        records, traces = records + sent.records, traces + sent.traces
        goes_on = any(reason.code == "record.goes_on" for reason in sent.reasons)
        if not goes_on or not (sent.records or sent.traces):
            return sent.model_copy(update={"records": records, "traces": traces})
        console.note(console.text("cli.send.so_far", traces=traces, left=sent.left.traces))


def answer(console: Console, sent: Sent) -> int:
    """Say what came of it. Returns the exit code: 1 when something still waits."""
    left = sent.left
    reasons = [FailedError(reason.code, **reason.values) for reason in sent.reasons]
    document: dict[str, Any] = {
        "status": "done" if left.is_empty else "waiting",
        "sent_records": sent.records,
        "sent_traces": sent.traces,
        "waiting_records": left.records,
        "waiting_traces": left.traces,
        "waiting_bytes": left.size,
        "oldest": left.oldest.isoformat() if left.oldest else None,
        "refused_records": left.refused_records,
        "refused_traces": left.refused_traces,
        "reasons": [{"code": found.code, "message": console.sentence(found)} for found in reasons],
    }
    console.answer(document, tuple(_lines(console, sent, reasons)))
    return 0 if left.is_empty else FAILED


def _lines(console: Console, sent: Sent, reasons: list[FailedError]) -> Iterator[str]:
    text, left = console.text, sent.left
    yield text("waiting.sent", records=sent.records, traces=sent.traces)
    if not left.is_empty:
        yield text("waiting.left", records=left.records, traces=left.traces)
    yield from (_said(console, reason) for reason in reasons)
    if left.refused_records or left.refused_traces:
        yield text("waiting.refused", records=left.refused_records, traces=left.refused_traces)


def _said(console: Console, error: DSPyUIError) -> str:
    return f"- {console.sentence(error)}"
