"""`dspyui predict`: one row, its answer, and where its trace is."""

import json

import pytest

from dspyui.cli.console import Console
from dspyui.cli.predict import answer, send_trace
from dspyui.domain.compiles import Usage
from dspyui.domain.engine import PredictOutcome
from dspyui.errors import FailedError, UnavailableError
from dspyui.i18n import Text
from tests.api.world import World
from tests.batch_world import program, second_word
from tests.fake_openai import FakeOpenAI


@pytest.fixture
def file(tmp_path):
    with FakeOpenAI(second_word) as lm:
        path = tmp_path / "things.json"
        path.write_text(program(lm.base_url).to_json())
        yield str(path), lm


@pytest.mark.parametrize(
    ("given", "code"),
    [("{", "cli.predict_input"), ("[1]", "cli.predict_object"), ('{"message": null}', "value.missing")],
)
def test_an_input_that_is_no_row_is_refused(dspyui, file, given, code):
    said = dspyui("predict", "--model", file[0], "--input", given, "--json")
    assert (said.code, said.document["error"]["code"]) == (2, code)


def test_a_program_that_is_not_there_is_refused(dspyui):
    said = dspyui("predict", "--model", "no.json", "--input", "{}", "--json")
    assert (said.code, said.document["error"]["code"]) == (2, "batch.model_missing")


def test_one_row_is_answered_and_its_trace_waits_for_the_pages(dspyui, file):
    said = dspyui(
        "predict", "--model", file[0], "--input", json.dumps({"message": "My lamp broke."}), "--json"
    )
    assert said.code == 0, said.err
    document = said.document
    assert (document["outputs"], document["status"], document["model"]) == (
        {"product": "lamp"},
        "done",
        "things.json",
    )
    assert document["trace"] == "waiting"
    assert document["trace_id"].startswith("tr-")
    assert document["lm_calls"] == 1


def test_mlflow_asked_for_where_tracking_is_off_is_told(dspyui, monkeypatch):
    monkeypatch.setenv("MLFLOW_ENABLED", "false")
    said = dspyui("predict", "--model", "no.json", "--input", "{}", "--mlflow")
    assert said.code == 2
    assert Text("en_US")("cli.mlflow_off") in said.err


@pytest.mark.parametrize(
    ("problem", "said", "told"),
    [
        (None, "sent", ""),
        (UnavailableError("feedback.off"), "waiting", ""),
        (FailedError("mlflow.refused", address="http://x", problem="deleted"), "waiting", "deleted"),
        (OSError(28, "No space left on device"), "waiting", "No space left"),
        ("refused", "refused", ""),
    ],
)
@pytest.mark.parametrize("language", ["en_US", "zh_CN"])
def test_the_answer_is_printed_whatever_becomes_of_its_trace(settings, capsys, language, problem, said, told):
    world = World(settings)
    trace_id = world.feedback.call({})
    outcome = PredictOutcome(
        outputs={"product": "lamp"}, prompt=(), usage=Usage(), seconds=0.1, trace_id=trace_id
    )
    if isinstance(problem, Exception):

        def fail(_stop=None):
            raise problem

        world.feedback.send_waiting = fail
    elif problem:
        world.feedback.refused.add(trace_id)
    console = Console(language=language, as_json=False)
    sent = send_trace(console, world.services, outcome)
    assert (sent, answer(console, "m", outcome, sent)) == (said, 0)
    printed = capsys.readouterr()
    assert printed.out.startswith("product: lamp\n")
    assert Text(language)(f"cli.predict.trace_{said}", trace_id=trace_id) in printed.out
    assert told in printed.err


@pytest.mark.slow
def test_with_mlflow_given_the_trace_is_sent(dspyui, file, mlflow_address, monkeypatch):
    from mlflow import MlflowClient

    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_address)
    said = dspyui("predict", "--model", file[0], "--input", json.dumps({"message": "My lamp broke."}))
    assert said.code == 0, said.err
    assert said.out.startswith("product: lamp\n")
    trace_id = said.out.split("Trace in MLflow: ")[1].strip()
    found = MlflowClient(mlflow_address).get_trace(trace_id, display=False)
    assert found.info.tags["dspyui.source"] == "cli"
    refused = dspyui("predict", "--model", file[0], "--input", '{"message": "x"}', "--seconds", "0")
    assert refused.code == 2
