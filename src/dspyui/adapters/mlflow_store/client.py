"""The way to the MLflow server: one client, one place where its errors become ours.

`import mlflow` costs two seconds, so it happens inside functions; `warm()` does it ahead of time in a thread.
Nothing here sets MLflow's globals (tracking URI, experiment, active run): every call carries its own address.
"""

import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from dspyui.domain.runs import TrackingServer
from dspyui.errors import ConflictError, DSPyUIError, FailedError, NotFoundError, UnavailableError
from dspyui.settings import MLFLOW_LOGIN_VARIABLES, Settings, set_environment

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.utils.rest_utils import MlflowHostCreds

# MLflow's defaults (120 s, 7 retries) block a dead server's caller for minutes. Retrying is ours: a POST that
# is retried below us after a lost answer would make a second Run.
_BEHAVIOUR = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_UV_AUTO_DETECT": "false",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
}
_LOOPBACK = "127.0.0.1,localhost,::1"

# A server that was asked this many seconds ago needs no new question before the next call.
HEALTH_SECONDS = 2.0
HEALTH_TIMEOUT = 3


class MlflowAccess:
    """Gives out clients of the server that is in use. Thread-safe."""

    def __init__(self, settings: Settings, tracking: TrackingServer) -> None:
        self._settings = settings
        self._tracking = tracking
        self._healthy: tuple[str, float] = ("", 0.0)
        self._prepared = False
        self._lock = threading.Lock()

    @contextmanager
    def connected(self) -> Iterator["Connection"]:
        """A connection whose errors are ours.

        Raises UnavailableError at once when the server is known to be away, and within three seconds when
        that shows only now.
        """
        address = self._tracking.address()
        self._prepare()
        connection = Connection(address, self._settings)
        with connection.mapped_errors():
            self._check_health(connection)
            yield connection

    def _prepare(self) -> None:
        with self._lock:
            if not self._prepared:
                prepare_environment(self._settings)
                warm()
                self._prepared = True

    def _check_health(self, connection: "Connection") -> None:
        address, at = self._healthy
        if address == connection.address and time.monotonic() - at < HEALTH_SECONDS:
            return
        # Without this, a server that takes connections and answers nothing would hold each call for 15 s.
        connection.request("GET", "/health", timeout=HEALTH_TIMEOUT)
        self._healthy = (connection.address, time.monotonic())


def prepare_environment(settings: Settings) -> None:
    """Tell MLflow, before it is imported, to fail soon, to be quiet, and to leave loopback out of proxies."""
    given = settings.child_environment
    proxies = {
        name: ",".join(filter(None, (given.get(name), _LOOPBACK)))
        for name in ("NO_PROXY", "no_proxy")
        if _LOOPBACK not in given.get(name, "")
    }
    # `.env` may hold them, and MLflow reads only the process's environment.
    credentials = {name: given[name] for name in MLFLOW_LOGIN_VARIABLES if given.get(name, "").strip()}
    set_environment({**proxies, **credentials})
    settle()


def settle() -> None:
    """What has to be said before MLflow is imported for the first time. Saying it again changes nothing."""
    set_environment(_BEHAVIOUR)
    # Whoever sets MLFLOW_TRACKING_INSECURE_TLS knows; it need not be said with every request.
    warnings.filterwarnings("ignore", message="Unverified HTTPS request")
    # MLflow says this of its own code when it is imported.
    warnings.filterwarnings("ignore", message=".*Any type hint is inferred as AnyType", category=UserWarning)


# Two threads that import MLflow at once can each see the other's half of its circular imports.
_importing = threading.Lock()


def warm() -> None:
    """Import what the first call needs, ahead of time. Meant for a background thread."""
    settle()
    with _importing:
        import mlflow.pyfunc  # noqa: F401 - imported for its cost, which the first caller should not pay


class Connection:
    """The server at one address."""

    def __init__(self, address: str, settings: Settings) -> None:
        self.address = address
        self._settings = settings
        self._client: MlflowClient | None = None

    @property
    def client(self) -> "MlflowClient":
        """MLflow's own client."""
        if self._client is None:
            from mlflow import MlflowClient

            self._client = MlflowClient(tracking_uri=self.address, registry_uri=self.address)
        return self._client

    def request(self, method: str, path: str, *, timeout: int, **options: Any) -> Any:
        """A raw request with MLflow's credentials; gives the response whatever its status (5xx raise)."""
        from mlflow.utils.rest_utils import http_request

        return http_request(self._credentials(), path, method, timeout=timeout, max_retries=0, **options)

    def _credentials(self) -> "MlflowHostCreds":
        from mlflow.utils.credentials import get_default_host_creds

        return get_default_host_creds(self.address)

    @contextmanager
    def mapped_errors(self) -> Iterator[None]:
        """Turn MLflow's and HTTP's errors into ours."""
        import requests
        from mlflow.exceptions import MlflowException

        try:
            yield
        except (MlflowException, requests.RequestException) as exc:
            raise self._mapped(exc) from exc

    def _mapped(self, exc: Exception) -> DSPyUIError:
        kind, code = _kind_of(exc)
        problem = " ".join(self._settings.redact(str(exc)).split())[:400]
        return kind(f"mlflow.{code}", address=self.address, problem=problem)


_MISSING = {"RESOURCE_DOES_NOT_EXIST", "NOT_FOUND", "ENDPOINT_NOT_FOUND"}
_TAKEN = {"RESOURCE_ALREADY_EXISTS", "ALREADY_EXISTS", "RESOURCE_CONFLICT"}


def _kind_of(exc: Exception) -> tuple[type[DSPyUIError], str]:
    status = _http_status(exc)
    name = getattr(exc, "error_code", "")
    if status is None or status in {408, 429}:
        return UnavailableError, "unavailable"
    if status in {401, 403}:
        # Not a refusal for good: whoever mends the credentials wants what waits to be sent then.
        return UnavailableError, "denied"
    if name in _MISSING or status == 404:
        return NotFoundError, "not_found"
    if name in _TAKEN or status == 409:
        return ConflictError, "taken"
    # A 500 in the server's own words (`RestException`) comes from a server that is there but in trouble.
    if status >= 500 and type(exc).__name__ == "RestException":
        return UnavailableError, "unavailable"
    return FailedError, "refused"


def _http_status(exc: BaseException) -> int | None:
    """The status the server answered with; None when it gave no usable answer at all."""
    import requests
    from mlflow.exceptions import MlflowException

    link: BaseException | None = exc
    while link is not None:
        if isinstance(link, requests.RequestException):
            return None if link.response is None else link.response.status_code
        link = link.__cause__ or link.__context__
    return exc.get_http_status_code() if isinstance(exc, MlflowException) else 500
