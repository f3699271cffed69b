"""The whole program, and a job folder that takes no more: the job says so, keeps what it had, and runs again."""

import json
import resource

import pytest

from dspyui.adapters.files.jobs import FileJobStore
from dspyui.adapters.mlflow_store.spool import closed_segments
from dspyui.services.documents import spec_of
from tests.batch_world import asked, program, second_word, variant
from tests.conftest import free_port
from tests.fake_openai import FakeOpenAI
from tests.program import Program
from tests.slow.test_server_faults import ROWS, knowing, spec
from tests.waiting import wait_until

pytestmark = pytest.mark.slow


@pytest.fixture
def lm():
    with FakeOpenAI(knowing) as fake:
        yield fake


def test_a_job_that_finds_no_room_says_so_and_can_be_run_again(tmp_path, lm):
    store = FileJobStore(tmp_path / "data")
    rows = [{**row, "message": f"{row['message']} {'x' * 400_000}"} for row in ROWS]
    job = store.create(spec_of({**spec(lm), "data": {"rows": rows}}), rows, title="full", who="w")
    with Program(tmp_path, MLFLOW_ENABLED="false") as running:
        # The system gives the program and its children no file over 6 MB, and half of the rows are more.
        resource.prlimit(running.process.pid, resource.RLIMIT_FSIZE, (6_000_000, 6_000_000))
        # The program has not heard of the job, and takes it up as one whose maker died.
        failed = running.wait(job.id, "failed", seconds=90)
        assert failed["error"]["code"] == "storage.full"
        assert job.id in failed["error"]["message"]
        assert "File too large" in failed["error"]["message"]
        page = running.client.get(f"/jobs/{job.id}", params={"lang": "zh"})
        assert "请腾出空间" in page.text
        assert len(store.rows(job.id)) == len(rows)
        assert {event.kind for event in store.events(job.id)[0]} >= {"job.started", "job.failed"}
        again = running.compile(spec(lm))
        assert running.wait(again, "done")["summary"]["evaluation_score"] == 1.0


def limit_files(running, size):
    """The system gives the program and the children it starts from now on no file over so many bytes."""
    resource.prlimit(running.process.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def start_batch(running, **spec):
    answer = running.client.post("/api/batches", json={"concurrency": 1, **spec})
    return answer.raise_for_status().json()["job_id"]


def batch_in(running, job_id, status):
    wait_until(lambda: running.get(f"/api/batches/{job_id}")["status"] == status, seconds=120)
    return running.get(f"/api/batches/{job_id}")


def the_rest_is_asked(running, server, job_id, rows):
    """With room again; gives the rows that had been kept."""
    kept = [
        json.loads(line) for line in running.client.get(f"/api/batches/{job_id}/output").text.splitlines()
    ]
    assert [row["id"] for row in kept] == list(range(len(kept)))
    assert 0 < len(kept) < rows
    limit_files(running, resource.RLIM_INFINITY)
    before = len(server.requests)
    again = running.client.post(f"/api/batches/{job_id}/again").raise_for_status().json()["job_id"]
    summary = batch_in(running, again, "done")
    assert (summary["success_count"], summary["error_count"], summary["reused"]) == (rows, 0, len(kept))
    assert asked(server)[before:] == list(range(len(kept), rows))
    return kept


@pytest.fixture
def server():
    with FakeOpenAI(second_word) as fake:
        yield fake


def test_a_batch_whose_results_find_no_room(tmp_path, server):
    count = 30
    path = tmp_path / "rows.jsonl"
    rows = ({"id": n, "message": f"My thing{n} broke.", "more": "x" * 400_000} for n in range(count))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "things.json").write_text(program(server.base_url).to_json())
    with Program(tmp_path, MLFLOW_ENABLED="false") as running:
        limit_files(running, 6_000_000)
        job_id = start_batch(running, model=str(tmp_path / "things.json"), path=str(path))
        batch_in(running, job_id, "failed")
        page = running.client.get(f"/batch/{job_id}", params={"lang": "zh"}).text
        assert "请腾出空间" in page
        assert "File too large" in page
        the_rest_is_asked(running, server, job_id, count)


def test_a_batch_whose_traces_find_no_room(tmp_path, server):
    """MLflow is away, so they wait on the disk. A row that is kept has its trace there."""
    count = 12
    path = tmp_path / "rows.jsonl"
    path.write_text(
        "".join(json.dumps({"id": n, "message": f"My thing{n} broke."}) + "\n" for n in range(count))
    )
    long = variant(program(server.base_url), "Think of this: " + "x" * 700_000)
    (tmp_path / "long.json").write_text(long.to_json())
    away = {"MLFLOW_ENABLED": "true", "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{free_port()}"}
    with Program(tmp_path, **away) as running:
        limit_files(running, 3_000_000)
        job_id = start_batch(running, model=str(tmp_path / "long.json"), path=str(path))
        batch_in(running, job_id, "failed")
        assert "请腾出空间" in running.client.get(f"/batch/{job_id}", params={"lang": "zh"}).text
        kept = the_rest_is_asked(running, server, job_id, count)
        folder = tmp_path / "data/jobs" / job_id / "traces"
        on_disk = b"".join(segment.read_bytes() for segment in closed_segments(folder))
        for row in kept:
            assert bytes.fromhex(row["_trace_id"].removeprefix("tr-")) in on_disk
