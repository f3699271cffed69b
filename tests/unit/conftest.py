"""A world in a temporary folder, and a visitor of its pages."""

from collections.abc import AsyncIterator

import pytest
from nicegui.testing import User

from dspyui.settings import Settings
from tests.api.world import World
from tests.pages import visitor


@pytest.fixture
def world(settings: Settings) -> World:
    return World(settings)


@pytest.fixture
async def user(world: World, tmp_path) -> AsyncIterator[User]:
    async with visitor(world.services, tmp_path) as made:
        yield made
