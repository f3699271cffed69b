"""Looks whether an address is a living MLflow server, within a bound, and says what is wrong when it is not."""

import configparser
import ipaddress
import re
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from dspyui.domain.runs import TrackingLogin, TrackingProblem

_VERSION = re.compile(r"\d+\.\d+[\w.+-]*")
_DENIED = {401, 403}
# MLflow answers so, with 403, to a name that it was not told to answer to; no login would help.
_WRONG_HOST = "Invalid Host header"
# Any call that needs to be let in; MLflow's own login leaves `/health` open.
_ADMISSION = "/api/2.0/mlflow/experiments/search?max_results=1"
_USER_AND_PASSWORD = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")


@dataclass(frozen=True, slots=True)
class Answer:
    """A living MLflow server."""

    version: str


@dataclass(frozen=True, slots=True)
class Silence:
    """No MLflow server there: the kind of problem, and the technical detail (never a key)."""

    problem: TrackingProblem
    detail: str


def is_loopback(address: str) -> bool:
    """Whether the address is on this machine's own loopback."""
    host = urlsplit(address).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


class _LoginFileError(ValueError):
    """MLflow's own file for logins is damaged: its client fails of it with every request."""


class Prober:
    """Asks one address again and again. `environment` may hold MLflow's own variables for its login and TLS."""

    def __init__(self, address: str, environment: Mapping[str, str]) -> None:
        self.address = address
        self._environment = environment
        self._client: httpx.Client | None = None
        self._thread: threading.Thread | None = None
        self._found: Answer | Silence | None = None
        self._is_admitted = False

    def ask(self, seconds: float) -> Answer | Silence:
        """What is there now. A question that takes longer (a name that does not resolve) goes on by itself."""
        if self._thread is None or not self._thread.is_alive():
            self._found = None
            self._thread = threading.Thread(
                target=self._ask, args=(seconds,), name="mlflow-probe", daemon=True
            )
            self._thread.start()
        self._thread.join(seconds)
        return self._found or Silence("timeout", f"no answer within {seconds:g} s")

    def _ask(self, seconds: float) -> None:
        try:
            self._found = self._answer(seconds)
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as exc:
            self._found = Silence(_problem(exc), _detail(exc))

    def _answer(self, seconds: float) -> Answer | Silence:
        # Made here, because certificates and proxies that the environment names may be unusable.
        self._client = self._client or _client(self.address, self._environment)
        health = self._client.get(f"{self.address}/health", timeout=seconds)
        if health.status_code != 200:
            return _refusal(health)
        version = self._client.get(f"{self.address}/version", timeout=seconds)
        if version.status_code in _DENIED:
            return _refusal(version)
        found = _judged(health.text, version.text)
        return found if isinstance(found, Silence) else self._admitted(self._client, found, seconds)

    def _admitted(self, client: httpx.Client, found: Answer, seconds: float) -> Answer | Silence:
        """The answer, if we are let in; asked until we are."""
        if not self._is_admitted:
            reply = client.get(f"{self.address}{_ADMISSION}", timeout=seconds)
            if reply.status_code in _DENIED:
                return _refusal(reply)
            self._is_admitted = True
        return found


def _refusal(reply: httpx.Response) -> Silence:
    is_login = reply.status_code in _DENIED and _WRONG_HOST not in reply.text
    return Silence("denied" if is_login else "http", f"HTTP {reply.status_code} {_start_of(reply.text)}")


def _judged(health: str, version: str) -> Answer | Silence:
    if health.strip().strip('"') != "OK" or not _VERSION.fullmatch(version.strip()):
        return Silence("not_mlflow", f"/health: {_start_of(health)!r}, /version: {_start_of(version)!r}")
    return Answer(version.strip())


def login_kind(environment: Mapping[str, str]) -> TrackingLogin:
    """How MLflow's client would log in: user and password go before a token."""
    try:
        login = _login(environment)
    except _LoginFileError:
        return "file"
    if login is None:
        return "token" if environment.get("MLFLOW_TRACKING_TOKEN") else "none"
    given = all(environment.get(name) for name in _USER_AND_PASSWORD)
    return "password" if given else "file"


def _client(address: str, environment: Mapping[str, str]) -> httpx.Client:
    token = environment.get("MLFLOW_TRACKING_TOKEN")
    login = _login(environment)
    return httpx.Client(
        auth=login,
        headers={"Authorization": f"Bearer {token}"} if token and login is None else {},
        verify=_verification(address, environment),
        # A kept connection would hide for one question that the server was started again.
        limits=httpx.Limits(max_keepalive_connections=0),
        # A proxy never leads to this machine's own loopback.
        trust_env=not is_loopback(address),
    )


def _login(environment: Mapping[str, str]) -> tuple[str, str] | None:
    """User and password as MLflow's client finds them: in the environment, else in `~/.mlflow/credentials`.

    Raises _LoginFileError.
    """
    kept = configparser.ConfigParser(interpolation=None)
    if (home := environment.get("HOME")) and (damage := _read(kept, Path(home) / ".mlflow" / "credentials")):
        raise _LoginFileError(f"~/.mlflow/credentials: {damage}")
    user, password = (
        environment.get(name) or kept.get("mlflow", name.lower(), fallback="") for name in _USER_AND_PASSWORD
    )
    return (user, password) if user and password else None


def _read(kept: configparser.ConfigParser, file: Path) -> str:
    """Why the file cannot be understood; empty when it can, or is not there. Never its words, one is the password."""
    try:
        kept.read(file, encoding="utf-8")
    except (configparser.Error, UnicodeDecodeError) as exc:
        return type(exc).__name__
    return ""


def _verification(address: str, environment: Mapping[str, str]) -> ssl.SSLContext | bool:
    if urlsplit(address).scheme != "https":
        return False  # nothing to verify, and loading the certificates takes a while
    context = _context(environment)
    if certificate := environment.get("MLFLOW_TRACKING_CLIENT_CERT_PATH"):
        context.load_cert_chain(certificate)
    return context


def _context(environment: Mapping[str, str]) -> ssl.SSLContext:
    if environment.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() in {"true", "1"}:
        return httpx.create_ssl_context(verify=False)
    if not (certificate := environment.get("MLFLOW_TRACKING_SERVER_CERT_PATH")):
        return httpx.create_ssl_context()
    if Path(certificate).is_dir():
        return ssl.create_default_context(capath=certificate)
    return ssl.create_default_context(cafile=certificate)


def _start_of(text: str) -> str:
    return " ".join(text[:200].split())[:80]


def _causes(exc: BaseException | None) -> Iterator[BaseException]:
    while exc is not None:
        yield exc
        exc = exc.__cause__ or exc.__context__


_PROBLEMS: tuple[tuple[type[BaseException], TrackingProblem], ...] = (
    (ConnectionRefusedError, "refused"),
    (socket.gaierror, "dns"),
    (ssl.SSLError, "tls"),
    (TimeoutError, "timeout"),
    (_LoginFileError, "denied"),
    (httpx.TimeoutException, "timeout"),
    (httpx.RemoteProtocolError, "not_mlflow"),
)


def _problem(exc: BaseException) -> TrackingProblem:
    causes = tuple(_causes(exc))
    for kind, problem in _PROBLEMS:
        if any(isinstance(cause, kind) for cause in causes):
            return problem
    return "network"


def _detail(exc: BaseException) -> str:
    """The innermost words are the system's own."""
    *_, root = _causes(exc)
    return str(root) or str(exc) or type(root).__name__
