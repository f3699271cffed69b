"""Traces as the real server has them after they were sent."""

import json
from datetime import UTC, datetime

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from dspyui.adapters.mlflow_store.runs import MlflowRunStore
from dspyui.adapters.mlflow_store.spool import FileTraceSink, read_frames, to_frame
from dspyui.errors import NotFoundError, UnavailableError
from tests.contracts.fakes import StaticTracking
from tests.mlflow_world import Proxy, RunMaker, make_trace


@pytest.fixture
def runs(settings, mlflow_address):
    return MlflowRunStore(settings, StaticTracking(mlflow_address))


@pytest.fixture
def link(runs, tmp_path):
    return runs.send(RunMaker(runs, tmp_path).record())


@pytest.fixture
def client(runs, mlflow_address):
    from mlflow import MlflowClient

    return MlflowClient(mlflow_address, mlflow_address)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "traces"


def write(folder, *traces):
    sink = FileTraceSink(folder)
    for trace in traces:
        sink.write(trace)
    sink.close()


def linked(client, link):
    found = client.search_traces(
        locations=[link.experiment_id], run_id=link.run_id, include_spans=False, max_results=500
    )
    return sorted(trace.info.trace_id for trace in found)


def test_a_trace_is_all_there(runs, client, link, folder):
    trace = make_trace(tags={"dspyui.score": "1.0000", "说明": "好"})
    write(folder, trace)
    assert runs.send_traces(folder, link) == (1, 0)
    assert list(folder.iterdir()) == []

    found = client.get_trace(trace.mlflow_id, display=False)
    assert found.info.state == "OK"
    assert found.info.experiment_id == link.experiment_id
    started = datetime.fromtimestamp(found.info.request_time / 1000, tz=UTC)
    assert abs(started.timestamp() - trace.spans[0].start_ns / 1e9) < 0.002
    assert found.info.execution_duration == 20
    assert found.info.token_usage == {"input_tokens": 10, "output_tokens": 3, "total_tokens": 13}
    expected = {"dspyui.row": "7", "dspyui.score": "1.0000", "说明": "好", "mlflow.traceName": "Predict"}
    assert expected.items() <= found.info.tags.items()
    assert "你好" in found.info.request_preview
    assert json.loads(found.info.response_preview) == {"product": "lamp"}

    root, lm = found.data.spans
    assert (root.name, root.span_type, root.parent_id) == ("Predict", "CHAIN", None)
    assert root.inputs == {"message": "你好", "count": str(2**70), "tags": ["a", None], "half": 0.5}
    assert root.outputs == {"product": "lamp"}
    assert (root.start_time_ns, root.end_time_ns) == (trace.spans[0].start_ns, trace.spans[0].end_ns)
    assert (lm.name, lm.span_type, lm.parent_id) == ("LM", "LLM", root.span_id)
    assert lm.inputs == {"messages": [{"role": "user", "content": "hi"}]}
    assert lm.outputs == ["lamp"]
    assert lm.get_attribute("mlflow.chat.tokenUsage")["total_tokens"] == 13
    assert lm.get_attribute("mlflow.llm.model") == "openai/fake"
    assert lm.get_attribute("temperature") == 0.0
    assert linked(client, link) == [trace.mlflow_id]


def test_a_failed_call_says_why(runs, client, link, folder):
    trace = make_trace(error="AdapterParseError: no field 'product' in: 你")
    write(folder, trace)
    runs.send_traces(folder, link)
    found = client.get_trace(trace.mlflow_id, display=False)
    assert found.info.state == "ERROR"
    root = found.data.spans[0]
    assert root.status.description == "AdapterParseError: no field 'product' in: 你"
    assert root.events[0].attributes["exception.message"] == "no field 'product' in: 你"


def test_hundreds_of_traces_are_all_linked_and_sending_them_again_changes_nothing(
    runs, client, link, folder, tmp_path
):
    traces = [make_trace() for _ in range(230)]
    write(folder, *traces)
    write(tmp_path / "again", *traces)
    assert runs.send_traces(folder, link) == (230, 0)
    assert runs.send_traces(tmp_path / "again", link) == (230, 0)
    assert linked(client, link) == sorted(trace.mlflow_id for trace in traces)
    usage = client.get_trace(traces[0].mlflow_id, display=False).info.token_usage
    assert usage["total_tokens"] == 13


def test_sending_ends_early_only_while_there_is_more(runs, client, link, folder):
    traces = [make_trace(), make_trace()]
    for trace in traces:
        write(folder, trace)
    asked = []
    for _ in range(2):
        assert runs.send_traces(folder, link, stop=lambda: asked.append(1) or True) == (1, 0)
    assert asked == [1]
    assert linked(client, link) == sorted(trace.mlflow_id for trace in traces)


def test_a_refused_trace_is_set_aside_and_the_others_are_stored(runs, client, link, folder):
    traces = [make_trace() for _ in range(7)]
    write(folder, *traces)
    bad = ExportTraceServiceRequest()
    bad.resource_spans.add().scope_spans.add().spans.add().name = "without any id"
    (segment,) = folder.glob("*.otlp")
    frames = list(read_frames(segment.read_bytes()))
    frames.insert(3, bad.SerializeToString())
    segment.write_bytes(b"".join(map(to_frame, frames)))
    assert runs.send_traces(folder, link) == (7, 1)
    assert linked(client, link) == sorted(trace.mlflow_id for trace in traces)
    (refused,) = folder.glob("*.refused")
    assert list(read_frames(refused.read_bytes())) == [bad.SerializeToString()]
    assert "422" in next(iter(folder.glob("*.refused.txt"))).read_text()
    assert runs.send_traces(folder, link) == (0, 0)


def test_a_server_that_goes_away_gets_the_rest_later(settings, client, link, folder, mlflow_address):
    traces = [make_trace() for _ in range(150)]
    write(folder, *traces)
    posts = []

    def away_after_one(method, path):
        posts.append(path) if path == "/v1/traces" else None
        return 503 if len(posts) > 1 else None

    with Proxy(mlflow_address, away_after_one) as proxy:
        runs = MlflowRunStore(settings, StaticTracking(proxy.address))
        with pytest.raises(UnavailableError):
            runs.send_traces(folder, link)
        assert len(list(folder.glob("*.otlp"))) == 1
        proxy.rule = lambda method, path: None
        stored, refused = runs.send_traces(folder, link)
    assert (stored, refused) in {(50, 0), (100, 0)}
    assert linked(client, link) == sorted(trace.mlflow_id for trace in traces)


def test_a_run_that_is_gone_is_said_and_the_traces_stay(runs, link, folder):
    write(folder, make_trace())
    with pytest.raises(NotFoundError):
        runs.send_traces(folder, link.model_copy(update={"run_id": "0" * 32}))
    assert len(list(folder.glob("*.otlp"))) == 1
