"""Where Chromium is: on PATH, else the one Playwright installed. As a command: prints its path, or exits with 1."""

import shutil
import sys
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
# Chromium in a container has neither a sandbox nor much shared memory; it must not call home either.
ARGUMENTS = (
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--disable-background-networking",
)


def find_chromium() -> str | None:
    """The path of an executable, or None."""
    return next((found for name in NAMES if (found := shutil.which(name))), None) or _playwrights()


def chromium() -> str:
    """The path of an executable. A browser test fails without one; it never skips."""
    found = find_chromium()
    assert found, "there is no Chromium; `bash test.sh` installs one"
    return found


def _playwrights() -> str | None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        path = Path(playwright.chromium.executable_path)
    return str(path) if path.is_file() else None


def _starts(path: str) -> bool:
    """Whether it really runs here: a Chromium without its system libraries does not."""
    from playwright.sync_api import Error, sync_playwright

    with sync_playwright() as playwright:
        try:
            playwright.chromium.launch(executable_path=path, args=list(ARGUMENTS)).close()
        except Error as exc:
            print(exc, file=sys.stderr)  # noqa: T201 - a command's own output
            return False
    return True


if __name__ == "__main__":
    path = find_chromium()
    if path is None or not _starts(path):
        sys.exit(1)
    print(path)  # noqa: T201 - a command's own output
