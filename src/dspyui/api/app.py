"""The API and the door before it, as one FastAPI application that the pages are mounted into."""

from fastapi import FastAPI

from dspyui.api.batches import batch_router
from dspyui.api.call_routes import router as call_router
from dspyui.api.door import BodyLimit, HostGuard, SecurityHeaders
from dspyui.api.errors import add_error_handlers
from dspyui.api.job_routes import router as job_router
from dspyui.api.login import LoginGuard, Logins, login_router
from dspyui.api.passwords import Accounts
from dspyui.api.registry_routes import router as registry_router
from dspyui.api.routes import Api, router
from dspyui.api.run_routes import router as run_router
from dspyui.api.trace_routes import trace_router
from dspyui.api.waiting_routes import waiting_router
from dspyui.services import Services


def create_api(services: Services, *, secret: str, local_user: str) -> FastAPI:
    """Build it. `secret` signs the login cookies; `local_user` acts when nobody has to log in.

    Raises BadRequestError for entries of DSPYUI_AUTH that are none.
    """
    settings = services.settings
    # No documentation pages: FastAPI's load their scripts from elsewhere. The description itself is there.
    app = FastAPI(title="DSPyUI", openapi_url="/api/openapi.json", docs_url=None, redoc_url=None)
    app.state.api = Api(services, local_user)
    add_error_handlers(app, settings)
    # The last one added is the first one passed.
    if settings.auth is not None:
        logins = Logins(Accounts.parse(settings.auth.get_secret_value()), secret)
        app.include_router(login_router(settings, logins))
        app.add_middleware(LoginGuard, settings=settings, logins=logins)
    app.add_middleware(BodyLimit, settings=settings)
    app.add_middleware(HostGuard, settings=settings)
    app.add_middleware(SecurityHeaders)
    # Before the others, of which the last one takes whatever is left.
    app.include_router(run_router)
    app.include_router(trace_router)
    app.include_router(waiting_router)
    app.include_router(batch_router)
    app.include_router(job_router)
    app.include_router(registry_router)
    app.include_router(call_router)
    app.include_router(router)
    return app
