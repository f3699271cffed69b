"""What all domain models share."""

import math
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict

from dspyui.errors import BadRequestError, DSPyUIError, FailedError
from dspyui.i18n import Language, Text

ParameterValue = int | float | bool | str | None


class Frozen(BaseModel):
    """An immutable value; unknown keys are refused so that a typing slip in a spec file is seen."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Fault(Frozen):
    """An error as data: its code and values, so that it can be kept, and said in any language later."""

    code: str
    values: dict[str, Any] = {}

    @classmethod
    def of(cls, error: DSPyUIError) -> Self:
        """The fault of an error that was raised."""
        return cls(code=error.code, values=error.values)

    def sentence(self, language: Language) -> str:
        """What a person reads."""
        return FailedError(self.code, **self.values).text(language)


class Notice(Frozen):
    """Something to know that keeps nobody from going on: `key` is its sentence's place in the catalogue."""

    key: str
    values: dict[str, Any] = {}

    @property
    def code(self) -> str:
        """The key without the section it stands in."""
        return self.key.partition(".")[2]

    def sentence(self, language: Language) -> str:
        """What a person reads."""
        return Text(language)(self.key, **self.values)


class ParameterInfo(Frozen):
    """One parameter of an optimizer, a module or a metric: enough to draw its form field and to check it.

    Its label and help stand in the catalogue under `<owner>.param.<name>.label` and `.help`. A `choice` is one of
    `choices`, whose labels stand under `<owner>.param.<name>.<choice>`; `text` is a `str` of several lines.
    `optional`: None is a value too, and means that the library decides. `advanced` ones are folded away in the form.
    """

    name: str
    type: Literal["int", "float", "bool", "str", "text", "choice"]
    default: ParameterValue
    optional: bool = False
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()
    advanced: bool = False


def checked_parameters(
    owner: str, known: tuple[ParameterInfo, ...], given: dict[str, Any]
) -> dict[str, ParameterValue]:
    """Return every known parameter with the given value or its default.

    Raises BadRequestError for a name that is not known, a wrong type, or a value out of its range.
    """
    names = {info.name for info in known}
    for name in given:
        if name not in names:
            raise BadRequestError(
                "parameter.unknown", owner=owner, name=name, known=", ".join(sorted(names)) or "—"
            )
    return {info.name: _checked(owner, info, given.get(info.name, info.default)) for info in known}


def _checked(owner: str, info: ParameterInfo, value: Any) -> ParameterValue:
    if value is None and info.optional:
        return None
    if not _fits(info, value):
        raise BadRequestError(
            "parameter.type", owner=owner, name=info.name, type=_type_label(info), value=repr(value)
        )
    if value is None or isinstance(value, str):
        return value
    low = -math.inf if info.minimum is None else info.minimum
    high = math.inf if info.maximum is None else info.maximum
    if not low <= value <= high:
        raise BadRequestError(
            "parameter.range", owner=owner, name=info.name, value=value, low=f"{low:g}", high=f"{high:g}"
        )
    return {"bool": bool, "int": int, "float": float}[info.type](value)


def _fits(info: ParameterInfo, value: Any) -> bool:
    match info.type:
        case "bool":
            return isinstance(value, bool)
        case "str" | "text":
            return isinstance(value, str)
        case "choice":
            return value in info.choices
        case _:
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            return is_number and (info.type == "float" or isinstance(value, int) or value.is_integer())


def _type_label(info: ParameterInfo) -> str:
    return " | ".join(info.choices) if info.type == "choice" else info.type
