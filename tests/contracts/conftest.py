"""The same tests against the fakes and against the real adapters on a real MLflow server."""

import secrets

import pytest

from dspyui.adapters.mlflow_store.registry import MlflowModelRegistry
from dspyui.adapters.mlflow_store.runs import MlflowRunStore
from tests.contracts.fakes import InMemoryRegistry, InMemoryRunStore, StaticTracking
from tests.mlflow_world import RunMaker


@pytest.fixture(params=["memory", "mlflow"])
def kind(request):
    return request.param


@pytest.fixture
def tracking(kind, request):
    return StaticTracking() if kind == "memory" else StaticTracking(request.getfixturevalue("mlflow_address"))


@pytest.fixture
def runs(kind, settings, tracking):
    return InMemoryRunStore() if kind == "memory" else MlflowRunStore(settings, tracking)


@pytest.fixture
def registry(kind, settings, tracking):
    return InMemoryRegistry() if kind == "memory" else MlflowModelRegistry(settings, tracking)


@pytest.fixture
def make_run(runs, tmp_path):
    return RunMaker(runs, tmp_path)


@pytest.fixture
def name():
    """A model name that no other test uses; with a space, a dot and Chinese in it."""
    return f"产品 v1.{secrets.token_hex(6)}"
