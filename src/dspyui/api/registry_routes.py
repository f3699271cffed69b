"""The routes under /api/models."""

from typing import Annotated

from fastapi import APIRouter, Query, Request

from dspyui.api.language import request_language
from dspyui.api.registry_models import (
    AliasBody,
    DescribeBody,
    GateResponse,
    ModelItem,
    ModelListResponse,
    ModelResponse,
    RollbackBody,
    StageBody,
    VersionDetail,
)
from dspyui.api.routes import ERRORS, Api, ApiDep, who
from dspyui.domain.registry import PAGE_MODELS, ModelQuery, ModelVersion
from dspyui.i18n import Language

router = APIRouter(prefix="/api/models", responses={**ERRORS})


class ModelListQuery(ModelQuery):
    """What may stand behind the question mark: the query, and the token of a page."""

    page_token: str | None = None

    def query(self) -> ModelQuery:
        """Without the token."""
        return ModelQuery(**self.model_dump(exclude={"page_token"}))


def _language(request: Request, api: Api) -> Language:
    return request_language(request, api.services.settings)


def _told(version: ModelVersion, request: Request, api: Api) -> VersionDetail:
    return VersionDetail.told(version, _language(request, api))


@router.get("")
def list_models(asked: Annotated[ModelListQuery, Query()], api: ApiDep) -> ModelListResponse:
    """A page of the registered models, found and sorted by MLflow."""
    found = api.services.models.page(asked.query(), asked.page_token)
    return ModelListResponse(models=tuple(map(ModelItem.of, found.models)), next_token=found.next_token)


@router.get("/{name}")
def get_model(
    name: str,
    request: Request,
    api: ApiDep,
    page_token: str | None = None,
    size: Annotated[int, Query(ge=1, le=1000)] = PAGE_MODELS,
    look: bool = True,
) -> ModelResponse:
    """A model and a page of its versions; `look=false` does not look into those of other programs."""
    found = api.services.models.detail(name, page_token, size=size, look=look)
    return ModelResponse.of(found, _language(request, api))


@router.patch("/{name}")
def describe_model(name: str, body: DescribeBody, api: ApiDep) -> ModelItem:
    """Change a model's description and tags."""
    api.services.models.change(name, None, body.description, body.tags)
    return ModelItem.of(api.services.registry.get_model(name))


@router.delete("/{name}", status_code=204)
def delete_model(name: str, api: ApiDep) -> None:
    """Delete a model that has no version in Production or with an alias."""
    api.services.models.delete_model(name)


@router.get("/{name}/versions/{version}")
def get_version(name: str, version: int, request: Request, api: ApiDep) -> VersionDetail:
    """A version with its audit record."""
    return _told(api.services.models.get(name, version), request, api)


@router.patch("/{name}/versions/{version}")
def describe_version(
    name: str, version: int, body: DescribeBody, request: Request, api: ApiDep
) -> VersionDetail:
    """Change a version's description and tags."""
    api.services.models.change(name, version, body.description, body.tags)
    return _told(api.services.models.get(name, version), request, api)


@router.delete("/{name}/versions/{version}", status_code=204)
def delete_version(name: str, version: int, api: ApiDep) -> None:
    """Delete a version that is not in Production and has no alias."""
    api.services.models.delete_version(name, version)


@router.get("/{name}/versions/{version}/gate")
def get_gate(name: str, version: int, request: Request, api: ApiDep) -> GateResponse:
    """What the gate says before the version goes to Production."""
    services = api.services
    report = services.models.gate(name, version)
    return GateResponse.of(report, services.settings.promotion_gate, _language(request, api))


@router.post("/{name}/versions/{version}/stage")
def set_stage(name: str, version: int, body: StageBody, request: Request, api: ApiDep) -> VersionDetail:
    """Move a version to a stage."""
    asked = {"why": body.why, "confirm": body.confirm}
    moved = api.services.models.move(
        name, version, body.stage, who=who(request, api), holder=body.holder, **asked
    )
    return _told(moved, request, api)


@router.post("/{name}/rollback")
def roll_back(name: str, body: RollbackBody, request: Request, api: ApiDep) -> VersionDetail:
    """Put the version back that was in Production before."""
    moved = api.services.models.roll_back(name, who=who(request, api), why=body.why, holder=body.holder)
    return _told(moved, request, api)


@router.put("/{name}/aliases/{alias}")
def set_alias(name: str, alias: str, body: AliasBody, request: Request, api: ApiDep) -> VersionDetail:
    """Give a version an alias."""
    return _told(api.services.models.set_alias(name, alias, body.version), request, api)


@router.delete("/{name}/aliases/{alias}", status_code=204)
def delete_alias(name: str, alias: str, api: ApiDep) -> None:
    """Take an alias away."""
    api.services.models.delete_alias(name, alias)
