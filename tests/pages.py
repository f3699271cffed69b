"""What tests of pages do: wait, look for marks, read words."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from nicegui import Client, background_tasks, ui
from nicegui.functions.navigate import Navigate
from nicegui.storage import Storage
from nicegui.testing import User
from nicegui.testing.user_simulation import user_simulation

from dspyui.services import Services
from dspyui.ui.app import create_pages


@asynccontextmanager
async def visitor(services: Services, folder: Path) -> AsyncIterator[User]:
    """Somebody who reads English and visits the pages of these services; what NiceGUI keeps of him lies in `folder`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Storage, "path", folder / "visitors")
        async with user_simulation() as user:
            create_pages(services)
            user.http_client.headers["accept-language"] = "en"
            yield user
            await _stay()
            # Else NiceGUI would throw our modules out of sys.modules, and every class would exist twice.
            Client.page_routes.clear()


async def _stay() -> None:
    """A test may end while its last click is still opening the next page. Cut off there, that page's coroutine would
    never be awaited, and some later test would be blamed for it."""
    ui.navigate = Navigate()  # what is clicked from now on opens nothing in the simulation
    opening = [task for task in background_tasks.running_tasks if task.get_name().startswith("navigate")]
    if opening:
        await asyncio.wait(opening, timeout=30)


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
