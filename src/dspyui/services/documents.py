"""Spec documents: YAML or JSON text to a `CompileSpec` and back."""

from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from typing import Any, TypeVar, get_args

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from dspyui.domain.base import Frozen
from dspyui.domain.compiles import CompileSpec
from dspyui.errors import BadRequestError

Model = TypeVar("Model", bound=Frozen)


def parse_spec(text: str) -> CompileSpec:
    """Read a spec. Raises BadRequestError that names the place in the document and what is wrong with it."""
    try:
        document = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as exc:  # ValueError: a date that is none, say
        raise BadRequestError("spec.yaml", problem=" ".join(str(exc).split())) from exc
    if not isinstance(document, dict):
        raise BadRequestError("spec.not_mapping")
    return spec_of(document)


def spec_of(document: dict[str, Any]) -> CompileSpec:
    """The same for a document that is already parsed."""
    return part_of(CompileSpec, document)


def part_of(model: type[Model], document: dict[str, Any]) -> Model:
    """The same for a part of a spec, such as its signature or one LM."""
    try:
        return model.model_validate(document)
    except ValidationError as exc:
        raise _first(model, exc.errors()) from exc


def _first(model: type[Frozen], errors: Sequence[ErrorDetails]) -> BadRequestError:
    """Unknown keys go before anything else: a key that is missing is often just the one that was misspelt."""
    unknown = [details["loc"] for details in errors if details["type"] == "extra_forbidden"]
    return _unknown_keys(model, unknown) if unknown else _said(errors[0])


def _unknown_keys(model: type[Frozen], places: Sequence[tuple[int | str, ...]]) -> BadRequestError:
    """All unknown keys beside the first one, and the known ones that come near them."""
    level = places[0][:-1]
    keys = [str(place[-1]) for place in places if place[:-1] == level]
    known = list(_model_at(model, level).model_fields)
    near = dict.fromkeys(found for key in keys for found in get_close_matches(key, known, n=1))
    return BadRequestError(
        "spec.extra_near" if near else "spec.extra",
        where=", ".join(".".join(map(str, (*level, key))) for key in keys),
        near=", ".join(near),
        known=", ".join(known),
    )


def _model_at(model: type[Frozen], place: Sequence[int | str]) -> type[Frozen]:
    for part in place:
        if isinstance(part, str):
            model = next(_models(model.model_fields[part].annotation))
    return model


def _models(annotation: object) -> Iterator[type[Frozen]]:
    """The models inside a type such as `tuple[FieldSpec, ...]` or `LMSpec | None`."""
    if isinstance(annotation, type) and issubclass(annotation, Frozen):
        yield annotation
    for part in get_args(annotation):
        yield from _models(part)


# What pydantic calls a mistake -> the code of our sentence for it; any other is told in pydantic's words.
_CODES = {
    "missing": "spec.missing",
    "literal_error": "spec.choice",
    "model_type": "spec.mapping",
    "dict_type": "spec.mapping",
    "tuple_type": "spec.list",
    "string_type": "spec.text",
    "int_type": "spec.number",
    "int_parsing": "spec.number",
    "int_from_float": "spec.number",
    "float_type": "spec.number",
    "float_parsing": "spec.number",
    "bool_type": "spec.bool",
    "bool_parsing": "spec.bool",
}


def _said(details: ErrorDetails) -> BadRequestError:
    where = ".".join(str(part) for part in details["loc"]) or "—"
    expected = str(details.get("ctx", {}).get("expected", "")).replace(" or ", ", ")
    code = _CODES.get(details["type"], "spec.invalid")
    return BadRequestError(code, where=where, expected=expected, problem=details["msg"])


def dump_spec(spec: CompileSpec) -> str:
    """The spec as YAML that `parse_spec` reads back to an equal one."""
    document = spec.model_dump(mode="json", exclude_none=True)
    return yaml.safe_dump(document, allow_unicode=True, sort_keys=False, width=110)
