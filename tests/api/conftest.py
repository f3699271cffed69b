"""Clients for the API alone, without a server: requests go straight into the ASGI application."""

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from dspyui.api.app import create_api
from dspyui.settings import Settings
from tests.api.world import World

BASE = "http://127.0.0.1:7860"


class Client:
    """Sends one request at a time into an application, from an address of one's choice."""

    def __init__(self, app: Any, *, base: str = BASE, address: str = "127.0.0.1") -> None:
        self._transport = httpx.ASGITransport(app, client=(address, 50000), raise_app_exceptions=False)
        self._base = base
        self.cookies = httpx.Cookies()

    def request(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        async def send() -> httpx.Response:
            async with httpx.AsyncClient(
                transport=self._transport, base_url=self._base, cookies=self.cookies
            ) as client:
                response = await client.request(method, path, **arguments)
                self.cookies = client.cookies
                return response

        return asyncio.run(send())

    def get(self, path: str, **arguments: Any) -> httpx.Response:
        return self.request("GET", path, **arguments)

    def post(self, path: str, **arguments: Any) -> httpx.Response:
        return self.request("POST", path, **arguments)


@pytest.fixture
def world(settings: Settings) -> World:
    return World(settings)


@pytest.fixture
def client(world: World) -> Client:
    return Client(create_api(world.services, secret="s" * 40, local_user="local"))


@pytest.fixture
def make_client(settings: Settings) -> Callable[..., Client]:
    """A client of an application with other settings."""

    def make(*, base: str = BASE, address: str = "127.0.0.1", **changes: Any) -> Client:
        world = World(settings.model_copy(update=changes))
        return Client(
            create_api(world.services, secret="s" * 40, local_user="local"), base=base, address=address
        )

    return make
