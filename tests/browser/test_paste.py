"""Rows that were copied from a spreadsheet, pasted into the compile form by the keyboard."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.program import Program

pytestmark = pytest.mark.browser


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Program]:
    with Program(tmp_path, MLFLOW_ENABLED="false") as running:
        yield running


def test_copied_rows_fill_rows_and_columns(program: Program, open_page):
    address = f"http://127.0.0.1:{program.port}"
    allowed = ["clipboard-read", "clipboard-write"]
    page = open_page(address, "/?lang=en&start=empty", permissions=allowed).page
    cells = page.locator("[data-testid=data] textarea[data-testid^=cell-]")
    expect(cells).to_have_count(6)
    copied = 'first\t1\n"two\nlines"\t2\n' + "".join(f"q{n}\t{n}\n" for n in range(8))
    page.evaluate("text => navigator.clipboard.writeText(text)", copied)
    cells.first.focus()
    page.keyboard.press("ControlOrMeta+V")
    expect(cells).to_have_count(20)
    assert [cell.input_value() for cell in cells.all()][:6] == [
        "first",
        "1",
        "two\nlines",
        "2",
        "q0",
        "0",
    ]
    # One line is text like any other: it goes to the cursor.
    page.evaluate("() => navigator.clipboard.writeText('more ')")
    cells.first.focus()
    page.keyboard.press("Home")
    page.keyboard.press("ControlOrMeta+V")
    expect(cells.first).to_have_value("more first")
