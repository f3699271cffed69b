"""The real MLflow server, started, shared, killed and ended by the program."""

import subprocess
import sys

import httpx
import psutil
import pytest

from dspyui.adapters.local_stack.kept import read_state
from dspyui.adapters.local_stack.mlflow_server import MlflowServer, mlflow_spec
from dspyui.settings import Settings
from tests.conftest import free_port
from tests.waiting import wait_ended, wait_until

pytestmark = pytest.mark.slow

START_SECONDS = 180
# Another process of the program, on the same data folder, which is killed later.
HOLDER = """
import sys, time
from pathlib import Path
from dspyui.adapters.local_stack.mlflow_server import MlflowServer
from dspyui.settings import Settings
server = MlflowServer(
    Settings.load(home=Path(sys.argv[1]), force_local_mlflow=True), first_port=int(sys.argv[2])
)
server.start()
print(server.wait(180).model_dump_json(), flush=True)
time.sleep(600)
"""


@pytest.fixture
def port() -> int:
    return free_port()


def make(settings: Settings, port: int) -> MlflowServer:
    return MlflowServer(settings, default_address=f"http://localhost:{port}", first_port=port)


def family(settings: Settings, port: int) -> list[psutil.Process]:
    """The keeper, the guard, MLflow and its own children."""
    state = read_state(mlflow_spec(settings, port))
    assert state is not None
    found = [psutil.Process(state.keeper), *psutil.Process(state.keeper).children(recursive=True)]
    assert len(found) >= 4
    return found


def test_the_local_server_is_real_and_ends_with_its_last_user(settings, port, tmp_path):
    first, second = make(settings, port), make(settings, port)
    first.start()
    assert first.state().status == "starting"
    state = first.wait(START_SECONDS)
    assert (state.status, state.origin, state.version) == ("ready", "local", "3.17.2"), state.detail
    assert state.address == f"http://127.0.0.1:{port}"
    for host in ("127.0.0.1", "localhost"):
        address = f"http://{host}:{port}"
        made = httpx.post(
            f"{address}/api/2.0/mlflow/experiments/create", json={"name": host}, trust_env=False
        )
        assert made.status_code == 200, made.text
        query = {"experiment_id": made.json()["experiment_id"]}
        found = httpx.get(f"{address}/api/2.0/mlflow/experiments/get", params=query, trust_env=False).json()
        assert found["experiment"]["artifact_location"].startswith("mlflow-artifacts:/")
    assert (tmp_path / "work" / "mlflow_data" / "mlflow.db").is_file()
    assert (tmp_path / "work" / "mlflow_data" / "mlflow.log").is_file()
    assert (tmp_path / "work" / "mlartifacts").is_dir()

    second.start()
    assert second.wait(60) == state
    processes = family(settings, port)
    first.close()
    assert second.address() == state.address
    second.close()
    wait_ended(processes)


def test_a_killed_user_leaves_no_server_behind(settings, port, tmp_path, environ):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(settings.home), str(port)],
        env=environ,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    try:
        assert '"status":"ready"' in holder.stdout.readline()
        processes = family(settings, port)
        holder.kill()
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
    wait_ended(processes)


def test_a_killed_keeper_leaves_no_server_behind_and_the_user_gets_a_new_one(settings, port):
    server = make(settings, port)
    server.start()
    try:
        assert server.wait(START_SECONDS).status == "ready"
        keeper, *rest = family(settings, port)
        keeper.kill()
        wait_ended(rest)
        wait_until(lambda: server.state().status != "ready")
        wait_until(lambda: server.state().status == "ready", seconds=START_SECONDS)
        assert server.address() == f"http://127.0.0.1:{port}"
    finally:
        server.close()


def test_a_database_that_cannot_be_used_is_told_with_the_logs_last_lines(tmp_path, environ, port):
    wrong = {"MLFLOW_BACKEND_STORE_URI": "sqlitee:///nowhere.db"}
    settings = Settings.load(
        env_file=tmp_path / "no.env", environ={**environ, **wrong}, home=tmp_path / "data"
    )
    server = make(settings, port)
    server.start()
    try:
        state = server.wait(START_SECONDS)
        assert (state.status, state.problem) == ("unreachable", "failed")
        assert "sqlitee" in state.detail
    finally:
        server.close()


def test_a_real_server_that_is_given_is_recognised(mlflow_address, tmp_path, environ):
    given = {"MLFLOW_TRACKING_URI": mlflow_address}
    settings = Settings.load(
        env_file=tmp_path / "no.env", environ={**environ, **given}, home=tmp_path / "data"
    )
    server = MlflowServer(settings)
    server.start()
    try:
        state = server.wait(60)
        assert (state.status, state.origin, state.version) == ("ready", "given", "3.17.2")
    finally:
        server.close()
