"""Runs as MLflow's own pages get them, and what happens when things go wrong in between."""

import json
import threading
import time
from datetime import timedelta
from pathlib import Path

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dspyui.adapters.mlflow_store.runs import MlflowRunStore
from dspyui.domain.runs import ArtifactFile, DatasetInput, MetricPoint
from dspyui.errors import FailedError, NotFoundError, UnavailableError
from dspyui.settings import Settings
from tests.contracts.fakes import StaticTracking
from tests.mlflow_world import STARTED, Proxy, RunMaker


@pytest.fixture
def runs(settings, mlflow_address):
    return MlflowRunStore(settings, StaticTracking(mlflow_address))


@pytest.fixture
def make(runs, tmp_path):
    return RunMaker(runs, tmp_path)


@pytest.fixture
def client(mlflow_address):
    from mlflow import MlflowClient

    return MlflowClient(mlflow_address, mlflow_address)


def renamed(settings, name):
    return settings.model_copy(update={"mlflow_experiment_name": name})


def test_times_status_and_series_are_true_and_sent_twice_are_the_same(runs, make, client):
    series = {"trial_score": tuple(MetricPoint(step=i, value=i / 10) for i in range(4))}
    record = make.record(status="KILLED", series=series)
    run_id = runs.send(record).run_id
    assert runs.send(record).run_id == run_id
    run = client.get_run(run_id)
    assert run.info.status == "KILLED"
    assert run.info.start_time == int(STARTED.timestamp() * 1000)
    assert run.info.end_time - run.info.start_time == 5000
    points = client.get_metric_history(run_id, "trial_score")
    assert [(p.step, p.value) for p in points] == [(0, 0.0), (1, 0.1), (2, 0.2), (3, 0.3)]
    assert len(client.get_metric_history(run_id, "baseline_score")) == 1


def test_long_values_are_cut_and_say_so(runs, make, client):
    params = {f"p{i}": "长" * 9000 for i in range(40)} | {f"q{i}": "v" for i in range(150)}
    run = client.get_run(runs.send(make.record(params=params, tags={"dspyui.error": "x" * 9000})).run_id)
    assert len(run.data.params) == 190
    assert run.data.params["p3"] == "长" * 5999 + "…"
    assert len(run.data.tags["dspyui.error"]) == 8000


def test_a_table_is_one_to_mlflow(runs, make, client, tmp_path, mlflow_address):
    rows = [{"row": 0, "input_message": "你好", "after_tags": ["a", "b"], "after_error": None, "score": 0.5}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    artifacts = (ArtifactFile(file=tmp_path / "rows.parquet", artifact_path="evaluation/rows.parquet"),)
    record = make.record(artifacts=artifacts, tables={"evaluation/rows.json": tmp_path / "rows.parquet"})
    run_id = runs.send(record).run_id
    runs.send(record)
    tag = json.loads(client.get_run(run_id).data.tags["mlflow.loggedArtifacts"])
    assert tag == [{"path": "evaluation/rows.json", "type": "table"}]
    # The way MLflow's own page reads it.
    reply = httpx.get(
        f"{mlflow_address}/get-artifact", params={"run_uuid": run_id, "path": "evaluation/rows.json"}
    )
    assert reply.json() == {
        "columns": ["row", "input_message", "after_tags", "after_error", "score"],
        "data": [[0, "你好", ["a", "b"], None, 0.5]],
    }
    listed = {entry.path for entry in client.list_artifacts(run_id, "evaluation")}
    assert listed == {"evaluation/rows.json", "evaluation/rows.parquet"}


@pytest.mark.parametrize("damaged", ["[{", '"text"', ""])
def test_a_damaged_list_of_tables_is_written_anew(runs, make, client, tmp_path, damaged):
    pq.write_table(pa.Table.from_pylist([{"row": 0}]), tmp_path / "rows.parquet")
    record = make.record(tables={"evaluation/rows.json": tmp_path / "rows.parquet"})
    run_id = runs.send(record.model_copy(update={"tables": {}})).run_id
    client.set_tag(run_id, "mlflow.loggedArtifacts", damaged)
    assert runs.send(record).run_id == run_id
    tag = json.loads(client.get_run(run_id).data.tags["mlflow.loggedArtifacts"])
    assert tag == [{"path": "evaluation/rows.json", "type": "table"}]


def test_the_three_splits_are_dataset_inputs(runs, make, client, tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text('{"q": "你", "n": 1, "x": 0.5, "ok": true, "l": ["a"]}\n', encoding="utf-8")
    splits = tuple(
        DatasetInput(
            name=f"程序 ({context})",
            context=context,
            digest=digit * 64,
            rows=3,
            file=file,
            source="orders.csv",
        )
        for context, digit in (("train", "a"), ("validation", "b"), ("test", "c"))
    )
    record = make.record(datasets=splits)
    run_id = runs.send(record).run_id
    runs.send(record)
    inputs = client.get_run(run_id).inputs.dataset_inputs
    found = {entry.tags[0].value: entry.dataset for entry in inputs}
    assert set(found) == {"train", "validation", "test"}
    assert len(inputs) == 3
    test = found["test"]
    assert (test.name, test.digest) == ("程序 (test)", "c" * 36)
    assert json.loads(test.profile) == {"num_rows": 3, "sha256": "c" * 64}
    assert json.loads(test.source) == {"uri": "orders.csv"}
    types = {column["name"]: column["type"] for column in json.loads(test.schema)["mlflow_colspec"]}
    assert types == {"q": "string", "n": "long", "x": "double", "ok": "boolean", "l": "object"}


def test_an_artifact_can_have_another_name_than_its_file_and_a_broken_upload_is_mended(
    runs, make, client, tmp_path
):
    file = tmp_path / "local.txt"
    file.write_text("whole", encoding="utf-8")
    record = make.record(artifacts=(ArtifactFile(file=file, artifact_path="prompt/other.txt"),))
    run_id = runs.send(record).run_id
    broken = tmp_path / "other.txt"
    broken.write_text("wh", encoding="utf-8")
    client.log_artifact(run_id, str(broken), "prompt")
    runs.send(record)
    local = client.download_artifacts(run_id, "prompt/other.txt", str(tmp_path))
    assert Path(local).read_text(encoding="utf-8") == "whole"


def test_a_lost_answer_leaves_one_run(settings, make, client, mlflow_address):
    lost = []

    def lose_one_create(method, path):
        if path.endswith("/runs/create") and not lost:
            lost.append(path)
            return "drop"
        return None

    record = make.record()
    with Proxy(mlflow_address, lose_one_create) as proxy:
        runs = MlflowRunStore(settings, StaticTracking(proxy.address))
        with pytest.raises(UnavailableError):
            runs.send(record)
        runs.send(record)
    assert lost
    found = _of_job(client, settings, record)
    assert len(found) == 1
    assert found[0].data.metrics["evaluation_score"] == 0.9


def test_two_runs_of_a_job_become_one(runs, make, client, settings):
    record = make.record()
    link = runs.send(record)
    client.create_run(link.experiment_id, tags={"dspyui.job_id": record.job_id})
    assert runs.send(record) == link
    assert [run.info.run_id for run in _of_job(client, settings, record)] == [link.run_id]


def _of_job(client, settings, record):
    experiment = client.get_experiment_by_name(settings.mlflow_experiment_name)
    text = f"tags.`dspyui.job_id` = '{record.job_id}'"
    return client.search_runs([experiment.experiment_id], filter_string=text)


def test_two_processes_may_make_the_experiment_at_once(settings, mlflow_address, tmp_path):
    stores = [
        MlflowRunStore(renamed(settings, f"同时 {tmp_path.name}"), StaticTracking(mlflow_address))
        for _ in range(4)
    ]
    links = []
    threads = [
        threading.Thread(target=lambda s=store: links.append(s.send(RunMaker(s, tmp_path).record())))
        for store in stores
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({link.experiment_id for link in links}) == 1
    assert len({link.run_id for link in links}) == 4


def test_a_deleted_experiment_is_said(settings, mlflow_address, client, tmp_path):
    name = f"gone {tmp_path.name}"
    client.delete_experiment(client.create_experiment(name))
    store = MlflowRunStore(renamed(settings, name), StaticTracking(mlflow_address))
    with pytest.raises(FailedError) as caught:
        store.send(RunMaker(store, tmp_path).record())
    assert caught.value.code == "run.experiment_deleted"
    assert name in str(caught.value)
    # Its Runs are hidden with it: that is no empty list.
    with pytest.raises(FailedError) as caught:
        store.search_runs()
    assert caught.value.code == "run.experiment_deleted"
    client.restore_experiment(client.get_experiment_by_name(name).experiment_id)
    link = store.send(RunMaker(store, tmp_path).record())
    assert [run.run_id for run in store.search_runs()] == [link.run_id]


def test_a_deleted_run_is_said(runs, make, client):
    run_id = make()
    client.delete_run(run_id)
    with pytest.raises(NotFoundError) as caught:
        runs.get_run(run_id)
    assert caught.value.code == "run.deleted"


def test_a_run_that_is_deleted_while_its_job_runs_is_made_anew(runs, make, client):
    running = make.record(status="RUNNING", ended_at=None)
    first = runs.send(running)
    client.delete_run(first.run_id)
    second = runs.send(running.model_copy(update={"status": "FINISHED", "ended_at": STARTED}))
    assert second.run_id != first.run_id
    assert runs.get_run(second.run_id).metrics["evaluation_score"] == 0.9
    assert runs.program(second.run_id)


def test_odd_names_and_a_new_name_arrive_whole(runs, make, client):
    odd = "抽取 🚀👩‍🚀 / \\ : * ? ' \" < > | # % & = é́ " + "名" * 150
    record = make.record(status="RUNNING", ended_at=None, name=odd, tags={"dspyui.program": odd})
    run_id = runs.send(record).run_id
    run = client.get_run(run_id)
    assert (run.info.run_name, run.data.tags["dspyui.program"]) == (odd, odd)
    assert run.data.tags["mlflow.runName"] == odd
    done = record.model_copy(update={"status": "FINISHED", "ended_at": STARTED, "name": "later 名"})
    assert runs.send(done).run_id == run_id
    assert client.get_run(run_id).info.run_name == "later 名"
    assert runs.get_run(run_id).name == "later 名"


def test_no_experiment_yet_means_no_runs(settings, mlflow_address):
    store = MlflowRunStore(renamed(settings, "nothing was ever sent here"), StaticTracking(mlflow_address))
    assert store.search_runs() == ()


def test_a_server_known_to_be_away_costs_no_time(settings, tmp_path):
    tracking = StaticTracking("http://127.0.0.1:9")
    tracking.away = True
    store = MlflowRunStore(settings, tracking)
    started = time.monotonic()
    with pytest.raises(UnavailableError):
        store.get_run("x")
    assert time.monotonic() - started < 10


def test_a_dead_port_is_told_within_seconds(settings):
    store = MlflowRunStore(settings, StaticTracking("http://127.0.0.1:9"))
    _warm()
    started = time.monotonic()
    with pytest.raises(UnavailableError) as caught:
        store.search_runs()
    assert time.monotonic() - started < 15
    assert "http://127.0.0.1:9" in str(caught.value)


def test_a_server_that_takes_connections_and_is_silent_is_told_within_seconds(settings, mlflow_address):
    _warm()
    with Proxy(mlflow_address, lambda method, path: "hang") as proxy:
        store = MlflowRunStore(settings, StaticTracking(proxy.address))
        started = time.monotonic()
        with pytest.raises(UnavailableError):
            store.search_runs()
        assert time.monotonic() - started < 20


@pytest.mark.parametrize(
    ("status", "kind", "code"),
    [
        (401, UnavailableError, "mlflow.denied"),
        (403, UnavailableError, "mlflow.denied"),
        (429, UnavailableError, "mlflow.unavailable"),
        (500, UnavailableError, "mlflow.unavailable"),
        (503, UnavailableError, "mlflow.unavailable"),
        (400, FailedError, "mlflow.refused"),
    ],
)
def test_the_servers_answers_become_our_errors(settings, mlflow_address, status, kind, code):
    with Proxy(mlflow_address, lambda method, path: None if path == "/health" else status) as proxy:
        store = MlflowRunStore(settings, StaticTracking(proxy.address))
        with pytest.raises(kind) as caught:
            store.search_runs()
    assert caught.value.code == code
    assert caught.value.__cause__ is not None


def test_credentials_of_a_dotenv_file_reach_the_server(mlflow_address, environ, tmp_path):
    file = tmp_path / ".env"
    file.write_text("MLFLOW_TRACKING_USERNAME=李\nMLFLOW_TRACKING_PASSWORD=secret-word-1\n", encoding="utf-8")
    settings = Settings.load(env_file=file, environ=environ)
    with Proxy(mlflow_address) as proxy:
        store = MlflowRunStore(settings, StaticTracking(proxy.address))
        store.search_runs()
        assert proxy.headers["Authorization"].startswith("Basic ")


def test_nothing_global_is_touched(runs, make, tmp_path, monkeypatch):
    import mlflow

    monkeypatch.chdir(tmp_path)
    before = mlflow.get_tracking_uri()
    make()
    runs.search_runs()
    assert mlflow.get_tracking_uri() == before
    assert mlflow.active_run() is None
    assert not {"mlruns", "mlflow.db"} & {path.name for path in tmp_path.iterdir()}


def test_a_proxy_is_not_asked_for_loopback(mlflow_address, environ, monkeypatch, tmp_path):
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
        environ[name] = "http://127.0.0.1:9"
    settings = Settings.load(env_file=tmp_path / "none", environ=environ)
    MlflowRunStore(settings, StaticTracking(mlflow_address)).search_runs()


def test_end_before_start_never_happens(runs, make, client):
    record = make.record(ended_at=STARTED + timedelta(milliseconds=1))
    run = client.get_run(runs.send(record).run_id)
    assert run.info.end_time == run.info.start_time + 1


def _warm():
    from dspyui.adapters.mlflow_store.client import warm

    warm()


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b'{"message": "a"}\n{"message": "b", "prod', 2),
        (b'{"message": "a"}\n\n["b"]\n', 3),
        (b'{"message": "a"}\n{"message": "\xff"}\n', 2),
        (b"[" * 100_000, 1),
    ],
)
def test_a_damaged_artifact_is_named_with_its_line(runs, make, tmp_path, content, line):
    (tmp_path / "test.jsonl").write_bytes(content)
    damaged = ArtifactFile(file=tmp_path / "test.jsonl", artifact_path="dataset/test.jsonl")
    record = make.record()
    run_id = runs.send(record.model_copy(update={"artifacts": (record.artifacts[0], damaged)})).run_id
    with pytest.raises(FailedError) as caught:
        runs.splits(run_id)
    assert (caught.value.code, caught.value.values["line"]) == ("run.broken", line)
    said = [caught.value.text(language) for language in ("zh_CN", "en_US")]
    assert said[0] != said[1]
    for sentence in said:
        assert all(part in sentence for part in (run_id, "dataset/test.jsonl", str(line)))


@pytest.mark.parametrize(
    ("content", "problem"), [(b'{"message": "a"', "delimiter"), (b'{"message": "a", "tags": []}', "no count")]
)
def test_an_example_that_is_damaged_is_told(runs, make, tmp_path, content, problem):
    (tmp_path / "test.jsonl").write_bytes(content)
    damaged = ArtifactFile(file=tmp_path / "test.jsonl", artifact_path="dataset/test.jsonl")
    record = make.record()
    run_id = runs.send(record.model_copy(update={"artifacts": (record.artifacts[0], damaged)})).run_id
    with pytest.raises(FailedError) as caught:
        runs.input_example(run_id)
    assert caught.value.code == "run.broken"
    assert problem in str(caught.value)
