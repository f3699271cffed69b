"""The routes under /api/jobs."""

from collections.abc import Mapping
from pathlib import Path

from fastapi import APIRouter, Request
from starlette.responses import FileResponse, Response

from dspyui.api.language import request_language
from dspyui.api.models import JobChange, JobCreated, JobItem, JobResponse
from dspyui.api.routes import DOWNLOAD, ERRORS, ApiDep, attachment, submit, who
from dspyui.domain.jobs import Job
from dspyui.domain.programs import file_name
from dspyui.errors import BadRequestError, NotFoundError
from dspyui.services.documents import dump_spec
from dspyui.services.summary import summarise

# Names that can be asked for, and where they lie in the job's folder: a name never becomes a path.
JOB_FILES: Mapping[str, str] = {
    "program.json": "program.json",
    "baseline_program.json": "baseline_program.json",
    "spec.yaml": "spec/compile.yaml",
    "result.json": "result.json",
    "rows.parquet": "evaluation/rows.parquet",
    "optimized_prompt.txt": "prompt/optimized_prompt.txt",
    "baseline_prompt.txt": "prompt/baseline_prompt.txt",
    "train.jsonl": "dataset/train.jsonl",
    "validation.jsonl": "dataset/validation.jsonl",
    "test.jsonl": "dataset/test.jsonl",
    "events.jsonl": "events.jsonl",
    "log.txt": "log.txt",
}
router = APIRouter(prefix="/api/jobs", responses={**ERRORS})


@router.get("")
def list_jobs(api: ApiDep) -> list[JobItem]:
    """All jobs, newest first."""
    return [_item(api, job) for job in api.services.jobs.search()]


def _item(api: ApiDep, job: Job) -> JobItem:
    return JobItem.of(job, interrupted=api.services.jobs.is_interrupted(job))


@router.get("/{job_id}")
def get_job(job_id: str, request: Request, api: ApiDep) -> JobResponse:
    """One job: state, progress, scores, record."""
    services = api.services
    view = services.jobs.view(job_id)
    return JobResponse.of(
        view, summarise(view, services.programs), request_language(request, services.settings)
    )


@router.get("/{job_id}/program", response_class=FileResponse)
def download_program(job_id: str, api: ApiDep) -> FileResponse:
    """The compiled program as a file named after it; also when its job has been deleted."""
    services = api.services
    name = services.programs.get(job_id).spec.name
    return FileResponse(
        services.programs.path(job_id), media_type="application/json", filename=file_name(name, ".json")
    )


@router.get("/{job_id}/files/{name}", response_class=FileResponse)
def download_file(job_id: str, name: str, api: ApiDep) -> Response:
    """A file of the job's folder, by a name of the table."""
    if name not in JOB_FILES:
        raise NotFoundError("api.file", name=name[:100], known=", ".join(JOB_FILES))
    services = api.services
    file = services.job_store.folder(job_id) / JOB_FILES[name]
    if name == "spec.yaml" and not file.is_file():
        return attachment(dump_spec(services.job_store.spec(job_id)), "compile.yaml")
    if not file.is_file():
        raise NotFoundError("api.file_not_yet", name=name, job_id=job_id)
    return FileResponse(file, media_type=DOWNLOAD, filename=f"{job_id}-{Path(name).name}")


@router.patch("/{job_id}")
def change_job(job_id: str, body: JobChange, api: ApiDep) -> JobItem:
    """Rename the job, note on it, or both; its Run in MLflow follows."""
    if body.title is None and body.note is None:
        raise BadRequestError("api.job_change")
    return _item(api, api.services.jobs.describe(job_id, title=body.title, note=body.note))


@router.post("/{job_id}/again", status_code=202)
def run_again(job_id: str, request: Request, api: ApiDep) -> JobCreated:
    """Queue the same once more: a compile with the rows it had, of a batch the rows that failed or were not reached."""
    services, user = api.services, who(request, api)
    if services.jobs.get(job_id).kind == "batch":
        job = services.batches.submit(services.batches.again(job_id), who=user)
        return JobCreated(job_id=job.id, url=f"/batch/{job.id}")
    loaded = services.reuse.job(job_id)
    return submit(services, loaded.spec, user, request_language(request, services.settings))


@router.post("/{job_id}/cancel", status_code=202)
def cancel_job(job_id: str, api: ApiDep) -> JobItem:
    """Ask for the job to stop; returns at once. One that has ended stays as it is."""
    api.services.jobs.cancel(job_id)
    return _item(api, api.services.jobs.get(job_id))


@router.delete("/{job_id}", status_code=204)
def delete_job(job_id: str, api: ApiDep, even_unsent: bool = False) -> None:
    """Delete a job that has ended; with `even_unsent` also one whose record has not reached MLflow and is lost."""
    api.services.jobs.delete(job_id, even_unsent=even_unsent)
