"""The MLflow server in use: switched off, given by a setting, found at the default address, or brought along."""

import importlib.metadata
import re
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from dspyui.adapters.local_stack.hold import Hold
from dspyui.adapters.local_stack.kept import KeptSpec, KeptState
from dspyui.adapters.local_stack.probe import Answer, Prober, Silence, is_loopback, login_kind
from dspyui.adapters.local_stack.statistics import gather_statistics
from dspyui.domain.runs import TrackingState
from dspyui.errors import UnavailableError
from dspyui.settings import DEFAULT_TRACKING_URI, Settings, without_passwords

FIRST_PORT = 5000
# All in seconds. A banner must say within 3 s that a server is away.
ASK_SECONDS = 2.5
FIND_SECONDS = 1.5
READY_EVERY = 2.0
AWAY_EVERY, AWAY_EVERY_AT_MOST = 0.5, 5.0
STARTING_EVERY = 0.2
CLOSE_SECONDS = 5.0
# A busy server may once be late; one that refuses is gone.
LATE_TWICE = 2


class MlflowServer:
    """Implements `TrackingServer`. A thread watches the server; nothing here waits for it but `wait` and `close`.

    `default_address` and `first_port` are where a server is looked for, and put, when no setting says otherwise;
    `command` starts the local one (`{port}` becomes its port), MLflow's unless given.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        default_address: str = DEFAULT_TRACKING_URI,
        first_port: int = FIRST_PORT,
        command: tuple[str, ...] | None = None,
    ) -> None:
        self._settings = settings
        self._default_address = default_address
        spec = mlflow_spec(settings, first_port)
        self._hold = Hold(replace(spec, command=command or spec.command), mlflow_environment(settings))
        self._login = login_kind(settings.child_environment) if settings.mlflow_enabled else "none"
        self._state = TrackingState(
            status="starting" if settings.mlflow_enabled else "off", login=self._login
        )
        self._changed = threading.Condition()
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._want_local = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Look for the server and start the local one if that is the situation. Returns at once."""
        if self._settings.mlflow_enabled and self._thread is None and not self._closing.is_set():
            self._thread = threading.Thread(target=self._watch, name="mlflow-watch", daemon=True)
            self._thread.start()

    def state(self) -> TrackingState:
        """What is known now; does not wait."""
        with self._changed:
            return self._state

    def address(self) -> str:
        """The address of the server when it is ready. Raises UnavailableError, at once, when it is not."""
        state = self.state()
        if state.status == "ready" and state.address is not None:
            return state.address
        if state.status == "off":
            raise UnavailableError("tracking.off")
        if state.status == "starting":
            raise UnavailableError("tracking.starting")
        if state.problem == "failed":
            raise UnavailableError(
                "tracking.failed", log=str(self._settings.mlflow_log_file), detail=state.detail
            )
        code = "tracking.denied" if state.problem == "denied" else "tracking.unreachable"
        raise UnavailableError(code, address=str(state.address), detail=state.detail)

    def wait(self, seconds: float) -> TrackingState:
        """The state once it is neither unknown nor starting, or after `seconds`."""
        with self._changed:
            self._changed.wait_for(lambda: self._state.status != "starting", seconds)
            return self._state

    def start_local(self) -> None:
        """Give up the dead address (or try the local server that failed again). Returns at once."""
        if not self._settings.mlflow_enabled:
            raise UnavailableError("tracking.off")
        self._tell(TrackingState(status="starting", origin="local"))
        self._want_local.set()
        self._wake.set()
        self.start()

    def close(self) -> None:
        """Let go of it; a local server ends when nobody holds it any more."""
        self._closing.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(CLOSE_SECONDS)
        self._hold.release()

    # The watching thread.

    def _watch(self) -> None:
        given = self._settings.mlflow_tracking_uri
        if given and not self._settings.force_local_mlflow:
            self._watch_remote(given, "given")
        elif not self._settings.force_local_mlflow and not self._hold.is_running() and self._finds_default():
            self._watch_remote(self._default_address, "found")
        # Left when closing, or when the local server is wanted.
        while not self._closing.is_set():
            self._want_local.clear()
            self._watch_local()

    def _finds_default(self) -> bool:
        found = Prober(self._default_address, self._settings.child_environment).ask(FIND_SECONDS)
        return isinstance(found, Answer)

    def _watch_remote(self, address: str, origin: Literal["given", "found"]) -> None:
        contact = _Contact(Prober(address, self._settings.child_environment))
        while not self._closing.is_set() and not self._want_local.is_set():
            found = contact.ask()
            if self._want_local.is_set():
                return
            self._tell(_remote_state(address, origin, found))
            self._pause(contact.next_look)

    def _watch_local(self) -> None:
        """Hold the local server and tell how it stands, until closing or asked to try again."""
        self._tell(TrackingState(status="starting", origin="local"))
        self._hold.retry()
        contact: _Contact | None = None
        while not self._closing.is_set() and not self._want_local.is_set():
            kept = self._look()
            if kept.status != "ready" or kept.address is None:
                contact = None
                self._tell(self._local_state(kept))
                self._pause(STARTING_EVERY if kept.status == "starting" else READY_EVERY)
                continue
            if contact is None or contact.address != kept.address:
                contact = _Contact(Prober(kept.address, self._own_login()))
            self._tell(_remote_state(kept.address, "local", contact.ask()))
            self._pause(min(contact.next_look, READY_EVERY))

    def _own_login(self) -> Mapping[str, str]:
        # The server wants none, but MLflow's client reads its file in any case, and a damaged one is to be told.
        return {name: value for name, value in self._settings.child_environment.items() if name == "HOME"}

    def _look(self) -> KeptState:
        try:
            prepare_folders(self._settings)
            if not self._hold.take(self._closing):
                return KeptState(status="starting")
            return self._hold.look()
        except OSError as exc:
            return KeptState(status="failed", reason=f"{exc.strerror}: {exc.filename}")

    def _local_state(self, kept: KeptState) -> TrackingState:
        if kept.status == "starting":
            return TrackingState(status="starting", origin="local")
        detail = without_passwords(self._settings.redact(kept.reason))
        return TrackingState(
            status="unreachable", origin="local", problem="failed", detail=detail, can_start_local=True
        )

    def _pause(self, seconds: float) -> None:
        self._wake.wait(seconds)
        self._wake.clear()

    def _tell(self, state: TrackingState) -> None:
        with self._changed:
            self._state = state.model_copy(update={"login": self._login})
            self._changed.notify_all()


@dataclass(slots=True)
class _Contact:
    """Remembers how an address answered, to look at a dead one less and less often, and to forgive one delay."""

    prober: Prober
    answered: Answer | None = None
    late: int = 0
    next_look: float = READY_EVERY
    _away_every: float = AWAY_EVERY

    @property
    def address(self) -> str:
        return self.prober.address

    def ask(self) -> Answer | Silence:
        found = self.prober.ask(ASK_SECONDS)
        if isinstance(found, Answer):
            self.answered, self.late = found, 0
            self.next_look, self._away_every = READY_EVERY, AWAY_EVERY
            return found
        self.late += found.problem == "timeout"
        if self.answered is not None and found.problem == "timeout" and self.late < LATE_TWICE:
            self.next_look = AWAY_EVERY
            return self.answered
        self.answered = None
        self.next_look = self._away_every
        self._away_every = min(self._away_every * 2, AWAY_EVERY_AT_MOST)
        return found


def _remote_state(
    address: str, origin: Literal["given", "found", "local"], found: Answer | Silence
) -> TrackingState:
    if isinstance(found, Answer):
        return TrackingState(status="ready", address=address, origin=origin, version=found.version)
    return TrackingState(
        status="unreachable",
        address=address,
        origin=origin,
        problem=found.problem,
        detail=found.detail,
        can_start_local=origin != "local" and is_loopback(address) and found.problem != "denied",
    )


# The local server.

# Variables that would make the local server another one than the one described here.
_CHANGES_SERVER = re.compile(
    r"_?MLFLOW_(TRACKING_\w+|REGISTRY_\w+|READ_REPLICA_\w+|BACKEND_\w+|DEFAULT_ARTIFACT_ROOT|ARTIFACT\w*|SERVE_\w+"
    r"|SERVER_\w+|HOST|PORT|WORKERS|STATIC_PREFIX|GUNICORN_OPTS|UVICORN_OPTS|EXPOSE_PROMETHEUS|APP_NAME|AUTH_\w+"
    r"|ENABLE_WORKSPACES|WORKSPACE\w*|TRACE_ARCHIVAL\w*|EXPERIMENT_\w+|RUN_ID|LOG_FILE|ENABLED|LOG_\w+|CONFIGURE_LOGGING"
    r"|FLASK_SERVER_\w+|ACTIVE_MODEL_ID|SGI_NAME|SQL_TRACE_ROLLUPS\w*)"
)


def mlflow_spec(settings: Settings, first_port: int) -> KeptSpec:
    """How the local server is started and kept. The database's address stands in the environment: it may hold
    a password, and everyone on the machine can read a command line."""
    command = [sys.executable, "-P", "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", "{port}"]
    stores = ["--serve-artifacts", "--artifacts-destination", _artifacts(settings.mlflow_artifact_root)]
    return KeptSpec(
        name="mlflow",
        folder=str(settings.home.resolve() / "local"),
        # Each process that uses the server asks it every two seconds; that would fill the log.
        command=(*command, *stores, "--workers", "1", "--uvicorn-opts", "--no-access-log"),
        log=str(settings.mlflow_log_file.resolve()),
        health="/health",
        port=first_port,
        version=importlib.metadata.version("mlflow"),
    )


def mlflow_environment(settings: Settings) -> Mapping[str, str]:
    """The environment of the local server: none of our own settings for clients, nothing sent to anyone."""
    inherited = {
        name: value
        for name, value in settings.process_environment().items()
        if not _CHANGES_SERVER.fullmatch(name)
    }
    return {
        **inherited,
        "MLFLOW_BACKEND_STORE_URI": _backend(settings.mlflow_backend_store_uri),
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
    }


def _backend(uri: str) -> str:
    """The database's address, its relative path made absolute and its folder made."""
    scheme, separator, rest = uri.partition(":///")
    if not scheme.startswith("sqlite") or not separator or rest in {"", ":memory:"}:
        return uri
    name, mark, query = rest.partition("?")
    return f"{scheme}:///{Path(name).resolve()}{mark}{query}"


def _artifacts(root: str) -> str:
    return root if re.match(r"[A-Za-z][\w+.-]*:", root) else str(Path(root).resolve())


def prepare_folders(settings: Settings) -> None:
    """Make the folders of the local server's database, artifacts and log; a database that is there is looked over."""
    backend = _backend(settings.mlflow_backend_store_uri)
    if backend.startswith("sqlite") and ":////" in backend:
        database = Path("/" + backend.partition(":////")[2].partition("?")[0])
        database.parent.mkdir(parents=True, exist_ok=True)
        gather_statistics(database)
    artifacts = _artifacts(settings.mlflow_artifact_root)
    if artifacts.startswith("/"):
        Path(artifacts).mkdir(parents=True, exist_ok=True)
