"""The addresses of the pages about Runs."""

from collections.abc import Callable

from nicegui import ui
from starlette.requests import Request

from dspyui.services import Services
from dspyui.ui.pages.run import run_page
from dspyui.ui.pages.run_comparison import run_comparison_page
from dspyui.ui.pages.runs import runs_page
from dspyui.ui.run_views import AskedRuns


def create_run_pages(services: Services, page: Callable[[str], ui.page]) -> None:
    """Register them; `page` makes a page of ours at an address."""

    @page("/runs")
    def _runs(request: Request) -> None:
        runs_page(services, AskedRuns.of(request.query_params))

    # Before the next one, whose id it would be.
    @page("/runs/compare")
    def _compare(ids: str = "") -> None:
        run_comparison_page(services, [run_id for run_id in ids.split(",") if run_id])

    @page("/runs/{run_id}")
    def _run(run_id: str, rows: str = "") -> None:
        run_page(services, run_id, rows)
