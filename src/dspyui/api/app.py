"""The API and the door before it, as one FastAPI application that the pages are mounted into."""

import threading

from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool
from starlette.routing import BaseRoute, Match
from starlette.types import Receive, Scope, Send

from dspyui.api.door import BodyLimit, HostGuard, SecurityHeaders, is_api
from dspyui.api.errors import add_error_handlers
from dspyui.api.login import LoginGuard, Logins, login_router
from dspyui.api.passwords import Accounts
from dspyui.services import Services


class ApiRoutes(BaseRoute):
    """All of /api, built when it is first asked for: its models would hold up the first page by a quarter."""

    def __init__(self, services: Services, local_user: str) -> None:
        self._services = services
        self._local_user = local_user
        self._lock = threading.Lock()
        self._app: FastAPI | None = None

    def application(self) -> FastAPI:
        """The application behind it, built on the first call. Any thread may ask."""
        from dspyui.api.routers import create_routes

        with self._lock:
            self._app = self._app or create_routes(self._services, self._local_user)
            return self._app

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Whatever a program asks for."""
        if scope["type"] == "http" and is_api(scope["path"]):
            return Match.FULL, {}
        return Match.NONE, {}

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass it on. A path that no route has is told as the API tells its errors."""
        await (self._app or await run_in_threadpool(self.application))(scope, receive, send)


def create_api(services: Services, *, secret: str, local_user: str) -> FastAPI:
    """Build it. `secret` signs the login cookies; `local_user` acts when nobody has to log in.

    Raises BadRequestError for entries of DSPYUI_AUTH that are none.
    """
    settings = services.settings
    app = FastAPI(title="DSPyUI", openapi_url=None, docs_url=None, redoc_url=None)
    add_error_handlers(app, settings)
    # The last one added is the first one passed.
    if settings.auth is not None:
        logins = Logins(Accounts.parse(settings.auth.get_secret_value()), secret)
        app.include_router(login_router(settings, logins))
        app.add_middleware(LoginGuard, settings=settings, logins=logins)
    app.add_middleware(BodyLimit, settings=settings)
    app.add_middleware(HostGuard, settings=settings)
    app.add_middleware(SecurityHeaders)
    app.routes.append(ApiRoutes(services, local_user))
    return app
