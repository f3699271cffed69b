"""What tests of pages do: wait, look for marks, read words."""

import asyncio
from collections.abc import Callable

from nicegui import ui
from nicegui.testing import User


async def until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    """Poll the loop until the condition is true."""
    end = asyncio.get_running_loop().time() + seconds
    while not condition():
        assert asyncio.get_running_loop().time() < end, "not in time"
        await asyncio.sleep(0.02)


def sees(user: User, **what: str) -> Callable[[], bool]:
    """Whether an element with a mark or a text is there."""
    return lambda: bool(user.find(**what).elements) if exists(user, **what) else False


def exists(user: User, **what: str) -> bool:
    try:
        user.find(**what)
    except AssertionError:
        return False
    return True


def element(user: User, marker: str) -> ui.element:
    return next(iter(user.find(marker=marker).elements))


def words(user: User, marker: str) -> str:
    """All text inside an element."""
    found = element(user, marker)
    return " ".join(str(part.text) for part in (found, *found.descendants()) if hasattr(part, "text"))
