"""What waits for MLflow, under /api/waiting."""

from datetime import datetime
from typing import Self

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict

from dspyui.api.language import request_language
from dspyui.api.routes import ERRORS, ApiDep
from dspyui.i18n import Language
from dspyui.services.waiting import Sent, Waiting

waiting_router = APIRouter(prefix="/api/waiting", responses={**ERRORS})


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class WaitingResponse(_Model):
    """Records and traces on this machine's disk. `size` and `budget` in bytes (0: no bound); `oldest` is UTC.

    `later_traces` among them belong to compiles that still run, and are sent when these have ended.
    `held_up`: the budget is used up, so jobs that trace wait until something was sent.
    """

    records: int
    traces: int
    later_traces: int
    size: int
    budget: int
    held_up: bool
    oldest: datetime | None
    refused_records: int
    refused_traces: int

    @classmethod
    def of(cls, found: Waiting) -> Self:
        """From the service."""
        return cls(**found.model_dump(), held_up=found.is_full)


class Reason(_Model):
    """Why something still waits; `code` stays the same in every language."""

    code: str
    message: str


class SentResponse(_Model):
    """What was sent just now, and what still waits."""

    records: int
    traces: int
    left: WaitingResponse
    reasons: tuple[Reason, ...]

    @classmethod
    def of(cls, sent: Sent, language: Language) -> Self:
        """From the service; reasons in the caller's language."""
        return cls(
            records=sent.records,
            traces=sent.traces,
            left=WaitingResponse.of(sent.left),
            reasons=tuple(
                Reason(code=reason.code, message=reason.sentence(language)) for reason in sent.reasons
            ),
        )


@waiting_router.get("")
def look(api: ApiDep) -> WaitingResponse:
    """How much waits on this machine's disk for MLflow."""
    return WaitingResponse.of(api.services.waiting.look())


@waiting_router.post("/send")
def send_now(request: Request, api: ApiDep) -> SentResponse:
    """Send what can be sent in twenty seconds; the rest goes on by itself."""
    services = api.services
    return SentResponse.of(services.waiting.send_now(), request_language(request, services.settings))
