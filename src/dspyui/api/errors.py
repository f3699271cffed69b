"""Errors as the API tells them: a code, and a sentence in the caller's language."""

from collections.abc import Callable

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.responses import JSONResponse

from dspyui.api.language import request_language
from dspyui.errors import BadRequestError, DSPyUIError
from dspyui.settings import Settings


def add_error_handlers(app: FastAPI, settings: Settings) -> None:
    """Every DSPyUIError and every body that does not fit, as JSON."""
    say = teller(settings)

    @app.exception_handler(DSPyUIError)
    def on_error(request: Request, exc: DSPyUIError) -> JSONResponse:
        return say(request, exc)

    @app.exception_handler(RequestValidationError)
    def on_body(request: Request, exc: RequestValidationError) -> JSONResponse:
        first = exc.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        return say(request, BadRequestError("api.body", where=where, problem=first["msg"]))


def teller(settings: Settings) -> Callable[[Request, DSPyUIError], JSONResponse]:
    """Makes the answer for an error."""

    def say(request: Request, exc: DSPyUIError) -> JSONResponse:
        message = settings.redact(exc.text(request_language(request, settings)))
        return JSONResponse({"code": exc.code, "message": message}, exc.http_status)

    return say
