"""Compiles side by side in the real program, with a real MLflow: each has its own process and its own whole Run."""

import json

import pytest

from tests.fake_openai import FakeOpenAI
from tests.program import Program
from tests.slow.test_server_faults import IN_THE_LAST_PHASE, ROWS, knowing, spec, under_way
from tests.waiting import wait_until

pytestmark = pytest.mark.slow

FINISHED = {
    "program/program.json", "prompt/baseline_prompt.txt", "prompt/optimized_prompt.txt", "spec/compile.yaml",
    "dataset/train.jsonl", "dataset/validation.jsonl", "dataset/test.jsonl", "evaluation/rows.json",
    "evaluation/rows.parquet", "evaluation/result.json",
}  # fmt: skip
STOPPED = {
    "spec/compile.yaml", "dataset/train.jsonl", "dataset/validation.jsonl", "dataset/test.jsonl",
}  # fmt: skip


@pytest.fixture
def lms():
    """One for each job, which holds it in its last phase."""
    with FakeOpenAI(knowing) as first, FakeOpenAI(knowing) as second, FakeOpenAI(knowing) as third:
        fakes = (first, second, third)
        for fake in fakes:
            fake.hold(after=IN_THE_LAST_PHASE)
        yield fakes


@pytest.fixture
def client(mlflow_address):
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=mlflow_address)


def artifacts(client, run_id, path=""):
    found = set()
    for entry in client.list_artifacts(run_id, path or None):
        found |= artifacts(client, run_id, entry.path) if entry.is_dir else {entry.path}
    return found


def read(client, run_id, path, folder):
    from pathlib import Path

    return Path(client.download_artifacts(run_id, path, str(folder))).read_text(encoding="utf-8")


def workers(program):
    return [p for p in program.children() if "dspyui.bootstrap" in " ".join(p.cmdline())]


def test_two_at_once_one_cancelled_one_finished_and_a_third_in_line(tmp_path, lms, mlflow_address, client):
    experiment = f"two-{tmp_path.name}"
    settings = {"MLFLOW_TRACKING_URI": mlflow_address, "MLFLOW_EXPERIMENT_NAME": experiment}
    names = ["first", "第二 🚀", "third"]
    with Program(tmp_path, **settings) as program:
        first, second = (program.compile(spec(lm, name)) for lm, name in zip(lms, names[:2], strict=False))
        for job_id in (first, second):
            program.wait(job_id, "running")
        third = program.compile(spec(lms[2], names[2]))
        waiting = program.job(third)
        assert (waiting["job"]["status"], waiting["place"]) == ("queued", 1)
        wait_until(lambda: len(workers(program)) == 2)
        # Both are in the middle of it at the same moment.
        for job_id in (first, second):
            under_way(program, job_id)
        program.client.post(f"/api/jobs/{first}/cancel").raise_for_status()
        program.wait(first, "cancelled")
        assert program.job(second)["job"]["status"] == "running"
        program.wait(third, "running")
        assert program.job(third)["place"] is None
        for lm in lms:
            lm.release()
        for job_id in (second, third):
            program.wait(job_id, "done")
            assert program.job(job_id)["job"]["attempt"] == 1
        for job_id in (first, second, third):
            wait_until(lambda j=job_id: program.job(j)["summary"]["record"] == "sent")
    found = client.get_experiment_by_name(experiment)
    runs = {run.data.tags["dspyui.job_id"]: run for run in client.search_runs([found.experiment_id])}
    assert set(runs) == {first, second, third}
    assert [runs[job].info.status for job in (first, second, third)] == ["KILLED", "FINISHED", "FINISHED"]
    for job_id, name in zip((first, second, third), names, strict=True):
        run = runs[job_id]
        assert run.data.params["program"] == run.data.tags["dspyui.program"] == name
        assert run.info.run_name.startswith(name.replace(" ", "-"))
        assert run.info.end_time > run.info.start_time
        assert json.dumps(name, ensure_ascii=False)[1:-1] in read(
            client, run.info.run_id, "spec/compile.yaml", tmp_path
        )
        traces = client.search_traces(
            locations=[found.experiment_id], run_id=run.info.run_id, max_results=500
        )
        assert {trace.info.tags["dspyui.job_id"] for trace in traces} == {job_id}
        if job_id != first:
            assert len(traces) == 40  # 12 test and 8 validation rows, before and after
            assert (run.data.metrics["baseline_score"], run.data.metrics["evaluation_score"]) == (0.0, 1.0)
            assert artifacts(client, run.info.run_id) == FINISHED
            assert {entry.tags[0].value for entry in run.inputs.dataset_inputs} == {
                "train", "validation", "test",
            }  # fmt: skip
    stopped = runs[first]
    assert artifacts(client, stopped.info.run_id) == STOPPED
    assert "evaluation_score" not in stopped.data.metrics
    assert 20 <= stopped.data.metrics["lm_calls"] < 40
    rows = [
        json.loads(line)
        for split in ("train", "validation", "test")
        for line in read(client, stopped.info.run_id, f"dataset/{split}.jsonl", tmp_path).splitlines()
    ]
    assert sorted(map(str, rows)) == sorted(map(str, ROWS))
