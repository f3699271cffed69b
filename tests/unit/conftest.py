"""A world in a temporary folder, and a visitor of its pages."""

from collections.abc import AsyncIterator

import pytest
from nicegui import Client
from nicegui.storage import Storage
from nicegui.testing import User
from nicegui.testing.user_simulation import user_simulation

from dspyui.settings import Settings
from dspyui.ui.app import create_pages
from tests.api.world import World


@pytest.fixture
def world(settings: Settings) -> World:
    return World(settings)


@pytest.fixture
async def user(world: World, tmp_path, monkeypatch) -> AsyncIterator[User]:
    monkeypatch.setattr(Storage, "path", tmp_path / "visitors")
    async with user_simulation() as made:
        create_pages(world.services)
        made.http_client.headers["accept-language"] = "en"
        yield made
        # Else NiceGUI would throw our modules out of sys.modules, and every class would exist twice.
        Client.page_routes.clear()
