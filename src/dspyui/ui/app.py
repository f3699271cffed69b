"""Every page and its address."""

from collections.abc import Callable
from functools import partial

from nicegui import Client, app, ui
from nicegui.context import context
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response

from dspyui.services import Services
from dspyui.services.help import TOPICS
from dspyui.ui import theme
from dspyui.ui.form_start import Asked
from dspyui.ui.model_views import AskedModels
from dspyui.ui.pages.batch import batch_page
from dspyui.ui.pages.batch_job import batch_job_page, is_batch
from dspyui.ui.pages.compile import compile_page
from dspyui.ui.pages.datasets import dataset_page, datasets_page
from dspyui.ui.pages.help import help_page
from dspyui.ui.pages.job import job_page
from dspyui.ui.pages.jobs import jobs_page
from dspyui.ui.pages.model import model_page
from dspyui.ui.pages.models import models_page
from dspyui.ui.pages.run_addresses import create_run_pages
from dspyui.ui.pages.settings import settings_page
from dspyui.ui.pages.test import test_page
from dspyui.ui.pages.unknown import unknown_page
from dspyui.ui.pages.version import version_page

# Reading a job from a slow disk may take longer than NiceGUI's three seconds.
RESPONSE_SECONDS = 15.0


def create_pages(services: Services) -> None:
    """Register the pages; the server runs them."""
    ui.add_css(theme.CSS, shared=True)

    # NiceGUI's own answer for an address of a page would be in English, with no way back.
    app.add_exception_handler(404, partial(_not_found, services))

    def page(path: str) -> ui.page:
        return ui.page(path, favicon=theme.FAVICON, response_timeout=RESPONSE_SECONDS)

    @page("/")
    async def _compile(job: str = "", run: str = "", start: str = "", data: str = "") -> None:
        await compile_page(services, Asked(job=job, run=run, start=start, data=data))

    @page("/data")
    @page("/data/{digest}")
    def _data(digest: str = "") -> None:
        dataset_page(services, digest) if digest else datasets_page(services)

    @page("/jobs")
    def _jobs(state: str = "", text: str = "") -> None:
        jobs_page(services, state, text)

    @page("/jobs/{job_id}")
    async def _job(job_id: str, rows: str = "") -> Response | None:
        return await _job_or_batch(services, job_id, rows)

    create_run_pages(services, page)

    _create_model_pages(services, page)
    _create_reference(services, page)


def _create_model_pages(services: Services, page: Callable[[str], ui.page]) -> None:
    @page("/models")
    def _models(request: Request) -> None:
        models_page(services, AskedModels.of(request.query_params))

    @page("/models/{name}")
    def _model(name: str) -> None:
        model_page(services, name)

    @page("/models/{name:path}/{version}")
    def _version(name: str, version: str) -> None:
        version_page(services, name, version)


def _create_reference(services: Services, page: Callable[[str], ui.page]) -> None:
    """The pages that hold no work: help and settings."""

    @page("/help")
    @page("/help/{topic}")
    def _help(topic: str = TOPICS[0]) -> None:
        help_page(services, topic)

    @page("/settings")
    def _settings() -> None:
        settings_page(services)

    _create_batch_pages(services, page)

    @page("/test")
    def _test(data: str = "", row: str = "") -> None:
        test_page(services, context.client.request.query_params.getlist("model"), data, row)


async def _job_or_batch(services: Services, job_id: str, rows: str) -> Response | None:
    """The page of a compile; a batch has one of its own, whose address a job's leads to."""
    if is_batch(services, job_id):
        return RedirectResponse(f"/batch/{job_id}")
    await job_page(services, job_id, rows)
    return None


def _create_batch_pages(services: Services, page: Callable[[str], ui.page]) -> None:
    @page("/batch")
    def _batches(model: str = "") -> None:
        batch_page(services, model)

    @page("/batch/{job_id}")
    async def _batch(job_id: str) -> None:
        await batch_job_page(services, job_id)


async def _not_found(services: Services, request: Request, error: Exception) -> Response:
    """Our page for an address that leads nowhere; a missing file of NiceGUI's gets a bare answer."""
    path = request.scope["path"]
    if path.startswith("/_nicegui/"):
        return PlainTextResponse(str(error), 404)
    with Client(ui.page("", favicon=theme.FAVICON), request=request) as client:
        unknown_page(services, path)
    return client.build_response(request, 404)
