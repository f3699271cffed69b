"""The program as a real process, and what happens when it, its child or MLflow goes away."""

from datetime import datetime

import pytest

from tests.conftest import free_port
from tests.fake_openai import FakeOpenAI, chat, last_input
from tests.program import Program
from tests.waiting import wait_ended, wait_until

pytestmark = pytest.mark.slow

ROWS = [{"message": f"My thing{i}q broke.", "product": f"thing{i}q"} for i in range(40)]


def knowing(messages):
    word = last_input(messages, "message").split()[1]
    return chat(product=word if len(messages) > 2 else "something")


@pytest.fixture
def lm():
    with FakeOpenAI(knowing) as fake:
        yield fake


def spec(lm, name="faults", threads=2):
    return {
        "program": {
            "name": name,
            "signature": {
                "instructions": "Name it.",
                "inputs": [{"name": "message"}],
                "outputs": [{"name": "product"}],
            },
        },
        "lms": {"task": {"model": "openai/fake", "api_base": lm.base_url}},
        "optimizer": {"kind": "labeled_few_shot"},
        "data": {"rows": ROWS},
        "threads": threads,
    }


@pytest.fixture
def client(mlflow_address):
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=mlflow_address)


def runs_of(client, experiment):
    found = client.get_experiment_by_name(experiment)
    return client.search_runs([found.experiment_id]) if found else []


# Before the optimised program is scored come 12 test and 8 validation rows before, and 8 validation rows after.
IN_THE_LAST_PHASE = 30


def under_way(program, job_id):
    """Wait until it scores the optimised program; the fake LM holds it there."""
    wait_until(lambda: program.job(job_id)["progress"]["phase"] == "evaluating")


def test_kill_the_server_in_the_middle_and_start_again(tmp_path, lm, mlflow_address, client):
    settings = {"MLFLOW_TRACKING_URI": mlflow_address, "MLFLOW_EXPERIMENT_NAME": f"kill-{tmp_path.name}"}
    program = Program(tmp_path, **settings)
    lm.hold(after=IN_THE_LAST_PHASE)
    job_id = program.compile(spec(lm))
    under_way(program, job_id)
    first = program.job(job_id)["job"]["started_at"]
    children = program.children()
    assert children
    program.kill()
    wait_ended(children)
    asked = len(lm.requests)
    lm.release()
    with Program(tmp_path, **settings) as again:
        job = again.wait(job_id, "done")
        assert job["job"]["attempt"] == 2
        assert job["job"]["started_at"] == first
        assert job["summary"]["evaluation_score"] == 1.0
        assert job["summary"]["lm_cache_hits"] > 0
        # What had been answered was not paid for twice: 12 test and 8 validation rows, before and after.
        assert len(lm.requests) <= 40 + 2 * 2
        assert len(lm.requests) >= asked
        wait_until(lambda: again.job(job_id)["summary"]["record"] == "sent")
    (run,) = runs_of(client, settings["MLFLOW_EXPERIMENT_NAME"])
    assert run.info.status == "FINISHED"
    assert run.info.start_time == int(datetime.fromisoformat(first).timestamp() * 1000)
    assert run.info.end_time > run.info.start_time
    traces = client.search_traces(locations=[run.info.experiment_id], run_id=run.info.run_id, max_results=500)
    assert len(traces) == 40


def test_cancel_leaves_no_child(tmp_path, lm, mlflow_address, client):
    settings = {"MLFLOW_TRACKING_URI": mlflow_address, "MLFLOW_EXPERIMENT_NAME": f"cancel-{tmp_path.name}"}
    lm.hold(after=IN_THE_LAST_PHASE)
    with Program(tmp_path, **settings) as program:
        job_id = program.compile(spec(lm))
        under_way(program, job_id)
        children = program.children()
        assert children
        program.client.post(f"/api/jobs/{job_id}/cancel").raise_for_status()
        program.wait(job_id, "cancelled")
        wait_ended(children)
        wait_until(lambda: program.job(job_id)["summary"]["record"] == "sent")
    (run,) = runs_of(client, settings["MLFLOW_EXPERIMENT_NAME"])
    assert run.info.status == "KILLED"


def test_kill_the_child_and_the_job_says_so(tmp_path, lm, mlflow_address, client):
    settings = {"MLFLOW_TRACKING_URI": mlflow_address, "MLFLOW_EXPERIMENT_NAME": f"child-{tmp_path.name}"}
    lm.hold(after=IN_THE_LAST_PHASE)
    with Program(tmp_path, **settings) as program:
        job_id = program.compile(spec(lm))
        under_way(program, job_id)
        (child,) = [p for p in program.children() if "dspyui.bootstrap" in " ".join(p.cmdline())]
        child.kill()
        job = program.wait(job_id, "failed")
        assert "SIGKILL" in job["error"]["message"]
        wait_until(lambda: program.job(job_id)["summary"]["record"] == "sent")
    (run,) = runs_of(client, settings["MLFLOW_EXPERIMENT_NAME"])
    assert run.info.status == "FAILED"
    assert "SIGKILL" in run.data.tags["dspyui.error"]


def test_an_unreachable_server_is_told_soon_and_work_goes_on(tmp_path, lm):
    address = f"http://127.0.0.1:{free_port()}"
    with Program(tmp_path, MLFLOW_TRACKING_URI=address) as program:
        wait_until(lambda: program.get("/api/health")["tracking"] == "unreachable")
        job_id = program.compile(spec(lm))
        job = program.wait(job_id, "done")
        assert job["summary"]["evaluation_score"] == 1.0
        assert job["summary"]["record"] == "pending"
        # Within a minute: MLflow's own client would hold the end up for nearly four.
        assert program.stop() == 0


def test_a_record_that_waited_is_sent_by_a_later_start(tmp_path, lm, mlflow_address, client):
    experiment = f"later-{tmp_path.name}"
    dead = f"http://127.0.0.1:{free_port()}"
    with Program(tmp_path, MLFLOW_TRACKING_URI=dead, MLFLOW_EXPERIMENT_NAME=experiment) as program:
        job_id = program.compile(spec(lm))
        job = program.wait(job_id, "done")
    with Program(tmp_path, MLFLOW_TRACKING_URI=mlflow_address, MLFLOW_EXPERIMENT_NAME=experiment) as program:
        wait_until(lambda: program.job(job_id)["summary"]["record"] == "sent")
    (run,) = runs_of(client, experiment)
    assert run.data.metrics["evaluation_score"] == 1.0
    started = datetime.fromisoformat(job["job"]["started_at"])
    assert run.info.start_time == int(started.timestamp() * 1000)


def test_tracking_off_compiles_and_keeps_and_tries(tmp_path, lm):
    with Program(tmp_path, MLFLOW_ENABLED="false") as program:
        assert program.get("/api/health")["tracking"] == "off"
        job_id = program.compile(spec(lm))
        job = program.wait(job_id, "done")
        assert job["summary"]["record"] == "off"
        body = {"job_id": job_id, "inputs": {"message": "My sledge broke."}}
        answer = program.client.post("/api/predict", json=body, timeout=60)
        assert answer.json()["outputs"] == {"product": "sledge"}
        kept = program.get(f"/api/jobs/{job_id}/program")
        assert kept["spec"]["name"] == "faults"
        refused = program.client.post("/api/register", json={"job_id": job_id, "name": "x"})
        assert refused.status_code == 503


def test_a_compile_on_the_command_line_beside_one_in_the_server(tmp_path, lm, mlflow_address, client):
    import json
    import subprocess
    import sys

    experiment = f"beside-{tmp_path.name}"
    settings = {"MLFLOW_TRACKING_URI": mlflow_address, "MLFLOW_EXPERIMENT_NAME": experiment}
    with FakeOpenAI(knowing) as held, Program(tmp_path, **settings) as program:
        held.hold(after=IN_THE_LAST_PHASE)
        job_id = program.compile(spec(held, "server"))
        under_way(program, job_id)
        (tmp_path / "spec.json").write_text(json.dumps(spec(lm, "terminal")))
        done = subprocess.run(
            [sys.executable, "-m", "dspyui", "compile", "spec.json", "--json"],
            env=program._environment, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        other = json.loads(done.stdout.splitlines()[-1])
        assert program.job(job_id)["job"]["status"] == "running"
        held.release()
        job = program.wait(job_id, "done")
        assert job["job"]["attempt"] == 1
        assert program.job(other["job_id"])["job"]["attempt"] == 1
        wait_until(lambda: program.job(job_id)["summary"]["record"] == "sent")
    names = sorted(run.info.run_name.split("-")[0] for run in runs_of(client, experiment))
    assert names == ["server", "terminal"]


def test_sigterm_stops_everything_the_program_started(tmp_path, lm):
    program = Program(tmp_path, MLFLOW_ENABLED="false")
    lm.hold(after=IN_THE_LAST_PHASE)
    job_id = program.compile(spec(lm))
    under_way(program, job_id)
    children = program.children()
    assert program.stop() == 0
    wait_ended(children)
