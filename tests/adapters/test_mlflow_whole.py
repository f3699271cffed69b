"""What MLflow has no room for still arrives whole: the spec of a Run reads back equal, names and all."""

from datetime import UTC, datetime

import pytest

from dspyui.adapters.dspy_engine.engine import DspyEngine
from dspyui.adapters.files.artifacts import FileArtifactWriter
from dspyui.adapters.files.jobs import FileJobStore
from dspyui.adapters.files.metrics import FileMetrics
from dspyui.adapters.files.programs import FileProgramStore
from dspyui.adapters.files.tables import FileTableReader
from dspyui.adapters.files.uploads import FileUploadStore
from dspyui.adapters.mlflow_store.runs import MlflowRunStore
from dspyui.services.compile import CompileRun
from dspyui.services.data import DataService
from dspyui.services.documents import spec_of
from dspyui.services.metrics import MetricService
from dspyui.services.record import RecordService
from dspyui.services.reuse import ReuseService
from tests.contracts.fakes import StaticTracking
from tests.fake_openai import FakeOpenAI, chat, last_input

LONG = "长指令 🚀👩‍🚀 é\u2028 '\"\\ " * 1500


@pytest.fixture
def world(settings, mlflow_address):
    tracking = StaticTracking(mlflow_address)
    store, runs = FileJobStore(settings.home), MlflowRunStore(settings, tracking)
    data = DataService(FileTableReader(max_bytes=10**8), FileUploadStore(settings.home))
    metrics = MetricService(settings, FileMetrics(settings.home))
    return (
        store,
        runs,
        RecordService(settings, store, runs, tracking),
        ReuseService(store, runs, data, metrics),
    )


def test_a_spec_that_is_longer_than_any_param_comes_back_equal(world):
    store, runs, record, reuse = world
    choices = [f"选项 {n} 🚀" for n in range(900)]
    outputs = [{"name": "意图", "type": "choice", "choices": choices, "description": LONG[:3000]}]
    spec = spec_of(
        {
            "program": {
                "name": "路由 🚀 / “x”",
                "signature": {"instructions": LONG, "inputs": [{"name": "问题"}], "outputs": outputs},
            },
            "data": {"rows": [{"问题": f"{n} {LONG[:200]}", "意图": choices[n]} for n in range(30)]},
        }
    )
    job = store.create(spec, spec.data.rows, title="标题 🚀 / : * ? ' \" < > | %", who="李雷")
    now = datetime.now(UTC)
    ends = {"status": "failed", "started_at": now, "ended_at": now, "note": "**备注** 🚀\n" * 500}
    job = store.update(job.id, lambda made: made.model_copy(update=ends))
    state = record.send(job.id)
    assert (state.status, state.last_error) == ("sent", "")
    run = runs.get_run(state.run_id)
    assert run.name == job.title
    assert run.tags["mlflow.note.content"] == job.note
    assert run.tags["dspyui.program"] == run.params["program"] == spec.program.name
    assert run.params["signature.instructions"] == LONG[:5999] + "…"
    assert len(run.params["signature.outputs"]) == 6000
    assert reuse.run(state.run_id).spec == spec


NAMES = ("意图", "Ответ", "답변")


def replies(messages):
    """The first field is right, the second when an example was shown, the third in rows with an even number."""
    number = int(last_input(messages, "câu_hỏi"))
    right = (True, len(messages) > 2, number % 2 == 0)
    return chat(**{name: number if hit else "x" for name, hit in zip(NAMES, right, strict=True)})


def test_scores_of_fields_arrive_whatever_letters_their_names_have(world, settings):
    store, runs, record, reuse = world
    rows = [{"câu_hỏi": str(n), **dict.fromkeys(NAMES, str(n))} for n in range(40)]
    with FakeOpenAI(replies) as server:
        spec = spec_of(
            {
                "program": {
                    "name": "names",
                    "signature": {
                        "instructions": "Do.",
                        "inputs": [{"name": "câu_hỏi"}],
                        "outputs": [{"name": name} for name in NAMES],
                    },
                },
                "lms": {"task": {"model": "openai/fake", "api_base": server.base_url}},
                "optimizer": {"kind": "labeled_few_shot", "params": {"k": 2}},
                "metric": {"kind": "exact_match", "weights": {"Ответ": 2}},
                "data": {"rows": rows},
            }
        )
        job = store.create(spec, rows, title="names", who="李雷")
        began = {"status": "running", "attempt": 1, "started_at": datetime.now(UTC)}
        store.update(job.id, lambda made: made.model_copy(update=began))
        result = CompileRun(
            job.id,
            jobs=store,
            programs=FileProgramStore(settings.home),
            artifacts=FileArtifactWriter(store),
            engine=DspyEngine(spec.lms, environment={}, cache_folder=settings.home / "cache"),
            eval_sink=None,
        ).run()
    ended = {"status": "done", "ended_at": datetime.now(UTC)}
    store.update(job.id, lambda made: made.model_copy(update=ended))
    state = record.send(job.id)
    assert (state.status, state.last_error) == ("sent", "")
    run = runs.get_run(state.run_id)
    assert list(result.by_field) == list(NAMES)
    for name, (before, after) in result.by_field.items():
        assert run.metrics[f"baseline_score.{name}"] == before
        assert run.metrics[f"evaluation_score.{name}"] == after
    assert (run.metrics["baseline_score.Ответ"], run.metrics["evaluation_score.Ответ"]) == (0.0, 1.0)
    assert run.metrics["evaluation_score"] == result.optimised.score
    assert run.metrics["score_improvement_ci_low"] == result.difference.low > 0
    assert run.metrics["score_improvement_ci_high"] == result.difference.high
    assert run.params["metric.weight.Ответ"] == "2.0"
    assert reuse.run(state.run_id).spec == spec
