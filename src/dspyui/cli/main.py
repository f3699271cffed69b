"""The entry: finds the language, builds the commands in it, and turns every error into one line and a code."""

import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any, Never

import typer
from typer.core import TyperGroup
from typer.exceptions import TyperException

from dspyui.cli import (
    auth,
    batch,
    data,
    demo,
    feedback,
    jobs,
    lm,
    models,
    predict,
    register,
    runs,
    send,
    ui,
    version,
    worker,
)
from dspyui.cli import compile as compile_command
from dspyui.cli.console import Console
from dspyui.cli.flags import Flags, checked_language
from dspyui.cli.layout import UNKNOWN, classes
from dspyui.cli.stop import Stopped
from dspyui.errors import DSPyUIError
from dspyui.i18n import Language, Text, language_of, system_language
from dspyui.settings import language_said

FAILED = 1
USAGE_ERROR = 2
INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> Never:
    """Run one command and exit with its code: 0 done, 1 failed, 2 bad request, 130 stopped."""
    sys.exit(run(list(sys.argv[1:] if arguments is None else arguments)))


def run(arguments: list[str]) -> int:
    """Run one command and return its exit code."""
    console = Console(asked_language(arguments), "--json" in arguments)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    try:
        code = build(console.language)(arguments, prog_name="dspyui", standalone_mode=False)
    except DSPyUIError as exc:
        return console.failure(exc)
    except TyperException as exc:
        return _usage_error(console, exc)
    except (Stopped, typer.Abort):
        message = console.text("cli.stopped")
        return console.problem("cli.stopped", message, INTERRUPTED, {"status": "cancelled"})
    except Exception as exc:  # noqa: BLE001 - the last resort: whoever reads the JSON must get an answer
        traceback.print_exc()
        problem = f"{type(exc).__name__}: {exc}"
        message = console.text("cli.unexpected", problem=problem)
        return console.problem("cli.unexpected", message, FAILED, {"status": "failed"})
    return code if isinstance(code, int) else 0


def _stop(_number: int, _frame: FrameType | None) -> None:
    raise Stopped


def asked_language(arguments: Sequence[str]) -> Language:
    """`--lang`, wherever it stands, then DSPYUI_LANGUAGE, then the terminal's own."""
    for position, argument in enumerate(arguments):
        name, _, value = argument.partition("=")
        if name == "--lang":
            following = arguments[position + 1] if position + 1 < len(arguments) else ""
            if found := language_of(value or following):
                return found
    # Not from the whole settings: what is wrong with them is said later, in this language.
    said, variables = language_said()
    return said or system_language(variables)


def build(language: Language) -> Callable[..., Any]:
    """All commands, with their help in one language."""
    text = Text(language)
    flags = Flags(language)
    command, group = classes(text)
    app = _group(flags, group, text("cli.help.about"))
    commands = (ui, compile_command, register, predict, feedback, batch, worker, send, demo, version)
    for add in (command.add for command in commands):
        add(app, flags, command)
    for name, commands in (("jobs", jobs), ("runs", runs), ("data", data)):
        part = _group(flags, group, text(f"cli.{name}.about"))
        commands.add(part, flags, command)
        app.add_typer(part, name=name)
    accounts = _group(flags, group, text("cli.auth.about"))
    auth.add(accounts, flags, command)
    app.add_typer(accounts, name="auth")
    lms = _group(flags, group, text("cli.lm.about"))
    lm.add(lms, flags, command)
    app.add_typer(lms, name="lm")
    registered = _group(flags, group, text("cli.models.about"))
    models.add(registered, flags, command)
    app.add_typer(registered, name="models")
    return typer.main.get_command(app)


def _group(flags: Flags, cls: type[TyperGroup], about: str) -> typer.Typer:
    """A group of commands; `--lang` may stand before the command too, and was read from there already."""
    app = typer.Typer(cls=cls, help=about, add_completion=False, rich_markup_mode=None, no_args_is_help=True)
    lang_flag = flags.lang

    @app.callback()
    def group(lang: str | None = lang_flag) -> None:
        checked_language(lang)

    return app


def _usage_error(console: Console, exc: TyperException) -> int:
    """Say in the console's language what was wrong with the arguments."""
    text = console.text
    kind = type(exc).__name__
    context: Any = getattr(exc, "ctx", None)
    if kind == "NoArgsIsHelpError":
        console.note(exc.message)
        message = text("cli.usage.no_command")
    elif kind == "UsageError" and isinstance(getattr(exc, "cmd", None), TyperGroup):
        known = ", ".join(context.command.commands)
        unknown = context.meta.get(UNKNOWN)
        message = text("cli.usage.command", known=known)
        if unknown is not None:
            message = text("cli.usage.unknown_command", name=unknown, known=known)
    elif kind == "NoSuchOption":
        message = text("cli.usage.no_option", option=getattr(exc, "option_name", ""))
    elif kind == "MissingParameter":
        message = text("cli.usage.missing", name=_parameter(exc))
    elif kind == "BadParameter":
        message = text("cli.usage.value", name=_parameter(exc), problem=exc.message)
    else:
        message = text("cli.usage.other", problem=exc.format_message())
    if context is not None:
        message = text("cli.usage.with_hint", message=message, command=context.command_path)
    return console.problem("cli.usage", message, USAGE_ERROR, {"status": "failed"})


def _parameter(exc: TyperException) -> str:
    parameter: Any = getattr(exc, "param", None)
    if parameter is None:
        return "—"
    return parameter.metavar if parameter.param_type_name == "argument" else "/".join(parameter.opts)
