"""The routes under /api/models."""

import pytest

from dspyui.api.app import create_api
from dspyui.domain.registry import RegisterRequest
from tests.api.conftest import Client
from tests.api.world import World, program
from tests.run_world import Shelf, result

NAME = "抽取 1"
EN = {"accept-language": "en-US,en;q=0.9"}
WHY = {"why": "because"}


@pytest.fixture
def shelf(world, tmp_path) -> Shelf:
    return Shelf(world, tmp_path / "shelf")


@pytest.fixture
def two(world, shelf):
    """Two versions: the first scored 1.00, the second 0.00."""
    for scores in ([1.0] * 12, [0.0] * 12):
        request = RegisterRequest(run_id=shelf.put(result(scores)), name=NAME, who="t")
        tags = {"dspyui.evaluation_score": f"{scores[0]:.4f}", "dspyui.data_digest": "d" * 64}
        world.registry.register(request, program(), tags=tags, input_example={})
    return f"/api/models/{NAME}"


def moved(client, address, number, stage, **more):
    return client.post(f"{address}/versions/{number}/stage", json={"stage": stage, **WHY, **more}, headers=EN)


def test_models_are_listed_and_one_is_opened(client, world, two):
    world.registry.put("other", file="data/model.pkl")
    answer = client.get("/api/models", params={"name": "抽", "sort": "name", "size": 1}).json()
    assert [model["name"] for model in answer["models"]] == [NAME]
    assert answer["next_token"] is None
    newest = answer["models"][0]["newest"]
    assert (newest["version"], newest["evaluation_score"], newest["data_digest"]) == (2, 0.0, "d" * 64)
    page = client.get(two, params={"size": 1}).json()
    assert [version["version"] for version in page["versions"]] == [2]
    rest = client.get(two, params={"size": 1, "page_token": page["next_token"]}).json()
    assert [version["version"] for version in rest["versions"]] == [1]
    foreign = client.get("/api/models/other", headers=EN).json()["versions"][0]
    assert "data/model.pkl" in foreign["unloadable"]
    quick = client.get("/api/models/other", params={"look": "false"}).json()["versions"][0]
    assert (quick["version"], quick["unloadable"]) == (1, None)


def test_a_promotion_tells_what_it_needs_and_who_did_it_is_kept(client, world, two):
    assert client.get(f"{two}/versions/1/gate", headers=EN).json()["word"] == "first"
    assert moved(client, two, 1, "Production").json()["stage"] == "Production"
    gate = client.get(f"{two}/versions/2/gate", headers=EN).json()
    assert (gate["mode"], gate["word"], gate["holder"], gate["needs_confirmation"]) == (
        "warn",
        "worse",
        1,
        True,
    )
    assert (gate["difference"], gate["rows"], gate["own_rows"]) == (-1.0, 12, 12)
    refused = moved(client, two, 2, "Production")
    assert (refused.status_code, refused.json()["code"]) == (409, "gate.confirm")
    assert gate["message"] in refused.json()["message"]
    answer = moved(client, two, 2, "Production", confirm=NAME).json()
    entry = answer["history"][-1]
    assert (entry["who"], entry["why"], entry["gate"], entry["confirmed"]) == (
        "local",
        "because",
        "worse",
        NAME,
    )
    late = moved(client, two, 1, "Production", holder=1)
    assert (late.status_code, late.json()["code"]) == (409, "registry.other_holder")
    back = client.post(f"{two}/rollback", json={**WHY, "holder": 2}).json()
    again = client.post(f"{two}/rollback", json={**WHY, "holder": 2})
    assert (again.status_code, again.json()["code"]) == (409, "registry.no_holder")
    assert (back["version"], back["stage"], back["history"][-1]["kind"]) == (1, "Production", "rollback")
    left = client.get(f"{two}/versions/2").json()["history"][-1]
    assert (left["to_stage"], left["by"]) == ("Archived", 1)


@pytest.mark.parametrize(("mode", "status", "code"), [("off", 200, None), ("require", 409, "gate.refused")])
def test_the_gates_setting_counts_here_too(settings, tmp_path, mode, status, code):
    world = World(settings.model_copy(update={"promotion_gate": mode}))
    client = Client(create_api(world.services, secret="s" * 40, local_user="local"))
    world.registry.put(NAME)
    answer = moved(client, f"/api/models/{NAME}", 1, "Production", confirm=NAME)
    assert (answer.status_code, answer.json().get("code")) == (status, code)


def test_registering_into_production_takes_the_confirmation(client, world, two):
    moved(client, two, 1, "Production")
    body = {"job_id": world.done(), "name": NAME, "stage": "Production", "why": "w"}
    # The job's Run is not among those that hold rows: it was never tested against the one that is there.
    assert client.post("/api/register", json=body).json()["code"] == "gate.confirm"
    assert client.post("/api/register", json={**body, "confirm": NAME}).json()["stage"] == "Production"


def test_aliases_labels_and_deletions(client, world, two):
    assert client.request("PUT", f"{two}/aliases/champion", json={"version": 1}).json()["aliases"] == [
        "champion"
    ]
    refused = client.request("PUT", f"{two}/aliases/v7", json={"version": 1})
    assert (refused.status_code, refused.json()["code"]) == (400, "alias.version")
    kept = client.request("DELETE", f"{two}/versions/1")
    assert (kept.status_code, kept.json()["code"]) == (409, "registry.has_alias")
    assert client.request("DELETE", two).json()["code"] == "registry.model_has_alias"
    assert client.request("DELETE", f"{two}/aliases/champion").status_code == 204
    body = {"description": "d", "tags": {"team": "search"}}
    version = client.request("PATCH", f"{two}/versions/1", json=body).json()
    assert (version["description"], version["tags"]["team"]) == ("d", "search")
    model = client.request("PATCH", two, json={"tags": {"a": "b"}}).json()
    assert (model["description"], model["tags"]) == ("", {"a": "b"})
    assert client.request("PATCH", two, json={"tags": {"dspyui.x": "b"}}).json()["code"] == "tag.reserved"
    assert client.request("DELETE", f"{two}/versions/1").status_code == 204
    assert client.get(f"{two}/versions/1").status_code == 404
    assert client.request("DELETE", two).status_code == 204
    assert client.get(two).json()["code"] == "registry.no_model"


@pytest.mark.parametrize(
    ("path", "body", "code"),
    [
        ("versions/1/stage", {"stage": "Best", "why": "w"}, "api.body"),
        ("versions/1/stage", {"stage": "Staging"}, "api.body"),
        ("versions/1/stage", {"stage": "Staging", "why": " "}, "registry.no_why"),
        ("versions/9/stage", {"stage": "Staging", "why": "w"}, "registry.no_version"),
        ("rollback", {"why": "w"}, "registry.no_previous"),
    ],
)
def test_what_cannot_be_is_told(client, two, path, body, code):
    assert client.post(f"{two}/{path}", json=body).json()["code"] == code


def test_a_stage_with_no_version_is_told_where_it_is_asked_for(client, two):
    body = {"model": NAME, "stage": "Staging", "inputs": {"message": "m"}}
    answer = client.post("/api/predict", json=body, headers=EN)
    assert (answer.status_code, answer.json()["code"]) == (404, "registry.no_stage")
    assert "Staging" in answer.json()["message"]


def test_without_the_server_it_is_unavailable(client, world, two):
    world.registry.away = True
    for path in ("/api/models", two, f"{two}/versions/1"):
        assert client.get(path).status_code == 503
