"""`dspyui feedback`: say what an answer was worth; MLflow keeps it with the call's trace."""

import json
from typing import Any

import typer
from typer.core import TyperCommand

from dspyui.cli.console import Console
from dspyui.cli.flags import Flags
from dspyui.cli.session import load_settings, opened_for_mlflow
from dspyui.domain.feedback import Feedback
from dspyui.errors import BadRequestError


def add(app: typer.Typer, flags: Flags, cls: type[TyperCommand]) -> None:
    """Add the command."""
    text = flags.text
    trace_argument = typer.Argument(..., metavar="TRACE_ID", help=text("cli.feedback.trace_id"))
    up_option = typer.Option(False, "--up", help=text("cli.feedback.is_right"))
    down_option = typer.Option(False, "--down", help=text("cli.feedback.is_wrong"))
    comment_option = typer.Option("", "--comment", metavar="TEXT", help=text("cli.feedback.comment"))
    correct_option = typer.Option([], "--correct", metavar="FIELD=VALUE", help=text("cli.feedback.correct"))
    json_flag, lang_flag, mlflow_flag = flags.json, flags.lang, flags.mlflow

    @app.command("feedback", cls=cls, help=text("cli.feedback.about"))
    def feedback(  # noqa: PLR0913, PLR0917 - one parameter for each option
        trace_id: str = trace_argument,
        up: bool = up_option,
        down: bool = down_option,
        comment: str = comment_option,
        correct: list[str] = correct_option,
        mlflow: bool = mlflow_flag,
        as_json: bool = json_flag,
        lang: str | None = lang_flag,
    ) -> int:
        from dspyui.bootstrap import system_user

        console = flags.console(as_json=as_json, lang=lang)
        if up and down:
            raise BadRequestError("cli.feedback_both")
        thumbs_up = up if up or down else None
        given = Feedback(thumbs_up=thumbs_up, comment=comment, correction=correction_of(correct))
        user = system_user()
        with opened_for_mlflow(load_settings(console, mlflow=mlflow)) as services:
            # With nothing to say, what was said before is shown.
            kept = services.feedback
            held = kept.get(trace_id, who=user) if given.is_empty else kept.give(trace_id, given, who=user)
        console.answer(
            {"trace_id": trace_id, "who": user, **held.model_dump(mode="json")}, _lines(console, held)
        )
        return 0


def correction_of(given: list[str]) -> dict[str, Any] | None:
    """The outputs as they should have been, from `FIELD=VALUE`. Raises BadRequestError for what has no `=`."""
    found: dict[str, Any] = {}
    for each in given:
        name, equals, value = each.partition("=")
        if not equals or not name.strip():
            raise BadRequestError("cli.feedback_correct", value=each[:100])
        found[name.strip()] = value
    return found or None


def _lines(console: Console, held: Feedback) -> tuple[str, ...]:
    text = console.text
    if held.is_empty:
        return (text("cli.feedback.nothing"),)
    lines: list[str] = []
    if held.thumbs_up is not None:
        thumb = text("cli.feedback.up" if held.thumbs_up else "cli.feedback.down")
        lines.append(f"{thumb} {held.comment}".rstrip())
    for name, value in (held.correction or {}).items():
        shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        lines.append(text("cli.feedback.corrected", field=name, value=shown))
    return tuple(lines)
