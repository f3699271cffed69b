"""`dspyui predict`: run a program on one row, and tell what it answered."""

import json
import sys
from typing import Any, Literal

import typer
from typer.core import TyperCommand

from dspyui.cli.batch import other_lm
from dspyui.cli.console import Console
from dspyui.cli.flags import Flags
from dspyui.cli.session import load_settings, opened_for_mlflow, opened_quietly
from dspyui.domain.engine import MAX_SECONDS, PREDICT_SECONDS, Patience, PredictOutcome
from dspyui.errors import BadRequestError, DSPyUIError, FailedError, UnavailableError
from dspyui.services import Services
from dspyui.services.predict import Caller

Sent = Literal["sent", "waiting", "refused"]


def add(app: typer.Typer, flags: Flags, cls: type[TyperCommand]) -> None:
    """Add the command."""
    text = flags.text

    def option(*names: str, default: Any = None, meta: str | None = None, key: str, **more: Any) -> Any:
        return typer.Option(
            default, *names, metavar=meta, help=text(f"cli.predict.{key}"), show_default=False, **more
        )

    model_option = option("--model", default=..., meta="MODEL", key="model")
    input_option = option("--input", default=..., meta="JSON", key="input")
    lm_option = option("--lm", meta="MODEL", key="lm")
    base_option = option("--api-base", meta="URL", key="api_base")
    seconds_option = option(
        "--seconds", default=PREDICT_SECONDS, meta="N", key="seconds", min=1, max=MAX_SECONDS
    )
    json_flag, lang_flag, mlflow_flag = flags.json, flags.lang, flags.mlflow

    @app.command("predict", cls=cls, help=text("cli.predict.about"))
    def predict(  # noqa: PLR0913, PLR0917 - one parameter for each option
        model: str = model_option,
        input_: str = input_option,
        lm: str | None = lm_option,
        api_base: str | None = base_option,
        seconds: float = seconds_option,
        mlflow: bool = mlflow_flag,
        as_json: bool = json_flag,
        lang: str | None = lang_flag,
    ) -> int:
        console = flags.console(as_json=as_json, lang=lang)
        inputs, other = row_of(input_), other_lm(lm, api_base)
        settings = load_settings(console, mlflow=mlflow)
        needs_mlflow = model.startswith(("models:/", "runs:/"))
        knows_mlflow = settings.mlflow_enabled and (mlflow or settings.mlflow_tracking_uri is not None)
        with (opened_for_mlflow if needs_mlflow or knows_mlflow else opened_quietly)(settings) as services:
            found = services.predict.find(model)
            outcome = services.predict.ask(
                found, inputs, caller=_caller(), patience=Patience(seconds=seconds), lm=other
            )
            sent = send_trace(console, services, outcome)
        return answer(console, found.uri, outcome, sent)


def row_of(given: str) -> dict[str, Any]:
    """The row: a JSON object, or `-` for one on stdin. Raises BadRequestError."""
    try:
        row = json.loads(sys.stdin.read() if given == "-" else given)
    except ValueError as exc:
        raise BadRequestError("cli.predict_input", problem=str(exc)) from exc
    if not isinstance(row, dict):
        raise BadRequestError("cli.predict_object", value=given[:80])
    return row


def _caller() -> Caller:
    from dspyui.bootstrap import system_user

    return Caller(who=system_user(), source="cli")


def send_trace(console: Console, services: Services, outcome: PredictOutcome) -> Sent | None:
    """Send the call's trace now; one that cannot be sent waits on disk for the next program that runs here.

    Whatever goes wrong is told and no more: the answer is paid for, and is still to be printed.
    """
    if outcome.trace_id is None:
        return None
    try:
        services.feedback.send()
        status = services.feedback.trace(outcome.trace_id).status
    except UnavailableError:
        return "waiting"
    except DSPyUIError as exc:
        console.note(console.sentence(exc))
        return "waiting"
    except OSError as exc:
        console.note(str(exc))
        return "waiting"
    return "sent" if status == "stored" else status


def answer(console: Console, model: str, outcome: PredictOutcome, sent: Sent | None) -> int:
    """Say what it answered, or why it did not. Returns the exit code."""
    used = outcome.usage
    document = {
        "model": model,
        "outputs": outcome.outputs,
        "seconds": round(outcome.seconds, 3),
        "lm_calls": used.lm_calls,
        "lm_cache_hits": used.lm_cache_hits,
        "input_tokens": used.input_tokens,
        "output_tokens": used.output_tokens,
        "total_tokens": used.total_tokens,
        "cost": used.cost,
        "trace_id": outcome.trace_id,
        "trace": sent,
    }
    if outcome.fault is not None:
        return console.failure(FailedError(outcome.fault.code, **outcome.fault.values), document)
    text = console.text
    lines = [f"{name}: {_shown(value)}" for name, value in outcome.outputs.items()]
    lines.append(
        text(
            "cli.predict.took",
            seconds=f"{outcome.seconds:.2f}",
            calls=used.lm_calls,
            tokens=used.total_tokens,
        )
    )
    if used.cost is not None:
        lines.append(text("cli.compile.cost", cost=f"{used.cost:.4f}"))
    if sent is not None:
        lines.append(text(f"cli.predict.trace_{sent}", trace_id=outcome.trace_id))
    console.answer({"status": "done", **document}, tuple(lines))
    return 0


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
