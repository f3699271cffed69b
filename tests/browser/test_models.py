"""Versions promoted, held up by the gate, and rolled back by clicking; each step is looked at with MLflow's own client.

Everything is real: the program as a process, an MLflow server, Chromium. The versions were registered elsewhere.
"""

import json
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import quote

import pytest
from mlflow import MlflowClient
from playwright.sync_api import expect

from dspyui.adapters.mlflow_store.registry import MlflowModelRegistry
from dspyui.adapters.mlflow_store.runs import MlflowRunStore
from dspyui.domain.registry import RegisterRequest
from dspyui.services.register import version_tags
from dspyui.settings import Settings
from tests.api.world import program as compiled
from tests.browser.test_look import VIEWPORTS
from tests.browser.test_runs import fits
from tests.contracts.fakes import StaticTracking
from tests.program import Program
from tests.run_world import record_of, result

pytestmark = [pytest.mark.browser, pytest.mark.slow]
SECONDS = 30_000


@dataclass
class Found:
    """The program's address, the model's name, and its page."""

    address: str
    name: str

    @property
    def path(self) -> str:
        return f"/models/{quote(self.name)}"


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory, mlflow_address: str) -> Iterator[Found]:
    """A model of three versions: 0.50, then 1.00, then 0.00 on the same test rows."""
    folder = tmp_path_factory.mktemp("models")
    name = f"抽取 {secrets.token_hex(4)}"
    environ = {"MLFLOW_EXPERIMENT_NAME": name}
    settings = Settings.load(env_file=folder / "no.env", environ=environ, home=folder / "elsewhere")
    store = MlflowRunStore(settings, StaticTracking(mlflow_address))
    registry = MlflowModelRegistry(settings, StaticTracking(mlflow_address))
    for number, scores in enumerate(([1.0, 0.0] * 6, [1.0] * 12, [0.0] * 12)):
        job_id = f"20261124-09000{number}-{secrets.token_hex(4)}"
        record = record_of(job_id, result(scores), folder / job_id, minutes=number, seed=number)
        run = store.get_run(store.send(record).run_id)
        request = RegisterRequest(run_id=run.run_id, name=name, who="elsewhere")
        registry.register(
            request, compiled(), tags=version_tags(run, compiled()), input_example={"message": "m1"}
        )
    with Program(folder, MLFLOW_TRACKING_URI=mlflow_address, MLFLOW_EXPERIMENT_NAME=name) as program:
        yield Found(f"http://127.0.0.1:{program.port}", name)


def production(client: MlflowClient, name: str) -> tuple[int, list[int]]:
    """Who has the alias, and who is in MLflow's stage."""
    held = client.get_model_version_by_alias(name, "production")
    versions = client.search_model_versions(f"name = '{name}'")
    return int(held.version), [int(v.version) for v in versions if v.current_stage == "Production"]


@pytest.mark.timeout(300)
def test_promote_be_held_up_and_roll_back(found: Found, open_page, mlflow_address: str) -> None:
    client = MlflowClient(mlflow_address, mlflow_address)
    page = open_page(found.address, "/models?lang=en", viewport=VIEWPORTS["wide"]).page
    page.get_by_test_id("models-name").fill(found.name)
    page.get_by_test_id(f"model-{found.name}").click(timeout=SECONDS)
    expect(page.get_by_test_id("row-2")).to_contain_text("1.00", timeout=SECONDS)
    for number in (1, 2):
        page.goto(f"{found.address}{found.path}/{number}")
        page.get_by_test_id("stage-why").fill(f"reason {number}")
        page.get_by_test_id("to-production").click(timeout=SECONDS)
        expect(page.get_by_test_id("stage")).to_contain_text("Production", timeout=SECONDS)
        assert production(client, found.name) == (number, [number])
    expect(page.get_by_test_id("history")).to_contain_text("Better than version 1")
    assert client.get_model_version(found.name, "1").current_stage == "Archived"

    # The third answers nothing right: the gate wants the model's name.
    page.goto(f"{found.address}{found.path}/3")
    expect(page.get_by_test_id("gate-result")).to_contain_text("Worse than version 2", timeout=SECONDS)
    page.get_by_test_id("stage-why").fill("just so")
    page.get_by_test_id("gate-confirm").fill("yes")
    page.get_by_test_id("to-production").click()
    expect(page.locator(".q-notification")).to_contain_text("To promote it nevertheless")
    assert production(client, found.name) == (2, [2])
    page.get_by_test_id("gate-confirm").fill(found.name)
    page.get_by_test_id("to-production").click()
    expect(page.get_by_test_id("roll-back")).to_contain_text("Roll back to version 2", timeout=SECONDS)
    assert production(client, found.name) == (3, [3])
    fits(page, "wide")

    page.get_by_test_id("stage-why").fill("wrong prices")
    page.get_by_test_id("roll-back").click()
    expect(page.get_by_test_id("stage")).to_contain_text("Archived", timeout=SECONDS)
    assert production(client, found.name) == (2, [2])
    _check_record(client, found.name)


def _check_record(client: MlflowClient, name: str) -> None:
    """One tag an entry, in MLflow."""

    def entries(number: int) -> list[dict[str, object]]:
        tags = client.get_model_version(name, str(number)).tags
        read = [json.loads(value) for key, value in tags.items() if key.startswith("dspyui.audit.")]
        return sorted(read, key=lambda entry: entry["at"])

    last = entries(2)[-1]
    assert (last["to"], last["why"], last["kind"]) == ("Production", "wrong prices", "rollback")
    came, left = entries(3)
    assert (came["why"], came["gate"]["word"], came["gate"]["confirmed"]) == ("just so", "worse", name)  # type: ignore[index]
    assert (left["to"], left["by"]) == ("Archived", 2)
    assert [(entry["from"], entry["to"]) for entry in entries(1)] == [
        ("None", "Production"), ("Production", "Archived"),
    ]  # fmt: skip


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("language", "size"), [("zh", "phone"), ("en", "phone"), ("zh", "wide")])
def test_the_pages_fit_and_everything_has_a_name(found: Found, open_page, language: str, size: str) -> None:
    page = open_page(found.address, f"/models?lang={language}", viewport=VIEWPORTS[size]).page
    expect(page.get_by_test_id(f"model-{found.name}")).to_be_visible(timeout=SECONDS)
    fits(page, size)
    page.goto(f"{found.address}{found.path}")
    expect(page.get_by_test_id("row-1")).to_be_visible(timeout=SECONDS)
    fits(page, size)
    page.goto(f"{found.address}{found.path}/3")
    expect(page.get_by_test_id("gate-result")).to_be_visible(timeout=SECONDS)
    fits(page, size)
