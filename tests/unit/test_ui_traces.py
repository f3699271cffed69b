"""The list of traces on the pages of a Run and of a version."""

import pytest
from nicegui.testing import User

from dspyui.domain.registry import RegisterRequest
from dspyui.domain.trace_list import TraceAssessment, TraceQuery
from dspyui.errors import UnavailableError
from dspyui.ui.trace_views import readable, trace_parameters, trace_query, verdict
from tests.api.world import World, program
from tests.pages import element, exists, sees, until, words
from tests.run_world import Shelf
from tests.trace_world import call


@pytest.fixture
def run_id(world: World, tmp_path) -> str:
    return Shelf(world, tmp_path / "shelf").put()


async def opened(user: User, address: str, mark: str) -> None:
    await user.open(address)
    await until(sees(user, marker=mark))


async def test_a_run_shows_its_traces_with_what_they_cost_and_what_was_said_of_them(
    user: User, world: World, run_id: str
):
    good = call("My <b>lamp</b>", number=1, ms=2500, tokens=(1200, 34), cost=0.0125)
    bad = call("Where?", number=0, error="ParseError: nothing")
    for trace in (good, bad):
        world.traces.put(run_id, trace)
    world.traces.assess(good, "ok", True, rationale="it is <i>right</i>")
    world.traces.assess(good, "output", {"product": "a lamp", "n": 1}, kind="expectation")
    await opened(user, f"/runs/{run_id}", f"trace-{good.mlflow_id}")
    said = words(user, "traces")
    for part in ("message: My <b>lamp</b>", "product: lamp", "1,234", "$0.013", "2.5 s", "20 ms", "OK", "Failed",
                 "ok: true", "it is <i>right</i>", "expected output: product: a lamp, n: 1", "2 traces"):  # fmt: skip
        assert part in said, part
    link = element(user, f"trace-{good.mlflow_id}")
    assert f"selectedEvaluationId={good.mlflow_id}" in link.props["href"]
    assert link.props["target"] == "_blank"


async def test_it_is_filtered_and_paged_by_the_server(user: User, world: World, run_id: str):
    calls = [call(f"call {n}", number=n, ms=10 * n, tokens=(n, 0)) for n in range(23)]
    for trace in calls:
        world.traces.put(run_id, trace)
    world.traces.assess(calls[7], "stars", 4)
    oldest, newest = f"trace-{calls[0].mlflow_id}", f"trace-{calls[22].mlflow_id}"
    await opened(user, f"/runs/{run_id}", newest)
    assert words(user, "traces-range").strip() == "1–20, more follow"
    assert not exists(user, marker=oldest)
    user.find(marker="traces-next").click()
    await until(sees(user, marker=oldest))
    assert words(user, "traces-range").strip() == "21–23 of 23 traces"
    element(user, "traces-min_ms").set_value(150)  # type: ignore[attr-defined]
    await until(lambda: words(user, "traces-range").strip() == "8 traces")
    element(user, "traces-min_tokens").set_value(20)  # type: ignore[attr-defined]
    await until(lambda: words(user, "traces-range").strip() == "3 traces")
    assert "Only calls that DSPyUI traced" in words(user, "traces-note")
    assert not element(user, "traces-value").enabled  # type: ignore[attr-defined]
    user.find(marker="traces-assessment").type("stars")
    await until(sees(user, marker="traces-no-fit"))
    assert element(user, "traces-value").enabled  # type: ignore[attr-defined]
    user.find(marker="traces-all").click()
    await until(sees(user, marker=newest))


async def test_scored_calls_tell_their_step_score_and_what_was_expected(
    user: User, world: World, run_id: str
):
    tags = {"dspyui.score": "0.5000", "dspyui.expected": '{"product": "a lamp"}'}
    before, after = (
        call(number=number, tags={**tags, "dspyui.phase": phase})
        for number, phase in enumerate(("baseline", "evaluating"))
    )
    for trace in (before, after):
        world.traces.put(run_id, trace)
    await opened(user, f"/runs/{run_id}", f"trace-{before.mlflow_id}")
    said = words(user, "traces")
    for part in ("Baseline, test rows", "Optimised, test rows", "0.50", "Expected:", "product: a lamp"):
        assert part in said, part
    element(user, "traces-phase").set_value("evaluating")  # type: ignore[attr-defined]
    await until(lambda: not exists(user, marker=f"trace-{before.mlflow_id}"))
    assert exists(user, marker=f"trace-{after.mlflow_id}")


async def test_what_is_looked_for_comes_from_the_address(user: User, world: World, run_id: str):
    calls = [call(number=n, error="E: x" if n else None) for n in range(2)]
    for trace in calls:
        world.traces.put(run_id, trace)
        world.traces.assess(trace, "ok", trace is calls[0])
    address = f"/runs/{run_id}?trace_assessment=ok&trace_value=true&trace_min_ms=x&rows=all"
    await opened(user, address, f"trace-{calls[0].mlflow_id}")
    assert not exists(user, marker=f"trace-{calls[1].mlflow_id}")
    element(user, "traces-status").set_value("ERROR")  # type: ignore[attr-defined]
    await until(sees(user, marker="traces-no-fit"))
    # The value goes with the name it belongs to.
    user.find(marker="traces-assessment").clear()
    await until(sees(user, marker=f"trace-{calls[1].mlflow_id}"))
    assert element(user, "traces-value").value == ""  # type: ignore[attr-defined]


async def test_a_version_shows_its_own_and_where_none_is_yet_it_says_how_to_get_some(
    user: User, world: World
):
    for number in (1, 2):
        request = RegisterRequest(run_id=f"r{number}", name="抽取 1", who="t")
        world.registry.register(request, program(), tags={}, input_example={})
    mine = call(tags={"dspyui.model_name": "抽取 1", "dspyui.model_version": "1"})
    world.traces.put("r1", mine)
    await opened(user, "/models/抽取 1/1", f"trace-{mine.mlflow_id}")
    await opened(user, "/models/抽取 1/2?lang=zh", "traces-empty")
    assert "还没有已记录的调用" in words(user, "traces-empty")
    assert element(user, "traces-batch").props["href"] == "/batch"


async def test_a_run_without_traces_says_why_that_may_be(user: User, world: World, run_id: str):
    await opened(user, f"/runs/{run_id}", "traces-empty")
    assert "MLFLOW_LOG_TRACES=false" in words(user, "traces-empty")
    assert element(user, "traces-waiting").props["href"] == "/settings"


async def test_a_server_that_is_away_is_told_where_the_traces_would_be(user: User, world: World, run_id: str):
    world.traces.away = UnavailableError("mlflow.unavailable", address="http://x", problem="away")
    await opened(user, f"/runs/{run_id}", "load-problem")
    assert "does not answer" in words(user, "traces")
    trace = call()
    world.traces.away = None
    world.traces.put(run_id, trace)
    await until(sees(user, marker=f"trace-{trace.mlflow_id}"))


def test_an_address_says_the_whole_query() -> None:
    query = TraceQuery(status="ERROR", text="a&b 你", min_ms=5, min_tokens=7, assessment="stars",
                       assessed="expectation", value="4")  # fmt: skip
    asked = {name: value for name, value in trace_parameters(query).items() if value is not None}
    assert trace_query(asked) == query
    assert set(trace_parameters(TraceQuery()).values()) == {None}
    assert (
        trace_query({"trace_status": "x", "trace_min_ms": "-1", "trace_value": "4", "text": "no"})
        == TraceQuery()
    )


@pytest.mark.parametrize(
    ("preview", "said"),
    [('{"a": "x", "b": [1, null]}', "a: x\nb: [1, null]"), ('{"a": "cut of', '{"a": "cut of'), ("null", ""),
     ('"lamp"', "lamp"), ("", ""), ("plain text", "plain text")],
)  # fmt: skip
def test_previews_are_readable(preview: str, said: str) -> None:
    assert readable(preview) == said


@pytest.mark.parametrize(
    ("value", "kind", "good"),
    [(True, "feedback", True), ("No", "feedback", False), (1.0, "feedback", None), (4, "feedback", None),
     (False, "expectation", None), ("lamp", "feedback", None)],
)  # fmt: skip
def test_only_a_plain_verdict_has_a_colour(value: object, kind: str, good: bool | None) -> None:
    assert verdict(TraceAssessment(name="x", kind=kind, value=value)) is good  # type: ignore[arg-type]
