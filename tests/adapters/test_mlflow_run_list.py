"""Runs through a real MLflow server and back: the result of a compile is the same on any machine."""

import pytest

from dspyui.adapters.mlflow_store.run_list import MlflowRunLibrary, run_filter
from dspyui.adapters.mlflow_store.runs import MlflowRunStore
from dspyui.domain.jobs import new_job_id
from dspyui.domain.run_list import RunQuery
from dspyui.errors import BadRequestError, FailedError
from dspyui.services.runs import RunService
from tests.api.world import T0
from tests.contracts.fakes import StaticTracking
from tests.run_world import record_of, result


def test_what_a_compile_found_comes_back_whole(settings, mlflow_address, tmp_path):
    tracking = StaticTracking(mlflow_address)
    found = result([1.0, 0.5, 0.0, None], prompt="Extract 产品.\n\u2028second line")
    job_id = new_job_id(T0)
    run_id = MlflowRunStore(settings, tracking).send(record_of(job_id, found, tmp_path / job_id)).run_id
    service = RunService(MlflowRunLibrary(settings, tracking))
    detail = service.detail(run_id)
    assert detail.result == found
    assert detail.spec is not None
    assert detail.files == ("spec.yaml", "result.json")
    assert detail.notices == ()
    other = new_job_id(T0)
    record = record_of(other, result([1.0, 1.0, 1.0, 1.0]), tmp_path / other)
    compared = service.compare([run_id, MlflowRunStore(settings, tracking).send(record).run_id])
    assert (len(compared.rows), compared.counted, compared.obstacle) == (4, 3, None)


def test_there_are_no_runs_where_there_is_no_experiment_and_a_deleted_one_says_so(settings, mlflow_address):
    from mlflow import MlflowClient

    named = settings.model_copy(update={"mlflow_experiment_name": f"list {new_job_id(T0)}"})
    library = MlflowRunLibrary(named, StaticTracking(mlflow_address))
    assert library.page(RunQuery()).runs == ()
    client = MlflowClient(mlflow_address, mlflow_address)
    client.delete_experiment(client.create_experiment(named.mlflow_experiment_name))
    with pytest.raises(FailedError) as caught:
        library.page(RunQuery())
    assert caught.value.code == "run.experiment_deleted"


def test_only_what_may_be_a_label_gets_into_a_filter():
    assert run_filter(RunQuery(module="ChainOfThought")) == "params.`module` = 'ChainOfThought'"
    with pytest.raises(BadRequestError) as caught:
        run_filter(RunQuery(optimizer="x' OR 1 = 1"))
    assert caught.value.code == "run.filter"
