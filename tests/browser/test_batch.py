"""A batch by clicking: try five rows, start, watch, fetch, ask the failed rows again; then a look into MLflow."""

import json
import re
from pathlib import Path

import pytest
from mlflow import MlflowClient
from playwright.sync_api import expect

from tests.batch_world import asked, program, second_word, write_rows
from tests.browser.looks import fits_at_every_width
from tests.fake_openai import FakeOpenAI, Fault
from tests.program import Program
from tests.waiting import wait_ended, wait_until

pytestmark = [pytest.mark.browser, pytest.mark.slow]
ROWS = 120


@pytest.fixture
def lm():
    bad = {"thing7 "}
    with FakeOpenAI(
        lambda m: (
            Fault(400, "not this one") if any(word in m[-1]["content"] for word in bad) else second_word(m)
        ),
        seconds=0.05,
    ) as fake:
        yield fake, bad


@pytest.fixture
def running(tmp_path, mlflow_address):
    settings = {"MLFLOW_TRACKING_URI": mlflow_address, "MLFLOW_EXPERIMENT_NAME": f"clicked-{tmp_path.name}"}
    with Program(tmp_path, **settings) as made:
        yield made


def choose_program(page, path):
    """Upload a program's file in the form."""
    # What is there to choose from is drawn anew when MLflow is found.
    expect(page.get_by_test_id("choose-version")).to_be_enabled(timeout=60_000)
    page.get_by_test_id("choose-file").click()
    page.get_by_test_id("choose-upload").locator("input[type=file]").set_input_files(str(path))
    expect(page.get_by_test_id("choose-uploaded")).to_contain_text(path.name)


@pytest.mark.timeout(300)
def test_a_batch_from_the_form_to_the_download(tmp_path, running, lm, mlflow_address, open_page):
    fake, bad = lm
    (tmp_path / "things.json").write_text(program(fake.base_url).to_json())
    rows = write_rows(tmp_path / "rows.jsonl", ROWS)
    page = open_page(f"http://127.0.0.1:{running.port}", "/batch?lang=en").page
    choose_program(page, tmp_path / "things.json")
    page.get_by_test_id("batch-upload").locator("input[type=file]").set_input_files(str(rows))
    expect(page.get_by_text("Data set: rows.jsonl")).to_be_visible()
    page.get_by_test_id("batch-try").click()
    expect(page.get_by_test_id("batch-tried")).to_contain_text("thing4", timeout=60_000)
    assert sorted(asked(fake)) == [0, 1, 2, 3, 4]
    page.get_by_test_id("batch-start").click()
    page.wait_for_url(re.compile(r"/batch/\d{8}-\d{6}-[0-9a-f]{8}$"))
    page.reload()
    expect(page.get_by_test_id("batch-status")).to_contain_text("Done", timeout=120_000)
    expect(page.get_by_test_id("batch-errors")).to_contain_text("The provider refused the request")
    expect(page.get_by_test_id("batch-errors")).to_contain_text("engine.invalid_request")
    with page.expect_download() as download:
        page.get_by_test_id("batch-download").click()
    lines = [json.loads(line) for line in Path(download.value.path()).read_text().splitlines()]
    assert [line["product"] for line in lines] == [None if n == 7 else f"thing{n}" for n in range(ROWS)]
    expect(page.get_by_test_id("batch-run")).to_be_visible(timeout=60_000)
    expect(page.get_by_test_id("batch-record")).to_contain_text(str(ROWS), timeout=60_000)
    fits_at_every_width(page)

    bad.clear()
    before = len(fake.requests)
    page.get_by_test_id("batch-again").click()
    page.wait_for_url(re.compile(r"/batch/.*"))
    expect(page.get_by_test_id("batch-failed")).to_have_text("0", timeout=120_000)
    expect(page.get_by_test_id("batch-status")).to_contain_text("Done", timeout=120_000)
    assert asked(fake)[before:] == [7]

    client = MlflowClient(tracking_uri=mlflow_address)
    experiment = client.get_experiment_by_name(f"clicked-{tmp_path.name}").experiment_id
    wait_until(lambda: len(finished(client, experiment)) == 2, seconds=60)
    again, first = finished(client, experiment)
    assert (first.data.metrics["success_count"], first.data.metrics["error_count"]) == (ROWS - 1, 1)
    assert (again.data.metrics["success_count"], again.data.metrics["reused_rows"]) == (ROWS, ROWS - 1)
    traces = client.search_traces(locations=[experiment], run_id=first.info.run_id, max_results=500)
    assert {trace.info.trace_id for trace in traces} == {line["_trace_id"] for line in lines}
    (dataset,) = first.inputs.dataset_inputs
    assert dataset.dataset.name == "rows.jsonl"


def finished(client, experiment):
    return client.search_runs([experiment], filter_string="attributes.status = 'FINISHED'")


@pytest.mark.timeout(300)
def test_a_running_batch_is_cancelled_and_taken_up_again(tmp_path, running, lm, mlflow_address, open_page):
    fake, bad = lm
    bad.clear()
    fake.hold(after=40)
    (tmp_path / "things.json").write_text(program(fake.base_url).to_json())
    rows = write_rows(tmp_path / "rows.jsonl", ROWS)
    page = open_page(f"http://127.0.0.1:{running.port}", "/batch?lang=en").page
    choose_program(page, tmp_path / "things.json")
    page.get_by_test_id("batch-path").fill(str(rows))
    page.get_by_test_id("batch-start").click()
    page.wait_for_url(re.compile(r"/batch/\d{8}-\d{6}-[0-9a-f]{8}$"))
    job_id = page.url.rpartition("/")[2]
    wait_until(lambda: len(fake.requests) == 48, seconds=120)
    children = [child for child in running.children() if "dspyui.bootstrap" in " ".join(child.cmdline())]
    assert children
    page.get_by_test_id("batch-cancel").click()
    page.get_by_test_id("confirm-yes").click()
    expect(page.get_by_test_id("batch-status")).to_contain_text("Cancelled", timeout=60_000)
    wait_ended(children)
    with page.expect_download() as download:
        page.get_by_test_id("batch-download").click()
    lines = [json.loads(line) for line in Path(download.value.path()).read_text().splitlines()]
    assert [line["product"] for line in lines] == [f"thing{n}" for n in range(len(lines))]
    assert 0 < len(lines) <= 40

    fake.release()
    page.get_by_test_id("batch-again").click()
    page.wait_for_url(lambda url: "/batch/" in url and job_id not in url)
    expect(page.get_by_test_id("batch-rows")).to_contain_text(f"{ROWS} / {ROWS}", timeout=120_000)
    expect(page.get_by_test_id("batch-status")).to_contain_text("Done", timeout=120_000)
    assert not {line["id"] for line in lines} & set(asked(fake)[48:])

    client = MlflowClient(tracking_uri=mlflow_address)
    experiment = client.get_experiment_by_name(f"clicked-{tmp_path.name}").experiment_id
    wait_until(lambda: finished(client, experiment), seconds=60)
    (again,) = finished(client, experiment)
    (killed,) = client.search_runs([experiment], filter_string="attributes.status = 'KILLED'")
    assert killed.data.tags["dspyui.job_id"] == job_id
    assert (again.data.metrics["success_count"], again.data.metrics["reused_rows"]) == (ROWS, 40)
    assert len(fake.requests) == 48 + ROWS - 40
