"""The routes of batches under /api/batches."""

from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Body, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import FileResponse

from dspyui.api.models import DataItem, JobCreated
from dspyui.api.routes import ERRORS, ApiDep, file_name, who
from dspyui.domain.batches import BatchSpec
from dspyui.errors import BadRequestError, NotFoundError
from dspyui.services.batches import BatchChanges, BatchService, BatchSummary, summarise
from dspyui.services.documents import part_of

batch_router = APIRouter(prefix="/api/batches", responses={**ERRORS})


@batch_router.get("")
def list_batches(api: ApiDep) -> list[BatchSummary]:
    """All batches, newest first."""
    service = api.services.batches
    return [summary_of(service, job.id) for job in service.search()]


@batch_router.post("", status_code=202)
async def start_batch(request: Request, api: ApiDep) -> JobCreated:
    """Queue a batch; the body is a spec as JSON. Its results are fetched, not written to a place on the server."""
    try:
        document = await request.json()
    except ValueError as exc:
        raise BadRequestError("spec.yaml", problem=str(exc)) from exc
    if not isinstance(document, dict):
        raise BadRequestError("spec.not_mapping")
    if document.get("output") is not None:
        raise BadRequestError("batch.output_here")
    spec = part_of(BatchSpec, document)
    job = await run_in_threadpool(api.services.batches.submit, spec, who=who(request, api))
    return JobCreated(job_id=job.id, url=f"/batch/{job.id}")


@batch_router.post("/files", status_code=201)
async def keep_file(request: Request, api: ApiDep, name: str) -> DataItem:
    """Keep the body, a file of rows, for a batch, broken rows and all; `name` says by its ending what it is."""
    body = await request.body()
    return DataItem.of(await run_in_threadpool(api.services.batches.keep_file, name, body))


@batch_router.get("/{job_id}")
def get_batch(job_id: str, api: ApiDep) -> BatchSummary:
    """One batch as it stands."""
    return summary_of(api.services.batches, job_id)


@batch_router.post("/{job_id}/again", status_code=202)
def again(
    job_id: str, request: Request, api: ApiDep, changes: Annotated[BatchChanges | None, Body()] = None
) -> JobCreated:
    """Queue a batch that asks the rows of this one that failed or were not reached; the body may change how."""
    if changes is not None and changes.output is not None:
        raise BadRequestError("batch.output_here")
    service = api.services.batches
    job = service.submit(service.again(job_id, changes), who=who(request, api))
    return JobCreated(job_id=job.id, url=f"/batch/{job.id}")


@batch_router.get("/{job_id}/output", response_class=FileResponse)
def download_output(job_id: str, api: ApiDep) -> FileResponse:
    """The finished output; before that, and of one that did not finish, the results so far as JSON lines."""
    return _file(api.services.batches, job_id, api.services.batches.download(job_id))


@batch_router.get("/{job_id}/errors", response_class=FileResponse)
def download_errors(job_id: str, api: ApiDep) -> FileResponse:
    """The rows that failed, as JSON lines."""
    return _file(api.services.batches, job_id, api.services.batches.errors_file(job_id))


def _file(service: BatchService, job_id: str, file: Path) -> FileResponse:
    if not file.is_file():
        raise NotFoundError("api.file_not_yet", name=file.name, job_id=job_id)
    name = file_name(f"{service.get(job_id).title}-{job_id}-{file.stem}", file.suffix)
    return FileResponse(file, media_type="application/octet-stream", filename=name)


def summary_of(service: BatchService, job_id: str) -> BatchSummary:
    """The figures of a batch. Raises NotFoundError."""
    return summarise(service.view(job_id), service.waiting_traces(job_id))
