"""The program's services, for as long as one command runs."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from dspyui.cli.console import Console
from dspyui.domain.runs import TrackingState
from dspyui.services import Services
from dspyui.settings import Settings

if TYPE_CHECKING:
    from dspyui.bootstrap import App

# How long a command waits for MLflow to be found or started, in seconds; a local server takes 10–30 s.
TRACKING_SECONDS = 90.0


def load_settings(console: Console, *, mlflow: bool = False, **flags: Any) -> Settings:
    """The settings, with a command's flags by field name; the command's language unless they say another.

    `mlflow` is `--mlflow`: where tracking is off it changes nothing, and that is said.
    """
    settings = Settings.load(**{"language": console.language, **flags}, force_local_mlflow=mlflow or None)
    if mlflow and not settings.mlflow_enabled:
        console.note(console.text("cli.mlflow_off"))
    return settings


@contextmanager
def opened(settings: Settings) -> Iterator["App"]:
    """The services, with their background work running; everything this process started ends with it."""
    from dspyui.bootstrap import make_app

    app = make_app(settings)
    try:
        app.start_background(works=False)
        yield app
    finally:
        app.close()


@contextmanager
def opened_quietly(settings: Settings) -> Iterator[Services]:
    """The services alone, for a command that needs neither jobs nor MLflow."""
    from dspyui.bootstrap import make_app

    app = make_app(settings)
    try:
        yield app.services
    finally:
        app.close()


@contextmanager
def opened_for_mlflow(settings: Settings) -> Iterator[Services]:
    """Only what talks to MLflow, for a command that starts no job."""
    from dspyui.bootstrap import make_app

    app = make_app(settings)
    try:
        app.services.tracking.start()
        wait_for_mlflow(app.services)
        yield app.services
    finally:
        app.close()


def wait_for_mlflow(services: Services) -> TrackingState:
    """The server's state once it is known, or after a bound."""
    return services.tracking.wait(TRACKING_SECONDS)
