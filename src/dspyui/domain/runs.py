"""The record of a job in MLflow, and the server that keeps it."""

from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Literal, Protocol, get_args
from urllib.parse import urlencode

from dspyui.domain.base import Frozen
from dspyui.domain.jobs import JobKind
from dspyui.domain.splits import Splits

# MLflow shows the value of this tag, as Markdown, at the head of the Run's page.
NOTE_TAG = "mlflow.note.content"
KIND_TAG = "dspyui.kind"
RUN_KINDS: Final[tuple[JobKind, ...]] = get_args(JobKind)
RunStatus = Literal["RUNNING", "FINISHED", "FAILED", "KILLED"]


class MetricPoint(Frozen):
    """One value of a metric that has a history."""

    step: int
    value: float


class DatasetInput(Frozen):
    """A split as MLflow's dataset input: `context` is train, validation or test; the file is JSONL."""

    name: str
    context: str
    digest: str
    rows: int
    file: Path
    source: str


class ArtifactFile(Frozen):
    """A file of the job's folder and its path inside the Run's artifacts."""

    file: Path
    artifact_path: str


class RunRecord(Frozen):
    """Everything of one job that MLflow gets. Sending it twice leaves one Run."""

    job_id: str
    name: str
    status: RunStatus
    started_at: datetime
    ended_at: datetime | None = None
    params: dict[str, str] = {}
    metrics: dict[str, float] = {}
    series: dict[str, tuple[MetricPoint, ...]] = {}
    tags: dict[str, str] = {}
    artifacts: tuple[ArtifactFile, ...] = ()
    tables: dict[str, Path] = {}
    datasets: tuple[DatasetInput, ...] = ()


class RunLink(Frozen):
    """Where a Run is: its ids, and its address in MLflow's own pages."""

    run_id: str
    experiment_id: str
    url: str


def trace_url(address: str, experiment_id: str, trace_id: str) -> str:
    """Where MLflow's own pages show a trace; both names, for MLflow has changed how it calls it."""
    shown = urlencode({"selectedEvaluationId": trace_id, "traceId": trace_id})
    return f"{address}/#/experiments/{experiment_id}/traces?{shown}"


def trace_url_beside(run_url: str, trace_id: str) -> str | None:
    """The same for a trace of the Run that is shown at `run_url`; None when that is no address of ours."""
    address, has_experiment, rest = run_url.partition("/#/experiments/")
    return trace_url(address, rest.partition("/")[0], trace_id) if has_experiment else None


class RunInfo(Frozen):
    """A Run as the list and the command line need it; times are UTC. A deleted one can still be restored."""

    run_id: str
    experiment_id: str
    url: str
    name: str
    status: str
    job_id: str | None
    started_at: datetime | None
    ended_at: datetime | None
    params: dict[str, str]
    metrics: dict[str, float]
    tags: dict[str, str]
    deleted: bool = False

    @property
    def kind(self) -> JobKind | None:
        """What DSPyUI did in it; None for a Run of another program."""
        return next((kind for kind in RUN_KINDS if kind == self.tags.get(KIND_TAG)), None)


class RunStore(Protocol):
    """MLflow's Runs. Every method raises UnavailableError when the server does not answer, within seconds."""

    def send(self, record: RunRecord) -> RunLink:
        """Make or bring up to date the one Run of the job (found by its tag `dspyui.job_id`).

        Raises FailedError when the server refuses the record for good.
        """
        ...

    def get_run(self, run_id: str) -> RunInfo:
        """Raises NotFoundError."""
        ...

    def search_runs(self, *, limit: int = 100) -> Sequence[RunInfo]:
        """The newest Runs of the experiment."""
        ...

    def program(self, run_id: str) -> str:
        """The text of the Run's `program/program.json`. Raises NotFoundError when it has none."""
        ...

    def input_example(self, run_id: str) -> dict[str, Any]:
        """The inputs of the first row of the Run's `dataset/test.jsonl`.

        Raises NotFoundError, and FailedError when the file is damaged.
        """
        ...

    def spec(self, run_id: str) -> str:
        """The text of the Run's `spec/compile.yaml`. Raises NotFoundError when it has none."""
        ...

    def splits(self, run_id: str) -> Splits:
        """The rows of the Run's `dataset/{train,validation,test}.jsonl`; a missing file is an empty split.

        Raises NotFoundError when it holds no rows at all.
        """
        ...

    def describe(self, run_id: str, *, name: str, note: str | None) -> None:
        """Give the Run another name, and a note unless it is None. Raises NotFoundError."""
        ...

    def send_traces(
        self, folder: Path, link: RunLink, *, stop: Callable[[], bool] | None = None
    ) -> tuple[int, int]:
        """Post the finished traces that lie in `folder`, linked to the Run; delete what was stored.

        Returns (stored, refused); refused ones are set aside in the folder. It ends early once `stop` says so, which is
        asked after every hundred or so while there are more. Raises UnavailableError when the server is away: what
        is left stays there for the next time.
        """
        ...


TrackingStatus = Literal["off", "starting", "ready", "unreachable"]
TrackingLogin = Literal["token", "password", "file", "none"]
TrackingProblem = Literal[
    "denied", "refused", "timeout", "dns", "tls", "network", "http", "not_mlflow", "failed"
]


class TrackingState(Frozen):
    """What is known of the MLflow server. `origin`: given by a setting, found at the default address, or ours.

    `can_start_local`: the address is a dead one on this machine, and the local server could be started instead.
    `problem` is why it is unreachable (its sentence is `tracking.problem.<problem>`; `denied`: it answers, but does
    not accept our token or password; `failed`: the local server did not start); `detail` is the system's own words
    for it, or the last lines of the local server's log. `login`: what is sent to it, a token or user and password, from
    the environment or from MLflow's credentials file.
    """

    status: TrackingStatus
    address: str | None = None
    origin: Literal["given", "found", "local"] | None = None
    version: str | None = None
    problem: TrackingProblem | None = None
    detail: str = ""
    can_start_local: bool = False
    login: TrackingLogin = "none"


class TrackingServer(Protocol):
    """The MLflow server in use: found, given or brought along."""

    def start(self) -> None:
        """Look for the server and start the local one if that is the situation. Returns at once."""
        ...

    def state(self) -> TrackingState:
        """What is known now; does not wait."""
        ...

    def address(self) -> str:
        """The address of the server when it is ready. Raises UnavailableError, at once, when it is not."""
        ...

    def wait(self, seconds: float) -> TrackingState:
        """The state once it is neither unknown nor starting, or after `seconds`."""
        ...

    def start_local(self) -> None:
        """Give up the dead address and start the local server. Returns at once."""
        ...

    def close(self) -> None:
        """Let go of it; a local server ends when nobody holds it any more."""
        ...
