"""Calling a program on one row over HTTP, and saying what its answer is worth."""

import asyncio
import json
from threading import Event

import httpx
import pytest

from dspyui.api.app import create_api
from dspyui.domain.batches import BatchSpec
from dspyui.domain.registry import RegisterRequest
from dspyui.errors import BadRequestError
from tests.api.conftest import BASE, Client
from tests.api.world import World, program

EN = {"accept-language": "en"}
INPUTS = {"message": "abc"}


@pytest.fixture
def version(world: World):
    """Version 1 of `m`, in Production, with the alias `champion`."""
    request = RegisterRequest(run_id="r1", name="m", stage="Production", who="tester")
    made = world.registry.register(request, program(), tags={}, input_example={})
    world.registry.set_alias("m", "champion", 1)
    return made


@pytest.fixture
def call(client: Client):
    def call(**body):
        return client.post("/api/predict", json={"inputs": INPUTS, **body}, headers=EN)

    return call


@pytest.mark.parametrize(
    "named",
    [
        {"model": "m", "version": 1},
        {"model": "m", "stage": "Production"},
        {"model": "m", "alias": "champion"},
        {"model": "models:/m/1"},
        {"model": "models:/m@champion"},
        {"model": "models:/m/production"},
    ],
)
def test_a_version_is_called_by_number_stage_or_alias(call, version, named):
    answer = call(**named).json()
    assert (answer["outputs"], answer["model"]) == ({"product": "ABC"}, version.model_uri)


def test_a_run_a_job_a_file_and_a_document(call, world, tmp_path):
    job_id = world.done()
    world.services.record.ensure_run(job_id)
    path = tmp_path / "p.json"
    path.write_text(program().to_json())
    document = json.loads(program().to_json())
    for named, uri in (
        ({"run_id": f"run-{job_id}"}, f"runs:/run-{job_id}"),
        ({"model": f"runs:/run-{job_id}"}, f"runs:/run-{job_id}"),
        ({"job_id": job_id}, f"job:{job_id}"),
        ({"model": str(path)}, "p.json"),
        ({"program": document}, "program"),
    ):
        answer = call(**named)
        assert answer.status_code == 200, answer.text
        assert (answer.json()["outputs"], answer.json()["model"]) == ({"product": "ABC"}, uri)


@pytest.mark.parametrize(
    "named",
    [
        {},
        {"model": "m"},
        {"version": 1},
        {"model": "m", "version": 1, "alias": "champion"},
        {"model": "models:/m/1", "version": 1},
        {"model": "models:/m/1", "job_id": "j"},
        {"run_id": "r", "job_id": "j"},
        {"run_id": "r", "stage": "Production"},
    ],
)
def test_none_or_more_than_one_program_is_refused(call, version, named):
    answer = call(**named)
    assert (answer.status_code, answer.json()["code"]) == (400, "api.predict_source")


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"model": "m", "version": 9}, 404, "registry.no_version"),
        ({"program": {"x": 1}}, 400, "program.unreadable"),
        ({"model": "no/such.json"}, 404, "batch.model_missing"),
        ({"model": "m", "version": 1, "inputs": {}}, 400, "value.missing"),
        ({"model": "m", "version": 1, "seconds": 0}, 400, "api.body"),
        ({"model": "m", "version": 1, "inputs": {"message": "broken"}}, 500, "predict.unreadable"),
        (
            {"model": "m", "version": 1, "inputs": {"message": "slow"}, "seconds": 0.05},
            500,
            "predict.timeout",
        ),
    ],
)
def test_what_goes_wrong_is_said(call, version, body, status, code):
    answer = call(**body)
    assert (answer.status_code, answer.json()["code"]) == (status, code)


def test_a_call_is_traced_as_the_apis(call, world, version):
    answer = call(model="m", version=1).json()
    (tags,) = [made.tags for made in world.runner.calls]
    assert (tags["dspyui.source"], tags["dspyui.user"]) == ("api", "local")
    assert answer["trace_id"].startswith("tr-")


def test_feedback_is_kept_with_the_trace_and_changed_by_the_next(call, client, world, version):
    trace_id = call(model="m", version=1).json()["trace_id"]
    given = {
        "trace_id": trace_id,
        "thumbs_up": False,
        "comment": "no lamp",
        "correction": {"product": "lamp"},
    }
    answer = client.post("/api/feedback", json=given)
    assert (answer.status_code, answer.json()) == (200, {**given, "who": "local"})
    changed = client.post("/api/feedback", json={"trace_id": trace_id, "thumbs_up": True}).json()
    assert changed == {**given, "thumbs_up": True, "comment": "", "who": "local"}
    assert client.get(f"/api/feedback/{trace_id}").json() == changed


def test_feedback_on_an_unknown_trace_is_no_success(client):
    body = {"trace_id": "tr-" + "0" * 32, "thumbs_up": True}
    for answer in (
        client.post("/api/feedback", json=body, headers=EN),
        client.get(f"/api/feedback/{body['trace_id']}", headers=EN),
    ):
        assert (answer.status_code, answer.json()["code"]) == (404, "feedback.no_trace")
        assert "nothing was stored" in answer.json()["message"]


def test_feedback_while_mlflow_is_away_is_503(call, client, world, version):
    trace_id = call(model="m", version=1).json()["trace_id"]
    world.feedback.away = True
    answer = client.post("/api/feedback", json={"trace_id": trace_id, "thumbs_up": True}, headers=EN)
    assert (answer.status_code, answer.json()["code"]) == (503, "feedback.waits")
    assert world.feedback.held == {}


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({}, "feedback.empty"),
        ({"comment": "x"}, "feedback.comment_alone"),
        ({"correction": {"produkt": "x"}}, "feedback.field"),
        ({"correction": {"product": None}}, "value.missing"),
        ({"thumbs": True}, "api.body"),
    ],
)
def test_feedback_that_does_not_fit_is_refused(call, client, version, body, code):
    trace_id = call(model="m", version=1).json()["trace_id"]
    answer = client.post("/api/feedback", json={"trace_id": trace_id, **body}, headers=EN)
    assert (answer.status_code, answer.json()["code"]) == (400, code)


def test_where_others_reach_the_program_nobody_opens_a_file_by_its_path(call, settings, tmp_path):
    path = tmp_path / "p.json"
    path.write_text(program().to_json())
    shared = World(settings.model_copy(update={"host": "192.0.2.7", "insecure": True}))
    client = Client(
        create_api(shared.services, secret="s" * 40, local_user="local"), base="http://192.0.2.7:7860"
    )
    spec = BatchSpec(model=str(path), path=str(tmp_path / "rows.csv"))
    for name in (str(path), "no/such.json", " /etc/passwd.json"):
        answer = client.post("/api/predict", json={"inputs": INPUTS, "model": name}, headers=EN)
        assert (answer.status_code, answer.json()["code"]) == (400, "batch.model_network")
        for queue in (shared.services.batches.submit, shared.services.batches.try_rows):
            with pytest.raises(BadRequestError) as caught:
                queue(spec.model_copy(update={"model": name}), who="x")
            assert caught.value.code == "batch.model_network"
    # The command line reads the person's own files, wherever the server listens.
    assert shared.services.predict.find(str(path)).uri == "p.json"
    assert call(model=str(path)).status_code == 200


def test_calls_that_wait_hold_up_no_other_route(world, version):
    """More of them than the pool of all other routes has threads."""
    app = create_api(world.services, secret="s" * 40, local_user="local")
    answered, predict, entered = Event(), world.runner.predict, []

    def waits(asked, patience):
        entered.append(asked)
        answered.wait(60)
        return predict(asked, patience)

    async def talk() -> tuple[int, set[int]]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=BASE) as client:
            body = {"model": "m", "version": 1, "inputs": INPUTS}
            calls = [asyncio.create_task(client.post("/api/predict", json=body)) for _ in range(41)]
            try:
                async with asyncio.timeout(30):
                    while len(entered) < 40:
                        await asyncio.sleep(0.01)
                    health = await client.get("/api/health")
            finally:
                answered.set()
            return health.status_code, {answer.status_code for answer in await asyncio.gather(*calls)}

    world.runner.predict = waits
    assert asyncio.run(talk()) == (200, {200})
