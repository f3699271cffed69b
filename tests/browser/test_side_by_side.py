"""Two programs side by side on one input, thumbs down and a correction by clicking; then a look into MLflow."""

import pytest
from playwright.sync_api import expect

from tests.batch_world import program, second_word
from tests.fake_openai import FakeOpenAI, chat
from tests.program import Program
from tests.waiting import wait_until

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture
def lms():
    """One that answers right, and one that has no idea."""
    with FakeOpenAI(second_word) as right, FakeOpenAI(lambda _messages: chat(product="no idea")) as wrong:
        yield right, wrong


@pytest.fixture
def running(tmp_path, mlflow_address):
    settings = {"MLFLOW_TRACKING_URI": mlflow_address, "MLFLOW_EXPERIMENT_NAME": f"tested-{tmp_path.name}"}
    with Program(tmp_path, **settings) as made:
        yield made


def answering(running):
    """The processes that answer calls."""
    return [child.pid for child in running.children() if "answer" in child.cmdline()]


@pytest.mark.timeout(300)
def test_two_programs_on_one_input_thumbs_down_and_a_correction(
    tmp_path, running, lms, mlflow_address, open_page
):
    for name, lm in zip(("right", "wrong"), lms, strict=True):
        path = tmp_path / f"{name}.json"
        path.write_text(program(lm.base_url).to_json())
    models = "&".join(f"model={tmp_path / name}.json" for name in ("right", "wrong"))
    page = open_page(f"http://127.0.0.1:{running.port}", f"/test?lang=en&{models}").page
    expect(page.get_by_test_id("lane-2")).to_be_visible()
    page.get_by_test_id("input-message").fill("My lamp broke.")
    page.get_by_test_id("test-run").click()
    expect(page.get_by_test_id("lane-1-answer")).to_contain_text("lamp", timeout=60_000)
    expect(page.get_by_test_id("lane-2-answer")).to_contain_text("no idea", timeout=60_000)
    for lane in ("lane-1", "lane-2"):
        expect(page.get_by_test_id(f"{lane}-answer-differs-product")).to_be_visible()
        expect(page.get_by_test_id(f"{lane}-trace-link")).to_be_visible(timeout=60_000)

    page.get_by_test_id("lane-2-down").click()
    expect(page.get_by_test_id("lane-2-stored")).to_be_visible(timeout=60_000)
    expect(page.get_by_test_id("lane-2-down")).to_have_attribute("aria-pressed", "true")
    # A thumb down opens what else there is to say.
    page.get_by_test_id("lane-2-comment").fill("It is a lamp.")
    page.get_by_test_id("lane-2-correct-product").fill("lamp")
    page.get_by_test_id("lane-2-save").click()
    client, traces = _check_mlflow(mlflow_address, tmp_path.name)

    # Both programs once more: no new process, and the opinion that was changed is still one.
    processes = answering(running)
    assert len(processes) == 2
    page.get_by_test_id("test-run").click()
    wait_until(lambda: len(lms[1].requests) == 2, seconds=60)
    expect(page.get_by_test_id("lane-2-answer")).to_contain_text("no idea", timeout=60_000)
    assert answering(running) == processes
    assert len(client.get_trace(traces["no idea"], display=False).info.assessments) == 2


def _check_mlflow(address, name):
    """The traces and what was said of one, by MLflow's own client; gives the trace of each answer."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=address)
    experiment = client.get_experiment_by_name(f"tested-{name}").experiment_id
    found = client.search_traces(locations=[experiment], filter_string="tags.`dspyui.source` = 'test'")
    traces = {trace.data.spans[0].outputs["product"]: trace for trace in found}
    assert set(traces) == {"lamp", "no idea"}
    for answer, trace in traces.items():
        assert trace.info.tags["dspyui.model"] == ("right.json" if answer == "lamp" else "wrong.json")
        assert trace.info.token_usage["total_tokens"] > 0
        assert trace.data.spans[0].inputs["message"] == "My lamp broke."
    trace_id = traces["no idea"].info.trace_id
    wait_until(lambda: len(client.get_trace(trace_id, display=False).info.assessments) == 2, seconds=60)
    said = {made.name: made for made in client.get_trace(trace_id, display=False).info.assessments}
    assert (said["thumbs_up"].feedback.value, said["thumbs_up"].rationale) == (False, "It is a lamp.")
    assert said["corrected_output"].expectation.value == {"product": "lamp"}
    assert {made.source.source_type for made in said.values()} == {"HUMAN"}
    assert all(made.source.source_id for made in said.values())
    assert traces["lamp"].info.assessments == []
    return client, {answer: trace.info.trace_id for answer, trace in traces.items()}
