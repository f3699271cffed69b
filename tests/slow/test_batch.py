"""`dspyui batch` as a real process: its answer, killed and taken up again, a busy server, MLflow away in between."""

import json
import os
import re
import secrets
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from dspy.clients.model_metadata import model_info
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from dspyui.domain.lms import LOCAL_MODEL, LMSpec
from dspyui.domain.registry import OWN_ADDRESS_TAG, RegisterRequest
from tests.batch_world import asked, message, program, second_word, variant, write_rows
from tests.contracts.fakes import StaticTracking
from tests.fake_openai import FakeOpenAI, Fault, chat, last_input
from tests.mlflow_world import RunMaker
from tests.program import Program
from tests.slow.test_mlflow_outage import Server
from tests.waiting import wait_ended, wait_until

pytestmark = pytest.mark.slow

KEYS = {
    "job_id", "run_id", "run_url", "record", "status", "phase", "started_at",
    "seconds_left", "total_rows", "success_count", "error_count", "reused",
    "errors", "tokens", "input_tokens", "output_tokens", "cost", "rows_per_second", "latency_ms_mean",
    "latency_ms_p95", "lm_cache_hits", "score", "score_ci_low", "score_ci_high", "scored_rows",
    "traces_logged", "traces_lost", "traces_waiting",
    "output",
}  # fmt: skip


@pytest.fixture
def server():
    with FakeOpenAI(second_word) as fake:
        yield fake


@pytest.fixture
def start(tmp_path, server):
    """Start the command in a folder that holds the program and `rows.jsonl`."""
    (tmp_path / "things.json").write_text(program(server.base_url).to_json())

    def start(*arguments, **settings):
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "DSPYUI_HOME": str(tmp_path / "data"),
            "MLFLOW_ENABLED": "false",
            **settings,
        }
        return subprocess.Popen(
            [sys.executable, "-m", "dspyui", "batch", "--json", *arguments],
            env=environment, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    return start


NEW = ("--model", "things.json", "--input", "rows.jsonl", "--output", "out.jsonl")


def ended(process, seconds=180):
    """Exit code and the answer."""
    out, err = process.communicate(timeout=seconds)
    assert out, err
    return process.returncode, json.loads(out.splitlines()[-1])


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def products(path):
    return [line["product"] for line in lines_of(path)]


def the_job(tmp_path):
    (folder,) = (tmp_path / "data/jobs").iterdir()
    return folder


def record_of(tmp_path):
    return json.loads((the_job(tmp_path) / "record.json").read_text())


def test_the_answer_for_programs(start, tmp_path):
    write_rows(tmp_path / "rows.jsonl", 30, product="thing1")
    code, answer = ended(start(*NEW, "--metric", "exact_match", "--map", "message=message"))
    assert (code, set(answer)) == (0, KEYS)
    assert (answer["status"], answer["record"], answer["run_id"]) == ("done", "off", None)
    assert (answer["phase"], answer["seconds_left"]) == (None, None)
    assert (answer["total_rows"], answer["success_count"], answer["error_count"]) == (30, 30, 0)
    assert answer["tokens"] == answer["input_tokens"] + answer["output_tokens"] > 0
    assert answer["rows_per_second"] > 0
    assert answer["score"] == pytest.approx(1 / 30)
    assert Path(answer["output"]) == tmp_path / "out.jsonl"
    code, answer = ended(start(*NEW))
    assert (code, answer["error"]["code"]) == (2, "batch.output_exists")


def finished_rows(home):
    """The ids whose results were on disk, whole lines only: the last one may be half of one after a kill."""
    lines = (the_job(home) / "results.jsonl").read_text().splitlines(keepends=True)
    return {json.loads(line)["id"] for line in lines if line.endswith("\n")}


def assert_only_those_on_their_way_were_asked_twice(times, concurrency):
    """Nobody can know whether those that were on their way at the kill were answered."""
    assert max(times.values()) <= 2
    assert sum(count == 2 for count in times.values()) <= concurrency


def test_killed_in_the_middle_it_is_taken_up_and_no_finished_row_is_paid_for_twice(start, server, tmp_path):
    """`kill -9` of the command; a server that is started on the same data folder goes on by itself."""
    write_rows(tmp_path / "rows.jsonl", 300)
    server.seconds = 0.05
    process = start(*NEW, "--concurrency", "4")
    wait_until(lambda: len(server.requests) > 100, seconds=120)
    process.kill()
    process.communicate()
    before = len(asked(server))
    finished = finished_rows(tmp_path)
    assert len(finished) > 50
    assert not (tmp_path / "out.jsonl").exists()
    with Program(tmp_path, MLFLOW_ENABLED="false"):
        wait_until(
            lambda: json.loads((the_job(tmp_path) / "job.json").read_text())["status"] == "done", seconds=120
        )
    assert products(tmp_path / "out.jsonl") == [f"thing{n}" for n in range(300)]
    numbers = asked(server)
    assert not finished & set(numbers[before:])
    assert_only_those_on_their_way_were_asked_twice(Counter(numbers), concurrency=4)
    result = json.loads((the_job(tmp_path) / "result.json").read_text())
    assert (result["total_rows"], result["error_count"]) == (300, 0)
    assert result["usage"]["lm_calls"] == 300


def test_killed_and_taken_up_by_hand(start, server, tmp_path):
    write_rows(tmp_path / "rows.jsonl", 200)
    server.seconds = 0.05
    process = start(*NEW, "--concurrency", "4")
    wait_until(lambda: len(server.requests) > 60, seconds=120)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    job_id, finished = the_job(tmp_path).name, finished_rows(tmp_path)
    code, answer = ended(start("--retry", job_id))
    assert code == 0, answer
    assert (answer["total_rows"], answer["success_count"]) == (200, 200)
    # The child ends when it sees that its parent is gone; it may have put down a row or two in that time.
    assert answer["reused"] >= len(finished) >= 50
    times = Counter(asked(server))
    assert {times[number] for number in finished} == {1}
    assert_only_those_on_their_way_were_asked_twice(times, concurrency=4)
    assert products(tmp_path / "out.jsonl") == [f"thing{n}" for n in range(200)]


def test_on_the_bundled_model_which_is_not_yet_started(start, tmp_path):
    write_rows(tmp_path / "rows.jsonl", 6)
    made = program("http://127.0.0.1:9").model_copy(update={"lm": LMSpec(model=LOCAL_MODEL)})
    (tmp_path / "bundled.json").write_text(made.to_json())
    code, answer = ended(start("--model", "bundled.json", "--input", "rows.jsonl", "--output", "out.jsonl"))
    assert (code, answer["status"], answer["total_rows"]) == (0, "done", 6), answer
    assert answer["tokens"] > 0
    rows = lines_of(tmp_path / "out.jsonl")
    assert sum(row["_error"] is None for row in rows) == answer["success_count"] > 0


def test_ctrl_c_stops_it_and_the_answer_says_so(start, server, tmp_path):
    write_rows(tmp_path / "rows.jsonl", 500)
    server.seconds = 0.2
    process = start(*NEW)
    wait_until(lambda: len(server.requests) > 20, seconds=120)
    process.send_signal(signal.SIGINT)
    code, answer = ended(process, 30)
    assert (code, answer["status"], answer["error"]["code"]) == (130, "cancelled", "follow.cancelled")
    assert 0 < answer["success_count"] < 500
    assert not (tmp_path / "out.jsonl").exists()


def batch_children(running):
    """The processes in which a server's batches run, as far as they live."""
    return [child for child in running.children() if "dspyui.bootstrap" in " ".join(child.cmdline())]


def test_cancelled_over_the_api_its_process_ends_and_only_the_rest_is_asked_later(server, tmp_path):
    rows = write_rows(tmp_path / "rows.jsonl", 100)
    (tmp_path / "things.json").write_text(program(server.base_url).to_json())
    spec = {"model": str(tmp_path / "things.json"), "path": str(rows), "concurrency": 4}
    with Program(tmp_path, MLFLOW_ENABLED="false") as running:
        server.hold(after=30)
        job_id = running.client.post("/api/batches", json=spec).json()["job_id"]
        wait_until(lambda: len(server.requests) == 34, seconds=120)
        children = batch_children(running)
        assert children
        running.client.post(f"/api/jobs/{job_id}/cancel").raise_for_status()
        wait_until(lambda: running.get(f"/api/batches/{job_id}")["status"] == "cancelled", seconds=60)
        wait_ended(children)
        output = running.client.get(f"/api/batches/{job_id}/output").text
        finished = [json.loads(line)["id"] for line in output.splitlines()]
        assert finished == list(range(len(finished)))
        assert 0 < len(finished) <= 30
        server.release()
        again = running.client.post(f"/api/batches/{job_id}/again").json()["job_id"]
        wait_until(lambda: running.get(f"/api/batches/{again}")["status"] == "done", seconds=120)
        summary = running.get(f"/api/batches/{again}")
        # Those that had been answered ahead of a row that was still on its way are known too.
        assert (summary["success_count"], summary["reused"]) == (100, 30)
    assert len(server.requests) == 34 + 70
    assert not set(finished) & set(asked(server)[34:])


def test_a_broken_line_that_was_uploaded_over_the_api_is_one_error_row(server, tmp_path):
    lines = [json.dumps({"message": message(n)}) for n in range(6)]
    lines[2] = "{broken"
    made = program(server.base_url)
    (tmp_path / "things.json").write_text(made.to_json())
    with Program(tmp_path, MLFLOW_ENABLED="false") as running:
        kept = running.client.post(
            "/api/batches/files", params={"name": "rows.jsonl"}, content="\n".join(lines).encode()
        ).json()
        spec = {"model": str(tmp_path / "things.json"), "upload": kept["digest"]}
        job_id = running.client.post("/api/batches", json=spec).json()["job_id"]
        wait_until(lambda: running.get(f"/api/batches/{job_id}")["status"] == "done", seconds=120)
        summary = running.get(f"/api/batches/{job_id}")
        output = running.client.get(f"/api/batches/{job_id}/output").text
    assert (summary["success_count"], summary["errors"]) == (5, {"file.json": 1})
    assert [json.loads(line)["product"] for line in output.splitlines()] == [
        None if n == 2 else f"thing{n}" for n in range(6)
    ]
    assert sorted(asked(server)) == [0, 1, 3, 4, 5]


def test_a_server_that_refuses_for_ten_seconds_costs_no_row(start, server, tmp_path):
    write_rows(tmp_path / "rows.jsonl", 40)
    began = []

    def reply(messages):
        began.append(time.monotonic())
        busy = began[-1] - began[0] < 10
        return Fault(429, "slow down", headers={"Retry-After": "2"}) if busy else second_word(messages)

    server.reply = reply
    code, answer = ended(start(*NEW, "--concurrency", "8"))
    assert (code, answer["success_count"], answer["error_count"]) == (0, 40, 0)
    # Nobody asked while the server wanted to be left alone: a few waves of refusals, not hundreds of them.
    assert len(server.requests) - 40 <= 8 * 5


def assert_paced(times, calls_a_minute, *, late=8):
    """No window holds more calls than the limit gives it.

    A busy machine may bring calls that went out one after the other together, as if each had been up to `late` of
    them late; without a limit all of them come at once.
    """
    times, a_second = sorted(times), calls_a_minute / 60
    assert len(times) > 2 * (late + a_second)
    for first, begins in enumerate(times):
        for last in range(first, len(times)):
            allowed = max(1.0, a_second) + a_second * (times[last] - begins) + late
            assert last - first + 1 <= allowed, (first, last, times)


@pytest.fixture
def arrivals(server):
    """When the server was asked, by its own clock."""
    times = []

    def reply(messages):
        times.append(time.monotonic())
        return second_word(messages)

    server.reply = reply
    return times


def test_no_window_sees_more_requests_than_the_rate_limit(start, tmp_path, arrivals):
    write_rows(tmp_path / "rows.jsonl", 24)
    code, answer = ended(start(*NEW, "--concurrency", "24", "--rate-limit", "60"))
    assert (code, answer["success_count"], len(arrivals)) == (0, 24, 24), answer
    assert_paced(arrivals, 60)


def test_no_window_sees_more_tokens_than_the_rate_limit_over_the_api(server, tmp_path, arrivals):
    rows = write_rows(tmp_path / "rows.jsonl", 24)
    (tmp_path / "things.json").write_text(program(server.base_url).to_json())
    spec = {"model": str(tmp_path / "things.json"), "path": str(rows), "concurrency": 24}

    def run(running, **more):
        job_id = running.client.post("/api/batches", json={**spec, **more}).json()["job_id"]
        wait_until(lambda: running.get(f"/api/batches/{job_id}")["status"] == "done", seconds=120)
        return running.get(f"/api/batches/{job_id}")

    with Program(tmp_path, MLFLOW_ENABLED="false") as running:
        tokens = run(running, limit=1)["tokens"]
        arrivals.clear()
        assert run(running, tokens_per_minute=60 * tokens)["success_count"] == len(arrivals) == 24
    assert_paced(arrivals, 60)


def traces_of(client, run):
    found, token = [], None
    while True:
        page = client.search_traces(
            locations=[run.info.experiment_id], run_id=run.info.run_id, max_results=500, page_token=token
        )
        found += page
        token = page.token
        if not token:
            return found


def the_run(address, experiment):
    client = MlflowClient(tracking_uri=address)
    (run,) = client.search_runs([client.get_experiment_by_name(experiment).experiment_id])
    return client, run


def test_the_run_in_mlflow(start, server, tmp_path, mlflow_address):
    write_rows(tmp_path / "rows.jsonl", 150)
    server.reply = lambda m: Fault(400, "not this one") if "thing7 " in m[-1]["content"] else second_word(m)
    settings = {
        "MLFLOW_ENABLED": "true",
        "MLFLOW_TRACKING_URI": mlflow_address,
        "MLFLOW_EXPERIMENT_NAME": "batch-run",
    }
    code, answer = ended(start(*NEW, **settings))
    assert (code, answer["record"]) == (0, "sent"), answer
    assert (answer["traces_logged"], answer["traces_lost"], answer["traces_waiting"]) == (150, 0, 0)
    client, run = the_run(mlflow_address, "batch-run")
    assert (run.info.run_id, run.info.status) == (answer["run_id"], "FINISHED")
    metrics = run.data.metrics
    assert (metrics["total_rows"], metrics["success_count"], metrics["error_count"]) == (150, 149, 1)
    assert metrics["total_tokens"] == metrics["input_tokens"] + metrics["output_tokens"] == answer["tokens"]
    for name in ("latency_ms_mean", "latency_ms_p50", "latency_ms_p95", "latency_ms_p99", "rows_per_second"):
        assert metrics[name] > 0
    assert run.data.params["model_name"] == "things"
    assert len(run.data.params["model_digest"]) == 64
    assert run.data.tags["dspyui.trace_sample"] == "1"
    (dataset,) = run.inputs.dataset_inputs
    assert dataset.dataset.name == "rows.jsonl"
    assert json.loads(dataset.dataset.profile)["num_rows"] == 150
    kept = {
        entry.path for name in ("results", "errors") for entry in client.list_artifacts(run.info.run_id, name)
    }
    assert kept == {"results/out.jsonl", "errors/errors.jsonl"}
    traces = traces_of(client, run)
    written = [line["_trace_id"] for line in lines_of(tmp_path / "out.jsonl")]
    assert sorted(trace.info.trace_id for trace in traces) == sorted(written)
    one = traces[0]
    assert one.info.tags["dspyui.model_name"] == "things"
    assert one.info.token_usage["total_tokens"] > 0
    assert len(one.data.spans) == 2


def test_cost_score_and_a_thinned_trace_in_the_run(start, server, tmp_path, mlflow_address):
    """A model with a listed price, reached through a gateway; the sample is the setting's."""
    rows = 40
    documents = [
        {"id": n, "message": message(n), "product": f"thing{n}" if n % 4 else "other"} for n in range(rows)
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in documents))
    priced = program(None, model="openai/gpt-4o-mini")
    (tmp_path / "things.json").write_text(priced.to_json())
    settings = {
        "OPENAI_API_KEY": "sk-nobody",
        "OPENAI_API_BASE": server.base_url,
        "MLFLOW_ENABLED": "true",
        "MLFLOW_TRACKING_URI": mlflow_address,
        "MLFLOW_EXPERIMENT_NAME": f"figures-{tmp_path.name}",
        "DSPYUI_TRACE_SAMPLE": "0.5",
    }
    code, answer = ended(start(*NEW, "--metric", "exact_match", **settings))
    assert (code, answer["success_count"]) == (0, rows), answer
    client, run = the_run(mlflow_address, settings["MLFLOW_EXPERIMENT_NAME"])
    metrics, written = run.data.metrics, lines_of(tmp_path / "out.jsonl")

    price = model_info("openai", "gpt-4o-mini")
    cost = sum(
        a * price["input_cost_per_token"] + b * price["output_cost_per_token"] for a, b in server.spent
    )
    assert (
        metrics["cost"]
        == pytest.approx(cost)
        == answer["cost"]
        == pytest.approx(sum(r["_cost"] for r in written))
    )
    assert cost > 0

    assert metrics["score"] == answer["score"] == pytest.approx(0.75)
    # Wilson's interval for 30 of 40, worked out by hand.
    assert metrics["score_ci_low"] == answer["score_ci_low"] == pytest.approx(0.5981, abs=1e-4)
    assert metrics["score_ci_high"] == answer["score_ci_high"] == pytest.approx(0.8581, abs=1e-4)
    assert metrics["scored_rows"] == rows
    assert [row["_score"] for row in written] == [1.0 if n % 4 else 0.0 for n in range(rows)]
    assert [row["predicted_product"] for row in written] == [f"thing{n}" for n in range(rows)]

    assert (run.data.tags["dspyui.trace_sample"], run.data.params["trace_sample"]) == ("0.5", "0.5")
    sampled = {row["_trace_id"]: row for row in written if row["_trace_id"]}
    assert 0 < len(sampled) < rows
    assert metrics["traced_rows"] == answer["traces_logged"] == len(sampled)
    traces = {trace.info.trace_id: trace.info.tags for trace in traces_of(client, run)}
    assert traces.keys() == sampled.keys()
    for trace_id, tags in traces.items():
        assert float(tags["dspyui.score"]) == sampled[trace_id]["_score"]
        assert tags["dspyui.row"] == str(sampled[trace_id]["id"])
    code, whole = ended(start(*NEW, "--overwrite", "--trace-sample", "1", **settings))
    assert (code, whole["traces_logged"]) == (0, rows)


@pytest.fixture
def mlflow(tmp_path):
    """A server that a test may kill and start again."""
    made = Server(tmp_path)
    made.start()
    yield made
    made.kill()


def on_server(mlflow, experiment):
    return {
        "MLFLOW_ENABLED": "true",
        "MLFLOW_TRACKING_URI": mlflow.address,
        "MLFLOW_EXPERIMENT_NAME": experiment,
    }


# What a Run tells of time, which is never twice the same.
TIMES = {
    "duration_seconds",
    "rows_per_second",
    *(f"latency_ms_{name}" for name in ("mean", "p50", "p95", "p99")),
}


def what_mlflow_has(address, experiment, output):
    """Everything of the one Run that would be the same without an outage; every row's trace must be there once."""
    client, run = the_run(address, experiment)
    traces = traces_of(client, run)
    written = [line["_trace_id"] for line in lines_of(output)]
    assert sorted(trace.info.trace_id for trace in traces) == sorted(written)
    assert run.data.metrics.keys() >= TIMES
    artifacts = {
        entry.path
        for place in ("results", "errors", "spec")
        for entry in client.list_artifacts(run.info.run_id, place)
    }
    return {
        "status": run.info.status,
        "metrics": {name: value for name, value in run.data.metrics.items() if name not in TIMES},
        "params": {k: v for k, v in run.data.params.items() if k != "data.source"},
        "artifacts": {path.replace(output.stem, "out") for path in artifacts},
        "traces": len(traces),
        "spans": {len(trace.data.spans) for trace in traces},
        "states": Counter(trace.info.state for trace in traces),
    }


@pytest.mark.timeout(400)
def test_mlflow_away_for_a_minute_in_the_middle_changes_no_count(start, server, tmp_path, mlflow):
    """It is killed while the batch runs, and comes back a minute later while it still does."""
    rows = 400
    write_rows(tmp_path / "rows.jsonl", rows)
    server.reply = lambda m: Fault(400, "no") if "thing7 " in m[-1]["content"] else second_word(m)
    server.seconds = 0.6
    process = start(*NEW, "--concurrency", "4", **on_server(mlflow, "away"))
    wait_until(lambda: len(server.requests) > 20, seconds=120)
    # The last rows wait until it is back, however fast this machine is.
    server.hold(after=rows - 20)
    mlflow.kill()
    away, before = time.monotonic(), len(server.requests)
    wait_until(lambda: time.monotonic() - away > 60, seconds=70)
    # Nobody waits for MLflow: the batch went on.
    assert len(server.requests) > before + 40
    mlflow.start()
    # What waited goes there while the batch still runs.
    wait_until(lambda: record_of(tmp_path)["traces_sent"] >= before, seconds=120)
    assert process.poll() is None
    server.seconds = 0.0
    server.release()
    code, answer = ended(process)
    assert (code, answer["success_count"], answer["error_count"]) == (0, rows - 1, 1), answer
    assert (answer["record"], answer["traces_logged"]) == ("sent", rows), answer
    assert (answer["traces_lost"], answer["traces_waiting"]) == (0, 0)
    calm = (*NEW[:4], "--output", "calm.jsonl", "--concurrency", "4")
    code, undisturbed = ended(start(*calm, **on_server(mlflow, "calm")))
    assert code == 0
    assert what_mlflow_has(mlflow.address, "away", tmp_path / "out.jsonl") == what_mlflow_has(
        mlflow.address, "calm", tmp_path / "calm.jsonl"
    )
    counted = (
        "total_rows",
        "success_count",
        "error_count",
        "errors",
        "tokens",
        "input_tokens",
        "traces_logged",
    )
    assert [answer[name] for name in counted] == [undisturbed[name] for name in counted]


def test_mlflow_away_until_the_batch_has_ended(start, server, tmp_path, mlflow):
    """The command ends with its record on disk; the next program on that folder sends it, whole."""
    write_rows(tmp_path / "rows.jsonl", 100)
    server.hold(after=40)
    settings = on_server(mlflow, "ended")
    process = start(*NEW, "--concurrency", "4", **settings)
    wait_until(lambda: len(server.requests) > 40, seconds=120)
    mlflow.kill()
    server.release()
    code, answer = ended(process)
    assert (code, answer["success_count"], answer["record"]) == (0, 100, "pending")
    mlflow.start()
    with Program(tmp_path, **settings):
        wait_until(lambda: record_of(tmp_path)["status"] == "sent", seconds=120)
    found = what_mlflow_has(mlflow.address, "ended", tmp_path / "out.jsonl")
    assert (found["status"], found["metrics"]["success_count"], found["traces"]) == ("FINISHED", 100, 100)


def peak_of(process):
    """The most memory that a process and all below it had at once, in bytes, and its answer."""
    most, root = 0, psutil.Process(process.pid)
    while process.poll() is None:
        found = 0
        with suppress(psutil.Error):
            for one in (root, *root.children(recursive=True)):
                with suppress(psutil.Error):
                    found += one.memory_info().rss
        most = max(most, found)
        time.sleep(0.05)
    return most, ended(process)


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_memory_does_not_grow_with_the_file(start, server, tmp_path, kind):
    """Rows that lack a value go the whole way but for the model: reader, journal, results, output."""
    peaks = []
    for count in (10_000, 200_000):
        path = tmp_path / "rows.jsonl"
        path.write_text(
            "".join(f'{{"id": {n}, "text": "{"x" * 200}", "message": null}}\n' for n in range(count))
        )
        process = start(*NEW[:4], "--output", f"out.{kind}", "--overwrite")
        most, (code, answer) = peak_of(process)
        assert (code, answer["error_count"], answer["errors"]) == (0, count, {"value.missing": count})
        peaks.append(most)
    assert peaks[1] <= 1.25 * peaks[0]
    assert not server.requests


class Registered:
    """A model in MLflow, whose versions answer under their own word, and a batch by its stage Production."""

    def __init__(self, address, settings, folder, base_url):
        from dspyui.adapters.mlflow_store.registry import MlflowModelRegistry
        from dspyui.adapters.mlflow_store.runs import MlflowRunStore

        tracking = StaticTracking(address)
        self._runs = RunMaker(MlflowRunStore(settings, tracking), folder)
        self._registry = MlflowModelRegistry(settings, tracking)
        self._base_url = base_url
        self.name = f"things-{secrets.token_hex(4)}"
        self.by_stage = ("--model", f"models:/{self.name}/Production", *NEW[2:])
        self.environment = {
            "MLFLOW_ENABLED": "true",
            "MLFLOW_TRACKING_URI": address,
            "MLFLOW_EXPERIMENT_NAME": self.name,
        }

    def promote(self, word):
        """A new version, which takes Production."""
        made = variant(program(self._base_url), word)
        run_id = self._runs(made)
        request = RegisterRequest(run_id=run_id, name=self.name, stage="Production", who="tester")
        example = {"message": "My lamp broke"}
        return self._registry.register(request, made, tags={OWN_ADDRESS_TAG: "true"}, input_example=example)


def words_of_versions(messages):
    """The right answer behind the word of the version that asks."""
    word = re.search(r"Name the product\. (\w+)", messages[0]["content"]).group(1)
    return chat(product=f"{word} {last_input(messages, 'message').split()[1]}")


@pytest.fixture
def registered(mlflow_address, settings, tmp_path, server):
    """Its version 1 is in Production and says ONE."""
    server.reply = words_of_versions
    made = Registered(mlflow_address, settings, tmp_path, server.base_url)
    made.promote("ONE")
    return made


def test_taken_up_after_a_promotion_the_version_that_began_it_answers(start, server, tmp_path, registered):
    write_rows(tmp_path / "rows.jsonl", 12)
    server.reply = lambda m: Fault(400, "no") if "thing3 " in m[-1]["content"] else words_of_versions(m)
    settings = {**registered.environment, "DSPYUI_LM_API_BASE": server.base_url}
    code, first = ended(start(*registered.by_stage, **settings))
    assert (code, first["error_count"]) == (0, 1), first
    assert registered.promote("TWO").version == 2
    server.reply, before = words_of_versions, len(server.requests)
    code, again = ended(start("--retry", first["job_id"], **settings))
    assert (code, again["success_count"], again["reused"]) == (0, 12, 11), again
    assert len(server.requests) == before + 1
    assert products(tmp_path / "out.jsonl") == [f"ONE thing{n}" for n in range(12)]
    client = MlflowClient(tracking_uri=registered.environment["MLFLOW_TRACKING_URI"])
    runs = [client.get_run(answer["run_id"]).data.params for answer in (first, again)]
    assert [run["model"] for run in runs] == [f"models:/{registered.name}/1"] * 2
    assert runs[0]["model_digest"] == runs[1]["model_digest"]
    code, new = ended(start(*registered.by_stage, "--overwrite", **settings))
    assert (code, new["reused"]) == (0, 0)
    assert products(tmp_path / "out.jsonl") == [f"TWO thing{n}" for n in range(12)]


@pytest.mark.parametrize("gone", ["version", "model"])
def test_the_version_deleted_in_the_middle_changes_nothing(start, server, tmp_path, registered, gone):
    """The batch goes on with its copy, to the end and again; its Run and traces still name the version."""
    write_rows(tmp_path / "rows.jsonl", 200)
    client = MlflowClient(tracking_uri=registered.environment["MLFLOW_TRACKING_URI"])
    settings = {**registered.environment, "DSPYUI_LM_API_BASE": server.base_url}
    server.reply = lambda m: Fault(400, "no") if "thing190 " in m[-1]["content"] else words_of_versions(m)
    server.hold(after=20)
    process = start(*registered.by_stage, "--concurrency", "4", **settings)
    wait_until(lambda: len(server.requests) > 20, seconds=120)
    if gone == "version":
        client.delete_model_version(registered.name, "1")
    else:
        client.delete_registered_model(registered.name)
    with pytest.raises(MlflowException):
        client.get_model_version(registered.name, "1")
    server.release()
    code, answer = ended(process)
    assert (code, answer["success_count"], answer["error_count"]) == (0, 199, 1), answer
    assert (answer["record"], answer["traces_logged"], answer["traces_lost"]) == ("sent", 200, 0)
    assert len(server.requests) == 200
    run = client.get_run(answer["run_id"])
    params = run.data.params
    assert (run.info.status, params["model"], params["model_version"]) == (
        "FINISHED",
        f"models:/{registered.name}/1",
        "1",
    )
    assert len(params["model_digest"]) == 64
    traces = traces_of(client, run)
    written = [line["_trace_id"] for line in lines_of(tmp_path / "out.jsonl")]
    assert sorted(trace.info.trace_id for trace in traces) == sorted(written)
    assert {len(trace.data.spans) for trace in traces} == {2}
    assert {trace.info.tags["dspyui.model_version"] for trace in traces} == {"1"}
    server.reply = words_of_versions
    code, again = ended(start("--retry", answer["job_id"], **settings))
    assert (code, again["success_count"], again["reused"]) == (0, 200, 199), again
    assert len(server.requests) == 201
    assert products(tmp_path / "out.jsonl") == [f"ONE thing{n}" for n in range(200)]
    assert client.get_run(again["run_id"]).data.params["model_digest"] == params["model_digest"]


def test_the_program_s_file_changed_or_gone_when_it_is_taken_up(start, server, tmp_path):
    write_rows(tmp_path / "rows.jsonl", 8)
    file = tmp_path / "things.json"
    made = program(server.base_url)
    file.write_text(variant(made, "ONE").to_json())
    server.reply = lambda m: Fault(400, "no") if "thing3 " in m[-1]["content"] else words_of_versions(m)
    _, first = ended(start(*NEW))
    file.write_text(variant(made, "TWO").to_json())
    _, again = ended(start("--retry", first["job_id"]))
    assert (again["success_count"], again["error_count"], again["reused"]) == (7, 1, 7)
    file.unlink()
    server.reply = words_of_versions
    code, last = ended(start("--retry", again["job_id"]))
    assert (code, last["success_count"], last["error_count"]) == (0, 8, 0)
    assert products(tmp_path / "out.jsonl") == [f"ONE thing{n}" for n in range(8)]


def test_taken_up_again_another_way(start, server, tmp_path):
    """Another output, which leaves the old one alone; another pace; nothing that is given goes by in silence."""
    write_rows(tmp_path / "rows.jsonl", 8)
    server.reply = lambda m: Fault(400, "no") if "thing3 " in m[-1]["content"] else second_word(m)
    _, first = ended(start(*NEW))
    before = (tmp_path / "out.jsonl").read_bytes()
    server.reply = second_word
    anew = (
        "--retry",
        first["job_id"],
        "--output",
        "new.csv",
        "--concurrency",
        "32",
        "--rate-limit",
        "600,9000",
    )
    code, again = ended(start(*anew, "--trace-sample", "0.25"))
    assert (code, again["success_count"], again["reused"]) == (0, 8, 7), again
    assert again["output"] == str(tmp_path / "new.csv")
    assert (tmp_path / "new.csv").read_text().splitlines()[0].startswith("id,message,product")
    assert (tmp_path / "out.jsonl").read_bytes() == before
    spec = json.loads((tmp_path / "data/jobs" / again["job_id"] / "batch.json").read_text())
    assert (spec["concurrency"], spec["requests_per_minute"], spec["tokens_per_minute"]) == (32, 600, 9000)
    assert (spec["trace_sample"], spec["format"], spec["overwrite"]) == (0.25, None, False)
    code, refused = ended(start(*anew))
    assert (code, refused["error"]["code"]) == (2, "batch.output_exists")


def test_a_registered_version_by_its_stage(start, server, tmp_path, mlflow_address, registered):
    """Its address is not kept by the version; the setting says where it is now. Traces know the version."""
    name, by_stage, environment = registered.name, registered.by_stage, registered.environment
    write_rows(tmp_path / "rows.jsonl", 20)
    code, answer = ended(start(*by_stage, **environment))
    assert (code, answer["error"]["code"]) == (2, "predict.address_needed")
    code, answer = ended(start(*by_stage, DSPYUI_LM_API_BASE=server.base_url, **environment))
    assert (code, answer["success_count"], answer["traces_logged"]) == (0, 20, 20)
    client, run = the_run(mlflow_address, name)
    assert (run.data.params["model"], run.data.params["model_version"]) == (f"models:/{name}/1", "1")
    traces = traces_of(client, run)
    assert {trace.info.tags["dspyui.model_version"] for trace in traces} == {"1"}
    code, answer = ended(start("--model", f"models:/{name}/Staging", *NEW[2:], "--overwrite", **environment))
    assert (code, answer["status"]) == (2, "failed")
    assert "Staging" in answer["error"]["message"]
