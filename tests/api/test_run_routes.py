"""The routes under /api/runs: what they answer, and how they say no."""

import pytest

from dspyui.domain.registry import RegisterRequest
from tests.api.world import program
from tests.run_world import Shelf, result

EN = {"accept-language": "en-US,en;q=0.9"}


@pytest.fixture
def shelf(world, tmp_path):
    return Shelf(world, tmp_path / "shelf")


def test_runs_are_listed_a_page_at_a_time(client, world, shelf):
    runs = [shelf.put(result([1.0, 0.0])) for _ in range(3)]
    request = RegisterRequest(run_id=runs[2], name="抽取", who="t")
    world.registry.register(request, program(), tags={}, input_example={})
    first = client.get("/api/runs", params={"size": 2}).json()
    assert [run["run_id"] for run in first["runs"]] == [runs[2], runs[1]]
    shown = first["runs"][0]
    assert (shown["evaluation_score"], shown["baseline_score"], shown["score_improvement"]) == (0.5, 0.0, 0.5)
    assert (shown["module"], shown["optimizer"], shown["lm"]) == (
        "Predict",
        "LabeledFewShot",
        "local/smollm2-135m",
    )
    assert (shown["cost"], shown["deleted"], shown["status"]) == (0.012, False, "FINISHED")
    assert shown["registered_as"] == [{"name": "抽取", "version": 1}]
    token = first["next_page_token"]
    second = client.get("/api/runs", params={"size": 2, "page_token": token}).json()
    assert [run["run_id"] for run in second["runs"]] == [runs[0]]
    assert second["next_page_token"] is None


def test_runs_are_filtered_and_sorted(client, shelf):
    low = shelf.put(result([1.0, 0.0]), name="low")
    high = shelf.put(result([1.0, 1.0]), name="high", optimizer={"kind": "none"})

    def found(**asked):
        return [run["run_id"] for run in client.get("/api/runs", params=asked).json()["runs"]]

    assert found(sort="score") == [high, low]
    assert found(sort="score", descending="false") == [low, high]
    assert found(name="LOW") == [low]
    assert found(optimizer="None") == [high]
    assert found(state="FAILED") == []


def test_a_batch_s_run_is_told_apart_and_filtered_by(client, shelf):
    made, batch = shelf.put(), shelf.put_batch()
    for kind, run_id in (("compile", made), ("batch", batch)):
        (found,) = client.get("/api/runs", params={"kind": kind}).json()["runs"]
        assert (found["run_id"], found["kind"]) == (run_id, kind)
    told = client.get(f"/api/runs/{batch}").json()
    assert (told["run"]["kind"], told["spec"], told["result"], told["notices"]) == ("batch", None, None, [])
    assert (told["metrics"]["total_rows"], told["metrics"]["score"], told["run"]["cost"]) == (12, 0.8, 0.25)
    fetched = client.get(f"/api/runs/{batch}/files/errors.jsonl")
    assert fetched.json() == {"message": "My lamp", "product": "lamp"}


@pytest.mark.parametrize(
    ("asked", "code"),
    [({"sort": "x"}, "api.body"), ({"kind": "x"}, "api.body"), ({"size": 0}, "api.body"), ({"nmae": "x"}, "api.body"),
     ({"page_token": "nonsense"}, "run.page_token")],
)  # fmt: skip
def test_a_question_that_is_none_is_refused(client, shelf, asked, code):
    answer = client.get("/api/runs", params=asked, headers=EN)
    assert (answer.status_code, answer.json()["code"]) == (400, code)


def test_one_run_is_told_whole(client, shelf):
    run_id = shelf.put(result([1.0, 0.0]))
    told = client.get(f"/api/runs/{run_id}").json()
    assert told["run"]["run_id"] == run_id
    assert told["verdict"] == "too_few"
    assert told["spec"]["optimizer"]["kind"] == "labeled_few_shot"
    assert [row["score"] for row in told["result"]["optimised"]["rows"]] == [1.0, 0.0]
    assert told["params"]["module"] == "Predict"
    assert told["notices"] == []


def test_a_run_that_holds_less_says_what_is_missing_and_no_odd_number_breaks_it(client, shelf):
    run_id = shelf.put()
    del shelf.store.files[run_id]["evaluation/result.json"]
    record = shelf.store.records[run_id]
    metrics = {**record.metrics, "loss": float("nan"), "cost": float("inf")}
    shelf.store.records[run_id] = record.model_copy(update={"metrics": metrics})
    told = client.get(f"/api/runs/{run_id}", headers={"accept-language": "zh"}).json()
    assert told["result"] is None
    assert "MLFLOW_LOG_EVALS=false" in told["notices"][0]
    assert "没有数据行" in told["notices"][0]
    assert told["metrics"]["loss"] is None
    assert told["run"]["cost"] is None


def test_a_file_of_a_run_is_downloaded(client, shelf):
    found = result([1.0])
    run_id = shelf.put(found)
    answer = client.get(f"/api/runs/{run_id}/files/result.json")
    assert answer.content == found.model_dump_json().encode()
    assert f"{run_id}-result.json" in answer.headers["content-disposition"]
    for name, code in (("passwd", "api.file"), ("train.jsonl", "run.no_file")):
        answer = client.get(f"/api/runs/{run_id}/files/{name}")
        assert (answer.status_code, answer.json()["code"]) == (404, code)


def test_runs_are_compared(client, shelf):
    one, two = shelf.put(result([0.0] * 8)), shelf.put(result([1.0] * 8), seed=3)
    batch = shelf.put_batch()
    told = client.get("/api/runs/compare", params={"ids": [one, batch, two]}).json()
    assert told.pop("left_out") == [batch]
    assert client.get("/api/runs/compare", params={"ids": [one, two]}).json() == {**told, "left_out": []}
    (test,) = told["tests"]
    assert (test["first"], test["second"], test["verdict"], test["method"]) == (one, two, "second", "mcnemar")
    assert (test["difference"], test["rows"], test["differing"], test["rows_needed"]) == (1.0, 8, 8, None)
    assert told["common_rows"] == 8
    assert told["params"] == {"seed": ["0", "3"]}
    assert told["runs"][1]["common"]["value"] == 1.0
    assert told["disagreements"][0]["scores"] == [0.0, 1.0]
    assert told["obstacle"] is None


def test_what_cannot_be_compared_says_why(client, shelf):
    one, two = shelf.put(result([0.0])), shelf.put(result([1.0], first=5))
    told = client.get("/api/runs/compare", params={"ids": [one, two]}, headers=EN).json()
    assert told["tests"] == []
    assert "no test row in common" in told["obstacle"]
    answer = client.get("/api/runs/compare", params={"ids": [one]})
    assert (answer.status_code, answer.json()["code"]) == (400, "run.compare_count")
    assert client.get("/api/runs/compare").status_code == 400
    answer = client.get("/api/runs/compare", params={"ids": [one, "none"]})
    assert (answer.status_code, answer.json()["code"]) == (404, "run.unknown")


def test_a_run_is_deleted_and_restored(client, shelf):
    run_id = shelf.put()
    assert client.request("DELETE", f"/api/runs/{run_id}").status_code == 204
    assert client.get("/api/runs").json()["runs"] == []
    assert client.get("/api/runs", params={"deleted": "true"}).json()["runs"][0]["run_id"] == run_id
    assert client.get(f"/api/runs/{run_id}").json()["run"]["deleted"] is True
    assert client.post(f"/api/runs/{run_id}/restore").status_code == 204
    assert len(client.get("/api/runs").json()["runs"]) == 1
    for answer in (client.request("DELETE", "/api/runs/none"), client.post("/api/runs/none/restore"),
                   client.get("/api/runs/none")):  # fmt: skip
        assert (answer.status_code, answer.json()["code"]) == (404, "run.unknown")


def test_a_server_that_is_away_is_told(client, shelf):
    run_id = shelf.put()
    shelf.store.away = True
    for path in ("/api/runs", f"/api/runs/{run_id}", f"/api/runs/compare?ids={run_id}&ids=x"):
        answer = client.get(path)
        assert (answer.status_code, answer.json()["code"]) == (503, "mlflow.unavailable")
