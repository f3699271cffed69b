"""What every test stands on: a clean environment, a home and a folder of its own, nothing beyond loopback."""

import asyncio
import gc
import inspect
import ipaddress
import os
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Generator, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dspyui.settings import Settings

# Kept from the environment of whoever runs the tests; everything else might change what is tested.
_KEPT = re.compile(
    r"PATH|LANG|LC_\w+|TZ|TMPDIR|TEMP|TMP|CI|USER|LOGNAME|SHELL|TERM|VIRTUAL_ENV|LD_LIBRARY_PATH|SSL_CERT_\w+"
    r"|PYTEST_\w+|PYTHON(HASHSEED|DONTWRITEBYTECODE)|PLAYWRIGHT_BROWSERS_PATH|(PIP|UV)_\w+"
)
_OFFLINE = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "DO_NOT_TRACK": "true",
}


def _clean_environment(home: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if _KEPT.fullmatch(name)}
    return {**kept, **_OFFLINE, "HOME": str(home)}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In continuous integration a test that skips itself has failed: nothing is skipped there."""
    report = yield
    if report.skipped and os.environ.get("CI") == "true":
        report.outcome, report.longrepr = "failed", f"skipped although CI=true: {report.longrepr}"
    return report


@pytest.fixture(scope="session", autouse=True)
def _offline_imports() -> Iterator[None]:
    """Session fixtures of others start before `_clean`; what they import must not look anything up either."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in _OFFLINE.items():
            patch.setenv(name, value)
        yield


@pytest.fixture(scope="module", autouse=True)
def _search_only_what_is_new() -> None:
    """NiceGUI searches the whole heap for garbage twice in each page test. What lives when a file of tests begins,
    such as the libraries that the files before it have imported, is not searched again: late in a run that was
    three quarters of a page test's time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, _offline_imports: None) -> Iterator[None]:
    home = tmp_path / "home"
    home.mkdir()
    wanted = _clean_environment(home)
    for name in set(os.environ) - set(wanted):
        monkeypatch.delenv(name)
    for name, value in wanted.items():
        monkeypatch.setenv(name, value)
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    yield
    # What the program set for MLflow, such as a login: a fixture of the next module starts before this one.
    for name in set(os.environ) - set(wanted):
        del os.environ[name]


@pytest.fixture(autouse=True)
def _what_embedders_leave(request: pytest.FixtureRequest) -> Iterator[None]:
    """LiteLLM, through which DSPy embeds, keeps its connections for ten minutes and makes a loop of events that it
    leaves behind; a later test would be blamed for both."""
    yield
    clients = vars(sys.modules.get("litellm", object)).get("in_memory_llm_clients_cache")
    if clients is None or not clients.cache_dict:
        return
    for client in list(clients.cache_dict.values()):
        if inspect.isawaitable(closing := client.close()):
            # In a thread of its own: here a loop may be running (Playwright's), or be the tests' own.
            thread = threading.Thread(target=asyncio.run, args=(closing,))
            thread.start()
            thread.join()
    clients.flush_cache()
    left = getattr(asyncio.get_event_loop_policy(), "_local")  # noqa: B009 - private to its type
    runs_in_it = inspect.iscoroutinefunction(request.function)
    if left._loop is not None and not left._loop.is_running() and not runs_in_it:
        left._loop.close()
        left._loop, left._set_called = None, False


class BeyondLoopbackError(AssertionError):
    """A test, or what it tests, reached for another machine."""


def _check_address(address: Any) -> None:
    if not isinstance(address, tuple):
        return  # AF_UNIX and the like never leave the machine
    host = str(address[0])
    if not _is_loopback(host):
        raise BeyondLoopbackError(f"tests may connect to this machine alone, not to {host!r}")


def _is_loopback(host: str) -> bool:
    if host in {"localhost", ""}:
        return True
    try:
        found = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return found.is_loopback or found.is_unspecified


@pytest.fixture(scope="session", autouse=True)
def _loopback_only() -> Iterator[None]:
    """Refuse connections beyond loopback; a name that is not this machine's own does not resolve."""
    connect, connect_ex, resolve = socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo

    def guarded_connect(self: socket.socket, address: Any) -> None:
        _check_address(address)
        connect(self, address)

    def guarded_connect_ex(self: socket.socket, address: Any) -> int:
        _check_address(address)
        return connect_ex(self, address)

    def guarded_resolve(host: Any, *args: Any, **kwargs: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        if name is None or _is_loopback(name) or _is_address(name):
            return resolve(host, *args, **kwargs)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", guarded_connect)
        patch.setattr(socket.socket, "connect_ex", guarded_connect_ex)
        patch.setattr(socket, "getaddrinfo", guarded_resolve)
        yield


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        return False
    return True


@pytest.fixture
def environ(tmp_path: Path, _clean: None) -> dict[str, str]:
    """The clean environment of this test, to start processes with or to add settings to."""
    return dict(os.environ)


@pytest.fixture
def settings(tmp_path: Path, environ: dict[str, str]) -> Settings:
    """Settings as on a fresh machine: nothing said, the data folder in the test's own folder."""
    return Settings.load(env_file=tmp_path / "no.env", environ=environ, home=tmp_path / "data")


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long the client of language models would have slept, in seconds; it does not."""
    from dspy.clients import execution

    slept: list[float] = []
    monkeypatch.setattr(execution, "time", SimpleNamespace(sleep=slept.append))
    return slept


def free_port() -> int:
    """A port of loopback that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def end_process(process: "subprocess.Popen[Any]") -> None:
    """End a process this test started, and wait for it."""
    process.terminate()
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(30)


def _answers(url: str) -> bool:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=2) as reply:
            return reply.status == 200
    except OSError:
        return False


@pytest.fixture(scope="session")
def mlflow_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One real MLflow server on SQLite for the whole session; it takes 10-30 s to start."""
    folder = tmp_path_factory.mktemp("mlflow")
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    server = ["mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    stores = ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--serve-artifacts"]
    artifacts = ["--artifacts-destination", str(folder / "artifacts")]
    # The guard ends the server, with all its children, when this process ends in whatever way.
    guard = [sys.executable, "-m", "dspyui.adapters.local_stack.guard"]
    log_file = folder / "mlflow.log"
    with log_file.open("wb") as log:
        process = subprocess.Popen(
            [*guard, sys.executable, "-m", *server, *stores, *artifacts],
            cwd=folder,
            env=_clean_environment(folder),
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    deadline = time.monotonic() + 180
    try:
        while not _answers(f"{address}/health"):
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"the MLflow server did not start:\n{log_file.read_text()[-3000:]}")
            time.sleep(0.1)
        yield address
    finally:
        end_process(process)
        if process.stdin:
            process.stdin.close()


@pytest.fixture(scope="session")
def local_lm_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The base URL (ends in `/v1`) of the real bundled model, one server for the whole session."""
    from dspyui.adapters.local_stack.local_lm import LocalLMServer

    folder = tmp_path_factory.mktemp("local-lm")
    settings = Settings.load(
        env_file=folder / "no.env", environ=_clean_environment(folder), home=folder / "data"
    )
    server = LocalLMServer(settings)
    try:
        yield server.ensure()
    finally:
        server.close()
