"""`dspyui auth hash`: make an entry for DSPYUI_AUTH."""

import getpass
import sys

import typer
from typer.core import TyperCommand

from dspyui.api.passwords import check_user_name, hash_password
from dspyui.cli.console import Console
from dspyui.cli.flags import Flags
from dspyui.errors import BadRequestError


def add(app: typer.Typer, flags: Flags, cls: type[TyperCommand]) -> None:
    """Add the command."""
    text = flags.text
    user_argument = typer.Argument(None, metavar="USER", help=text("cli.auth.user"), show_default=False)
    json_flag, lang_flag = flags.json, flags.lang

    @app.command("hash", cls=cls, help=text("cli.auth.hash"))
    def hash_(
        user: str | None = user_argument, as_json: bool = json_flag, lang: str | None = lang_flag
    ) -> int:
        console = flags.console(as_json=as_json, lang=lang)
        name = check_user_name(user or _system_user())
        entry = f"{name}:{hash_password(read_password(console))}"
        console.note(console.text("cli.auth.use"))
        console.answer({"user": name, "entry": entry}, (entry,))
        return 0


def _system_user() -> str:
    from dspyui.bootstrap import system_user

    return system_user()


def read_password(console: Console) -> str:
    """Asked twice on a terminal, else the first line of stdin. Raises BadRequestError when empty or not repeated."""
    if sys.stdin.isatty():
        password = getpass.getpass(console.text("cli.auth.password"))
        if password != getpass.getpass(console.text("cli.auth.again")):
            raise BadRequestError("cli.password_repeat")
    else:
        password = sys.stdin.readline().rstrip("\r\n")
    if not password:
        raise BadRequestError("cli.password_empty")
    return password
