"""How `--help` looks: typer's commands with every word from the catalogue, Chinese wrapped by its real width."""

import shutil
import unicodedata
from collections.abc import Sequence
from functools import cache
from typing import Any, ClassVar

from typer.core import TyperCommand, TyperGroup

from dspyui.i18n import Text

MAX_WIDTH = 100
# Under this key a context knows the name of a command that there is not.
UNKNOWN = "dspyui.unknown_command"
# No line of Chinese begins with one of these.
_CLOSING = "，。；：！？）】」、…"


def width(text: str) -> int:
    """Columns a text takes on a terminal."""
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)


def wrap(text: str, columns: int) -> list[str]:
    """Lines of at most `columns`; breaks at spaces, and anywhere between Chinese characters."""
    lines = [""]
    for piece in _pieces(text):
        if lines[-1] and width(lines[-1] + piece.rstrip()) > columns:
            lines.append("")
        lines[-1] += piece
    return [line.rstrip() for line in lines]


def _pieces(text: str) -> list[str]:
    """What must stay on one line: a word with the space after it, or a wide character, and what closes it."""
    pieces: list[str] = []
    open_word = False
    for char in text:
        wide = unicodedata.east_asian_width(char) in "WF"
        if pieces and (char in _CLOSING or (open_word and not wide)):
            pieces[-1] += char
        else:
            pieces.append(char)
        open_word = not wide and char != " "
    return pieces


def definitions(rows: Sequence[tuple[str, str]], columns: int) -> list[str]:
    """Two columns: a name, and what it is."""
    left = min(max(width(name) for name, _ in rows), 28) + 4
    lines: list[str] = []
    for name, meaning in rows:
        first, *more = wrap(meaning, columns - left) if meaning else [""]
        head = f"  {name}"
        if width(head) + 2 > left:
            lines.append(head)
            head = ""
        lines.append((head + " " * (left - width(head)) + first).rstrip())
        lines.extend(" " * left + line for line in more)
    return lines


class _Help:
    """Mixed into typer's classes: `format_help` in the language of `text`."""

    text: ClassVar[Text]

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the whole help of one command."""
        command: Any = self
        say = self.text
        columns = min(shutil.get_terminal_size((MAX_WIDTH, 24)).columns, MAX_WIDTH)
        lines = [say("cli.help.usage", line=" ".join([ctx.command_path, *self._usage(ctx)])), ""]
        lines += wrap(command.help or "", columns)
        sections = (
            ("cli.help.arguments", self._records(ctx, "argument")),
            ("cli.help.options", self._records(ctx, "option")),
            ("cli.help.commands", self._commands()),
        )
        for title, rows in sections:
            if rows:
                lines += ["", say(title), *definitions(rows, columns)]
        formatter.write("\n".join(lines) + "\n")

    def _usage(self, ctx: Any) -> list[str]:
        command: Any = self
        pieces = [self.text("cli.help.options_word")]
        for param in command.get_params(ctx):
            if param.param_type_name == "argument":
                name = param.metavar or param.name.upper()
                pieces.append(name if param.required else f"[{name}]")
        if getattr(command, "commands", None):
            pieces.append(self.text("cli.help.command_word"))
        return pieces

    def _records(self, ctx: Any, kind: str) -> list[tuple[str, str]]:
        command: Any = self
        params = (p for p in command.get_params(ctx) if p.param_type_name == kind and not p.hidden)
        return [(_name(param), self._meaning(param)) for param in params]

    def _meaning(self, param: Any) -> str:
        if "--help" in param.opts:
            return self.text("cli.help.help")
        meaning = param.help or ""
        return f"{meaning} {self.text('cli.help.required')}" if param.required else meaning

    def _commands(self) -> list[tuple[str, str]]:
        commands: dict[str, Any] = getattr(self, "commands", {})
        return [(name, command.help or "") for name, command in commands.items()]


def _name(param: Any) -> str:
    if param.param_type_name == "argument":
        return param.metavar or param.name.upper()
    value = "" if param.is_flag else f" {param.metavar or param.name.upper()}"
    return f"{', '.join(param.opts)}{value}"


class _Names:
    """Mixed into the group's class: notes a name that no command has, which typer tells only within a sentence."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that the first argument names."""
        group: Any = super()
        ctx.meta[UNKNOWN] = args[0]
        found = group.resolve_command(ctx, args)
        del ctx.meta[UNKNOWN]
        return found


@cache
def classes(text: Text) -> tuple[type[TyperCommand], type[TyperGroup]]:
    """The command and the group class that speak one language."""
    command = type("Command", (_Help, TyperCommand), {"text": text})
    group = type("Group", (_Help, _Names, TyperGroup), {"text": text})
    return command, group
