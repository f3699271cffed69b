"""The routes under /api: what they answer, and how they say no."""

import json
import re
import subprocess
import sys
from datetime import UTC, datetime
from urllib.parse import quote

import pytest
import yaml
from pydantic import SecretStr

from dspyui import __version__
from dspyui.domain.runs import TrackingState
from dspyui.services.documents import dump_spec, parse_spec
from tests.api.world import DOCUMENT, MLFLOW, spec

EN = {"accept-language": "en-US,en;q=0.9"}
UNKNOWN = "20260101-000000-00000000"


def test_health_tells_version_and_tracking(client):
    assert client.get("/api/health").json() == {
        "status": "ok", "version": __version__, "tracking": "ready", "tracking_address": MLFLOW,
    }  # fmt: skip


def test_compile_queues_a_json_spec(client, world):
    answer = client.post("/api/compile", content=json.dumps(DOCUMENT))
    assert answer.status_code == 202
    job_id = answer.json()["job_id"]
    warnings = answer.json().pop("warnings")
    assert answer.json() == {"job_id": job_id, "url": f"/jobs/{job_id}", "warnings": warnings}
    assert world.queue.submitted == [job_id]
    assert world.jobs.get(job_id).who == "local"
    assert world.jobs.spec(job_id) == spec()


def test_compile_takes_yaml_too(client, world):
    job_id = client.post("/api/compile", content=dump_spec(spec()).encode()).json()["job_id"]
    assert world.jobs.spec(job_id) == spec()


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"[1, 2]", "spec.not_mapping"),
        (b"a: [", "spec.yaml"),
        (b"{}", "spec.missing"),
        (b"\xff\xfe\x00", "api.not_utf8"),
    ],
)
def test_compile_refuses_what_is_no_spec(client, world, body, code):
    answer = client.post("/api/compile", content=body, headers=EN)
    assert (answer.status_code, answer.json()["code"]) == (400, code)
    assert world.queue.submitted == []


def test_jobs_are_listed_newest_first(client, world):
    first, second = world.done(), world.failed()
    listed = client.get("/api/jobs").json()
    assert {item["id"] for item in listed} == {first, second}
    assert {item["status"] for item in listed} == {"done", "failed"}
    assert all(item["who"] == "tester" for item in listed)


def test_a_done_job_tells_scores_and_figures(client, world):
    job_id = world.done()
    summary = client.get(f"/api/jobs/{job_id}").json()["summary"]
    assert summary == {
        "job_id": job_id,
        "run_id": None,
        "run_url": None,
        "record": "pending",
        "status": "done",
        "baseline_score": 0.25,
        "evaluation_score": 0.75,
        "score_improvement": 0.5,
        "score_improvement_ci_low": 0.1,
        "score_improvement_ci_high": 0.9,
        "verdict": "too_few",
        "pairs": 1,
        "differing": 1,
        "repeats": 1,
        "by_field": {"product": {"baseline_score": 0.25, "evaluation_score": 0.75}},
        "unreadable": 0,
        "failed": 0,
        "score_errors": 0,
        "uncounted": 0,
        "program_path": world.programs.path(job_id),
        "duration_seconds": 12.5,
        "lm_calls": 7,
        "lm_cache_hits": 1,
        "input_tokens": 100,
        "output_tokens": 23,
        "total_tokens": 123,
        "embedding_calls": 0,
        "embedding_tokens": 0,
        "cost": None,
    }


def test_a_failed_job_says_why_in_the_callers_language(client, world):
    job_id = world.failed()
    english = client.get(f"/api/jobs/{job_id}", headers=EN).json()["error"]
    chinese = client.get(f"/api/jobs/{job_id}").json()["error"]
    assert english["code"] == chinese["code"] == "job.unexpected"
    assert "no such luck" in english["message"]
    assert english["message"] != chinese["message"]
    assert client.get(f"/api/jobs/{job_id}?lang=en_US").json()["error"] == english


@pytest.mark.parametrize("job_id", [UNKNOWN, "x", "%2e%2e%2fetc"])
@pytest.mark.parametrize("path", ["", "/program", "/files/log.txt"])
def test_an_unknown_job_is_404_in_json(client, job_id, path):
    answer = client.get(f"/api/jobs/{job_id}{path}", headers=EN)
    assert answer.status_code == 404
    assert set(answer.json()) == {"code", "message"}


def test_the_program_downloads_under_its_own_name(client, world):
    job_id = world.done()
    answer = client.get(f"/api/jobs/{job_id}/program")
    assert answer.text == world.programs.get(job_id).to_json()
    assert answer.headers["content-type"] == "application/json"
    # "产品 extraction_1.json": the slash is no part of a file's name, and RFC 5987 says the rest.
    expected = "attachment; filename*=utf-8''%E4%BA%A7%E5%93%81%20extraction_1.json"
    assert answer.headers["content-disposition"] == expected


def test_files_come_from_a_fixed_table(client, world):
    job_id = world.done()
    spec_text = client.get(f"/api/jobs/{job_id}/files/spec.yaml").text
    assert parse_spec(spec_text) == spec()
    assert yaml.safe_load(spec_text)["program"]["name"] == "产品 extraction/1"
    result = client.get(f"/api/jobs/{job_id}/files/result.json")
    assert result.json()["optimised"]["score"] == 0.75
    assert result.headers["content-disposition"] == f'attachment; filename="{job_id}-result.json"'
    assert client.get(f"/api/jobs/{job_id}/files/job.json", headers=EN).json()["code"] == "api.file"
    assert (
        client.get(f"/api/jobs/{job_id}/files/rows.parquet", headers=EN).json()["code"] == "api.file_not_yet"
    )
    assert client.get(f"/api/jobs/{job_id}/files/..%2F..%2Fsession_secret").status_code == 404


def test_cancel(client, world):
    job_id = world.submitted()
    answer = client.post(f"/api/jobs/{job_id}/cancel")
    assert (answer.status_code, answer.json()["status"]) == (202, "cancelled")
    assert client.post(f"/api/jobs/{UNKNOWN}/cancel").status_code == 404


def test_register_a_job_then_predict_by_stage(client, world):
    job_id = world.done()
    body = {"job_id": job_id, "name": "产品-抽取", "description": "d", "stage": "Staging", "why": "w"}
    refused = client.post("/api/register", json={**body, "why": ""})
    assert (refused.status_code, refused.json()["code"]) == (400, "registry.no_why")
    answer = client.post("/api/register", json=body)
    assert answer.json() == {
        "name": "产品-抽取",
        "version": 1,
        "stage": "Staging",
        "model_uri": "models:/产品-抽取/1",
        "url": f"{MLFLOW}/#/models/{quote('产品-抽取')}/versions/1",
        "run_id": f"run-{job_id}",
    }
    assert world.registry.who == ["local"]
    asked = {"model": "产品-抽取", "stage": "Staging", "inputs": {"message": "abc"}}
    found = client.post("/api/predict", json=asked).json()
    assert re.fullmatch(r"tr-[0-9a-f]{32}", found.pop("trace_id"))
    assert found == {
        "outputs": {"product": "ABC"}, "model": "models:/产品-抽取/1", "lm_calls": 1, "lm_cache_hits": 0,
        "input_tokens": 5, "output_tokens": 2, "total_tokens": 7, "cost": 0.0012, "seconds": 0.25,
    }  # fmt: skip


def test_register_a_run(client, world):
    job_id = world.done()
    world.services.record.ensure_run(job_id)
    answer = client.post("/api/register", json={"run_id": f"run-{job_id}", "name": "m"})
    assert (answer.status_code, answer.json()["stage"]) == (200, "None")


def test_register_and_predict_want_one_source(client):
    both = {"job_id": UNKNOWN, "run_id": "r", "name": "m"}
    assert client.post("/api/register", json=both, headers=EN).json()["code"] == "api.register_source"
    assert (
        client.post("/api/register", json={"name": "m"}, headers=EN).json()["code"] == "api.register_source"
    )
    half = {"model": "m", "inputs": {}}
    assert client.post("/api/predict", json=half, headers=EN).json()["code"] == "api.predict_source"


def test_predict_with_a_job(client, world):
    answer = client.post("/api/predict", json={"job_id": world.done(), "inputs": {"message": "x"}})
    assert answer.json()["outputs"] == {"product": "X"}


def test_a_body_that_does_not_fit_names_the_place(client):
    answer = client.post("/api/register", json={"name": "m", "stage": "Live"}, headers=EN)
    assert (answer.status_code, answer.json()["code"]) == (400, "api.body")
    assert "body.stage" in answer.json()["message"]


def test_mlflow_away_is_503(client, world):
    job_id = world.done()
    world.tracking.now = TrackingState(status="unreachable", address=MLFLOW)

    def away(*_args, **_more):
        world.tracking.address()

    world.runs.send = away
    answer = client.post("/api/register", json={"job_id": job_id, "name": "m"}, headers=EN)
    assert answer.status_code == 503


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE"])
def test_an_unknown_route_is_json(client, method):
    answer = client.request(method, "/api/nothing/here", headers=EN)
    assert (answer.status_code, answer.json()["code"]) == (404, "api.route")


def test_the_description_lists_the_routes_and_loads_nothing(client):
    paths = client.get("/api/openapi.json").json()["paths"]
    assert "/api/compile" in paths
    assert not any("{rest" in path for path in paths)
    assert client.get("/docs").status_code == 404
    assert client.get("/redoc").status_code == 404


def test_times_are_utc(client, world):
    listed = client.get(f"/api/jobs/{world.done()}").json()["job"]
    assert datetime.fromisoformat(listed["started_at"]) == datetime(2026, 11, 23, 8, 0, tzinfo=UTC)


def test_a_model_is_tested(client, world):
    answer = client.post("/api/lms/test", json={"model": "ollama/x", "timeout": 9}).json()
    assert answer == {"reply": "OK", "seconds": 0.25, "input_tokens": 9, "output_tokens": 1, "cost": 0.0}
    assert [(lm.model, lm.timeout) for lm in world.tester.asked] == [("ollama/x", 9)]
    for body, code in (
        ({"model": "gpt"}, "lm.model"),
        ({"model": "ollama/x", "timeout": 0}, "spec.invalid"),
        ({"model": "openai/x"}, "lm.key_unset"),
    ):
        answer = client.post("/api/lms/test", json=body)
        assert (answer.status_code, answer.json()["code"]) == (400, code)
    assert client.post("/api/lms/test", json={"model": "ollama/bad"}).json()["code"] == "engine.auth"


def test_models_and_keys_are_listed_by_name_alone(client, world):
    world.services.lms.set_key("GROQ_API_KEY", SecretStr("typed-in-0123456789"))
    answer = client.get("/api/lms")
    assert "typed-in" not in answer.text
    found = {item["provider"]: item["key"] for item in answer.json()["providers"]}
    assert (found["groq"], found["openai"]) == ("typed", "unset")
    assert "groq/openai/gpt-oss-20b" in answer.json()["models"]


CSV = b"message,product\n" + b"".join(b"m%d,p%d\n" % (n, n) for n in range(12))


def test_a_data_set_is_kept_listed_used_downloaded_and_deleted(client, world):
    kept = client.post("/api/data", params={"name": "../评论.csv"}, content=CSV)
    assert kept.status_code == 201
    item = kept.json()
    assert (item["name"], item["rows"], item["format"], item["columns"]) == (
        "评论.csv", 12, "csv", ["message", "product"],
    )  # fmt: skip
    assert client.get("/api/data").json() == [item]
    job_id = client.post("/api/compile", json={**DOCUMENT, "data": {"upload": item["digest"]}}).json()[
        "job_id"
    ]
    assert len(world.jobs.rows(job_id)) == 12
    world.services.uploads.rename(item["digest"], "Mine/../x")
    file = client.get(f"/api/data/{item['digest']}/file")
    assert file.content == CSV
    assert 'filename="x.csv"' in file.headers["content-disposition"]
    assert client.request("DELETE", f"/api/data/{item['digest']}").status_code == 204
    assert client.get("/api/data").json() == []


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [("a.png", b"x", "file.ending"), ("a.csv", b"", "file.empty"), ("a.csv", b"\x89PNG\0", "file.encoding")],
)
def test_a_file_that_cannot_be_read_is_not_kept(client, name, content, code):
    answer = client.post("/api/data", params={"name": name}, content=content, headers=EN)
    assert (answer.status_code, answer.json()["code"]) == (400, code)
    assert client.get("/api/data").json() == []


@pytest.mark.parametrize("digest", ["x", "0" * 64, "..%2f..%2fjobs.db"])
def test_a_data_set_that_is_not_there_is_not_found(client, digest):
    assert client.get(f"/api/data/{digest}/file").status_code == 404
    assert client.request("DELETE", f"/api/data/{digest}").status_code == 404


def test_the_routes_are_built_by_the_first_one_asked_for_and_not_before_a_page():
    code = (
        "import sys\nimport dspyui.server\n"
        "print(sorted(name for name in sys.modules if name in ('dspyui.api.routers', 'dspyui.api.routes')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
