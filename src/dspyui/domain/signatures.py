"""Signatures: instructions, and named and typed input and output fields."""

import hashlib
import json
import keyword
import math
import re
import unicodedata
from collections.abc import Mapping
from typing import Any, Literal, Self, get_args

from pydantic import model_validator

from dspyui.domain.base import Frozen
from dspyui.errors import BadRequestError

FieldType = Literal["str", "int", "float", "bool", "list[str]", "choice"]
FIELD_TYPES: tuple[FieldType, ...] = get_args(FieldType)

# DSPy builds a pydantic class of the fields and returns them as attributes of a Prediction; these names
# are taken there, and a field of that name would be shadowed in silence. A test compares them with DSPy's.
RESERVED_FIELD_NAMES = frozenset(
    {
        "append", "append_instructions", "completions", "construct", "copy", "delete", "demos", "dict",
        "dump_state", "equals", "fields", "from_completions", "from_orm", "get", "get_lm_usage",
        "input_fields", "inputs", "insert", "instructions", "items", "json", "keys", "labels", "load_state",
        "output_fields", "parse_file", "parse_obj", "parse_raw", "prepend", "register", "schema",
        "schema_json", "set_lm_usage", "signature", "toDict", "update_forward_refs", "validate", "values",
        "with_inputs", "with_instructions", "with_updated_fields", "without", "dspy_uuid", "dspy_split",
        "augmented", "config", "new_signature", "traces", "train", "lm", "trace", "reset_copy", "rollout_id",
        "signature_name", "self", "kwargs", "args",
    }
)  # fmt: skip
MAX_FIELD_NAME = 64
_NOT_FOUND_AGAIN = re.compile(r"\W")

FieldValue = str | int | float | bool | list[str]
Row = dict[str, Any]


def check_field_name(name: str) -> None:
    """Raise BadRequestError unless `name` can be a field's name: a Python identifier, not private, not taken."""
    if not name:
        raise BadRequestError("field_name.empty")
    if len(name) > MAX_FIELD_NAME:
        raise BadRequestError("field_name.long", name=name[:20] + "…", limit=MAX_FIELD_NAME)
    if not name.isidentifier() or unicodedata.normalize("NFKC", name) != name:
        raise BadRequestError("field_name.identifier", name=name)
    # DSPy finds a field in a reply by `\w+`, which the marks of Hindi or Thai words, or a middle dot, are not.
    if odd := _NOT_FOUND_AGAIN.search(name):
        raise BadRequestError("field_name.mark", name=name, character=odd[0])
    if keyword.iskeyword(name):
        raise BadRequestError("field_name.keyword", name=name)
    if name.startswith(("_", "model_")):
        raise BadRequestError("field_name.private", name=name)
    if name in RESERVED_FIELD_NAMES:
        raise BadRequestError("field_name.reserved", name=name)


class FieldSpec(Frozen):
    """One input or output field. `choices` are the literals of a field of type `choice`, in order."""

    name: str
    type: FieldType = "str"
    choices: tuple[str, ...] = ()
    description: str = ""

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_field_name(self.name)
        if self.type == "choice" and len(set(self.choices)) < 2:
            raise BadRequestError("field.choices", name=self.name)
        if self.type == "choice" and any(not choice.strip() for choice in self.choices):
            raise BadRequestError("field.choice_empty", name=self.name)
        for choice in self.choices:
            # Values are compared without outer spaces, so such a choice could never be met.
            if choice != choice.strip():
                raise BadRequestError("field.choice_space", name=self.name, choice=choice)
        if self.type != "choice" and self.choices:
            raise BadRequestError("field.choices_unused", name=self.name, type=self.type)
        return self


class SignatureSpec(Frozen):
    """What a program takes, gives and is told."""

    instructions: str = ""
    inputs: tuple[FieldSpec, ...]
    outputs: tuple[FieldSpec, ...]

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.inputs:
            raise BadRequestError("signature.no_inputs")
        if not self.outputs:
            raise BadRequestError("signature.no_outputs")
        seen: set[str] = set()
        for field in self.fields:
            if field.name in seen:
                raise BadRequestError("signature.twice", name=field.name)
            seen.add(field.name)
        return self

    @property
    def fields(self) -> tuple[FieldSpec, ...]:
        """Inputs, then outputs."""
        return self.inputs + self.outputs

    def digest(self) -> str:
        """SHA-256 (hex) over the names, types, choices and roles of the fields, in order.

        DSPy's own state holds none of these, so a state is only loaded into a signature of equal digest.
        """
        shape = [
            [role, field.name, field.type, list(field.choices)]
            for role, fields in (("in", self.inputs), ("out", self.outputs))
            for field in fields
        ]
        return hashlib.sha256(json.dumps(shape, ensure_ascii=False).encode()).hexdigest()


def parse_value(field: FieldSpec, value: Any, *, where: str) -> FieldValue:
    """Turn what a file, a form or a model gave into the field's type.

    `where` names the place for the message ("row 3"). Raises BadRequestError when it does not fit.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        raise BadRequestError("value.missing", where=where, name=field.name)
    try:
        return _PARSERS[field.type](field, value)
    except (ValueError, TypeError, RecursionError) as exc:  # JSON in a cell can be nested without end
        raise BadRequestError(
            "value.type", where=where, name=field.name, type=type_label(field), value=_shortened(value)
        ) from exc


def parse_row(fields: tuple[FieldSpec, ...], row: Mapping[str, Any], *, where: str) -> Row:
    """The values of `fields` in a row, parsed. Raises BadRequestError for one that is missing or does not fit."""
    return {field.name: parse_value(field, row.get(field.name), where=where) for field in fields}


def type_label(field: FieldSpec) -> str:
    """The field's type as a person reads it: `int`, `choice: yes | no`."""
    return f"choice: {' | '.join(field.choices)}" if field.type == "choice" else field.type


def _shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:79] + "…"


def _to_str(_field: FieldSpec, value: Any) -> str:
    return _text(value)


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    # Half an emoji (`"\ud83d"` is valid JSON) can neither be written to a file nor sent to a model.
    text.encode()
    return text


def _to_int(_field: FieldSpec, value: Any) -> int:
    if isinstance(value, bool):
        raise ValueError(value)
    if isinstance(value, float):
        if not value.is_integer():
            raise ValueError(value)
        return int(value)
    return int(str(value).strip())


def _to_float(_field: FieldSpec, value: Any) -> float:
    if isinstance(value, bool):
        raise ValueError(value)
    number = float(str(value).strip())
    if not math.isfinite(number):
        raise ValueError(value)
    return number


_TRUE = frozenset({"true", "yes", "1", "是", "对", "真"})
_FALSE = frozenset({"false", "no", "0", "否", "错", "假"})


def _to_bool(_field: FieldSpec, value: Any) -> bool:
    if isinstance(value, bool):
        return value
    word = str(value).strip().casefold()
    if word not in _TRUE | _FALSE:
        raise ValueError(value)
    return word in _TRUE


def _to_list(_field: FieldSpec, value: Any) -> list[str]:
    items = json.loads(value) if isinstance(value, str) and value.lstrip().startswith("[") else value
    if isinstance(items, str):
        return [_text(part.strip()) for part in items.split(";") if part.strip()]
    if not isinstance(items, list | tuple):
        raise TypeError(value)
    return [_text(item) for item in items]


def _to_choice(field: FieldSpec, value: Any) -> str:
    word = str(value).strip()
    if word not in field.choices:
        raise ValueError(value)
    return word


_PARSERS: Mapping[FieldType, Any] = {
    "str": _to_str,
    "int": _to_int,
    "float": _to_float,
    "bool": _to_bool,
    "list[str]": _to_list,
    "choice": _to_choice,
}
