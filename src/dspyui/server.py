"""One ASGI application, the pages and the API behind one door; and the server that runs it."""

import errno
import logging
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import uvicorn
from fastapi import FastAPI
from nicegui import ui
from nicegui.storage import Storage

from dspyui.api.app import create_api
from dspyui.api.login import session_secret
from dspyui.api.passwords import Accounts
from dspyui.bootstrap import App, make_app, port_holder, system_user
from dspyui.errors import BadRequestError, DSPyUIError
from dspyui.i18n import Text
from dspyui.services import Services
from dspyui.settings import Settings
from dspyui.ui.app import create_pages

# How long open connections may take to end when the server stops, in seconds.
GRACE_SECONDS = 1
# The first page comes before everything that loads in the background; this long at most, in seconds.
FIRST_PAGE_SECONDS = 1.0
# What a browser asks for right after its first page goes before it too, in seconds.
SETTLE_SECONDS = 0.3
_log = logging.getLogger(__name__)


def create_app(services: Services) -> FastAPI:
    """The pages, the API under /api, and the door before both. Once a process: NiceGUI is one of a kind."""
    home = services.settings.home.resolve()
    secret = session_secret(home)
    app = create_api(services, secret=secret, local_user=system_user())
    _mount_pages(app, services, secret, home)
    return app


def _mount_pages(app: FastAPI, services: Services, secret: str, home: Path) -> None:
    # NiceGUI would keep visitors' choices in the working directory.
    Storage.path = home / "visitors"
    create_pages(services)
    ui.run_with(
        app,
        title="DSPyUI",
        storage_secret=secret,
        session_middleware_kwargs={
            "session_cookie": f"dspyui_visitor_{services.settings.port}",
            "same_site": "lax",
        },
        reconnect_timeout=10,
        show_welcome_message=False,
    )


def check_door(settings: Settings) -> None:
    """Refuse to stand open: other machines may reach the program only with a login.

    Raises BadRequestError, also for entries of DSPYUI_AUTH that are none.
    """
    if settings.auth is not None:
        Accounts.parse(settings.auth.get_secret_value())
    elif not settings.is_loopback and not settings.insecure:
        raise BadRequestError("door.auth_needed", host=settings.host)


def bind(host: str, port: int) -> socket.socket:
    """Take the port before anything is started. Raises BadRequestError that names its holder and the flag."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, address = found[0]
        sock = socket.socket(family, socket.SOCK_STREAM)
    except OSError as exc:
        raise BadRequestError("server.host", host=host, problem=str(exc)) from exc
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(1)
    except OSError as exc:
        sock.close()
        raise _bind_problem(host, port, exc) from exc
    sock.set_inheritable(False)
    return sock


def _bind_problem(host: str, port: int, exc: OSError) -> BadRequestError:
    if exc.errno == errno.EADDRINUSE:
        holder = port_holder(host, port)
        code = "server.port_taken_by" if holder else "server.port_taken"
        return BadRequestError(code, port=port, holder=holder or "", other=port % 65535 + 1)
    if exc.errno in {errno.EACCES, errno.EPERM}:
        return BadRequestError("server.port_denied", port=port)
    return BadRequestError("server.host", host=host, problem=str(exc))


class _Server(uvicorn.Server):
    """Tells when it listens."""

    def __init__(self, config: uvicorn.Config, on_listening: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_listening = on_listening

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Open the doors, then say so."""
        await super().startup(sockets)
        if self.started and not self.should_exit:
            self._on_listening()


def serve(
    settings: Settings,
    *,
    on_ready: Callable[[str], None],
    on_mlflow: Callable[[str], None],
    say: Callable[[str], None],
    text: Text,
) -> None:
    """Serve until SIGINT or SIGTERM; everything that was started is stopped before this returns.

    `on_ready` gets the address once it answers, `on_mlflow` MLflow's once that does; `say` gets lines for the
    log. Raises BadRequestError for a door that stands open and for a port that is taken; nothing is started then.
    """
    check_door(settings)
    with bind(settings.host, settings.port) as sock:
        _log_without_secrets(settings)
        if settings.insecure and not settings.is_loopback and settings.auth is None:
            say(text("server.insecure", host=settings.host))
        app = make_app(settings)
        background = _Background(app, on_mlflow=on_mlflow, say=say, text=text)
        config = uvicorn_config(create_app(app.services))
        server = _Server(config, on_listening=lambda: _listening(settings, server, background, on_ready))
        _stop_gently(server)
        try:
            server.run(sockets=[sock])
        finally:
            say(text("server.stopping"))
            background.close()
            app.close()


class _Redacting(logging.Formatter):
    """Log lines, tracebacks included, without any secret the program was given or will be."""

    def __init__(self, settings: Settings) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")
        self._settings = settings

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        return self._settings.redact(super().format(record))


def _log_without_secrets(settings: Settings) -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(_Redacting(settings))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])


def uvicorn_config(application: FastAPI) -> uvicorn.Config:
    """How the application is served."""
    return uvicorn.Config(
        application,
        log_config=None,
        access_log=False,
        server_header=False,
        # Only the peer's own address counts: a forwarded one could be made up to get around the limit of attempts.
        proxy_headers=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )


def _listening(
    settings: Settings, server: uvicorn.Server, background: "_Background", on_ready: Callable[[str], None]
) -> None:
    on_ready(page_address(settings.host, settings.port))
    background.start(server)


def page_address(host: str, port: int) -> str:
    """Where a browser on this machine finds the pages."""
    if host in {"0.0.0.0", "::", ""}:  # noqa: S104 - compared with, not bound to
        host = "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _stop_gently(server: uvicorn.Server) -> None:
    """SIGINT and SIGTERM end the server's loop and nothing else.

    uvicorn takes these signals itself while it runs, and raises them once more when it is done; they must not
    end the process before its children are stopped.
    """

    def stop(_number: int, _frame: FrameType | None) -> None:
        server.should_exit = True

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)


class _Background:
    """What starts after the first page: MLflow is looked for, the queue joined, waiting records are sent."""

    def __init__(
        self, app: App, *, on_mlflow: Callable[[str], None], say: Callable[[str], None], text: Text
    ) -> None:
        self._app = app
        self._on_mlflow = on_mlflow
        self._say = say
        self._text = text
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, server: uvicorn.Server) -> None:
        """Begin, in a thread of its own."""
        self._thread = threading.Thread(
            target=self._run, args=(server,), name="background-start", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Let a start that is under way come to its end, so that what it started can be stopped."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join(timeout=15)

    def _run(self, server: uvicorn.Server) -> None:
        end = time.monotonic() + FIRST_PAGE_SECONDS
        while server.server_state.total_requests == 0 and time.monotonic() < end:
            if self._closing.wait(0.02):
                return
        if self._closing.wait(SETTLE_SECONDS):
            return
        try:
            self._app.start_background(works=True)
        except DSPyUIError as exc:
            self._say(self._text("cli.error", message=exc.text(self._text.language)))
        except Exception:  # noqa: BLE001 - a thread's error is seen by nobody, so it is said here
            _log.exception("The background work could not be started")
            self._say(self._text("server.background"))
        self._tell_mlflow()

    def _tell_mlflow(self) -> None:
        tracking = self._app.services.tracking
        while not self._closing.is_set():
            state = tracking.wait(0.5)
            if state.status == "ready" and state.address:
                self._on_mlflow(state.address)
            if state.status == "unreachable":
                self._say(self._text("server.mlflow_away", address=state.address or "—", detail=state.detail))
            if state.status != "starting":
                return
