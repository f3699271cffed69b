"""The main job by clicking: open, compile the filled-in example, reload in the middle, read, register, look in MLflow.

Everything is real: the program as a process, the bundled model, an MLflow server, Chromium.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest
from playwright.sync_api import expect

from tests.browser.looks import fits_at_every_width, settled
from tests.program import Program

pytestmark = [pytest.mark.browser, pytest.mark.slow]

# The whole compile on two busy cores, in milliseconds.
COMPILE = 280_000


@pytest.fixture
def program(tmp_path: Path, mlflow_address: str) -> Iterator[Program]:
    with Program(tmp_path, MLFLOW_TRACKING_URI=mlflow_address) as running:
        yield running


@pytest.mark.timeout(420)
def test_compile_the_example_and_register_it(program: Program, mlflow_address: str, open_page) -> None:
    address = f"http://127.0.0.1:{program.port}"
    page = open_page(address, "/?lang=en", viewport={"width": 1280, "height": 800}).page

    expect(page.get_by_test_id("form-ready")).to_be_visible()
    page.get_by_test_id("compile").click()
    page.wait_for_url(re.compile(r"/jobs/\d{8}-\d{6}-[0-9a-f]{8}$"))
    job_id = page.url.rsplit("/", 1)[1]

    # It runs: rows are scored. Then the page goes away and comes back in the middle.
    expect(page.get_by_test_id("progress-rows")).to_contain_text("of 36 rows", timeout=60_000)
    calls = int(page.get_by_test_id("lm-calls").inner_text())
    page.reload()
    expect(page.get_by_test_id("job-status")).to_contain_text("Running")
    assert int(page.get_by_test_id("lm-calls").inner_text()) >= calls
    expect(page.get_by_test_id("log")).to_contain_text("Rows split")

    expect(page.get_by_test_id("evaluation-score")).to_be_visible(timeout=COMPILE)
    shown = {
        name: float(page.get_by_test_id(name).inner_text()) for name in ("baseline-score", "evaluation-score")
    }
    gained = float(page.get_by_test_id("improvement").inner_text())
    assert gained >= 0.5
    assert gained == pytest.approx(shown["evaluation-score"] - shown["baseline-score"], abs=0.011)
    expect(page.get_by_test_id("rows")).to_contain_text("of 36")
    expect(page.get_by_test_id("prompt-diff")).to_contain_text("[assistant]")
    page.get_by_test_id("prompt-view-both").click()
    expect(page.get_by_test_id("prompt-after")).to_contain_text("Assistant")
    expect(page.get_by_test_id("snippet")).to_contain_text("dspy.Predict")

    page.get_by_test_id("register").click()
    page.get_by_test_id("register-name").fill("抽取 product")
    page.get_by_test_id("register-stage").click()
    page.get_by_role("option", name="Staging").click()
    page.get_by_test_id("register-why").fill("the first one")
    page.get_by_test_id("register-confirm").click()
    expect(page.get_by_test_id("registered")).to_have_text("抽取 product, version 1: Staging", timeout=60_000)
    page.get_by_test_id("registered-link").click()
    expect(page.get_by_test_id("stage")).to_contain_text("Staging")
    assert unquote(page.url).endswith("/models/抽取 product/1")
    settled(page)
    fits_at_every_width(page)

    _check_mlflow(mlflow_address, job_id, gained)


def _check_mlflow(address: str, job_id: str, gained: float) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=address, registry_uri=address)
    version = client.get_model_version_by_alias("抽取 product", "staging")
    run = client.get_run(version.run_id)
    assert (run.info.status, run.data.tags["dspyui.job_id"]) == ("FINISHED", job_id)
    assert run.data.metrics["score_improvement"] == pytest.approx(gained, abs=0.006)
    assert version.version in {"1", 1}
