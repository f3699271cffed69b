"""In which language a request is answered."""

from starlette.requests import HTTPConnection

from dspyui.i18n import DEFAULT_LANGUAGE, Language, language_of
from dspyui.settings import Settings


def request_language(request: HTTPConnection, settings: Settings) -> Language:
    """`?lang=`, then an explicit setting, then Accept-Language, then Chinese."""
    return (
        language_of(request.query_params.get("lang"))
        or settings.language
        or language_of(request.headers.get("accept-language"))
        or DEFAULT_LANGUAGE
    )
