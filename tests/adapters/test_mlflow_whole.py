"""What MLflow has no room for in a param still arrives whole: the spec of a Run reads back equal, names and all."""

from datetime import UTC, datetime

import pytest

from dspyui.adapters.files.jobs import FileJobStore
from dspyui.adapters.files.metrics import FileMetrics
from dspyui.adapters.files.tables import FileTableReader
from dspyui.adapters.files.uploads import FileUploadStore
from dspyui.adapters.mlflow_store.runs import MlflowRunStore
from dspyui.services.data import DataService
from dspyui.services.documents import spec_of
from dspyui.services.metrics import MetricService
from dspyui.services.record import RecordService
from dspyui.services.reuse import ReuseService
from tests.contracts.fakes import StaticTracking

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
