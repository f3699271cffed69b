"""The routes under /api. A route is one line of work; what can go wrong is raised and told by `errors.py`."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Depends, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import FileResponse, Response

from dspyui import __version__
from dspyui.api.door import user_of
from dspyui.api.language import request_language
from dspyui.api.models import (
    DataItem,
    ErrorResponse,
    Health,
    JobCreated,
    JobItem,
    JobResponse,
    LMsResponse,
    LMTestRequestBody,
    LMTestResponse,
    PredictRequestBody,
    PredictResponse,
    ProviderItem,
    RegisterRequestBody,
    VersionResponse,
)
from dspyui.domain.lms import LMSpec
from dspyui.domain.programs import file_name
from dspyui.domain.registry import STAGES
from dspyui.errors import BadRequestError, NotFoundError
from dspyui.services import Services
from dspyui.services.documents import dump_spec, parse_spec, part_of
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
_DOWNLOAD = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class Api:
    """What the routes stand on. `local_user` is who acts when nobody has to log in."""

    services: Services
    local_user: str


def get_api(request: Request) -> Api:
    """The dependency."""
    return request.app.state.api


ApiDep = Annotated[Api, Depends(get_api)]
ERRORS = {status: {"model": ErrorResponse} for status in (400, 401, 403, 404, 409, 413, 500, 503)}
router = APIRouter(prefix="/api", responses={**ERRORS})


def who(request: Request, api: Api) -> str:
    """Whose name goes into records."""
    return user_of(request.scope) or api.local_user


@router.get("/health")
def health(request: Request, api: ApiDep) -> Health:
    """Whether the program runs. Open without a login."""
    state = api.services.tracking.state()
    trusted = api.services.settings.auth is None or user_of(request.scope) is not None
    return Health(
        version=__version__, tracking=state.status, tracking_address=state.address if trusted else None
    )


@router.get("/jobs")
def list_jobs(api: ApiDep) -> list[JobItem]:
    """All jobs, newest first."""
    return [JobItem.of(job) for job in api.services.jobs.search()]


@router.get("/jobs/{job_id}")
def get_job(job_id: str, request: Request, api: ApiDep) -> JobResponse:
    """One job: state, progress, scores, record."""
    services = api.services
    view = services.jobs.view(job_id)
    return JobResponse.of(
        view, summarise(view, services.programs), request_language(request, services.settings)
    )


@router.get("/jobs/{job_id}/program", response_class=FileResponse)
def download_program(job_id: str, api: ApiDep) -> FileResponse:
    """The compiled program as a file named after it; also when its job has been deleted."""
    services = api.services
    name = services.programs.get(job_id).spec.name
    return FileResponse(
        services.programs.path(job_id), media_type="application/json", filename=file_name(name, ".json")
    )


@router.get("/jobs/{job_id}/files/{name}", response_class=FileResponse)
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
    return FileResponse(file, media_type=_DOWNLOAD, filename=f"{job_id}-{Path(name).name}")


@router.get("/data")
def list_data(api: ApiDep) -> list[DataItem]:
    """All kept data sets, newest first."""
    return [DataItem.of(info) for info in api.services.uploads.search()]


@router.post("/data", status_code=201)
async def keep_data(request: Request, api: ApiDep, name: str) -> DataItem:
    """Keep the body, a data file, as a data set; `name` says by its ending what it is."""
    body = await request.body()
    info, _table = await run_in_threadpool(api.services.data.keep_upload, name, body)
    return DataItem.of(info)


@router.get("/data/{digest}/file", response_class=FileResponse)
def download_data(digest: str, api: ApiDep) -> FileResponse:
    """The file of a kept data set, as it came."""
    info = api.services.uploads.get(digest)
    name = info.name if info.format is None else file_name(Path(info.name).stem, f".{info.format}")
    return FileResponse(api.services.uploads.path(digest), media_type=_DOWNLOAD, filename=name)


@router.delete("/data/{digest}", status_code=204)
def delete_data(digest: str, api: ApiDep) -> None:
    """Delete a kept data set. Jobs keep the rows they were started with."""
    api.services.uploads.delete(digest)


@router.get("/runs/{run_id}/program", response_class=Response)
def download_run_program(run_id: str, api: ApiDep) -> Response:
    """The program of a Run, from its artifacts in MLflow."""
    return attachment(api.services.runs.program(run_id), f"{file_name(run_id, '.json')}")


@router.post("/compile", status_code=202)
async def start_compile(request: Request, api: ApiDep) -> JobCreated:
    """Queue a compile; the body is a spec as JSON or YAML."""
    body = await request.body()
    job = await run_in_threadpool(submit, api, body, who(request, api))
    return JobCreated(job_id=job, url=f"/jobs/{job}")


def submit(api: Api, body: bytes, user: str) -> str:
    """Queue the spec and return the job's id. Raises BadRequestError."""
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise BadRequestError("api.not_utf8") from exc
    return api.services.jobs.submit(parse_spec(text), who=user).id


@router.post("/jobs/{job_id}/cancel", status_code=202)
def cancel_job(job_id: str, api: ApiDep) -> JobItem:
    """Ask for the job to stop; returns at once."""
    api.services.jobs.cancel(job_id)
    return JobItem.of(api.services.jobs.get(job_id))


@router.post("/register")
def register(body: RegisterRequestBody, request: Request, api: ApiDep) -> VersionResponse:
    """Make a model version of what a job or a Run holds."""
    service, user = api.services.register, who(request, api)
    if (body.run_id is None) == (body.job_id is None):
        raise BadRequestError("api.register_source")
    asked = {"name": body.name, "description": body.description}
    if body.run_id is not None:
        return VersionResponse.of(service.register_run(body.run_id, who=user, stage=body.stage, **asked))
    return VersionResponse.of(service.register_job(body.job_id or "", who=user, stage=body.stage, **asked))


@router.post("/predict")
def predict(body: PredictRequestBody, api: ApiDep) -> PredictResponse:
    """Run one row through the program of a job, or through the version that holds a stage."""
    service = api.services.predict
    if body.job_id is not None and body.model is None and body.stage is None:
        return PredictResponse.of(service.with_job(body.job_id, body.inputs))
    if body.job_id is None and body.model is not None and body.stage is not None:
        return PredictResponse.of(service.with_stage(body.model, body.stage, body.inputs))
    raise BadRequestError("api.predict_source", stages=", ".join(STAGES))


@router.get("/lms")
def list_lms(api: ApiDep) -> LMsResponse:
    """The models that can be called now, and whose keys are set."""
    service = api.services.lms
    return LMsResponse(
        models=tuple(service.models()), providers=tuple(map(ProviderItem.of, service.providers()))
    )


@router.post("/lms/test")
def test_lm(body: LMTestRequestBody, api: ApiDep) -> LMTestResponse:
    """Ask a model one thing, for real."""
    return LMTestResponse.of(api.services.lms.test(part_of(LMSpec, body.model_dump(exclude_unset=True))))


@router.api_route("/{rest:path}", methods=["GET", "POST", "PUT", "PATCH", "DELETE"], include_in_schema=False)
def unknown(rest: str) -> Response:
    """Anything else under /api: an answer in JSON, not a page."""
    raise NotFoundError("api.route", path=f"/api/{rest[:100]}")


def attachment(text: str, name: str) -> Response:
    """Text as a download (RFC 6266; names beyond ASCII as RFC 5987 says)."""
    disposition = f"attachment; filename*=utf-8''{quote(name, safe='')}"
    return Response(text, media_type=_DOWNLOAD, headers={"content-disposition": disposition})
