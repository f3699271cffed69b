"""The Runs of another machine, found, opened, compared, deleted and restored by clicking.

Everything is real: the program as a process, an MLflow server, Chromium. The Runs were sent from other job folders.
"""

import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import expect

from dspyui.adapters.mlflow_store.runs import MlflowRunStore
from dspyui.adapters.mlflow_store.spool import FileTraceSink
from dspyui.domain.runs import RunLink
from dspyui.settings import Settings
from tests.browser.looks import VIEWPORTS, fits, fits_at_every_width
from tests.contracts.fakes import StaticTracking
from tests.program import Program
from tests.run_world import record_of, result
from tests.trace_world import call

pytestmark = pytest.mark.browser
SECONDS = 30_000
NOT_SCROLLED = "box => box.scrollWidth <= box.clientWidth"


@dataclass
class Found:
    """The program's address, and the Runs by their names."""

    address: str
    runs: dict[str, str]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory, mlflow_address: str) -> Iterator[Found]:
    folder = tmp_path_factory.mktemp("runs")
    name = f"Experiment {secrets.token_hex(4)}"
    settings = Settings.load(
        env_file=folder / "no.env", environ={"MLFLOW_EXPERIMENT_NAME": name}, home=folder / "elsewhere"
    )
    store = MlflowRunStore(settings, StaticTracking(mlflow_address))
    runs = {}
    for number, (title, scores, prompt) in enumerate(
        (("Weak / 较弱", [0.0] * 12, "Extract."), ("Strong", [1.0] * 12, "Extract the product."),
         ("Middling", [1.0, 0.0] * 6, "Get it."))
    ):  # fmt: skip
        job_id = f"20261124-09000{number}-{secrets.token_hex(4)}"
        made = result(scores, prompt=prompt)
        record = record_of(job_id, made, folder / job_id, name=title, minutes=number, seed=number)
        link = store.send(record)
        runs[title] = link.run_id
    _trace(store, link, folder / "traces", mlflow_address)
    with Program(folder, MLFLOW_TRACKING_URI=mlflow_address, MLFLOW_EXPERIMENT_NAME=name) as program:
        yield Found(f"http://127.0.0.1:{program.port}", runs)


def _trace(store: MlflowRunStore, link: RunLink, folder: Path, address: str) -> None:
    """Calls for the last Run, one of them with an opinion."""
    from mlflow.entities import AssessmentSource, Feedback
    from mlflow.tracing.client import TracingClient

    sink = FileTraceSink(folder)
    calls = [
        call(f"消息 {n} {'long ' * 60}", number=n, cost=0.01, error=None if n else "E: x") for n in range(22)
    ]
    for made in calls:
        sink.write(made)
    sink.close()
    assert store.send_traces(folder, link) == (22, 0)
    source = AssessmentSource(source_type="HUMAN", source_id="anna")
    said = Feedback(name="ok", value=False, rationale="不对 " * 30, source=source)
    TracingClient(address).log_assessment(calls[21].mlflow_id, said)


@pytest.mark.timeout(300)
def test_two_runs_of_another_machine_are_compared(found: Found, open_page) -> None:
    page = open_page(found.address, "/runs?lang=en", viewport=VIEWPORTS["wide"]).page
    expect(page.locator("tbody tr")).to_have_count(3, timeout=SECONDS)
    # The whole table is seen at this width: nothing of it has to be scrolled to.
    assert page.locator(".d-table-box").evaluate(NOT_SCROLLED)
    page.get_by_test_id("runs-name").fill("ROnG")
    expect(page.locator("tbody tr")).to_have_count(1)
    expect(page).to_have_url(f"{found.address}/runs?name=ROnG")
    page.reload()
    expect(page.locator("tbody tr")).to_have_count(1, timeout=SECONDS)
    page.get_by_test_id(f"choose-{found.runs['Strong']}").click()
    page.get_by_test_id("runs-name").fill("")
    expect(page.locator("tbody tr")).to_have_count(3)
    page.get_by_test_id(f"choose-{found.runs['Weak / 较弱']}").click()
    fits(page, "wide")
    page.get_by_test_id("compare").click()
    expect(page.get_by_test_id("verdict-A-B")).to_contain_text("A scores more than B", timeout=SECONDS)
    expect(page.get_by_test_id("verdict-A-B")).to_contain_text("12 of 12 rows differ, p < 0.001.")
    expect(page.get_by_test_id("param-seed")).to_contain_text("1")
    expect(page.get_by_test_id("prompt-diff")).to_contain_text("Extract the product.")
    fits(page, "wide")


@pytest.mark.timeout(300)
def test_a_run_is_read_deleted_and_restored(found: Found, open_page, mlflow_address: str) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(mlflow_address, mlflow_address)
    run_id = found.runs["Middling"]
    page = open_page(found.address, f"/runs/{run_id}?lang=en", viewport=VIEWPORTS["wide"]).page
    expect(page.get_by_test_id("evaluation-score")).to_have_text("0.50", timeout=SECONDS)
    expect(page.get_by_test_id("run-job")).to_contain_text("not on this machine")
    expect(page.get_by_test_id("row-1")).to_contain_text("m0")
    with page.expect_download() as download:
        page.get_by_test_id("file-spec.yaml").click()
    assert "labeled_few_shot" in download.value.path().read_text()
    page.get_by_test_id("delete").click()
    page.get_by_test_id("confirm-yes").click()
    expect(page.get_by_test_id("is-deleted")).to_be_visible(timeout=SECONDS)
    assert client.get_run(run_id).info.lifecycle_stage == "deleted"
    page.goto(f"{found.address}/runs?deleted=1")
    page.get_by_test_id(f"restore-{run_id}").click()
    expect(page.get_by_test_id("no-fit")).to_be_visible(timeout=SECONDS)
    assert client.get_run(run_id).info.lifecycle_stage == "active"


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("language", "size"), [("zh", "phone"), ("en", "phone"), ("zh", "wide")])
def test_the_pages_fit_and_everything_has_a_name(found: Found, open_page, language: str, size: str) -> None:
    weak, strong = found.runs["Weak / 较弱"], found.runs["Strong"]
    page = open_page(found.address, f"/runs?lang={language}", viewport=VIEWPORTS[size]).page
    expect(page.locator("tbody tr")).to_have_count(3, timeout=SECONDS)
    fits(page, size)
    page.goto(f"{found.address}/runs/{strong}")
    expect(page.get_by_test_id("recorded")).to_be_visible(timeout=SECONDS)
    expect(page.get_by_test_id("traces-empty")).to_be_visible(timeout=SECONDS)
    fits(page, size)
    page.goto(f"{found.address}/runs/compare?ids={weak},{strong}")
    expect(page.get_by_test_id("compared-rows")).to_be_visible(timeout=SECONDS)
    fits(page, size)


@pytest.mark.timeout(300)
def test_a_run_of_another_machine_is_loaded_into_the_form(found: Found, open_page) -> None:
    page = open_page(found.address, f"/runs/{found.runs['Strong']}?lang=en", viewport=VIEWPORTS["wide"]).page
    page.get_by_test_id("load-run").click(timeout=SECONDS)
    expect(page.get_by_test_id("form-ready")).to_be_visible(timeout=SECONDS)
    expect(page.get_by_test_id("program-name")).to_have_value("产品 extraction/1")


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_traces_of_a_run_are_turned_filtered_and_lead_to_mlflow(found: Found, open_page) -> None:
    address = f"/runs/{found.runs['Middling']}?lang=en&rows=all"
    page = open_page(found.address, address, viewport=VIEWPORTS["wide"]).page
    rows = page.get_by_test_id("traces").locator("tbody tr")
    expect(rows).to_have_count(20, timeout=SECONDS)
    expect(rows.first).to_contain_text("ok: false")
    assert page.get_by_test_id("traces").locator(".d-table-box").evaluate(NOT_SCROLLED)
    fits_at_every_width(page)
    page.get_by_test_id("traces-next").click()
    expect(page.get_by_test_id("traces-range")).to_have_text("21–22 of 22 traces")
    page.get_by_test_id("traces-text").fill("消息 7 ")
    expect(rows).to_have_count(1)
    # What else stands in the address stays there.
    expect(page).to_have_url(re.compile(r"rows=all&trace_text="))
    page.reload()
    expect(rows).to_have_count(1, timeout=SECONDS)
    expect(page.get_by_test_id("traces-text")).to_have_value("消息 7 ")
    beside = page.context.new_page()
    beside.route(lambda url: not url.startswith("http://127.0.0.1"), lambda route: route.abort())
    beside.goto(rows.first.get_by_role("link").get_attribute("href") or "")
    # MLflow opens this one trace over its list.
    expect(beside.locator("body")).to_contain_text("message消息 7 long", timeout=SECONDS)
