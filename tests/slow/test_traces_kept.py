"""No trace of a finished call is lost: SIGTERM to the command and to its child, and a server that lags behind."""

import json
import os
import signal
import subprocess
import sys

import psutil
import pytest

from tests.batch_world import message, program, second_word, write_rows
from tests.fake_openai import FakeOpenAI
from tests.mlflow_world import Proxy
from tests.program import Program
from tests.slow.test_batch import NEW, ended, the_job, the_run, traces_of
from tests.slow.test_batch import start as start  # noqa: PLC0414 - a fixture
from tests.waiting import wait_until

pytestmark = pytest.mark.slow


@pytest.fixture
def server():
    with FakeOpenAI(second_word) as fake:
        yield fake


def settings(address, experiment, **more):
    return {
        "MLFLOW_ENABLED": "true",
        "MLFLOW_TRACKING_URI": address,
        "MLFLOW_EXPERIMENT_NAME": experiment,
        **more,
    }


def written(tmp_path):
    """The trace id of every row that was finished, whatever came of the batch."""
    lines = (the_job(tmp_path) / "results.jsonl").read_text().splitlines()
    return [json.loads(line)["_trace_id"] for line in lines]


def send(tmp_path, asked):
    """What `dspyui send` answers."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "DSPYUI_HOME": str(tmp_path / "data"),
        **asked,
    }
    command = [sys.executable, "-m", "dspyui", "send", "--json"]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def stored(client, run):
    return {trace.info.trace_id for trace in traces_of(client, run)}


def test_sigterm_loses_no_trace_of_a_row_that_was_finished(start, server, tmp_path, mlflow_address):
    """What the command could not send any more in its last seconds lies on disk, and `dspyui send` sends it."""
    write_rows(tmp_path / "rows.jsonl", 400)
    server.seconds = 0.05
    asked = settings(mlflow_address, "terminated")
    process = start(*NEW, "--concurrency", "4", **asked)
    wait_until(lambda: len(server.requests) > 120, seconds=120)
    process.send_signal(signal.SIGTERM)
    code, answer = ended(process, 60)
    assert (code, answer["status"]) == (130, "cancelled")
    # Nothing is left beside the output that never came.
    assert not list(tmp_path.glob("*out.jsonl*")) + list(tmp_path.glob(".*.part"))
    ids = written(tmp_path)
    assert len(ids) > 60
    sent = send(tmp_path, asked)
    assert (sent["status"], sent["waiting_records"], sent["waiting_traces"]) == ("done", 0, 0)
    client, run = the_run(mlflow_address, "terminated")
    assert run.info.status == "KILLED"
    assert set(ids) <= stored(client, run)


def test_a_child_that_gets_sigterm_itself_loses_none(start, server, tmp_path, mlflow_address):
    write_rows(tmp_path / "rows.jsonl", 400)
    server.seconds = 0.05
    process = start(*NEW, "--concurrency", "4", **settings(mlflow_address, "child-terminated"))
    wait_until(lambda: len(server.requests) > 120, seconds=120)
    children = psutil.Process(process.pid).children(recursive=True)
    (child,) = [one for one in children if "dspyui.bootstrap" in one.cmdline()]
    child.send_signal(signal.SIGTERM)
    code, answer = ended(process, 120)
    assert (code, answer["error"]["code"]) == (1, "job.child_died")
    ids = written(tmp_path)
    client, run = the_run(mlflow_address, "child-terminated")
    assert run.info.status == "FAILED"
    assert len(ids) > 60
    assert set(ids) <= stored(client, run)


def test_a_server_that_takes_no_traces_holds_up_the_batch_and_drops_nothing(
    start, server, tmp_path, mlflow_address
):
    """The budget is one megabyte; a row's trace takes some twenty kilobytes."""
    rows = [{"id": n, "message": f"My thing{n} broke. {'x' * 8000}"} for n in range(160)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with Proxy(mlflow_address, lambda _method, path: 503 if path == "/v1/traces" else None) as proxy:
        process = start(
            *NEW, "--concurrency", "4", **settings(proxy.address, "lagging", DSPYUI_TRACE_DISK_MB="1")
        )
        wait_until(lambda: list((tmp_path / "data/jobs").glob("*/traces/full")), seconds=120)
        folder = the_job(tmp_path)
        held = len(server.requests)
        assert held < 160
        events = (folder / "events.jsonl").read_text()
        assert '"kind":"job.traces_full"' in events
        assert "DSPYUI_TRACE_DISK_MB" not in events  # figures alone: the words are the catalogue's
        # Only the calls that were under way when it was full can still have come.
        wait_until(lambda: "/v1/traces" in proxy.paths)
        assert len(server.requests) <= held + 8
        proxy.rule = lambda method, path: None
        code, answer = ended(process)
    assert (code, answer["success_count"]) == (0, 160)
    assert (answer["traces_logged"], answer["traces_lost"], answer["traces_waiting"]) == (160, 0, 0)
    assert '"kind":"job.traces_room"' in (folder / "events.jsonl").read_text()
    client, run = the_run(mlflow_address, "lagging")
    ids = written(tmp_path)
    assert stored(client, run) == set(ids)
    assert len(ids) == 160


def called(running, folder, number):
    """The trace id of a single call over the API."""
    body = {"model": str(folder / "things.json"), "inputs": {"message": message(number)}}
    answer = running.client.post("/api/predict", json=body)
    assert answer.json()["outputs"] == {"product": f"thing{number}"}, answer.text
    return answer.json()["trace_id"]


def calls_in(address, experiment):
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=address)
    found = client.get_experiment_by_name(experiment)
    return (
        {trace.info.trace_id for trace in client.search_traces(locations=[found.experiment_id])}
        if found
        else set()
    )


def test_sigterm_of_the_program_itself_loses_no_trace_of_a_single_call(server, tmp_path, mlflow_address):
    """Ended while MLflow takes none, they lie on disk and the next start sends them; one of its last moment too."""
    (tmp_path / "things.json").write_text(program(server.base_url).to_json())
    experiment = f"single-{tmp_path.name}"
    with Proxy(mlflow_address, lambda _method, path: 503 if path == "/v1/traces" else None) as proxy:
        asked = settings(proxy.address, experiment)
        with Program(tmp_path, **asked) as running:
            ids = {called(running, tmp_path, number) for number in range(3)}
            wait_until(lambda: "/v1/traces" in proxy.paths, seconds=60)
            assert running.stop() == 0
        assert len(ids) == 3
        assert calls_in(mlflow_address, experiment) == set()
        proxy.rule = lambda _method, _path: None
        with Program(tmp_path, **asked) as running:
            wait_until(lambda: calls_in(mlflow_address, experiment) == ids, seconds=60)
            ids.add(called(running, tmp_path, 3))
            assert running.stop() == 0
        # What its last seconds were too short for.
        assert send(tmp_path, asked)["status"] == "done"
    assert calls_in(mlflow_address, experiment) == ids
    assert len(ids) == 4
