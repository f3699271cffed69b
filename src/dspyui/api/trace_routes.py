"""The traces of a Run and of a model version under /api."""

from typing import Annotated

from fastapi import APIRouter, Query

from dspyui.api.routes import ERRORS, ApiDep
from dspyui.api.trace_models import TraceListResponse
from dspyui.domain.trace_list import TraceQuery

trace_router = APIRouter(prefix="/api", responses={**ERRORS})


class TraceListQuery(TraceQuery):
    """What may stand behind the question mark: the query, and the token of a page."""

    page_token: str | None = None

    def query(self) -> TraceQuery:
        """Without the token."""
        return TraceQuery(**self.model_dump(exclude={"page_token"}))


@trace_router.get("/runs/{run_id}/traces")
def list_run_traces(run_id: str, asked: Annotated[TraceListQuery, Query()], api: ApiDep) -> TraceListResponse:
    """A page of the traces that are linked to a Run, newest first, filtered by MLflow."""
    return TraceListResponse.of(api.services.traces.of_run(run_id, asked.query(), asked.page_token))


@trace_router.get("/models/{name}/versions/{version}/traces")
def list_version_traces(
    name: str, version: int, asked: Annotated[TraceListQuery, Query()], api: ApiDep
) -> TraceListResponse:
    """A page of the traces that are tagged with a model version."""
    services = api.services
    found = services.registry.get_version(name, version)
    return TraceListResponse.of(
        services.traces.of_version(found.name, found.version, asked.query(), asked.page_token)
    )
