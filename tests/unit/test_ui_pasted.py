"""Cells copied from a spreadsheet, and pasting them into the grid of rows."""

import pytest
from nicegui.testing import User

from dspyui.ui.pasted import cells_of_text, paste
from tests.pages import element, sees, until


@pytest.mark.parametrize(
    ("copied", "cells"),
    [
        ("a\tb\nc\td\n", [["a", "b"], ["c", "d"]]),
        ("a\r\nb\r\n", [["a"], ["b"]]),
        ("a\t\t\n\tb\t", [["a", "", ""], ["", "b", ""]]),
        ("a\n\nb", [["a"], [""], ["b"]]),
        # With line ends, tabs and quotes inside, as spreadsheets quote them.
        ('"two\nlines"\tx\n"a ""word"" here"\ty', [["two\nlines", "x"], ['a "word" here', "y"]]),
        ('"tab\there"\tx', [["tab\there", "x"]]),
        # Quotes of the text itself.
        ('"Hello" he said\tx', [['"Hello" he said', "x"]]),
        ('"quoted"\tx', [['"quoted"', "x"]]),
        ('5" pipe\tx\n6" pipe\ty', [['5" pipe', "x"], ['6" pipe', "y"]]),
        ('"never closed\tx\ny', [['"never closed', "x"], ["y"]]),
    ],
)
def test_copied_cells(copied: str, cells: list[list[str]]):
    assert cells_of_text(copied) == cells


def test_cells_go_to_the_right_and_down_and_leave_the_others_alone():
    rows = [{"q": "old", "a": "kept"}, {"q": "old", "k": "kept"}]
    lost = paste(rows, ["q", "a", "k"], [["1", "2", "3"], ["4"]], row=1, column=1)
    assert rows == [
        {"q": "old", "a": "kept"},
        {"q": "old", "a": "1", "k": "2"},
        {"a": "4"},
    ]
    assert lost == 1


async def test_rows_of_a_spreadsheet_fill_the_grid(user: User):
    await user.open("/?start=empty")
    copied = "".join(f"q{n}\ta{n}\textra\n" for n in range(12))
    first = next(name for name in marks(user) if name.startswith("cell-0-"))
    user.find(marker=first).trigger("paste", copied)
    await until(sees(user, content="1–10 of 12"))
    assert element(user, first).value == "q0"  # type: ignore[attr-defined]
    second = next(name for name in marks(user) if name.startswith("cell-9-") and not name.endswith(first[6:]))
    assert element(user, second).value == "a9"  # type: ignore[attr-defined]
    assert any("Pasted 12 rows" in said and "left out: 1" in said for said in user.notify.messages)


async def test_more_than_the_grid_holds_is_not_pasted(user: User):
    await user.open("/?start=empty")
    first = next(name for name in marks(user) if name.startswith("cell-0-"))
    for copied in ("q\ta\n" * 2001, None):
        user.notify.messages.clear()
        user.find(marker=first).trigger("paste", copied)
        await until(lambda: any("up to 2000 rows" in said for said in user.notify.messages))
    assert element(user, first).value == ""  # type: ignore[attr-defined]


def marks(user: User) -> list[str]:
    """The marks of all elements of the page."""
    assert user.client is not None
    return [mark for made in user.client.elements.values() for mark in made._markers]
