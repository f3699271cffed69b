"""The whole program, and an MLflow that is away, refuses, or comes back: nothing waits for it and nothing is lost."""

import socket
from pathlib import Path

import pytest

from tests.fake_openai import FakeOpenAI
from tests.mlflow_world import Authority, Proxy
from tests.program import Program
from tests.slow.test_mlflow_outage import Server
from tests.slow.test_server_faults import IN_THE_LAST_PHASE, knowing, spec, under_way
from tests.slow.test_two_compiles import FINISHED, artifacts
from tests.waiting import wait_until

pytestmark = pytest.mark.slow


@pytest.fixture
def lm():
    with FakeOpenAI(knowing) as fake:
        yield fake


@pytest.fixture
def black_hole():
    """An address of loopback that neither refuses nor answers: its queue of new connections is full."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        fillers = []
        while True:
            filler = socket.socket()
            filler.settimeout(0.3)
            fillers.append(filler)
            try:
                filler.connect(address)
            except TimeoutError:
                break
        yield f"http://127.0.0.1:{address[1]}"
        for filler in fillers:
            filler.close()


def whole(client, run, traces=40):
    """Whether the Run has everything of a finished compile."""
    assert run.info.status == "FINISHED"
    assert (run.data.metrics["baseline_score"], run.data.metrics["evaluation_score"]) == (0.0, 1.0)
    assert artifacts(client, run.info.run_id) == FINISHED
    found = client.search_traces(locations=[run.info.experiment_id], run_id=run.info.run_id, max_results=500)
    assert len(found) == traces


def the_run(client, experiment):
    found = client.get_experiment_by_name(experiment)
    (run,) = client.search_runs([found.experiment_id])
    return run


def test_a_black_hole_costs_the_start_and_the_compile_nothing(tmp_path, lm, black_hole):
    with Program(tmp_path, MLFLOW_TRACKING_URI=black_hole) as program:
        wait_until(lambda: program.get("/api/health")["tracking"] == "unreachable")
        job_id = program.compile(spec(lm))
        job = program.wait(job_id, "done")
        assert (job["summary"]["evaluation_score"], job["summary"]["record"]) == (1.0, "pending")
        # Every page comes, and registering says at once why not.
        for path in ("/", "/jobs", f"/jobs/{job_id}", "/runs", "/models"):
            assert program.client.get(path).status_code == 200
        refused = program.client.post("/api/register", json={"job_id": job_id, "name": "x"})
        assert (refused.status_code, refused.json()["code"]) == (503, "tracking.unreachable")


def test_a_record_arrives_when_the_server_comes_up_and_once_whoever_dies_in_between(tmp_path, lm):
    """MLflow is away at first, then dies while the job runs; so does the program; then both come back."""
    from mlflow import MlflowClient

    server = Server(tmp_path)
    experiment = f"arrives-{tmp_path.name}"
    settings = {"MLFLOW_TRACKING_URI": server.address, "MLFLOW_EXPERIMENT_NAME": experiment}
    client = MlflowClient(server.address, server.address)
    with Program(tmp_path, **settings) as program:
        early = program.compile(spec(lm, "early"))
        program.wait(early, "done")
        assert program.job(early)["summary"]["record"] == "pending"
        server.start()
        try:
            wait_until(lambda: program.job(early)["summary"]["record"] == "sent")
            whole(client, the_run(client, experiment))
            lm.hold(after=len(lm.requests) + IN_THE_LAST_PHASE)
            late = program.compile(spec(lm, "late"))
            under_way(program, late)
            wait_until(lambda: program.job(late)["summary"]["run_id"])
        finally:
            server.kill()
        lm.release()
        program.wait(late, "done")
        begun = program.job(late)["summary"]
        assert begun["record"] == "pending"
        program.kill()
    server.start()
    try:
        with Program(tmp_path, **settings) as again:
            wait_until(lambda: again.job(late)["summary"]["record"] == "sent")
            assert again.job(late)["summary"]["run_id"] == begun["run_id"]
        found = client.search_runs([client.get_experiment_by_name(experiment).experiment_id])
        assert sorted(run.data.params["program"] for run in found) == ["early", "late"]
        for run in found:
            whole(client, run)
    finally:
        server.kill()


def test_a_refused_token_is_said_and_the_record_arrives_with_the_right_one(tmp_path, lm, mlflow_address):
    from mlflow import MlflowClient

    authority = Authority(tmp_path)
    experiment = f"token-{tmp_path.name}"
    client = MlflowClient(mlflow_address, mlflow_address)
    wrong, right = "tok-wrong-0123456789", "tok-right-0123456789"
    with Proxy(mlflow_address, wants=f"Bearer {right}", context=authority.context()) as proxy:
        settings = {
            "MLFLOW_TRACKING_URI": proxy.address,
            "MLFLOW_EXPERIMENT_NAME": experiment,
            "MLFLOW_TRACKING_SERVER_CERT_PATH": str(authority.certificate),
        }
        with Program(tmp_path, **settings, MLFLOW_TRACKING_TOKEN=wrong) as program:
            wait_until(lambda: program.get("/api/health")["tracking"] == "unreachable")
            job_id = program.compile(spec(lm))
            assert program.wait(job_id, "done")["summary"]["record"] == "pending"
            refused = program.client.post("/api/register", json={"job_id": job_id, "name": "x"})
            assert refused.json()["code"] == "tracking.denied"
            assert "MLFLOW_TRACKING_TOKEN" in refused.json()["message"]
        with Program(tmp_path, **settings, MLFLOW_TRACKING_TOKEN=right) as program:
            wait_until(lambda: program.job(job_id)["summary"]["record"] == "sent")
            name = f"token {tmp_path.name}"
            made = program.client.post(
                "/api/register", json={"job_id": job_id, "name": name, "stage": "Staging", "why": "w"}
            )
            assert made.status_code == 200, made.text
            body = {"model": name, "stage": "Staging", "inputs": {"message": "My sledge broke."}}
            asked = program.client.post("/api/predict", json=body, timeout=60)
            # The version keeps no address of somebody's own: that much was loaded through the login.
            assert asked.json()["code"] == "predict.address_needed"
    whole(client, the_run(client, experiment))
    kept = [file for file in Path(tmp_path).rglob("*") if file.is_file() and file.suffix != ".db-shm"]
    for secret in (wrong, right):
        assert [file for file in kept if secret.encode() in file.read_bytes()] == []


def test_a_deleted_experiment_is_said_and_the_record_sent_again_once_it_is_restored(
    tmp_path, lm, mlflow_address
):
    from mlflow import MlflowClient

    client = MlflowClient(mlflow_address, mlflow_address)
    experiment = f"deleted-{tmp_path.name}"
    experiment_id = client.create_experiment(experiment)
    client.delete_experiment(experiment_id)
    settings = {"MLFLOW_TRACKING_URI": mlflow_address, "MLFLOW_EXPERIMENT_NAME": experiment}
    with Program(tmp_path, **settings) as program:
        job_id = program.compile(spec(lm))
        program.wait(job_id, "done")
        wait_until(lambda: program.job(job_id)["summary"]["record"] == "refused")
        asked = program.client.post("/api/register", json={"job_id": job_id, "name": "x"})
        assert asked.json()["code"] == "run.experiment_deleted"
        assert experiment in asked.json()["message"]
        client.restore_experiment(experiment_id)
        made = program.client.post("/api/register", json={"job_id": job_id, "name": f"x {tmp_path.name}"})
        assert made.status_code == 200, made.text
    whole(client, the_run(client, experiment))
