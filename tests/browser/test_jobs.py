"""The list of jobs and the way back into the form, as a visitor's browser shows them."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

from dspyui.settings import Settings
from tests.api.world import World, program
from tests.browser.looks import NAMELESS, VIEWPORTS
from tests.program import Program

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str, Path]]:
    """The program's address, a done job, and a folder."""
    folder = tmp_path_factory.mktemp("jobs")
    world = World(Settings.load(env_file=folder / "no.env", environ={}, home=folder / "data"))
    done = world.done()
    world.failed()
    world.services.jobs.describe(done, title="Best / 最好的", note="first line")
    with Program(folder, MLFLOW_ENABLED="false") as started:
        yield f"http://127.0.0.1:{started.port}", done, folder


def test_the_search_is_in_the_address_and_outlives_a_reload(running, open_page):
    address, done, _ = running
    page = open_page(address, "/jobs?lang=en", viewport=VIEWPORTS["wide"]).page
    page.get_by_test_id("jobs-search").fill("最好的")
    expect(page).to_have_url(f"{address}/jobs?text=%E6%9C%80%E5%A5%BD%E7%9A%84")
    expect(page.locator("tbody tr")).to_have_count(1)
    page.reload()
    expect(page.get_by_test_id(f"open-{done}")).to_have_text("Best / 最好的")
    expect(page.get_by_test_id("jobs-search")).to_have_value("最好的")
    page.goto(f"{address}/jobs?state=failed")
    expect(page.locator("tbody tr")).to_have_count(1)
    expect(page.get_by_test_id(f"open-{done}")).to_have_count(0)


@pytest.mark.parametrize(("language", "size"), [("en", "wide"), ("zh", "phone")])
def test_a_program_file_fills_the_form(running, open_page, tmp_path, language, size):
    address, _, _ = running
    file = tmp_path / "program.json"
    file.write_text(program().to_json(), encoding="utf-8")
    page = open_page(address, f"/?lang={language}", viewport=VIEWPORTS[size]).page
    expect(page.get_by_test_id("form-ready")).to_be_visible()
    page.get_by_test_id("more").click()
    page.get_by_test_id("load-spec").click()
    expect(page.get_by_test_id("load-run-id")).to_be_visible()
    assert page.evaluate(NAMELESS) == []
    page.locator("input[type=file]").last.set_input_files(file)
    said = {"en": "Filled in from the program 产品 extraction/1", "zh": "已填入程序 产品 extraction/1"}
    expect(page.get_by_test_id("form-notice")).to_contain_text(said[language])
    expect(page.get_by_test_id("program-name")).to_have_value("产品 extraction/1")
    assert page.evaluate("document.documentElement.scrollWidth") <= VIEWPORTS[size]["width"]


@pytest.mark.parametrize(("language", "size"), [("zh", "wide"), ("en", "phone")])
def test_the_dialogs_of_a_job_fit_and_have_names(running, open_page, language, size):
    address, done, _ = running
    page = open_page(address, f"/jobs/{done}?lang={language}", viewport=VIEWPORTS[size]).page
    for mark, inside, leave in (
        ("describe", "job-title", "describe-cancel"),
        ("delete", "confirm-yes", "confirm-no"),
    ):
        page.get_by_test_id(mark).click()
        expect(page.get_by_test_id(inside)).to_be_visible()
        assert page.evaluate(NAMELESS) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= VIEWPORTS[size]["width"]
        page.get_by_test_id(leave).click()
        expect(page.get_by_test_id(inside)).to_have_count(0)
