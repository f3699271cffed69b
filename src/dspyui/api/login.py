"""Logging in: a page with a form and a signed cookie for people, HTTP Basic for the API."""

import base64
import binascii
import hashlib
import html
import os
import secrets
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Request
from itsdangerous import BadSignature, URLSafeTimedSerializer
from starlette.requests import HTTPConnection
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from dspyui.api.door import Refused, is_api, refuse
from dspyui.api.language import request_language
from dspyui.api.passwords import Accounts, TooManyAttempts
from dspyui.errors import BadRequestError
from dspyui.i18n import LANGUAGES, Text
from dspyui.settings import Settings

LOGIN, LOGOUT = "/login", "/logout"
OPEN_PATHS = frozenset({LOGIN, "/api/health"})
COOKIE_SECONDS = 7 * 24 * 3600
MAX_FORM_BYTES = 16 * 1024


def session_secret(home: Path) -> str:
    """The secret that signs cookies: made once, readable by its owner only, kept in the data folder."""
    file = home / "session_secret"
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    fresh = file.with_name(f".session_secret.{secrets.token_hex(4)}")
    if not file.exists():
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as out:
            out.write(secrets.token_urlsafe(48))
        try:
            # A link, not a rename: of two first starts at once, one wins and both read the same secret.
            os.link(fresh, file)
        except FileExistsError:
            pass
        finally:
            fresh.unlink()
    return file.read_text().strip()


def cookie_name(secret: str) -> str:
    """One name a data folder: cookies know no ports, and two programs on one host must not log each other out."""
    return f"dspyui_login_{hashlib.sha256(secret.encode()).hexdigest()[:8]}"


class Logins:
    """Makes and reads the cookies, and checks Basic credentials."""

    def __init__(self, accounts: Accounts, secret: str) -> None:
        self.accounts = accounts
        self.cookie = cookie_name(secret)
        self._one = CapacityLimiter(1)
        self._signer = URLSafeTimedSerializer(secret, salt="dspyui-login")

    def token(self, user: str) -> str:
        """What the cookie holds."""
        return str(self._signer.dumps([user, self.accounts.find_fingerprint(user)]))

    def find_user(self, token: str | None) -> str | None:
        """Whose cookie it is, when it is one of ours, not too old, and the password is still the same."""
        if not token:
            return None
        try:
            user, fingerprint = self._signer.loads(token, max_age=COOKIE_SECONDS)
        except (BadSignature, ValueError, TypeError):
            return None
        known = self.accounts.find_fingerprint(user)
        return user if known is not None and known == fingerprint else None

    async def check(self, address: str, user: str, password: str) -> None:
        """Raise BadRequestError for a wrong password, TooManyAttempts after too many of them."""
        if not self.accounts.is_known(user, password):
            await to_thread.run_sync(self.accounts.check, address, user, password, limiter=self._one)


class LoginGuard:
    """Every path but the login page and the health check demands a login; the name goes into `state.user`."""

    def __init__(self, app: ASGIApp, settings: Settings, logins: Logins) -> None:
        self._app = app
        self._settings = settings
        self._logins = logins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass it on, send to the login page, or turn it away."""
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        connection = HTTPConnection(scope)
        user = self._logins.find_user(connection.cookies.get(self._logins.cookie))
        if user is None and is_api(scope["path"]):
            try:
                user = await self._basic_user(connection)
            except BadRequestError as exc:
                await self._deny(scope, receive, send, exc)
                return
        if user is not None:
            scope.setdefault("state", {})["user"] = user
        elif scope["path"] not in OPEN_PATHS:
            await self._deny(scope, receive, send, BadRequestError("door.login_needed"))
            return
        await self._app(scope, receive, send)

    async def _basic_user(self, connection: HTTPConnection) -> str | None:
        scheme, _, encoded = connection.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "basic":
            return None
        try:
            user, _, password = base64.b64decode(encoded, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return None
        await self._logins.check(address_of(connection), user, password)
        return user

    async def _deny(self, scope: Scope, receive: Receive, send: Send, error: BadRequestError) -> None:
        path = scope["path"]
        wants_page = scope["type"] == "http" and scope["method"] in {"GET", "HEAD"} and not is_api(path)
        if wants_page:
            query = scope["query_string"].decode("latin-1")
            target = quote(f"{path}?{query}" if query else path, safe="")
            response = RedirectResponse(f"{LOGIN}?next={target}", status_code=303)
            await response(scope, receive, send)
            return
        status = 429 if isinstance(error, TooManyAttempts) else 401
        headers = {"www-authenticate": 'Basic realm="DSPyUI", charset="UTF-8"'} if is_api(path) else {}
        if isinstance(error, TooManyAttempts):
            headers = {"retry-after": str(error.values["seconds"])}
        refusal = Refused(error.code, **error.values)
        await refuse(scope, receive, send, self._settings, refusal, status=status, headers=headers)


def address_of(connection: HTTPConnection) -> str:
    """Where the request came from."""
    return connection.client.host if connection.client else "unknown"


def local_target(target: str) -> str:
    """The page to go to after the login: only one of ours, so that a link cannot lead elsewhere."""
    try:
        parts = urlsplit(target)
    except ValueError:
        return "/"
    if parts.scheme or parts.netloc or not target.startswith("/") or target[1:2] in {"/", "\\"}:
        return "/"
    return target if target.isprintable() else "/"


def login_router(settings: Settings, logins: Logins) -> APIRouter:
    """The login page, its form, and logging out."""
    router = APIRouter(include_in_schema=False)

    @router.get(LOGIN)
    async def show(request: Request) -> HTMLResponse:
        return page(request, settings)

    @router.post(LOGIN)
    async def log_in(request: Request) -> Response:
        body = await _form(request)
        user = body.get("user", "")
        try:
            await logins.check(address_of(request), user, body.get("password", ""))
        except BadRequestError as exc:
            return page(request, settings, problem=exc)
        response = RedirectResponse(local_target(request.query_params.get("next", "/")), status_code=303)
        response.set_cookie(
            logins.cookie,
            logins.token(user),
            max_age=COOKIE_SECONDS,
            httponly=True,
            samesite="lax",
            secure=request.url.scheme == "https",
        )
        return response

    @router.post(LOGOUT)
    async def log_out() -> Response:
        response = RedirectResponse(LOGIN, status_code=303)
        response.delete_cookie(logins.cookie)
        return response

    return router


async def _form(request: Request) -> dict[str, str]:
    """The form's fields; read by hand because a login form is small and a stranger's."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_FORM_BYTES:
            return {}
    try:
        fields = parse_qs(body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=10)
    except ValueError:
        # More fields than a login has.
        return {}
    return {name: values[0] for name, values in fields.items()}


def page(request: Request, settings: Settings, *, problem: BadRequestError | None = None) -> HTMLResponse:
    """The login page: one document that loads nothing."""
    language = request_language(request, settings)
    text = Text(language)
    target = local_target(request.query_params.get("next", "/"))
    address = f"{LOGIN}?next={quote(target, safe='')}"
    other = next(known for known in LANGUAGES if known != language)
    values = {
        "language": language.replace("_", "-"),
        "title": text("login.title"),
        "user": text("login.user"),
        "password": text("login.password"),
        "submit": text("login.submit"),
        "action": f"{address}&lang={language}",
        "other": f"{address}&lang={other}",
        "other_name": text("login.other_language"),
    }
    escaped = {name: html.escape(value) for name, value in values.items()}
    alert = f'<p role="alert" class="problem">{html.escape(problem.text(language))}</p>' if problem else ""
    headers = {"content-security-policy": _POLICY, "cache-control": "no-store"}
    status = problem.http_status if problem else 200
    if isinstance(problem, TooManyAttempts):
        headers["retry-after"] = str(problem.values["seconds"])
    return HTMLResponse(_PAGE.format(alert=alert, style=_STYLE, **escaped), status, headers)


_POLICY = "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
# The colours of the pages; the theme itself belongs to them, and this page to the door before them.
_STYLE = """
:root { color-scheme: light dark; --ink: #182120; --paper: #f6f7f7; --card: #ffffff; --line: #8a9695;
        --edge: #e1e5e5; --accent: #0f766e; --bad: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6ebea; --paper: #111515; --card: #191f1f; --line: #738180;
        --edge: #2b3333; --accent: #4cc3b5; --bad: #ff938a; } }
* { box-sizing: border-box; }
body { margin: 0; min-height: 100vh; display: grid; place-items: center; background: var(--paper); color: var(--ink);
       font: 16px/1.5 system-ui, "PingFang SC", "Noto Sans CJK SC", "Microsoft YaHei", sans-serif; }
main { width: min(24rem, calc(100vw - 32px)); padding: 24px; background: var(--card); border: 1px solid var(--edge);
       border-radius: 8px; }
h1 { margin: 0 0 16px; font-size: 20px; }
label { display: block; margin-bottom: 16px; font-size: 14px; }
input, button { width: 100%; min-height: 40px; padding: 8px; margin-top: 4px; font: inherit; border-radius: 8px;
                border: 1px solid var(--line); background: transparent; color: inherit; }
button { background: var(--accent); border-color: var(--accent); color: var(--card); cursor: pointer; }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
.problem { color: var(--bad); margin: 0 0 16px; }
a { color: var(--accent); font-size: 14px; }
nav { margin-top: 16px; text-align: center; }
"""
_PAGE = """<!doctype html>
<html lang="{language}">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
<h1>{title}</h1>
{alert}
<form method="post" action="{action}">
<label>{user}<input name="user" autocomplete="username" autocapitalize="none" required autofocus></label>
<label>{password}<input name="password" type="password" autocomplete="current-password" required></label>
<button type="submit">{submit}</button>
</form>
<nav><a href="{other}" hreflang="{other_name}">{other_name}</a></nav>
</main>
</body>
</html>
"""
