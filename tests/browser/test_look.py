"""Every page at 1280 and 390 px, light and dark, in both languages: nothing overflows, everything has a name."""

import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from argon2 import PasswordHasher
from playwright.sync_api import expect

from dspyui.domain.compiles import Progress
from dspyui.settings import Settings
from dspyui.ui import theme
from tests.api.world import World
from tests.browser.looks import LOOKS, VIEWPORTS, fits, settled
from tests.program import Program

pytestmark = pytest.mark.browser


class Shown:
    """A running program with one job of each kind."""

    def __init__(self, folder: Path) -> None:
        world = World(Settings.load(env_file=folder / "no.env", environ={}, home=folder / "data"))
        done, failed = world.done(), world.failed()
        world.jobs.write_progress(failed, Progress(phase="baseline", done=3, total=12))
        curves = {"baseline_curve": (0.0, 0.5, 0.3), "evaluation_curve": (1.0, 0.5, 0.7)}
        world.jobs.write_progress(done, Progress(phase="saving", **curves))
        self.done = done
        rows = "".join(f"消息 {n} {'long ' * 30},p{n}\n" for n in range(30))
        kept, _table = world.services.data.keep_upload("评论.csv", f"message,product\n{rows}".encode())
        self.paths = (
            "/",
            "/jobs",
            f"/jobs/{done}",
            f"/jobs/{failed}",
            "/jobs/nope",
            "/no/such/page",
            "/runs",
            "/models",
            f"/test?model=job:{done}&data=data:{kept.digest}",
            "/settings",
            "/help",
            "/help/optimizers",
            "/batch",
            "/batch/nope",
            "/data",
            f"/data/{kept.digest}",
        )
        self.program = Program(folder, MLFLOW_ENABLED="false")
        self.address = f"http://127.0.0.1:{self.program.port}"


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    running = Shown(tmp_path_factory.mktemp("look"))
    with running.program:
        yield running


@pytest.mark.parametrize(("language", "theme", "size"), LOOKS)
def test_pages_fit_and_everything_has_a_name(shown: Shown, open_page, language, theme, size):
    page = open_page(shown.address, f"/?lang={language}", viewport=VIEWPORTS[size], color_scheme=theme).page
    for path in shown.paths:
        page.goto(shown.address + path)
        settled(page)
        fits(page, size, path)
        assert page.evaluate("document.body.classList.contains('body--dark')") == (theme == "dark")


@pytest.mark.parametrize(("language", "theme", "size"), LOOKS)
def test_the_form_fits_with_everything_unfolded(shown: Shown, open_page, language, theme, size):
    page = open_page(
        shown.address, f"/?lang={language}&start=products", viewport=VIEWPORTS[size], color_scheme=theme
    ).page
    settled(page)
    page.get_by_test_id("optimizer").click()
    page.get_by_role("option", name="MIPROv2").click()
    expect(page.get_by_test_id("optimizer-auto")).to_be_visible()
    settled(page)
    folded = page.locator("main .q-expansion-item--collapsed > .q-expansion-item__container > .q-item")
    for _ in range(40):
        if folded.count() == 0:
            break
        count = folded.count()
        folded.first.click()
        expect(folded).not_to_have_count(count)
    assert folded.count() == 0
    expect(page.get_by_test_id("lm-prompt-own")).to_be_visible()
    fits(page, size)


@pytest.mark.parametrize(("language", "theme", "size"), LOOKS)
def test_the_door_fits(tmp_path: Path, open_page, language, theme, size):
    entry = f"ann:{PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash('secret')}"
    with Program(tmp_path, MLFLOW_ENABLED="false", DSPYUI_AUTH=entry) as program:
        page = open_page(
            f"http://127.0.0.1:{program.port}",
            f"/login?lang={language}",
            viewport=VIEWPORTS[size],
            color_scheme=theme,
        ).page
        expect(page.locator("h1")).to_be_visible()
        fits(page, size)


def test_the_keyboard_reaches_the_main_action_and_shows_where_it_is(shown: Shown, open_page):
    page = open_page(shown.address, "/?lang=en", viewport=VIEWPORTS["wide"]).page
    settled(page)
    reached = []
    for _ in range(20):
        page.keyboard.press("Tab")
        reached.append(
            page.evaluate("document.activeElement.dataset.testid || document.activeElement.className")
        )
        if reached[-1] == "compile":
            break
    assert "d-skip" in reached[0]
    assert reached[-1] == "compile", reached
    assert "rgb" in page.evaluate("getComputedStyle(document.activeElement).boxShadow")


def test_the_menu_opens_on_a_phone(shown: Shown, open_page):
    page = open_page(shown.address, "/?lang=en", viewport=VIEWPORTS["phone"]).page
    settled(page)
    expect(page.get_by_test_id("nav-jobs")).not_to_be_in_viewport()
    page.get_by_test_id("menu").click()
    page.get_by_test_id("nav-jobs").click()
    page.wait_for_url("**/jobs")


def test_language_and_colours_are_switched_on_the_page_and_kept(shown: Shown, open_page):
    page = open_page(shown.address, "/jobs?lang=en&x=1", viewport=VIEWPORTS["wide"]).page
    expect(page.locator("h1")).to_have_text("Jobs")
    page.get_by_test_id("language").click()
    page.get_by_test_id("language-zh_CN").click()
    expect(page.locator("h1")).to_have_text("任务")
    assert page.url.endswith("/jobs?x=1")
    assert page.evaluate("document.documentElement.lang") == "zh-CN"
    page.get_by_test_id("colours").click()
    page.get_by_test_id("colours-dark").click()
    expect(page.locator("body.body--dark")).to_have_count(1)
    page.goto(f"{shown.address}/settings")
    expect(page.locator("body.body--dark")).to_have_count(1)
    expect(page.locator("h1")).to_have_text("设置")


def test_a_file_is_uploaded_and_compiled(shown: Shown, open_page, tmp_path: Path):
    file = tmp_path / "rows.csv"
    file.write_text("message,product\n" + "".join(f"m{n},p{n}\n" for n in range(30)), encoding="utf-8")
    page = open_page(shown.address, "/?lang=en&start=products", viewport=VIEWPORTS["wide"]).page
    settled(page)
    page.get_by_test_id("data-tab-file").click()
    page.get_by_test_id("upload").locator("input[type=file]").set_input_files(file)
    expect(page.get_by_text("Data set: rows.csv")).to_be_visible()
    expect(page.get_by_test_id("summary")).to_contain_text("15 / 6 / 9")
    expect(page.get_by_test_id("form-ready")).to_be_visible()

    (tmp_path / "bad.csv").write_text("message,product\nm,p\nm\n", encoding="utf-8")
    page.get_by_test_id("upload").locator("input[type=file]").set_input_files(tmp_path / "bad.csv")
    expect(page.get_by_test_id("upload-problem")).to_contain_text("line 3")
    expect(page.get_by_text("Data set: rows.csv")).to_have_count(0)
    page.get_by_test_id("more").click()
    page.get_by_test_id("save-spec").click()
    close = page.locator(".q-notification").get_by_role("button")
    expect(close).to_have_css("color", "rgb(255, 255, 255)")
    expect(page.locator(".q-notification")).to_have_css("background-color", "rgb(179, 38, 30)")
    close.click()

    (tmp_path / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    page.get_by_test_id("upload").locator("input[type=file]").set_input_files(tmp_path / "picture.png")
    expect(page.get_by_test_id("upload-problem")).to_contain_text(
        "only one .csv, .tsv, .json, .jsonl or .parquet file"
    )


def test_a_tooltip_does_not_lie_over_the_menu_its_button_opened(shown: Shown, open_page):
    page = open_page(shown.address, "/?lang=en", viewport=VIEWPORTS["wide"]).page
    settled(page)
    page.get_by_test_id("colours").hover()
    expect(page.locator(".q-tooltip")).to_be_visible()
    page.get_by_test_id("colours").click()
    expect(page.get_by_test_id("colours-dark")).to_be_visible()
    expect(page.locator(".q-tooltip:visible")).to_have_count(0)


def test_curves_have_the_colours_of_the_theme_and_stay_when_they_are_pointed_at(shown: Shown, open_page):
    address = f"/jobs/{shown.done}?lang=en"
    page = open_page(shown.address, address, viewport=VIEWPORTS["wide"], color_scheme="dark").page
    settled(page)
    chart = page.get_by_test_id("chart").locator("svg").first
    curves = chart.locator("path[stroke='var(--accent)'][fill=none]")
    expect(curves).not_to_have_count(0)
    drawn = curves.count()
    chart.hover()
    pointed_at = re.compile(r"Baseline\s*\d\.\d\d\s*Optimised\s*\d\.\d\d")
    expect(page.get_by_test_id("chart")).to_contain_text(pointed_at)
    expect(curves).to_have_count(drawn)


def test_the_dark_theme_has_its_own_accent_in_what_quasar_colours(shown: Shown, open_page):
    page = open_page(shown.address, "/?lang=en", viewport=VIEWPORTS["wide"], color_scheme="dark").page
    settled(page)
    accent = "getComputedStyle(document.body).getPropertyValue('--q-primary')"
    assert page.evaluate(accent).strip() == theme.DARK["accent"]


def test_the_rough_shape_of_a_page_is_seen_before_its_scripts_run(shown: Shown, open_page):
    page = open_page(shown.address, "/jobs?lang=en", viewport=VIEWPORTS["wide"]).page
    expect(page.locator("h1")).to_be_visible()
    drawn = "getComputedStyle(document.body, '::after').content"
    assert "Loading" not in page.evaluate(drawn)
    page.route("**/_nicegui/**/*.js", lambda route: None)
    page.goto(f"{shown.address}/jobs", wait_until="commit")
    page.wait_for_function(f"document.querySelector('#app') && {drawn}.includes('Loading')")
    page.unroute_all(behavior="ignoreErrors")


@pytest.mark.parametrize(("language", "theme", "size"), LOOKS)
def test_a_file_with_its_split_and_other_columns_fits(
    shown: Shown, open_page, tmp_path, language, theme, size
):
    file = tmp_path / "rows.csv"
    rows = "".join(f"m{n},p{n},{'train' if n < 20 else 'test'}\n" for n in range(30))
    file.write_text(f"The Message,Product,Split\n{rows}", encoding="utf-8")
    page = open_page(
        shown.address, f"/?lang={language}&start=products", viewport=VIEWPORTS[size], color_scheme=theme
    ).page
    settled(page)
    page.get_by_test_id("data-tab-file").click()
    page.get_by_test_id("upload").locator("input[type=file]").set_input_files(file)
    expect(page.get_by_test_id("column-map")).to_be_visible()
    page.get_by_test_id("columns-to-fields").click()
    page.get_by_test_id("split").get_by_role("button").first.click()
    expect(page.get_by_test_id("split-column")).to_be_visible()
    expect(page.get_by_test_id("summary")).to_contain_text("20 / 0 / 10")
    expect(page.get_by_test_id("split-bar")).to_be_visible()
    expect(page.get_by_test_id("notice-test_small")).to_be_visible()
    fits(page, size)
    page.get_by_test_id("file-to-grid").click()
    expect(page.get_by_test_id("cell-0-split")).to_be_visible()
    expect(page.get_by_test_id("summary")).to_contain_text("20 / 0 / 10")
    fits(page, size)


def test_a_missing_key_comes_into_view_and_nothing_covers_the_button(shown: Shown, open_page):
    page = open_page(shown.address, "/?lang=en&start=tickets", viewport=VIEWPORTS["phone"]).page
    missing = page.get_by_test_id("form-problem-0")
    expect(missing).to_contain_text("OPENAI_API_KEY")
    expect(missing).not_to_be_in_viewport()
    page.get_by_test_id("compile").click()
    expect(missing).to_be_in_viewport()
    expect(page.locator(".q-notification")).to_have_count(0)


def test_times_are_the_visitors_own_from_the_first_look(shown: Shown, open_page):
    where = (
        "Asia/Kolkata" if datetime.now().astimezone().utcoffset() == timedelta(hours=8) else "Asia/Shanghai"
    )
    page = open_page(shown.address, "/jobs?lang=en", viewport=VIEWPORTS["wide"], timezone_id=where).page
    settled(page)
    told = page.locator("main time").first
    at = datetime.fromisoformat(told.get_attribute("datetime") or "")
    expect(told).to_have_text(re.compile(rf"{at.astimezone(ZoneInfo(where)):%H:%M}$"))


def test_the_step_that_failed_is_red(shown: Shown, open_page):
    page = open_page(shown.address, shown.paths[3] + "?lang=en", viewport=VIEWPORTS["wide"]).page
    settled(page)
    stopped = page.locator(".d-steps [aria-current=step] .q-icon")
    expect(stopped).to_have_css("color", "rgb(179, 38, 30)")


def test_a_program_is_downloaded(shown: Shown, open_page):
    page = open_page(shown.address, shown.paths[2] + "?lang=en", viewport=VIEWPORTS["wide"]).page
    with page.expect_download() as download:
        page.get_by_test_id("download-program").click()
    assert download.value.suggested_filename.endswith(".json")
