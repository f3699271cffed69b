"""The routes that call a program on one row, and take opinions on what it answered."""

import json
from functools import partial
from typing import Final

from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from fastapi import APIRouter, Request

from dspyui.api.models import FeedbackRequestBody, FeedbackResponse, PredictRequestBody, PredictResponse
from dspyui.api.routes import ERRORS, ApiDep, who
from dspyui.domain.batches import BatchModel
from dspyui.domain.engine import Patience
from dspyui.domain.feedback import Feedback
from dspyui.domain.programs import CompiledProgram
from dspyui.domain.registry import STAGES
from dspyui.errors import BadRequestError
from dspyui.services.predict import Caller, PredictService, loose

# A call may take an hour: its thread is none of those that all other routes share.
_CALLS: Final = CapacityLimiter(64)
router = APIRouter(prefix="/api", responses={**ERRORS})


@router.post("/predict")
async def predict(body: PredictRequestBody, request: Request, api: ApiDep) -> PredictResponse:
    """Run one row through a program."""
    caller = Caller(who=who(request, api), source="api")
    return await run_sync(partial(_predict, body, caller, api.services.predict), limiter=_CALLS)


def _predict(body: PredictRequestBody, caller: Caller, service: PredictService) -> PredictResponse:
    model, patience = model_of(body, service), Patience(seconds=body.seconds)
    return PredictResponse.of(model, service.predict(model, body.inputs, caller=caller, patience=patience))


@router.post("/feedback")
def give_feedback(body: FeedbackRequestBody, request: Request, api: ApiDep) -> FeedbackResponse:
    """Keep an opinion with the trace of a call; what the same person said before is changed."""
    user = who(request, api)
    given = Feedback(thumbs_up=body.thumbs_up, comment=body.comment, correction=body.correction)
    held = api.services.feedback.give(body.trace_id, given, who=user)
    return FeedbackResponse.of(body.trace_id, user, held)


@router.get("/feedback/{trace_id}")
def get_feedback(trace_id: str, request: Request, api: ApiDep) -> FeedbackResponse:
    """What the same person said of a call before."""
    user = who(request, api)
    return FeedbackResponse.of(trace_id, user, api.services.feedback.get(trace_id, who=user))


def model_of(body: PredictRequestBody, service: PredictService) -> BatchModel:
    """The program that was asked for. Raises BadRequestError when none, or more than one, was; NotFoundError."""
    within = {"/": (body.version, body.stage), "@": (body.alias,)}
    chosen = [f"{sign}{word}" for sign, words in within.items() for word in words if word is not None]
    others = (body.run_id, body.job_id, body.program)
    sources = [source for source in (body.model, *others) if source is not None]
    says_all = body.model is None or bool(chosen) != _says_all(body.model)
    if len(sources) != 1 or len(chosen) > 1 or (chosen and body.model is None) or not says_all:
        raise BadRequestError("api.predict_source", stages=", ".join(STAGES))
    if body.program is not None:
        return loose(CompiledProgram.from_json(json.dumps(body.program), where="program"))
    if body.run_id is not None:
        return service.find(f"runs:/{body.run_id}")
    if body.job_id is not None:
        return service.find(f"job:{body.job_id}")
    name = body.model or ""
    return service.find(f"models:/{name}{chosen[0]}" if chosen else name, from_network=True)


def _says_all(model: str) -> bool:
    """Whether it is an address or a path, and not a model's name, which may hold neither sign."""
    return "/" in model or ":" in model or model.endswith(".json")
