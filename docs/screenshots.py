"""Makes the pictures of the READMEs from a real run: the program, its MLflow, its language model, the example.

    .venv/bin/python docs/screenshots.py [FOLDER]

It starts the program on a temporary folder, presses Compile on the filled-in example, waits for the result and its
record, and saves what Chromium shows into FOLDER (`docs/images`). Takes some three minutes on two cores.
"""

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from playwright.sync_api import Browser, Page, expect, sync_playwright

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.chromium import ARGUMENTS, chromium  # noqa: E402 - a script; its folder is not on the path

START_SECONDS = 120
COMPILE_MS = 300_000
READY_MS = 180_000


@dataclass(frozen=True, slots=True)
class Picture:
    """One file: what page, in which language, how wide, light or dark."""

    name: str
    language: str
    width: int = 1280
    height: int = 800
    dark: bool = False


COMPILE = (Picture("compile_en", "en_US"), Picture("compile_zh", "zh_CN"))
RESULT = (
    Picture("result_en", "en_US"),
    Picture("result_zh", "zh_CN"),
    Picture("result_dark_en", "en_US", dark=True),
    Picture("result_phone_zh", "zh_CN", width=390, height=844),
)


@contextmanager
def program(folder: Path) -> Iterator[str]:
    """The running program's address. It is told to end, and waited for, afterwards."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # A machine where an MLflow answers already would show that one's Runs.
    command = [sys.executable, "-m", "dspyui", "ui", "--port", str(port), "--mlflow"]
    environment = {
        name: value for name, value in os.environ.items() if not re.match(r"MLFLOW_|DSPYUI_", name)
    }
    environment["LOGNAME"] = "ada"  # not the name of whoever makes them
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
        try:
            address = f"http://127.0.0.1:{port}"
            wait_for(address, process)
            yield address
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def wait_for(address: str, process: "subprocess.Popen[bytes]") -> None:
    """Return once the program answers."""
    end = time.monotonic() + START_SECONDS
    with httpx.Client(trust_env=False, timeout=5) as client:
        while True:
            try:
                if client.get(f"{address}/api/health").status_code == 200:
                    return
            except httpx.TransportError:
                pass
            if process.poll() is not None or time.monotonic() > end:
                raise SystemExit("the program did not start")
            time.sleep(0.2)


@contextmanager
def opened(browser: Browser, address: str, picture: Picture) -> Iterator[Page]:
    """The page as one visitor sees it."""
    context = browser.new_context(
        viewport={"width": picture.width, "height": picture.height},
        color_scheme="dark" if picture.dark else "light",
        locale=picture.language.replace("_", "-"),
        timezone_id="UTC",
        reduced_motion="reduce",
    )
    page = context.new_page()
    page.goto(f"{address}{'&' if '?' in address else '?'}lang={picture.language}")
    yield page
    context.close()


def compiled(browser: Browser, address: str) -> str:
    """Press Compile on the example, wait for the result and its Run; gives the job's address."""
    with opened(browser, address, COMPILE[0]) as page:
        page.get_by_test_id("compile").click()
        page.wait_for_url(re.compile(r"/jobs/"))
        expect(page.get_by_test_id("result")).to_be_visible(timeout=COMPILE_MS)
        expect(page.get_by_test_id("run-link")).to_be_visible(timeout=COMPILE_MS)
        return page.url.partition("?")[0]


def take(browser: Browser, address: str, pictures: tuple[Picture, ...], mark: str, folder: Path) -> None:
    """Save the pictures of one address, once the element with the mark is there."""
    for picture in pictures:
        with opened(browser, address, picture) as page:
            expect(page.get_by_test_id(mark).first).to_be_visible()
            # A server that still starts is not what a visitor sees.
            expect(page.get_by_test_id("mlflow-state")).to_have_class(
                re.compile(r"\bgood\b"), timeout=READY_MS
            )
            page.wait_for_load_state("networkidle")
            path = folder / f"{picture.name}.png"
            page.screenshot(path=path, animations="disabled")
            print(path)


def main(folder: Path) -> None:
    """Make them all."""
    folder.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="dspyui-pictures-") as temporary,
        program(Path(temporary)) as address,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=chromium(), args=list(ARGUMENTS))
        take(browser, address, COMPILE, "compile", folder)
        take(browser, compiled(browser, address), RESULT, "result", folder)
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "images")
