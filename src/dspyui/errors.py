"""Every error the program raises on purpose.

    DSPyUIError
    ├── BadRequestError    what was asked for cannot be done as asked     exit 2, HTTP 400
    │   ├── NotFoundError  the thing named does not exist                 exit 2, HTTP 404
    │   └── ConflictError  it stands against something that exists        exit 2, HTTP 409
    ├── FailedError        it was tried and it failed                     exit 1, HTTP 500
    │   ├── UnavailableError  a server that is needed does not answer     exit 1, HTTP 503
    │   └── RefusedError   a model will not answer; asking again is useless  exit 1, HTTP 500
    └── CancelledError     a person stopped it                            exit 130

Each carries a stable `code`; its sentence stands in the catalogue under `error.<code>` in both languages,
and says what is wrong, where, and what to do.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from dspyui.i18n import Language, Text


class DSPyUIError(Exception):
    """An error with a stable code and a sentence in each language."""

    exit_code: ClassVar[int] = 1
    http_status: ClassVar[int] = 500

    def __init__(self, code: str, /, **values: Any) -> None:
        super().__init__(code, values)
        self.code = code
        self.values = values

    def text(self, language: Language) -> str:
        """The sentence for a person. What another version wrote (a code, or fewer values) is shown as it is."""
        try:
            return Text(language)(f"error.{self.code}", **said(self.values, language))
        except KeyError:
            return f"{self.code} {self.values}"

    def __str__(self) -> str:
        return self.text("en_US")


def said(values: Mapping[str, Any], language: Language) -> dict[str, Any]:
    """The values of a sentence; one that is itself an error as data (`code` and `values`) becomes its sentence, and the
    role of a language model its word."""
    return {name: _word(name, value, language) for name, value in values.items()}


def _word(name: str, value: Any, language: Language) -> Any:
    if isinstance(value, Mapping) and value.keys() == {"code", "values"}:
        return DSPyUIError(value["code"], **value["values"]).text(language)
    text = Text(language)
    return text(f"role.{value}") if name == "role" and text.has(f"role.{value}") else value


class BadRequestError(DSPyUIError):
    """What was asked for cannot be done as asked."""

    exit_code = 2
    http_status = 400


class NotFoundError(BadRequestError):
    """The thing named does not exist."""

    http_status = 404


class ConflictError(BadRequestError):
    """What was asked for stands against something that exists."""

    http_status = 409


class FailedError(DSPyUIError):
    """It was tried and it failed."""


class UnavailableError(FailedError):
    """A server that is needed does not answer."""

    http_status = 503


class RefusedError(FailedError):
    """A model refuses for good (no right, no quota, unknown, a request it cannot take): asking again is useless."""


class CancelledError(DSPyUIError):
    """A person stopped it."""

    exit_code = 130
    http_status = 409
