"""Batches over the API: start, look, fetch, take up again."""

import pytest

from tests.batch_world import program
from tests.unit.test_ui_batch import finish


@pytest.fixture
def document(tmp_path):
    (tmp_path / "rows.csv").write_text("message\n" + "".join(f"My thing{n} broke.\n" for n in range(12)))
    (tmp_path / "things.json").write_text(program("http://127.0.0.1:9/v1").to_json())
    return {"model": str(tmp_path / "things.json"), "path": str(tmp_path / "rows.csv")}


def test_start_look_fetch_and_again(client, world, document):
    started = client.post("/api/batches", json={**document, "concurrency": 4})
    assert started.status_code == 202
    job_id = started.json()["job_id"]
    assert started.json()["url"] == f"/batch/{job_id}"
    assert client.get(f"/api/batches/{job_id}").json()["status"] == "queued"
    assert client.get(f"/api/batches/{job_id}/output").status_code == 404
    assert client.post(f"/api/batches/{job_id}/again").json()["code"] == "batch.still_runs"
    finish(world, job_id)
    summary = client.get(f"/api/batches/{job_id}").json()
    assert (summary["success_count"], summary["error_count"], summary["tokens"]) == (10, 2, 480)
    assert (summary["traces_logged"], summary["traces_waiting"], summary["traces_lost"]) == (12, 0, 0)
    fetched = client.get(f"/api/batches/{job_id}/output")
    assert len(fetched.text.splitlines()) == 12
    assert f"things-{job_id}-output.jsonl" in fetched.headers["content-disposition"]
    assert len(client.get(f"/api/batches/{job_id}/errors").text.splitlines()) == 1
    again = client.post(f"/api/batches/{job_id}/again").json()["job_id"]
    assert {found["job_id"] for found in client.get("/api/batches").json()} == {again, job_id}


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"output": "/tmp/x.csv"}, "batch.output_here"),
        ({"concurency": 4}, "spec.extra_near"),
        ({"path": None}, "batch.one_input"),
        ({"model": "models:/no version"}, "batch.model_uri"),
        ({"model": "no-such-file.json"}, "batch.model_missing"),
        ({"columns": {"message": "text"}}, "batch.columns"),
        ({"metric": {"kind": "exact_match"}}, "batch.no_expected"),
    ],
)
def test_what_cannot_be_is_refused_before_a_job_is_made(client, world, document, change, code):
    refused = client.post("/api/batches", json={**document, **change})
    assert refused.json()["code"] == code
    assert refused.status_code in {400, 404}
    assert world.queue.submitted == []


def test_a_batch_is_no_compile(client, document):
    job_id = client.post("/api/batches", json=document).json()["job_id"]
    assert client.get(f"/api/jobs/{job_id}").json()["code"] == "job.no_compile"
    assert client.get("/api/jobs").json()[0]["id"] == job_id


def test_a_model_that_goes_away_meanwhile_changes_nothing(client, world, document, tmp_path):
    job_id = client.post("/api/batches", json=document).json()["job_id"]
    (tmp_path / "things.json").unlink()
    assert world.services.batches.view(job_id).model.program.spec.name == "things"
    finish(world, job_id)
    assert client.post(f"/api/batches/{job_id}/again").json()["code"] == "batch.model_missing"


def test_an_output_is_written_by_one_batch_at_a_time(world, document, tmp_path):
    from dspyui.domain.batches import BatchSpec
    from dspyui.errors import DSPyUIError

    def refused(**more):
        with pytest.raises(DSPyUIError) as caught:
            world.services.batches.submit(BatchSpec(**document, **more), who="tester")
        return caught.value.code

    out = str(tmp_path / "out.csv")
    world.services.batches.submit(BatchSpec(**document, output=out), who="tester")
    assert refused(output=out) == "batch.output_taken"
    (tmp_path / "there.csv").write_text("mine")
    assert refused(output=str(tmp_path / "there.csv")) == "batch.output_exists"
    assert refused(output=document["path"], overwrite=True) == "batch.output_is_input"
    assert refused(output=str(tmp_path / "no" / "out.csv")) == "batch.output_folder"
    assert refused(output=str(tmp_path), format="csv") == "batch.output_is_folder"
