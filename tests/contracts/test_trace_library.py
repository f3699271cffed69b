"""What every list of traces does, the one in memory and MLflow's."""

import re
from datetime import UTC, datetime

import pytest

from dspyui.adapters.mlflow_store.spool import FileTraceSink
from dspyui.adapters.mlflow_store.trace_list import MlflowTraceLibrary, at_least
from dspyui.domain.runs import RunLink
from dspyui.domain.trace_list import TraceQuery
from dspyui.errors import BadRequestError, NotFoundError
from tests.trace_world import START, MemoryTraces, call


class MlflowTraces(MlflowTraceLibrary):
    """The real list, with the same ways to put something there as the one in memory."""

    def __init__(self, settings, tracking, runs, folder):
        super().__init__(settings, tracking)
        self._tracking, self._runs, self._folder = tracking, runs, folder

    def put(self, run_id, *traces):
        sink = FileTraceSink(self._folder)
        for trace in traces:
            sink.write(trace)
        sink.close()
        info = self._runs.get_run(run_id)
        link = RunLink(run_id=run_id, experiment_id=info.experiment_id, url=info.url)
        assert self._runs.send_traces(self._folder, link) == (len(traces), 0)

    def assess(self, trace, name, value, *, kind="feedback", rationale=""):
        from mlflow.entities import AssessmentSource, Expectation, Feedback
        from mlflow.tracing.client import TracingClient

        source = AssessmentSource(source_type="HUMAN", source_id="anna")
        made = (
            Feedback(name=name, value=value, source=source, rationale=rationale)
            if kind == "feedback"
            else Expectation(name=name, value=value, source=source)
        )
        TracingClient(self._tracking.address()).log_assessment(trace.mlflow_id, made)


class Memory(MemoryTraces):
    def put(self, run_id, *traces):
        for trace in traces:
            super().put(run_id, trace)


@pytest.fixture
def library(kind, settings, tracking, runs, tmp_path):
    if kind == "memory":
        return Memory(runs.get_run)
    return MlflowTraces(settings, tracking, runs, tmp_path / "traces")


@pytest.fixture
def five(library, make_run):
    """A Run with five calls, oldest first."""
    run_id = make_run()
    calls = [
        call("My lamp broke", number=0, tokens=(9, 0)),
        call(
            '说 "hi" to C:\\new, it\'s 100% 你好🚀', number=1, product="灯_2", tokens=(200, 34), cost=0.0125
        ),
        call("Where is it?", number=2, error="ParseError: nothing", tokens=(90, 9)),
        call("My table broke", number=3, product="table", ms=1500, tokens=(100, 0), cost=0.0),
        call("Two\nlines\tof text", number=4, product="text", ms=150, tokens=(1000, 5)),
    ]
    library.put(run_id, *calls)
    return run_id, calls


def places(library, five, **query):
    """Which of the five are found, in the order of the list."""
    run_id, calls = five
    numbers = {trace.mlflow_id: place for place, trace in enumerate(calls)}
    return [numbers[trace.trace_id] for trace in library.of_run(run_id, TraceQuery(**query)).traces]


def test_a_trace_tells_what_the_list_shows(library, five):
    run_id, calls = five
    library.assess(calls[1], "ok", False, rationale="wrong 灯")
    library.assess(calls[1], "expected", {"product": "lamp"}, kind="expectation")
    shown = next(t for t in library.of_run(run_id, TraceQuery()).traces if t.trace_id == calls[1].mlflow_id)
    assert (shown.state, shown.latency_ms) == ("OK", 20)
    assert shown.started_at == datetime.fromtimestamp(START // 10**9 + 1, tz=UTC)
    assert (shown.input_tokens, shown.output_tokens, shown.total_tokens) == (200, 34, 234)
    assert shown.cost == pytest.approx(0.0125)
    assert "你好🚀" in shown.inputs
    assert "灯_2" in shown.outputs
    assert f"selectedEvaluationId={calls[1].mlflow_id}" in shown.url
    said = {one.name: one for one in shown.assessments}
    assert (said["ok"].kind, said["ok"].value, said["ok"].rationale) == ("feedback", False, "wrong 灯")
    assert (said["ok"].source, said["ok"].source_id) == ("HUMAN", "anna")
    assert (said["expected"].kind, said["expected"].value) == ("expectation", {"product": "lamp"})


def test_the_newest_come_first_and_pages_follow_each_other(library, five):
    run_id, calls = five
    found, token = [], None
    while True:
        page = library.of_run(run_id, TraceQuery(size=2), token)
        found += [trace.trace_id for trace in page.traces]
        token = page.next_token
        if token is None:
            break
    assert found == [trace.mlflow_id for trace in reversed(calls)]


FILTERS = [
    ({"status": "OK"}, [4, 3, 1, 0]),
    ({"status": "ERROR"}, [2]),
    ({"status": "IN_PROGRESS"}, []),
    ({"min_ms": 150}, [4, 3]),
    ({"min_ms": 1500, "status": "OK"}, [3]),
    ({"min_tokens": 9}, [4, 3, 2, 1, 0]),
    ({"min_tokens": 10}, [4, 3, 2, 1]),
    ({"min_tokens": 99}, [4, 3, 2, 1]),
    ({"min_tokens": 100}, [4, 3, 1]),
    ({"min_tokens": 234}, [4, 1]),
    ({"min_tokens": 235}, [4]),
    ({"min_tokens": 1006}, []),
    ({"text": "BROKE"}, [3, 0]),
    ({"text": " lamp "}, [0]),
    ({"text": "你好"}, [1]),
    ({"text": "🚀"}, [1]),
    ({"text": "灯"}, [1]),
    ({"text": 'say "hi"'}, []),
    ({"text": '"hi" to C:\\new'}, [1]),
    ({"text": "it's 100%"}, [1]),
    ({"text": "Two\nlines\tof"}, [4]),
    # Only what went in and came out: not the prompt, not tags, not the name of a field of MLflow's.
    ({"text": "giraffe"}, []),
    ({"text": "traceName"}, []),
    ({"text": "'; DROP TABLE spans; --"}, []),
    ({"text": "broke", "min_tokens": 50}, [3]),
]


def test_the_server_filters(library, five):
    found = [(query, places(library, five, **query)) for query, _ in FILTERS]
    assert found == FILTERS


def test_assessments_are_found_by_name_and_value_of_whatever_kind(library, five):
    _, calls = five
    library.assess(calls[0], "ok", True)
    library.assess(calls[1], "ok", False)
    library.assess(calls[0], "stars", 4)
    library.assess(calls[1], "stars", 4.0)
    library.assess(calls[2], "stars", 0.25)
    library.assess(calls[3], "stars", 3)
    library.assess(calls[3], "评 语.x", 'It\'s "太短" and vague')
    library.assess(calls[4], "level", "5")
    library.assess(calls[4], "stars", 3, kind="expectation")
    library.assess(calls[2], "expected", {"product": "灯"}, kind="expectation")

    def found(name, value="", **more):
        return places(library, five, assessment=name, value=value, **more)

    assert (found("ok"), found("ok", "true"), found("ok", "FALSE")) == ([1, 0], [0], [1])
    assert found("OK") == []
    # Each of these finds nothing when MLflow is asked for it as text.
    assert (found("stars", "4"), found("stars", "4.0"), found("stars", "0.25")) == ([1, 0], [1, 0], [2])
    assert found("stars", "3") == [3]
    assert found("stars", "3", assessed="expectation") == [4]
    assert found("stars", "5") == []
    # A judge's number that is text.
    assert found("level", "5") == [4]
    assert (found("评 语.x", "太短"), found("评 语.x", "IT'S"), found("评 语.x", "long")) == ([3], [3], [])
    library.assess(calls[0], "verdict", "no")
    library.assess(calls[1], "verdict", "unknown")
    assert (found("verdict", "NO"), found("verdict", '"no"'), found("ok", '"true"')) == ([1, 0], [0], [0])
    assert found("expected", "灯", assessed="expectation") == [2]
    assert found("nobody") == []


def test_numbers_that_are_text_have_further_pages_too(library, five):
    run_id, calls = five
    for trace in calls:
        library.assess(trace, "level", "7")
    query = TraceQuery(assessment="level", value="7", size=3)
    first = library.of_run(run_id, query)
    second = library.of_run(run_id, query, first.next_token)
    assert [len(first.traces), len(second.traces)] == [3, 2]


def test_a_version_has_the_traces_that_are_tagged_with_it_whatever_their_run(library, make_run, name):
    one, two = make_run(), make_run()
    tags = {"dspyui.model_name": name, "dspyui.model_version": "2"}
    mine = [call(number=n, tags=tags) for n in range(2)]
    library.put(one, mine[0], call(number=5, tags={**tags, "dspyui.model_version": "21"}), call(number=6))
    library.put(two, mine[1])
    found = library.of_version(name, 2, TraceQuery())
    assert [trace.trace_id for trace in found.traces] == [trace.mlflow_id for trace in reversed(mine)]
    assert library.of_version(name, 3, TraceQuery()).traces == ()
    assert library.of_version(name, 2, TraceQuery(text="nothing")).traces == ()


def test_a_run_without_traces_has_none(library, make_run):
    assert library.of_run(make_run(), TraceQuery()).traces == ()


@pytest.mark.parametrize("run_id", ["0" * 32, "no such", "x' OR 1=1"])
def test_an_unknown_run_is_not_found(library, run_id):
    with pytest.raises(NotFoundError) as caught:
        library.of_run(run_id, TraceQuery())
    assert caught.value.code == "run.unknown"


def test_a_token_of_ones_own_making_is_refused(library, five):
    with pytest.raises(BadRequestError) as caught:
        library.of_run(five[0], TraceQuery(), "nonsense")
    assert caught.value.code == "run.page_token"


@pytest.mark.parametrize("number", [1, 9, 10, 19, 99, 100, 909, 1234])
def test_a_pattern_of_digits_means_at_least(number):
    pattern = re.compile(f"^({at_least(number)})$")
    wrong = [other for other in range(12_000) if bool(pattern.match(str(other))) != (other >= number)]
    assert wrong == []


def test_the_step_the_score_and_what_was_expected_come_back(library, make_run):
    run_id = make_run()
    expected = '{"product": "灯 \\"x\\""}'
    calls = [
        call(number=0, tags={"dspyui.phase": "baseline", "dspyui.score": "0.2500"}),
        call(
            number=1,
            tags={"dspyui.phase": "evaluating", "dspyui.score": "1.0000", "dspyui.expected": expected},
        ),
        call(number=2),
    ]
    library.put(run_id, *calls)
    found = library.of_run(run_id, TraceQuery()).traces
    assert [(trace.phase, trace.score, trace.expected) for trace in found] == [
        ("", None, ""), ("evaluating", 1.0, expected), ("baseline", 0.25, ""),
    ]  # fmt: skip
    (only,) = library.of_run(run_id, TraceQuery(phase="baseline")).traces
    assert only.trace_id == calls[0].mlflow_id
