"""Batches over the API: start, look, fetch, take up again."""

from datetime import datetime

import pytest

from dspyui.api.app import create_api
from dspyui.domain.batches import BatchProgress, BatchSpec
from dspyui.domain.lms import LOCAL_MODEL
from dspyui.errors import DSPyUIError
from dspyui.services.batch_records import batch_record
from dspyui.services.batches import BatchChanges
from tests.api.conftest import Client
from tests.api.world import T0, World
from tests.batch_world import instructions, program, put_version
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


def test_cancelled_it_keeps_what_is_finished_and_can_be_taken_up(client, world, document):
    job_id = client.post("/api/batches", json=document).json()["job_id"]
    line = '{"message": "My thing0 broke.", "product": "thing0", "_error": null}\n'
    world.services.batches.results(job_id).write_text(line)
    cancelled = client.post(f"/api/jobs/{job_id}/cancel")
    assert (cancelled.status_code, cancelled.json()["status"]) == (202, "cancelled")
    assert client.get(f"/api/batches/{job_id}").json()["status"] == "cancelled"
    assert client.get(f"/api/batches/{job_id}/output").text == line
    again = client.post(f"/api/batches/{job_id}/again")
    assert again.status_code == 202
    assert world.services.batches.view(again.json()["job_id"]).spec.earlier == job_id


def test_a_model_that_goes_away_meanwhile_changes_nothing(client, world, document, tmp_path):
    job_id = client.post("/api/batches", json=document).json()["job_id"]
    (tmp_path / "things.json").unlink()
    assert world.services.batches.view(job_id).model.program.spec.name == "things"
    finish(world, job_id)
    again = client.post(f"/api/batches/{job_id}/again").json()["job_id"]
    model = world.services.batches.view(job_id).model
    assert world.services.batches.view(again).model == model


@pytest.mark.parametrize("route", ["batches", "jobs"])
@pytest.mark.parametrize("happens", ["promoted", "deleted", "model deleted"])
def test_taken_up_again_by_the_program_that_has_answered_so_far(client, world, document, happens, route):
    made, registry = program(None, model=LOCAL_MODEL), world.registry
    put_version(registry, made, "ONE")
    document["model"] = "models:/things/Production"
    job_id = client.post("/api/batches", json=document).json()["job_id"]
    finish(world, job_id)
    if happens == "promoted":
        put_version(registry, made, "TWO")
        assert registry.get_by_stage("things", "Production").version == 2
    elif happens == "deleted":
        registry.delete_version("things", 1)
    else:
        registry.delete_model("things")
    again = client.post(f"/api/{route}/{job_id}/again").json()["job_id"]
    model = world.services.batches.view(again).model
    assert (model.version, model.uri) == (1, "models:/things/1")
    assert instructions(model.program).endswith("ONE")
    if happens == "promoted":
        new = client.post("/api/batches", json=document).json()["job_id"]
        assert world.services.batches.view(new).model.version == 2


@pytest.mark.parametrize(
    "change",
    [
        {"model": "models:/things/Production"},
        {"lm": {"model": "openai/other"}},
        {"columns": {"message": "text"}},
        {"metric": {"kind": "exact_match"}},
        {"path": "another.csv"},
    ],
)
def test_answers_of_another_program_or_input_are_not_taken_over(client, world, document, tmp_path, change):
    put_version(world.registry, program(None, model=LOCAL_MODEL), "ONE")
    for name in ("rows.csv", "another.csv"):
        (tmp_path / name).write_text("message,text,product\n" + "My thing broke.,a,b\n" * 12)
    job_id = client.post("/api/batches", json=document).json()["job_id"]
    finish(world, job_id)
    if "path" in change:
        change = {"path": str(tmp_path / "another.csv")}
    refused = client.post("/api/batches", json={**document, **change, "earlier": job_id})
    assert (refused.status_code, refused.json()["code"]) == (409, "batch.earlier_other")
    assert next(iter(change)) in refused.json()["message"]
    allowed = client.post("/api/batches", json={**document, "earlier": job_id, "concurrency": 32})
    assert allowed.status_code == 202


def test_where_others_reach_it_a_batch_of_a_file_is_taken_up_again(document, settings):
    """It was made here; whoever takes it up again names no file, and opens none."""
    world = World(settings.model_copy(update={"host": "192.0.2.7", "insecure": True}))
    api = create_api(world.services, secret="s" * 40, local_user="local")
    shared = Client(api, base="http://192.0.2.7:7860")
    world = World(settings)
    job_id = world.services.batches.submit(BatchSpec(**document), who="tester").id
    finish(world, job_id)
    assert shared.post("/api/batches", json=document).json()["code"] == "batch.model_network"
    assert shared.post(f"/api/batches/{job_id}/again").status_code == 202


def test_an_output_is_written_by_one_batch_at_a_time(world, document, tmp_path):
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


def test_taken_up_again_another_way(client, world, document):
    job_id = client.post("/api/batches", json={**document, "requests_per_minute": 60}).json()["job_id"]
    finish(world, job_id)
    changes = {"concurrency": 32, "tokens_per_minute": 9000, "trace_sample": 0.5, "format": "csv"}
    again = client.post(f"/api/batches/{job_id}/again", json=changes).json()["job_id"]
    before, after = (world.services.batches.view(found).spec for found in (job_id, again))
    assert after == before.model_copy(update={**changes, "earlier": job_id, "overwrite": True})
    for change, code in (({"output": "x.csv"}, "batch.output_here"), ({"model": "m"}, "api.body")):
        answer = client.post(f"/api/batches/{job_id}/again", json=change)
        assert (answer.status_code, answer.json()["code"]) == (400, code)


@pytest.mark.parametrize("has_ended_well", [True, False])
def test_taken_up_again_only_its_own_output_is_replaced(world, document, tmp_path, has_ended_well):
    """One that was cancelled has written none: what is there by now is somebody else's."""
    batches = world.services.batches
    out, other = tmp_path / "out.csv", tmp_path / "other.jsonl"
    job_id = batches.submit(BatchSpec(**document, output=str(out)), who="tester").id
    if has_ended_well:
        finish(world, job_id)
    else:
        world.queue.cancel(job_id)
    out.write_text("there")

    def again(**changes):
        try:
            return batches.create(batches.again(job_id, BatchChanges(**changes)), who="tester")
        except DSPyUIError as exc:
            return exc.code

    other.write_text("mine")
    assert again(output=str(other)) == "batch.output_exists"
    other.unlink()
    job = again(output=str(other))
    spec = batches.view(job.id).spec
    assert (spec.output, spec.written_format, spec.overwrite) == (str(other), "jsonl", False)
    own = again()
    if has_ended_well:
        assert batches.view(own.id).spec.output == str(out)
    else:
        assert own == "batch.output_exists"
        assert batches.view(again(overwrite=True).id).spec.output == str(out)


BROKEN = b'{"message": "My thing0 broke."}\n{broken\n{"message": "My thing2 broke."}\n'


def test_a_file_with_a_broken_line_is_uploaded_for_a_batch(client, world, document):
    assert client.post("/api/data", params={"name": "reviews.jsonl"}, content=BROKEN).status_code == 400
    kept = client.post("/api/batches/files", params={"name": "reviews.jsonl"}, content=BROKEN)
    assert (kept.status_code, kept.json()["name"]) == (201, "reviews.jsonl")
    spec = {"model": document["model"], "upload": kept.json()["digest"]}
    started = client.post("/api/batches", json=spec)
    assert started.status_code == 202
    rows = list(
        world.services.batches._files.open(world.services.batches.view(started.json()["job_id"]).spec)
    )
    assert [row.fault.code if row.fault else None for row in rows] == [None, "file.json", None]


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        ("rows.jsonl", b"", "file.empty"),
        ("rows.pdf", b"%PDF", "file.ending"),
        ("rows.parquet", b"x", "file.parquet"),
    ],
)
def test_what_is_no_file_of_rows_is_not_kept(client, name, content, code):
    refused = client.post("/api/batches/files", params={"name": name}, content=content)
    assert (refused.status_code, refused.json()["code"]) == (400, code)
    assert client.get("/api/data").json() == []


def test_where_a_running_one_stands(client, world, document):
    job_id = client.post("/api/batches", json=document).json()["job_id"]
    summary = client.get(f"/api/batches/{job_id}").json()
    assert (summary["phase"], summary["started_at"], summary["seconds_left"]) == ("queued", None, None)
    moves = {"status": "running", "started_at": T0}
    world.jobs.update(job_id, lambda job: job.model_copy(update=moves))
    progress = BatchProgress(phase="running", total=1200, done=300, asked=300, seconds=10)
    world.services.batches._batches.write_progress(job_id, progress)
    (summary,) = client.get("/api/batches").json()
    assert (summary["phase"], summary["seconds_left"], summary["rows_per_second"]) == ("running", 30.0, 30.0)
    assert datetime.fromisoformat(summary["started_at"]) == T0
    finish(world, job_id)
    summary = client.get(f"/api/batches/{job_id}").json()
    assert (summary["status"], summary["phase"], summary["seconds_left"]) == ("done", None, None)


def test_the_dataset_of_an_upload_is_called_as_its_file_even_when_that_is_gone(client, world, document):
    kept = client.post("/api/batches/files", params={"name": "评论.jsonl"}, content=BROKEN).json()
    spec = {"model": document["model"], "upload": kept["digest"]}
    job_id = client.post("/api/batches", json=spec).json()["job_id"]
    finish(world, job_id)
    client.request("DELETE", f"/api/data/{kept['digest']}")
    record = batch_record(world.jobs.get(job_id), world.jobs, world.services.batches._batches)
    (dataset,) = record.datasets
    assert (dataset.name, dataset.source) == ("评论.jsonl", f"upload:{kept['digest']}")
    unknown = client.post("/api/batches", json={**spec, "upload": "0" * 64})
    assert (unknown.status_code, unknown.json()["code"]) == (404, "upload.unknown")
