"""`dspyui version`."""

import platform
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed

import typer
from typer.core import TyperCommand

from dspyui import __version__
from dspyui.cli.flags import Flags

LIBRARIES = ("dspy", "mlflow", "nicegui", "dbos")


def add(app: typer.Typer, flags: Flags, cls: type[TyperCommand]) -> None:
    """Add the command."""
    json_flag, lang_flag = flags.json, flags.lang

    @app.command("version", cls=cls, help=flags.text("cli.version.about"))
    def version(as_json: bool = json_flag, lang: str | None = lang_flag) -> int:
        console = flags.console(as_json=as_json, lang=lang)
        versions = {"dspyui": __version__, "python": platform.python_version(), **libraries()}
        console.answer({"version": __version__, **versions}, (f"DSPyUI {__version__}",))
        return 0


def libraries() -> dict[str, str]:
    """The installed versions of what the program stands on, read without importing any of it."""
    found: dict[str, str] = {}
    for name in LIBRARIES:
        try:
            found[name] = installed(name)
        except PackageNotFoundError:
            continue
    return found
