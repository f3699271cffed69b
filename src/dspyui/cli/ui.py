"""`dspyui ui`: serve the pages and the API."""

import typer
from typer.core import TyperCommand

from dspyui.cli.console import Console
from dspyui.cli.flags import Flags
from dspyui.cli.session import load_settings
from dspyui.settings import Settings


def add(app: typer.Typer, flags: Flags, cls: type[TyperCommand]) -> None:
    """Add the command."""
    text = flags.text
    host_option = typer.Option(None, "--host", metavar="ADDRESS", help=text("cli.ui.host"))
    port_option = typer.Option(None, "--port", metavar="PORT", help=text("cli.ui.port"))
    mlflow_option = flags.mlflow
    local_lm_option = typer.Option(False, "--no-local-lm", help=text("cli.ui.no_local_lm"))
    insecure_option = typer.Option(False, "--insecure", help=text("cli.ui.insecure"))
    json_flag, lang_flag = flags.json, flags.lang

    @app.command("ui", cls=cls, help=text("cli.ui.about"))
    def ui(
        host: str | None = host_option,
        port: int | None = port_option,
        mlflow: bool = mlflow_option,
        no_local_lm: bool = local_lm_option,
        insecure: bool = insecure_option,
        as_json: bool = json_flag,
        lang: str | None = lang_flag,
    ) -> int:
        console = flags.console(as_json=as_json, lang=lang)
        settings = load_settings(
            console,
            mlflow=mlflow,
            host=host,
            port=port,
            # Only an explicit flag fixes the language of the pages; the terminal's own is for this terminal.
            language=console.language if lang else None,
            local_lm=False if no_local_lm else None,
            insecure=insecure or None,
        )
        return run(console, settings)


def run(console: Console, settings: Settings) -> int:
    """Serve until told to stop. Returns the exit code."""
    # NiceGUI and FastAPI take a second to import: no other command pays for them.
    from dspyui.server import serve

    def ready(address: str) -> None:
        lines = (console.text("cli.ui.address", address=address), console.text("cli.ui.stop"))
        console.answer({"status": "ready", "url": address}, lines)

    def mlflow_ready(address: str) -> None:
        console.note(console.text("cli.ui.mlflow_address", address=address))

    serve(settings, on_ready=ready, on_mlflow=mlflow_ready, say=console.note, text=console.text)
    return 0
