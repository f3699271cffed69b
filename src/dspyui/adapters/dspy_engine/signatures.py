"""Our signatures as DSPy's."""

from collections.abc import Mapping
from typing import Any, Literal

import dspy

from dspyui.domain.signatures import FieldSpec, FieldType, SignatureSpec

TYPES: Mapping[FieldType, Any] = {
    "str": str,
    "int": int,
    "float": float,
    "bool": bool,
    "list[str]": list[str],
}


def to_annotation(field: FieldSpec) -> Any:
    """The Python type a field's value has."""
    return Literal[field.choices] if field.type == "choice" else TYPES[field.type]


def to_dspy(spec: SignatureSpec) -> type[dspy.Signature]:
    """A DSPy signature with the same fields, types, descriptions and instructions."""
    fields: dict[str, tuple[Any, Any]] = {}
    for make, specs in ((dspy.InputField, spec.inputs), (dspy.OutputField, spec.outputs)):
        for field in specs:
            options = {"desc": field.description} if field.description else {}
            fields[field.name] = (to_annotation(field), make(**options))
    # Without instructions DSPy writes its own from the field names; that is what its users expect.
    return dspy.Signature(fields, spec.instructions or None, signature_name="Program")  # type: ignore[call-overload]
