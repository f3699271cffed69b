"""Every route under /api, as an application of its own."""

from fastapi import FastAPI

from dspyui.api.batches import batch_router
from dspyui.api.call_routes import router as call_router
from dspyui.api.errors import add_error_handlers
from dspyui.api.job_routes import router as job_router
from dspyui.api.registry_routes import router as registry_router
from dspyui.api.routes import Api, router
from dspyui.api.run_routes import router as run_router
from dspyui.api.trace_routes import trace_router
from dspyui.api.waiting_routes import waiting_router
from dspyui.services import Services


def create_routes(services: Services, local_user: str) -> FastAPI:
    """Build it. Nobody is turned away here: the door stands before it."""
    # No documentation pages: FastAPI's load their scripts from elsewhere. The description itself is there.
    app = FastAPI(title="DSPyUI", openapi_url="/api/openapi.json", docs_url=None, redoc_url=None)
    app.state.api = Api(services, local_user)
    add_error_handlers(app, services.settings)
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
