"""The traces of a Run and of a version over the API."""

import pytest

from dspyui.domain.registry import RegisterRequest
from dspyui.errors import NotFoundError, UnavailableError
from tests.api.world import program
from tests.trace_world import call

EN = {"accept-language": "en-US,en;q=0.9"}


def test_the_traces_of_a_run_a_page_at_a_time(client, world):
    calls = [call(f"m{n}", number=n, cost=0.5) for n in range(3)]
    for trace in calls:
        world.traces.put("r1", trace)
    world.traces.assess(calls[2], "ok", True, rationale="right")
    first = client.get("/api/runs/r1/traces", params={"size": 2}).json()
    assert [trace["trace_id"] for trace in first["traces"]] == [calls[2].mlflow_id, calls[1].mlflow_id]
    shown = first["traces"][0]
    assert (shown["state"], shown["latency_ms"], shown["total_tokens"], shown["cost"]) == ("OK", 20, 13, 0.5)
    assert shown["inputs"] == '{"message": "m2"}'
    assert shown["assessments"][0] == {
        "name": "ok", "kind": "feedback", "value": True, "source": "HUMAN", "source_id": "anna",
        "rationale": "right", "error": "",
    }  # fmt: skip
    asked = {"size": 2, "page_token": first["next_page_token"]}
    second = client.get("/api/runs/r1/traces", params=asked).json()
    assert [trace["trace_id"] for trace in second["traces"]] == [calls[0].mlflow_id]
    assert second["next_page_token"] is None


def test_they_are_filtered(client, world):
    calls = [call(number=0, ms=5, tokens=(1, 1)), call(number=1, ms=900, tokens=(50, 1), error="E: x")]
    for trace in calls:
        world.traces.put("r1", trace)
    world.traces.assess(calls[0], "stars", 4)

    def found(**asked):
        told = client.get("/api/runs/r1/traces", params=asked).json()["traces"]
        return [[trace.mlflow_id for trace in calls].index(trace["trace_id"]) for trace in told]

    assert (found(status="ERROR"), found(text="lamp"), found(min_ms=10), found(min_tokens=10)) == (
        [1], [1, 0], [1], [1],
    )  # fmt: skip
    assert (found(assessment="stars"), found(assessment="stars", value="4.0")) == ([0], [0])
    assert found(assessment="stars", assessed="expectation") == []


def test_the_traces_of_a_version(client, world):
    request = RegisterRequest(run_id="r1", name="抽取 1", who="t")
    world.registry.register(request, program(), tags={}, input_example={})
    mine = call(tags={"dspyui.model_name": "抽取 1", "dspyui.model_version": "1"})
    world.traces.put("r1", mine)
    world.traces.put("r1", call())
    told = client.get("/api/models/抽取 1/versions/1/traces").json()
    assert [trace["trace_id"] for trace in told["traces"]] == [mine.mlflow_id]
    assert client.get("/api/models/抽取 1/versions/2/traces").status_code == 404
    assert client.get("/api/models/抽取 1/versions/x/traces").json()["code"] == "api.body"


@pytest.mark.parametrize(
    ("asked", "code"),
    [({"status": "X"}, "api.body"), ({"min_ms": -1}, "api.body"), ({"sise": 1}, "api.body"),
     ({"page_token": "nonsense"}, "run.page_token"), ({"value": "4"}, "trace.value_alone")],
)  # fmt: skip
def test_a_question_that_is_none_is_refused(client, world, asked, code):
    answer = client.get("/api/runs/r1/traces", params=asked, headers=EN)
    assert (answer.status_code, answer.json()["code"]) == (400, code)


def test_an_odd_number_breaks_nothing(client, world):
    trace = call()
    world.traces.put("r1", trace)
    odd = float("nan")
    for value in (odd, [1.0, odd, "x"], {"a": {"b": [-float("inf")]}}):
        world.traces.assess(trace, "loss", value)
    told = client.get("/api/runs/r1/traces").json()
    values = [said["value"] for said in told["traces"][0]["assessments"]]
    assert values == [None, [1.0, None, "x"], {"a": {"b": [None]}}]


def test_a_run_that_is_not_there_and_a_server_that_is_away_are_told(client, world):
    world.traces.away = NotFoundError("run.unknown", run_id="r1", address="http://x")
    assert client.get("/api/runs/r1/traces").status_code == 404
    world.traces.away = UnavailableError("mlflow.unavailable", address="http://x", problem="away")
    answer = client.get("/api/runs/r1/traces")
    assert (answer.status_code, answer.json()["code"]) == (503, "mlflow.unavailable")
