"""What a kept server is, where its files lie, and what its address file says.

Files in the folder, for a server called `mlflow`:
- `mlflow.lock` is held shared by every process that uses the server, and exclusively by the keeper once nobody does;
- `mlflow.keeper.lock` is held by the keeper, `mlflow.server.lock` by the guard that runs the server;
- `mlflow.json` is the address file, to be believed while a keeper lives;
- `mlflow.port` is the port of the last server that answered: the next one gets it again, so that links stay valid.
The system frees a lock when its process dies, however it dies: no process id is ever trusted.
"""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from dspyui.adapters.files.atomic import write_atomic

KeptStatus = Literal["starting", "ready", "failed"]


@dataclass(frozen=True, slots=True)
class KeptSpec:
    """A server to keep. `{port}` in the command becomes the port; times are in seconds.

    `port` is where to begin looking for a free one when the last server's cannot be had again; 0
    is any, and none is remembered. `health` is a path that answers 200 once the server is ready.
    A server that gives no answer for `hang_seconds` is ended like one that crashed.
    """

    name: str
    folder: str
    command: tuple[str, ...]
    log: str
    health: str
    port: int = 0
    version: str = ""
    ready_seconds: float = 300.0
    hang_seconds: float = 60.0

    @classmethod
    def from_json(cls, text: str) -> "KeptSpec":
        """What `to_json` wrote."""
        values = json.loads(text)
        return cls(**{**values, "command": tuple(values["command"])})

    def to_json(self) -> str:
        """For the keeper's stdin: a command line can be read by everyone on the machine."""
        return json.dumps(asdict(self))

    @property
    def lock(self) -> Path:
        """Held shared by users."""
        return Path(self.folder) / f"{self.name}.lock"

    @property
    def keeper_lock(self) -> Path:
        """Held by the keeper."""
        return Path(self.folder) / f"{self.name}.keeper.lock"

    @property
    def server_lock(self) -> Path:
        """Held by the guard, also when its keeper was killed and it is just ending the server."""
        return Path(self.folder) / f"{self.name}.server.lock"

    @property
    def address_file(self) -> Path:
        """Where the server is."""
        return Path(self.folder) / f"{self.name}.json"

    @property
    def port_file(self) -> Path:
        """Which port the last server had."""
        return Path(self.folder) / f"{self.name}.port"


@dataclass(frozen=True, slots=True)
class KeptState:
    """What the address file says. `at` is the time of writing, in seconds since 1970; the ids are for people."""

    status: KeptStatus
    address: str | None = None
    keeper: int | None = None
    server: int | None = None
    version: str = ""
    reason: str = ""
    at: float = 0.0


def read_state(spec: KeptSpec) -> KeptState | None:
    """The address file; None when there is none, or none that can be read (a crash, another version)."""
    try:
        return KeptState(**json.loads(spec.address_file.read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


def remembered_port(spec: KeptSpec) -> int:
    """The port of the last server that answered; 0 when none is known."""
    try:
        port = int(spec.port_file.read_text("ascii"))
    except (OSError, ValueError):
        return 0
    return port if spec.port and 0 < port < 65536 else 0


def remember_port(spec: KeptSpec, port: int) -> None:
    """Keep the port for the next server."""
    if spec.port:
        write_atomic(spec.port_file, str(port), durable=False)


def is_kept(spec: KeptSpec) -> bool:
    """Whether a keeper lives."""
    return _is_locked(spec.keeper_lock)


def is_gone(spec: KeptSpec) -> bool:
    """Whether neither keeper nor server is left."""
    return not _is_locked(spec.keeper_lock) and not _is_locked(spec.server_lock)


def _is_locked(path: Path) -> bool:
    return path.exists() and not could_lock(path, fcntl.LOCK_SH)


def write_state(spec: KeptSpec, state: KeptState) -> None:
    """Replace the address file in one step."""
    write_atomic(spec.address_file, json.dumps(asdict(state)), durable=False)


def open_lock(path: Path) -> int:
    """A descriptor to lock, not inherited by children."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def try_lock(descriptor: int, kind: int) -> bool:
    """Lock without waiting: `fcntl.LOCK_SH` or `fcntl.LOCK_EX`."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def could_lock(path: Path, kind: int) -> bool:
    """Whether the lock could be had now; it is let go at once."""
    with _opened(path) as descriptor:
        return try_lock(descriptor, kind)


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    descriptor = open_lock(path)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
