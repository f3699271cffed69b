"""A Chromium for the tests that click."""

from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.chromium import ARGUMENTS, chromium

# Playwright's own five seconds are short for a busy machine; only a page that is wrong waits this long.
expect.set_options(timeout=30_000)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium(), args=list(ARGUMENTS))
        yield opened
        opened.close()


class Watched:
    """A page whose complaints are kept: errors of scripts, failed requests, requests to other machines."""

    def __init__(self, page: Page, address: str) -> None:
        self.page = page
        self.complaints: list[str] = []
        page.on("console", lambda said: self._hear(said.type, said.text, said.location["url"]))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda asked: self._check(asked.url, address))

    def _hear(self, kind: str, text: str, url: str) -> None:
        # The page that says there is no such job is answered with 404, and Chromium says so too.
        if kind == "error" and not ("404" in text and url == self.page.url):
            self.complaints.append(f"{text} ({url})")

    def _check(self, url: str, address: str) -> None:
        if not url.startswith((address, "data:", "blob:")):
            self.complaints.append(f"asked for {url}")


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Callable[..., Watched]]:
    """Open pages as a visitor with a fresh session; after the test they must not have complained."""
    watched: list[Watched] = []

    def open_one(address: str, path: str = "/", **context: object) -> Watched:
        made = browser.new_context(**context)  # type: ignore[arg-type]
        page = made.new_page()
        found = Watched(page, address)
        watched.append(found)
        page.goto(address + path)
        return found

    yield open_one
    for found in watched:
        found.page.context.close()
    assert [complaint for found in watched for complaint in found.complaints] == []
