"""Calls and opinions as MLflow's own client finds them."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from dspyui.adapters.mlflow_store.feedback import MlflowFeedbackStore, calls_folder, open_calls
from dspyui.adapters.mlflow_store.spool import to_frame
from dspyui.domain.feedback import Feedback
from dspyui.errors import FailedError, UnavailableError
from tests.contracts.fakes import StaticTracking
from tests.mlflow_world import Proxy, make_trace


@pytest.fixture
def mine(settings, tmp_path):
    """Settings with an experiment of the test's own."""
    return settings.model_copy(update={"mlflow_experiment_name": f"calls-{tmp_path.name}"})


@pytest.fixture
def store(mine, mlflow_address):
    return MlflowFeedbackStore(mine, StaticTracking(mlflow_address))


@pytest.fixture
def client(mlflow_address):
    from mlflow import MlflowClient

    return MlflowClient(mlflow_address, mlflow_address)


def write(settings, **more):
    trace, sink = make_trace(**more), open_calls(settings.home)
    sink.write(trace)
    sink.close()
    return trace


def test_a_call_is_a_trace_of_the_experiment_and_of_no_run(store, mine, client):
    trace = write(mine, tags={"dspyui.source": "test", "dspyui.cost": "0.00120000"})
    assert store.send_waiting() == 1
    experiment = client.get_experiment_by_name(mine.mlflow_experiment_name)
    (found,) = client.search_traces(
        locations=[experiment.experiment_id], filter_string="tags.`dspyui.source` = 'test'"
    )
    assert found.info.trace_id == trace.mlflow_id
    assert found.info.tags["dspyui.cost"] == "0.00120000"
    assert "mlflow.sourceRun" not in found.info.trace_metadata
    assert found.info.token_usage["total_tokens"] == 13
    assert [span.name for span in found.data.spans] == ["Predict", "LM"]
    assert f"/experiments/{experiment.experiment_id}/traces" in store.state(trace.mlflow_id).url


def test_an_opinion_is_one_assessment_of_a_human_however_often_it_is_changed(store, mine, client):
    trace_id = write(mine).mlflow_id
    store.send_waiting()
    store.give(trace_id, Feedback(thumbs_up=True, comment="so"), who="李雷")
    store.give(trace_id, Feedback(thumbs_up=False, comment="or so"), who="李雷")
    store.give(trace_id, Feedback(correction={"product": "lamp"}), who="李雷")
    store.give(trace_id, Feedback(correction={"product": "台灯"}), who="李雷")
    found = {made.name: made for made in client.get_trace(trace_id, display=False).info.assessments}
    assert set(found) == {"thumbs_up", "corrected_output"}
    thumb, correction = found["thumbs_up"], found["corrected_output"]
    assert (thumb.feedback.value, thumb.rationale) == (False, "or so")
    assert correction.expectation.value == {"product": "台灯"}
    for made in found.values():
        assert (made.source.source_type, made.source.source_id) == ("HUMAN", "李雷")
    experiment = client.get_experiment_by_name(mine.mlflow_experiment_name).experiment_id
    disliked = client.search_traces(
        locations=[experiment], filter_string="feedback.thumbs_up = 'false'", include_spans=False
    )
    assert [each.info.trace_id for each in disliked] == [trace_id]


def test_a_double_click_makes_one_assessment(store, mine, client):
    trace_id = write(mine).mlflow_id
    store.send_waiting()
    together = threading.Barrier(2)

    def press(is_up):
        together.wait(20)
        store.give(trace_id, Feedback(thumbs_up=is_up), who="a")

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(press, (True, False)))
    assert len(client.get_trace(trace_id, display=False).info.assessments) == 1


def test_an_assessment_that_the_server_takes_and_does_not_hold_is_no_success(mine, store, mlflow_address):
    trace_id = write(mine).mlflow_id
    store.send_waiting()
    taken = {"assessment": {"assessment_name": "thumbs_up", "trace_id": trace_id, "feedback": {"value": True},
                            "source": {"source_type": "HUMAN", "source_id": "a"}}}  # fmt: skip

    def pretend(method, path):
        return json.dumps(taken).encode() if method == "POST" and path.endswith("/assessments") else None

    with Proxy(mlflow_address, pretend) as proxy:
        behind = MlflowFeedbackStore(mine, StaticTracking(proxy.address))
        with pytest.raises(FailedError) as caught:
            behind.give(trace_id, Feedback(thumbs_up=True), who="a")
    assert caught.value.code == "feedback.not_stored"
    assert store.get(trace_id, who="a") == Feedback()


def test_an_opinion_whose_answer_was_lost_is_given_again_without_a_second(
    mine, store, client, mlflow_address
):
    trace_id = write(mine).mlflow_id
    store.send_waiting()
    with Proxy(
        mlflow_address, lambda method, path: "drop" if path.endswith("/assessments") else None
    ) as proxy:
        behind = MlflowFeedbackStore(mine, StaticTracking(proxy.address))
        with pytest.raises(UnavailableError):
            behind.give(trace_id, Feedback(thumbs_up=True), who="a")
    store.give(trace_id, Feedback(thumbs_up=False), who="a")
    (made,) = client.get_trace(trace_id, display=False).info.assessments
    assert made.feedback.value is False


def test_a_refused_trace_is_set_aside_and_said_and_the_others_go(store, mine):
    good = write(mine)
    bad = ExportTraceServiceRequest()
    span = bad.resource_spans.add().scope_spans.add().spans.add()
    span.name, span.trace_id = "without a span id", bytes(15) + b"\1"
    refused = "tr-" + "0" * 31 + "1"
    (calls_folder(mine.home) / "1-bad.otlp").write_bytes(to_frame(bad.SerializeToString()))
    assert store.waiting() == 2
    assert store.send_waiting() == 1
    assert (store.waiting(), store.state(good.mlflow_id).status) == (0, "stored")
    assert store.state(refused).status == "refused"


def test_two_processes_that_send_at_once_do_not_stumble(mine, store, mlflow_address):
    traces = [write(mine).mlflow_id for _ in range(10)]
    other = MlflowFeedbackStore(mine, StaticTracking(mlflow_address))
    with ThreadPoolExecutor(2) as pool:
        counts = list(pool.map(lambda each: each.send_waiting(), (store, other)))
    assert sum(counts) == 10
    assert {store.state(trace_id).status for trace_id in traces} == {"stored"}


def test_a_call_whose_segment_is_closed_while_it_is_looked_for_still_waits(store, mine, monkeypatch):
    trace, sink, listed = make_trace(), open_calls(mine.home), Path.glob
    sink.write(trace)

    def glob(folder, pattern):
        found = list(listed(folder, pattern))
        sink.close()
        return iter(found)

    monkeypatch.setattr(Path, "glob", glob)
    assert store.state(trace.mlflow_id).status == "waiting"
