"""Trying a program: inputs are checked, and a version without its address is not sent elsewhere."""

import json
from pathlib import Path

import pytest

from dspyui.adapters.files.metrics import FileMetrics
from dspyui.domain.base import Fault
from dspyui.domain.batches import BatchModel
from dspyui.domain.compiles import Usage
from dspyui.domain.engine import PredictOutcome
from dspyui.domain.lms import LMSpec
from dspyui.domain.metrics import MetricSpec
from dspyui.domain.optimizers import OptimizerSpec
from dspyui.domain.programs import CompiledProgram, ModuleSpec, ProgramSpec
from dspyui.domain.registry import ModelVersion
from dspyui.domain.runs import RunInfo
from dspyui.domain.signatures import FieldSpec, SignatureSpec
from dspyui.errors import BadRequestError, FailedError
from dspyui.services.feedback import FeedbackService
from dspyui.services.keys import KeyRules
from dspyui.services.metrics import MetricService
from dspyui.services.model_source import ModelSource
from dspyui.services.predict import Caller, PredictService, loose
from dspyui.services.register import version_tags
from dspyui.settings import Settings
from tests.contracts.fakes import MemoryFeedback, StaticTracking

KEY = {"OPENAI_API_KEY": "sk-test"}
SIGNATURE = SignatureSpec(inputs=(FieldSpec(name="n", type="int"),), outputs=(FieldSpec(name="a"),))


def compiled(**lm):
    return CompiledProgram(
        spec=ProgramSpec(name="p", signature=SIGNATURE),
        lm=LMSpec(model="openai/m", **lm),
        optimizer=OptimizerSpec(kind="none"),
        state={},
        signature_digest=SIGNATURE.digest(),
    )


def service(registry, runner, environment=KEY, files=None, host="127.0.0.1", api_base=None, **settings):
    settings = Settings.load(Path("none"), {"DSPYUI_HOST": host, **settings})
    metrics = MetricService(settings, files or FileMetrics(Path("none")))
    feedback = FeedbackService(settings, StaticTracking(), MemoryFeedback())
    models = ModelSource(registry, None, None, api_base=api_base)
    return PredictService(models, runner, metrics, feedback, keys=KeyRules(environment))


class Runner:
    def __init__(self, problem=""):
        self.asked = []
        self.calls = []
        self.problem = problem

    def predict(self, call, _patience):
        self.calls.append(call)
        self.asked.append((call.lms.task, call.inputs))
        fault = Fault(code="predict.unreadable", values={"problem": self.problem}) if self.problem else None
        outputs = {} if fault else {"a": "x"}
        return PredictOutcome(outputs=outputs, fault=fault, prompt=(), usage=Usage(), seconds=0.1)


class Registry:
    """Gives a version as the real one does: its LM's address is not kept."""

    def __init__(self, program):
        run = RunInfo(
            run_id="r", experiment_id="1", url="", name="n", status="FINISHED", job_id=None, started_at=None,
            ended_at=None, params={}, metrics={}, tags={},
        )  # fmt: skip
        self._tags = version_tags(run, program)
        self._kept = program.model_copy(update={"lm": program.lm.model_copy(update={"api_base": None})})

    def get_by_stage(self, name, stage):
        return ModelVersion(
            name=name, version=1, stage=stage, description="", run_id="r", created_at="2026-11-23T00:00:00Z",
            model_uri="models:/m/1", url="", tags=self._tags,
        )  # fmt: skip

    def program(self, _version):
        return self._kept


def test_inputs_are_parsed_to_their_types():
    runner = Runner()
    service(None, runner).with_program(compiled(), {"n": " 7 "})
    assert runner.asked[0][1] == {"n": 7}
    with pytest.raises(BadRequestError) as caught:
        service(None, runner).with_program(compiled(), {"n": "seven"})
    assert "'seven'" in str(caught.value)


def test_a_missing_key_is_told_before_the_model_is_asked():
    runner = Runner()
    with pytest.raises(BadRequestError) as caught:
        service(None, runner, environment={}).with_program(compiled(), {"n": 1})
    assert "OPENAI_API_KEY" in str(caught.value)
    assert runner.asked == []


def test_a_program_that_asks_ones_own_metric_runs_only_where_that_may_run(tmp_path):
    (tmp_path / "metrics").mkdir()
    (tmp_path / "metrics" / "mine.py").write_text("def metric(example, prediction): return 1")
    own = MetricSpec(kind="custom", params={"name": "mine"})
    module = ModuleSpec(kind="best_of_n", reward=own)
    program = compiled()
    program = program.model_copy(update={"spec": program.spec.model_copy(update={"module": module})})
    files, runner = FileMetrics(tmp_path), Runner()
    with pytest.raises(BadRequestError) as caught:
        service(None, runner, files=files, host="192.0.2.1").with_program(program, {"n": 1})
    assert caught.value.code == "metric.custom_forbidden"
    assert runner.asked == []
    service(None, runner, files=files).with_program(program, {"n": 1})
    assert len(runner.asked) == 1


def test_a_reply_that_cannot_be_read_is_an_error():
    with pytest.raises(FailedError) as caught:
        service(None, Runner("no JSON")).with_program(compiled(), {"n": 1})
    assert "no JSON" in str(caught.value)


def test_a_version_compiled_at_an_own_address_needs_one():
    registry = Registry(compiled(api_base="http://127.0.0.1:9/v1"))
    runner = Runner()
    with pytest.raises(BadRequestError) as caught:
        service(registry, runner).with_stage("m", "Staging", {"n": 1})
    assert "DSPYUI_LM_API_BASE" in str(caught.value)
    assert runner.asked == []
    service(registry, runner, api_base="http://own/v1").with_stage("m", "Staging", {"n": 1})
    assert runner.asked[0][0].api_base == "http://own/v1"


def test_a_version_of_a_providers_model_needs_no_address():
    runner = Runner()
    service(Registry(compiled()), runner).with_stage("m", "Staging", {"n": 1})
    assert runner.asked[0][0].api_base is None


def test_a_call_says_in_its_tags_what_was_called_by_whom_and_from_where():
    runner = Runner()
    model = BatchModel(program=compiled(), uri="models:/m/3", name="m", version=3)
    service(None, runner).ask(model, {"n": 1}, caller=Caller(who="李雷", source="api"))
    (call,) = runner.calls
    assert call.traced
    expected = {
        "dspyui.source": "api",
        "dspyui.user": "李雷",
        "dspyui.program": "p",
        "dspyui.lm": "openai/m",
        "dspyui.model": "models:/m/3",
        "dspyui.model_name": "m",
        "dspyui.model_version": "3",
        "dspyui.model_digest": model.digest,
    }
    assert expected.items() <= call.tags.items()
    assert [field["name"] for field in json.loads(call.tags["dspyui.outputs"])] == ["a"]


@pytest.mark.parametrize("setting", ["MLFLOW_ENABLED", "MLFLOW_LOG_TRACES"])
def test_without_tracking_or_traces_nothing_is_traced(setting):
    runner = Runner()
    service(None, runner, **{setting: "false"}).ask(loose(compiled()), {"n": 1})
    assert not runner.calls[0].traced
