"""What the API does with jobs and data beside starting and showing them."""

import json

import pytest

from dspyui.domain.jobs import RecordState
from tests.api.test_batches import document
from tests.api.test_routes import CSV, EN, UNKNOWN
from tests.api.world import DOCUMENT, spec
from tests.unit.test_ui_batch import finish

__all__ = ["document"]
WANTING = {**DOCUMENT, "optimizer": {"kind": "bootstrap_few_shot"}}


def test_a_job_is_renamed_and_noted_on(client, world):
    job_id = world.done()
    renamed = client.request("PATCH", f"/api/jobs/{job_id}", json={"title": " 最好的 "})
    assert (renamed.status_code, renamed.json()["title"], renamed.json()["note"]) == (200, "最好的", None)
    noted = client.request("PATCH", f"/api/jobs/{job_id}", json={"note": "why"}).json()
    assert (noted["title"], noted["note"], noted["kind"]) == ("最好的", "why", "compile")
    (listed,) = client.get("/api/jobs").json()
    assert listed == noted
    assert world.jobs.get(job_id).note == "why"


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({}, 400, "api.job_change"),
        ({"title": ""}, 400, "job.title"),
        ({"note": "x" * 5001}, 400, "job.note_long"),
        ({"titel": "x"}, 400, "api.body"),
    ],
)
def test_a_change_that_cannot_be_is_refused(client, world, body, status, code):
    job_id = world.done()
    before = world.jobs.get(job_id)
    answer = client.request("PATCH", f"/api/jobs/{job_id}", json=body, headers=EN)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert world.jobs.get(job_id) == before


def test_a_compile_runs_again_with_the_rows_it_had(client, world):
    digest = client.post("/api/data", params={"name": "rows.csv"}, content=CSV).json()["digest"]
    first = world.submitted(data={"upload": digest})
    client.request("DELETE", f"/api/data/{digest}")
    answer = client.post(f"/api/jobs/{first}/again")
    again = answer.json()["job_id"]
    assert (answer.status_code, answer.json()["url"]) == (202, f"/jobs/{again}")
    assert world.queue.submitted == [first, again]
    assert sorted(map(str, world.jobs.rows(again))) == sorted(map(str, world.jobs.rows(first)))
    assert world.jobs.get(again).who == "local"


def test_a_batch_runs_again_for_the_rows_that_failed(client, world, document):
    job_id = client.post("/api/batches", json=document).json()["job_id"]
    assert client.post(f"/api/jobs/{job_id}/again").json()["code"] == "batch.still_runs"
    finish(world, job_id)
    answer = client.post(f"/api/jobs/{job_id}/again").json()
    assert answer["url"] == f"/batch/{answer['job_id']}"
    assert world.services.batches.view(answer["job_id"]).spec.earlier == job_id


def test_a_job_is_deleted_once_it_has_ended_and_its_record_is_safe(client, world):
    job_id = world.submitted()
    assert client.request("DELETE", f"/api/jobs/{job_id}").json()["code"] == "job.delete_running"
    client.post(f"/api/jobs/{job_id}/cancel")
    refused = client.request("DELETE", f"/api/jobs/{job_id}", headers=EN)
    assert (refused.status_code, refused.json()["code"]) == (409, "job.delete_pending")
    assert "even_unsent=true" in refused.json()["message"]
    assert client.request("DELETE", f"/api/jobs/{job_id}?even_unsent=true").status_code == 204
    assert client.get("/api/jobs").json() == []
    sent = world.done()
    world.jobs.write_record(sent, RecordState(status="sent", run_id="r"))
    assert client.request("DELETE", f"/api/jobs/{sent}").status_code == 204
    assert client.get(f"/api/jobs/{sent}").status_code == 404


@pytest.mark.parametrize("job_id", [UNKNOWN, "x", "%2e%2e%2fetc"])
def test_a_job_that_is_not_there(client, job_id):
    for method, path, body in (
        ("PATCH", "", {"title": "x"}),
        ("DELETE", "", None),
        ("POST", "/again", None),
        ("POST", "/cancel", None),
    ):
        answer = client.request(method, f"/api/jobs/{job_id}{path}", json=body)
        assert answer.status_code == 404
        assert set(answer.json()) == {"code", "message"}


@pytest.mark.parametrize(("headers", "words"), [(EN, "works best with"), ({}, "行以上的训练数据")])
def test_data_smaller_than_the_optimizer_wants_is_said_and_runs(client, world, headers, words):
    started = client.post("/api/compile", content=json.dumps(WANTING), headers=headers).json()
    assert world.queue.submitted == [started["job_id"]]
    told = {warning["code"]: warning["message"] for warning in started["warnings"]}
    assert words in told["optimizer_warning.train"]
    assert "data_notice.test_tiny" in told
    guessed = client.post("/api/compile/estimate", content=json.dumps(WANTING), headers=headers).json()
    assert guessed["warnings"] == started["warnings"]
    again = client.post(f"/api/jobs/{started['job_id']}/again", headers=headers).json()
    assert again["warnings"] == started["warnings"]


def test_enough_data_is_passed_over(client):
    rows = [{"message": f"m{n}", "product": f"p{n}"} for n in range(100)]
    started = client.post("/api/compile", content=json.dumps({**DOCUMENT, "data": {"rows": rows}})).json()
    assert started["warnings"] == []


def test_an_estimate_compiles_nothing(client, world):
    found = client.post("/api/compile/estimate", content=json.dumps(DOCUMENT))
    tested = round(12 * spec().data.split.test)
    assert (found.status_code, found.json()["lm_calls_at_most"]) == (200, tested)
    assert found.json()["cost_about_at_most"] == 0.0
    assert world.queue.submitted == []
    for body, code in ((b"{}", "spec.missing"), (b"\xff", "api.not_utf8")):
        assert client.post("/api/compile/estimate", content=body).json()["code"] == code
    few = {**DOCUMENT, "optimizer": {"kind": "simba"}}
    assert client.post("/api/compile/estimate", content=json.dumps(few)).json()["code"] == "optimizer.bsize"


def test_data_that_cannot_be_read_is_told_and_nothing_is_queued(client, world):
    answer = client.post("/api/compile", json={**DOCUMENT, "data": {"path": "/no/such.csv"}})
    assert (answer.status_code, answer.json()["code"]) == (404, "file.missing")
    assert world.queue.submitted == []


def test_a_data_set_is_renamed(client):
    digest = client.post("/api/data", params={"name": "a.csv"}, content=CSV).json()["digest"]
    renamed = client.request("PATCH", f"/api/data/{digest}", json={"name": "评论"})
    assert (renamed.status_code, renamed.json()["name"]) == (200, "评论")
    assert client.get("/api/data").json() == [renamed.json()]
    for path, body, code in (
        (digest, {"name": " "}, "upload.name"),
        (digest, {}, "api.body"),
        ("0" * 64, {"name": "x"}, "upload.unknown"),
    ):
        assert client.request("PATCH", f"/api/data/{path}", json=body).json()["code"] == code


def test_a_job_whose_process_has_ended_is_interrupted(client, world):
    job_id = world.submitted()
    world.jobs.update(job_id, lambda job: job.model_copy(update={"status": "running", "executor": "ui-dead"}))
    assert client.get(f"/api/jobs/{job_id}").json()["job"]["interrupted"] is False
    world.queue.dead.add("ui-dead")
    (listed,) = client.get("/api/jobs").json()
    assert (listed["status"], listed["interrupted"]) == ("running", True)
    assert client.get(f"/api/jobs/{job_id}").json()["job"]["interrupted"] is True
