"""The door: what every request passes before it reaches a page or the API, sockets included.

NiceGUI's socket accepts every origin by itself, so a foreign page could drive the program in a visitor's
browser; Host is checked against DNS rebinding, Origin against foreign pages, and bodies against their size.
These are pure ASGI: they see WebSockets, and they do not buffer.
"""

import ipaddress
import re
import socket
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dspyui.api.language import request_language
from dspyui.errors import DSPyUIError
from dspyui.i18n import LANGUAGES
from dspyui.settings import Settings

API = "/api"
# A form's parts and names come on top of the file itself.
ENVELOPE_BYTES = 1024**2
POLICY_VIOLATION = 1008
_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}
_WILDCARDS = {"0.0.0.0", "::", ""}  # noqa: S104 - compared with, not bound to


def is_api(path: str) -> bool:
    """Whether a path belongs to the API, which answers in JSON."""
    return path == API or path.startswith(f"{API}/")


async def refuse(
    scope: Scope,
    receive: Receive,
    send: Send,
    settings: Settings,
    error: DSPyUIError,
    *,
    status: int = 403,
    headers: Mapping[str, str] | None = None,
) -> None:
    """Turn a request away: JSON for the API, else the sentence in both languages; a socket is closed."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": POLICY_VIOLATION, "reason": error.code})
        return
    response: Response
    if is_api(scope["path"]):
        message = error.text(request_language(HTTPConnection(scope), settings))
        response = JSONResponse({"code": error.code, "message": message}, status, headers)
    else:
        sentences = "\n".join(error.text(language) for language in LANGUAGES)
        response = PlainTextResponse(f"{sentences}\n", status, headers)
    await response(scope, receive, send)


class Refused(DSPyUIError):
    """Turned away at the door."""

    http_status = 403


def host_of(value: str) -> tuple[str, int | None] | None:
    """Name and port of a Host header (lower case, without brackets); None when it is none."""
    if re.search(r"[\s/@?#\\,]", value):
        return None
    try:
        parts = urlsplit(f"//{value}")
        name, port = parts.hostname, parts.port
    except ValueError:
        return None
    return (name.rstrip("."), port) if name else None


def is_address(name: str) -> bool:
    """Whether it is an IP address: a name server cannot make it point elsewhere."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


class HostRules:
    """Which names this server answers to."""

    def __init__(self, settings: Settings) -> None:
        given = re.split(r"[\s,;]+", settings.allowed_hosts or "")
        self._names = {"localhost", *(name.lower().strip("[]").rstrip(".") for name in given if name)}
        self._any_address = settings.host in _WILDCARDS
        if self._any_address:
            self._names |= {socket.gethostname().lower(), f"{socket.gethostname().lower()}.local"}
        else:
            self._names.add(settings.host.lower().strip("[]"))

    def allow(self, name: str) -> bool:
        """Loopback, the address that was bound, and what DSPYUI_ALLOWED_HOSTS names."""
        if name in self._names:
            return True
        return is_address(name) and (self._any_address or ipaddress.ip_address(name).is_loopback)


def same_origin(origin: str, host: tuple[str, int | None]) -> bool:
    """Whether a page of `origin` may talk to `host`: the same name and port (RFC 6454 §4, without the scheme).

    The scheme is left out because a proxy may end TLS in front of this server.
    """
    try:
        parts = urlsplit(origin)
        name, port = parts.hostname, parts.port
    except ValueError:
        return False
    if parts.scheme not in _PORTS or not name:
        return False
    usual = _PORTS[parts.scheme]
    return (name.rstrip("."), port or usual) == (host[0], host[1] or usual)


class HostGuard:
    """Host must be one of ours; Origin, when it is sent, must be Host's own."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._settings = settings
        self._rules = HostRules(settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass it on, or turn it away."""
        if scope["type"] in {"http", "websocket"} and (error := self._problem(Headers(scope=scope))):
            await refuse(scope, receive, send, self._settings, error)
            return
        await self._app(scope, receive, send)

    def _problem(self, headers: Headers) -> Refused | None:
        given = headers.getlist("host")
        host = host_of(given[0]) if len(given) == 1 else None
        if host is None or not self._rules.allow(host[0]):
            return Refused("door.host", host=", ".join(given)[:100] or "—")
        for origin in headers.getlist("origin"):
            if not same_origin(origin, host):
                return Refused("door.origin", origin=origin[:100], host=given[0][:100])
        return None


class BodyLimit:
    """No body above DSPYUI_MAX_UPLOAD_MB, whether its length was told or not."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._settings = settings
        self._limit = settings.max_upload_mb * 1024**2 + ENVELOPE_BYTES

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass it on, or answer 413."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        length = Headers(scope=scope).get("content-length", "0")
        if not length.isdecimal() or int(length) > self._limit:
            await self._too_large(scope, receive, send)
            return
        await self._counted(scope, receive, send)

    async def _counted(self, scope: Scope, receive: Receive, send: Send) -> None:
        taken = 0
        exceeded = started = False

        async def counting() -> Message:
            nonlocal taken, exceeded
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > self._limit:
                exceeded = True
            # Whoever reads gives up as if the sender had gone; what it answers is replaced below.
            return {"type": "http.disconnect"} if exceeded else message

        async def watching(message: Message) -> None:
            nonlocal started
            if exceeded and not started:
                return
            started = True
            await send(message)

        try:
            await self._app(scope, counting, watching)
        except Exception:
            # Once an answer has begun, only a broken connection can tell that it is not whole.
            if started or not exceeded:
                raise
        if exceeded and not started:
            await self._too_large(scope, receive, send)

    async def _too_large(self, scope: Scope, receive: Receive, send: Send) -> None:
        error = Refused("door.too_large", limit=self._settings.max_upload_mb)
        # The rest of the body is not read, so the connection cannot be used again.
        await refuse(scope, receive, send, self._settings, error, status=413, headers={"connection": "close"})


class SecurityHeaders:
    """What every answer tells the browser: guess no types, show us in no foreign frame, leak no address."""

    HEADERS: Mapping[str, str] = {
        "x-content-type-options": "nosniff",
        "x-frame-options": "SAMEORIGIN",
        "referrer-policy": "same-origin",
        "cross-origin-opener-policy": "same-origin",
    }

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Add the headers to what is answered."""

        async def adding(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in self.HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, adding if scope["type"] == "http" else send)


def user_of(scope: Mapping[str, Any]) -> str | None:
    """Who logged in, as LoginGuard found it."""
    return scope.get("state", {}).get("user")
