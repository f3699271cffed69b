"""A version that MLflow's own DSPy flavor logged: a pickle, which is looked at and never opened."""

import secrets
from pathlib import Path

import cloudpickle
import mlflow.artifacts
import pytest

from dspyui.adapters.mlflow_store.registry import MlflowModelRegistry
from dspyui.domain.registry import ModelQuery
from dspyui.errors import NotFoundError
from dspyui.services.gate import GateService
from dspyui.services.models import ModelService
from tests.contracts.fakes import StaticTracking
from tests.sentences import told

# MLflow's own flavor says so of its own types, when it is imported for the first time.
pytestmark = pytest.mark.filterwarnings("ignore:.*AnyType:UserWarning")


@pytest.fixture
def flavored(mlflow_address, tmp_path):
    """Registers a DSPy program whose pickle makes a file when it is opened; gives the model's name and that file."""
    import dspy
    import mlflow

    trap = tmp_path / "opened"

    class Trap(dspy.Module):
        def __reduce__(self):
            return open, (str(trap), "w")

    name = f"foreign {secrets.token_hex(6)}"
    mlflow.set_tracking_uri(mlflow_address)
    mlflow.set_registry_uri(mlflow_address)
    try:
        yield (
            name,
            trap,
            lambda **more: mlflow.dspy.log_model(
                Trap(), name="model", registered_model_name=name, pip_requirements=["dspy"], **more
            ),
        )
    finally:
        while mlflow.active_run():
            mlflow.end_run()
        mlflow.set_tracking_uri(None)
        mlflow.set_registry_uri(None)


@pytest.mark.slow
def test_a_pickle_is_listed_named_and_never_opened(settings, mlflow_address, flavored, tmp_path):
    name, trap, log = flavored
    log()
    registry = MlflowModelRegistry(settings, StaticTracking(mlflow_address))
    models = ModelService(registry, GateService(registry, None, "off"))
    (listed,) = models.detail(name).versions
    assert listed.unloadable.code == "registry.only_pickle"
    assert listed.unloadable.values["file"] == "data/model.pkl"
    assert [model.name for model in models.page(ModelQuery(name=name)).models] == [name]
    with pytest.raises(NotFoundError) as caught:
        registry.program(listed.version)
    assert caught.value.code == "registry.only_pickle"
    told(caught.value, name, "data/model.pkl")
    assert models.move(name, 1, "Production", who="t", why="w").stage == "Production"
    assert not trap.exists()
    # It is a trap indeed.
    local = mlflow.artifacts.download_artifacts(
        artifact_uri=f"models:/{name}/1", dst_path=str(tmp_path / "model")
    )
    cloudpickle.loads(Path(local, "data", "model.pkl").read_bytes()).model.close()
    assert trap.exists()
