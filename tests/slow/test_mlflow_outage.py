"""A real MLflow server that is killed in the middle of a record, and comes back on the same database."""

import os
import signal
import subprocess
import sys
import threading

import httpx
import pytest

from dspyui.adapters.mlflow_store.runs import MlflowRunStore
from dspyui.adapters.mlflow_store.spool import FileTraceSink
from dspyui.errors import UnavailableError
from tests.conftest import free_port
from tests.contracts.fakes import StaticTracking
from tests.mlflow_world import RunMaker, make_trace
from tests.waiting import wait_until

pytestmark = pytest.mark.slow

# So many that a server is killed long before it has them all, however late the test is told of the first.
SEGMENTS = 40


class Server:
    """`mlflow server` on SQLite in a folder, in a process group of its own."""

    def __init__(self, folder):
        self.port = free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        self._folder = folder
        self._process = None

    def start(self):
        stores = ["--backend-store-uri", f"sqlite:///{self._folder}/mlflow.db", "--serve-artifacts"]
        stores += ["--artifacts-destination", str(self._folder / "artifacts")]
        # The guard ends the server when this process ends in whatever way.
        guard = [sys.executable, "-m", "dspyui.adapters.local_stack.guard"]
        server = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        self._process = subprocess.Popen(
            [*guard, *server, "--workers", "1", *stores],
            cwd=self._folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        wait_until(self._answers, seconds=180)

    def kill(self):
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(60)
        self._process.stdin.close()

    def _answers(self):
        assert self._process.poll() is None, "the MLflow server did not start"
        try:
            return httpx.get(f"{self.address}/health", timeout=2).status_code == 200
        except httpx.TransportError:
            return False


@pytest.fixture
def server(tmp_path):
    made = Server(tmp_path)
    made.start()
    yield made
    made.kill()


def test_nothing_is_lost_or_doubled_when_the_server_is_killed(server, settings, tmp_path):
    from mlflow import MlflowClient

    runs = MlflowRunStore(settings, StaticTracking(server.address))
    record = RunMaker(runs, tmp_path).record()
    link = runs.send(record)
    sink = FileTraceSink(tmp_path / "traces")
    traces = [make_trace() for _ in range(SEGMENTS * 100)]
    for trace in traces:
        sink.write(trace)
    sink.close()

    outcome = []

    def send():
        try:
            outcome.append(runs.send_traces(tmp_path / "traces", link))
        except UnavailableError as exc:
            outcome.append(exc)

    sender = threading.Thread(target=send)
    sender.start()
    wait_until(lambda: len(list((tmp_path / "traces").glob("*.otlp"))) < SEGMENTS)
    server.kill()
    sender.join(60)
    assert isinstance(outcome[0], UnavailableError), "killed after the first segment of many"
    left = len(list((tmp_path / "traces").glob("*.otlp")))
    assert 0 < left < SEGMENTS
    with pytest.raises(UnavailableError):
        runs.send(record)

    server.start()
    assert runs.send(record) == link
    stored, refused = runs.send_traces(tmp_path / "traces", link)
    assert (stored, refused) == (left * 100, 0)
    client = MlflowClient(server.address, server.address)
    assert _linked(client, link) == {trace.mlflow_id for trace in traces}
    assert len(runs.search_runs()) == 1


def _linked(client, link):
    found, token = set(), None
    while True:
        page = client.search_traces(
            locations=[link.experiment_id],
            run_id=link.run_id,
            include_spans=False,
            max_results=500,
            page_token=token,
        )
        found |= {trace.info.trace_id for trace in page}
        token = page.token
        if not token:
            return found
