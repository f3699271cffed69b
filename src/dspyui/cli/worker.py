"""`dspyui worker`: help with the batches of other machines until it is stopped."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import typer
from typer.core import TyperCommand

from dspyui.cli.console import Console
from dspyui.cli.flags import Flags
from dspyui.cli.session import load_settings
from dspyui.domain.base import Notice
from dspyui.errors import DSPyUIError
from dspyui.settings import Settings, without_passwords

CALLS = 32


def add(app: typer.Typer, flags: Flags, cls: type[TyperCommand]) -> None:
    """Add the command."""
    text = flags.text
    calls_option = typer.Option(
        CALLS, "--calls", metavar="N", help=text("cli.worker.calls"), min=1, max=256, show_default=False
    )
    json_flag, lang_flag = flags.json, flags.lang

    @app.command("worker", cls=cls, help=text("cli.worker.about"))
    def worker(calls: int = calls_option, as_json: bool = json_flag, lang: str | None = lang_flag) -> int:
        console = flags.console(as_json=as_json, lang=lang)
        return run(console, load_settings(console), calls)


def run(console: Console, settings: Settings, calls: int) -> int:
    """Work until told to stop. Returns the exit code."""
    from dspyui.bootstrap import batch_worker

    def tell(notice: Notice) -> None:
        console.note(settings.redact(notice.sentence(console.language)))

    def refused(batch_id: str, problem: BaseException) -> None:
        said = console.sentence(problem) if isinstance(problem, DSPyUIError) else repr(problem)
        console.note(settings.redact(console.text("worker.declined", job_id=batch_id, problem=said)))

    stop = threading.Event()
    with batch_worker(settings, calls=calls, tell=tell, refused=refused) as worker, _told_to_stop(stop):
        address = settings.database_url.get_secret_value() if settings.database_url else ""
        console.note(console.text("cli.worker.ready", address=without_passwords(address)))
        worker.run(stop)
        console.note(console.text("cli.stopped"))
    console.answer(
        {"status": "stopped", "rows": worker.rows}, (console.text("cli.worker.rows", rows=worker.rows),)
    )
    return 0


@contextmanager
def _told_to_stop(stop: threading.Event) -> Iterator[None]:
    """Ctrl-C and SIGTERM set the event instead of breaking off whatever the loop is just doing with the database."""
    before = {
        number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
