"""The routes under /api. A route is one line of work; what can go wrong is raised and told by `errors.py`."""

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
    DataChange,
    DataItem,
    ErrorResponse,
    EstimateResponse,
    Health,
    JobCreated,
    LMsResponse,
    LMTestRequestBody,
    LMTestResponse,
    ProviderItem,
    RegisterRequestBody,
    VersionResponse,
    WarningItem,
)
from dspyui.domain.compiles import CompileSpec
from dspyui.domain.lms import LMSpec
from dspyui.domain.programs import file_name
from dspyui.errors import BadRequestError, NotFoundError
from dspyui.i18n import Language
from dspyui.services import Services
from dspyui.services.documents import parse_spec, part_of
from dspyui.services.estimates import data_warnings, forecast

DOWNLOAD = "application/octet-stream"


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
    return FileResponse(api.services.uploads.path(digest), media_type=DOWNLOAD, filename=name)


@router.patch("/data/{digest}")
def rename_data(digest: str, body: DataChange, api: ApiDep) -> DataItem:
    """Give a kept data set another name."""
    return DataItem.of(api.services.uploads.rename(digest, body.name))


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
    spec = spec_in(await request.body())
    language = request_language(request, api.services.settings)
    return await run_in_threadpool(submit, api.services, spec, who(request, api), language)


@router.post("/compile/estimate")
async def estimate_compile(request: Request, api: ApiDep) -> EstimateResponse:
    """What the compile of a spec would ask and cost at most; nothing is compiled."""
    spec, services = spec_in(await request.body()), api.services
    found = await run_in_threadpool(forecast, spec, services.data, services.lms)
    return EstimateResponse.of(found, request_language(request, services.settings))


def spec_in(body: bytes) -> CompileSpec:
    """The spec in a request's body. Raises BadRequestError."""
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise BadRequestError("api.not_utf8") from exc
    return parse_spec(text)


def submit(services: Services, spec: CompileSpec, user: str, language: Language) -> JobCreated:
    """Queue the spec. Raises BadRequestError."""
    services.jobs.check_keys(spec.lms)
    # Before it is queued: what cannot be read must not run.
    told = data_warnings(spec, services.data.preview(spec.program.signature, spec.data))
    job = services.jobs.submit(spec, who=user)
    warnings = WarningItem.all_of(told, language)
    return JobCreated(job_id=job.id, url=f"/jobs/{job.id}", warnings=warnings)


@router.post("/register")
def register(body: RegisterRequestBody, request: Request, api: ApiDep) -> VersionResponse:
    """Make a model version of what a job or a Run holds."""
    service, user = api.services.register, who(request, api)
    if (body.run_id is None) == (body.job_id is None):
        raise BadRequestError("api.register_source")
    asked = body.model_dump(exclude={"run_id", "job_id"})
    if body.run_id is not None:
        return VersionResponse.of(service.register_run(body.run_id, who=user, **asked))
    return VersionResponse.of(service.register_job(body.job_id or "", who=user, **asked))


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
    return Response(text, media_type=DOWNLOAD, headers={"content-disposition": disposition})
