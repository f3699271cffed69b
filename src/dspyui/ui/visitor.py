"""Who is looking: name, language, colours and time zone of the visitor of a page."""

import getpass
from dataclasses import dataclass
from datetime import tzinfo
from typing import Literal

from nicegui import app
from nicegui.context import context

from dspyui.i18n import DEFAULT_LANGUAGE, LANGUAGES, Language, Text, language_of
from dspyui.settings import Settings
from dspyui.ui import formats

Colours = Literal["auto", "light", "dark"]
DARK: dict[Colours, bool | None] = {"auto": None, "light": False, "dark": True}
HTML_LANG: dict[Language, Literal["zh-CN", "en-US"]] = {"zh_CN": "zh-CN", "en_US": "en-US"}


def who() -> str:
    """The name the visitor logged in with, else this system's user. It goes into audit records."""
    user = getattr(context.client.request.state, "user", None)
    return user if isinstance(user, str) and user else _system_user()


def _system_user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "unknown"


def choose_language(
    asked: str | None, stored: str | None, setting: Language | None, accepted: str | None
) -> Language:
    """The first that is known of: `?lang=`, the visitor's own choice, the setting, Accept-Language, Chinese."""
    kept: Language | None = next((name for name in LANGUAGES if name == stored), None)
    return language_of(asked) or kept or setting or language_of(accepted) or DEFAULT_LANGUAGE


@dataclass(frozen=True, slots=True)
class Visitor:
    """What a page knows of its visitor. `where` is None when the visitor's time zone is not known yet."""

    text: Text
    colours: Colours
    where: tzinfo | None

    @property
    def language(self) -> Language:
        """The language of every word."""
        return self.text.language


def find_visitor(settings: Settings) -> Visitor:
    """Read it from the request and the session. A language asked for in the address is kept."""
    request = context.client.request
    stored = app.storage.user
    asked = request.query_params.get("lang")
    language = choose_language(
        asked, stored.get("language"), settings.language, request.headers.get("accept-language")
    )
    if language_of(asked):
        stored["language"] = language
    colours = stored.get("colours")
    return Visitor(
        text=Text(language),
        colours=colours if colours in DARK else "auto",
        where=formats.zone(request.cookies.get("dspyui_tz")),
    )
