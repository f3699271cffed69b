"""The routes under /api/runs."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from dspyui.api.language import request_language
from dspyui.api.routes import ERRORS, ApiDep
from dspyui.api.run_models import RunComparisonResponse, RunListResponse, RunResponse
from dspyui.domain.run_list import RunQuery

router = APIRouter(prefix="/api/runs", responses={**ERRORS})


class RunListQuery(RunQuery):
    """What may stand behind the question mark: the query, and the token of a page."""

    page_token: str | None = None

    def query(self) -> RunQuery:
        """Without the token."""
        return RunQuery(**self.model_dump(exclude={"page_token"}))


@router.get("")
def list_runs(asked: Annotated[RunListQuery, Query()], api: ApiDep) -> RunListResponse:
    """A page of the experiment's Runs, filtered and sorted by MLflow."""
    return RunListResponse.of(api.services.run_list.page(asked.query(), asked.page_token))


@router.get("/compare")
def compare_runs(ids: Annotated[list[str], Query()], request: Request, api: ApiDep) -> RunComparisonResponse:
    """Two to six Runs side by side, tested on the test rows they have in common; `ids` once for each Run."""
    services = api.services
    return RunComparisonResponse.of(
        services.run_list.compare(ids), request_language(request, services.settings)
    )


@router.get("/{run_id}")
def get_run(run_id: str, request: Request, api: ApiDep) -> RunResponse:
    """One Run with everything that its compile recorded; also one that was deleted."""
    services = api.services
    return RunResponse.of(services.run_list.detail(run_id), request_language(request, services.settings))


@router.get("/{run_id}/files/{name}", response_class=Response)
def download_run_file(run_id: str, name: str, api: ApiDep) -> Response:
    """A file of the Run's artifacts, by a name of a table."""
    content = api.services.run_list.file(run_id, name)
    # Both parts are plain words: the id was found, and the name stands in the table.
    disposition = f'attachment; filename="{run_id}-{name}"'
    return Response(
        content, media_type="application/octet-stream", headers={"content-disposition": disposition}
    )


@router.delete("/{run_id}", status_code=204)
def delete_run(run_id: str, api: ApiDep) -> None:
    """Delete a Run as MLflow does: it can be restored."""
    api.services.run_list.delete(run_id)


@router.post("/{run_id}/restore", status_code=204)
def restore_run(run_id: str, api: ApiDep) -> None:
    """Undo that."""
    api.services.run_list.restore(run_id)
