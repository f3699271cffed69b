"""Signatures: names that can be fields, values that fit them, the digest."""

import math
from typing import Any

import pytest

from dspyui.domain.programs import ModuleSpec, ProgramSpec
from dspyui.domain.signatures import (
    MAX_FIELD_NAME,
    RESERVED_FIELD_NAMES,
    FieldSpec,
    SignatureSpec,
    check_field_name,
    parse_row,
    parse_value,
    type_label,
)
from dspyui.errors import BadRequestError


def code_of(call: Any, *args: Any, **kwargs: Any) -> str:
    with pytest.raises(BadRequestError) as caught:
        call(*args, **kwargs)
    assert caught.value.text("en_US")
    assert caught.value.text("zh_CN")
    return caught.value.code


@pytest.mark.parametrize("name", ["message", "问题", "réponse", "a1", "Ответ", "x" * MAX_FIELD_NAME, "match"])
def test_a_name_of_any_script_can_be_a_field(name: str) -> None:
    check_field_name(name)


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("", "field_name.empty"),
        (" ", "field_name.identifier"),
        ("two words", "field_name.identifier"),
        ("1st", "field_name.identifier"),
        ("a-b", "field_name.identifier"),
        ("a.b", "field_name.identifier"),
        ("../../x", "field_name.identifier"),
        ("/etc/passwd", "field_name.identifier"),
        ("..\\x", "field_name.identifier"),
        ("a\x00", "field_name.identifier"),
        ("a\n", "field_name.identifier"),
        ("🙂", "field_name.identifier"),
        ("a\u200fb", "field_name.identifier"),  # right-to-left mark
        ("a\u202eb", "field_name.identifier"),  # right-to-left override
        ("a\u200bb", "field_name.identifier"),  # zero-width space
        ("ﬁeld", "field_name.identifier"),  # a ligature: Python folds it to another name
        ("e\u0301", "field_name.identifier"),  # not composed
        ("हिंदी", "field_name.mark"),
        ("ไทยดี", "field_name.mark"),
        ("a·b", "field_name.mark"),
        ("class", "field_name.keyword"),
        ("None", "field_name.keyword"),
        ("_private", "field_name.private"),
        ("__init__", "field_name.private"),
        ("model_config", "field_name.private"),
        ("items", "field_name.reserved"),
        ("demos", "field_name.reserved"),
        ("x" * (MAX_FIELD_NAME + 1), "field_name.long"),
    ],
)
def test_a_name_that_is_no_field(name: str, code: str) -> None:
    assert code_of(check_field_name, name) == code
    assert code_of(FieldSpec, name=name) == code


def test_the_message_names_the_field_and_the_remedy() -> None:
    with pytest.raises(BadRequestError) as caught:
        check_field_name("items")
    assert "items" in str(caught.value)
    assert "items_value" in str(caught.value)


def test_dspy_has_no_other_name_that_a_field_would_lose() -> None:
    import dspy

    class Probe(dspy.Signature):
        """A signature with as few fields as there can be."""

        an_input: str = dspy.InputField()
        an_output: str = dspy.OutputField()

    things = (Probe, dspy.Example(an_input="x"), dspy.Prediction(an_output="x"))
    # `dir` of a class leaves out what its metaclass gives it, and a field would hide that too.
    metaclass = {name for name in dir(type(Probe)) if not hasattr(type, name)}
    taken = metaclass | {name for thing in things for name in dir(thing)}
    public = {name for name in taken if not name.startswith(("_", "model_"))} - {"an_input", "an_output"}
    assert public <= RESERVED_FIELD_NAMES, sorted(public - RESERVED_FIELD_NAMES)


def test_names_that_are_arguments_of_a_call_are_reserved() -> None:
    import inspect

    import dspy

    for function in (dspy.Predict.__call__, dspy.Predict._forward_preprocess, dspy.Module.__call__):
        parameters = {name for name in inspect.signature(function).parameters if name != "self"}
        assert parameters <= RESERVED_FIELD_NAMES | {"self"}
    # `Predict` takes these out of its keyword arguments (dspy/predict/predict.py).
    source = inspect.getsource(dspy.Predict._forward_preprocess)
    for name in ("signature", "new_signature", "demos", "config", "lm"):
        assert f'"{name}"' in source or name not in source
        assert name in RESERVED_FIELD_NAMES


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ({"name": "a", "type": "choice"}, "field.choices"),
        ({"name": "a", "type": "choice", "choices": ("x",)}, "field.choices"),
        ({"name": "a", "type": "choice", "choices": ("x", "x")}, "field.choices"),
        ({"name": "a", "type": "choice", "choices": ("x", " ")}, "field.choice_empty"),
        ({"name": "a", "type": "choice", "choices": ("x", "y ")}, "field.choice_space"),
        ({"name": "a", "type": "str", "choices": ("x", "y")}, "field.choices_unused"),
    ],
)
def test_choices_belong_to_a_choice(values: dict[str, Any], code: str) -> None:
    assert code_of(FieldSpec, **values) == code


def test_a_signature_needs_fields_on_both_sides_and_no_name_twice() -> None:
    a, b = FieldSpec(name="a"), FieldSpec(name="b")
    assert code_of(SignatureSpec, inputs=(), outputs=(a,)) == "signature.no_inputs"
    assert code_of(SignatureSpec, inputs=(a,), outputs=()) == "signature.no_outputs"
    assert code_of(SignatureSpec, inputs=(a,), outputs=(a,)) == "signature.twice"
    assert code_of(SignatureSpec, inputs=(a, a), outputs=(b,)) == "signature.twice"
    assert SignatureSpec(inputs=(a,), outputs=(b,)).fields == (a, b)


def test_a_module_keeps_its_own_output_for_itself() -> None:
    signature = SignatureSpec(inputs=(FieldSpec(name="a"),), outputs=(FieldSpec(name="reasoning"),))
    ProgramSpec(signature=signature)
    code = code_of(ProgramSpec, signature=signature, module=ModuleSpec(kind="chain_of_thought"))
    assert code == "program.field_taken"


def test_the_digest_is_of_names_types_choices_and_roles() -> None:
    def digest(**changes: Any) -> str:
        field = {"name": "b", "type": "choice", "choices": ("x", "y"), **changes}
        return SignatureSpec(inputs=(FieldSpec(name="a"),), outputs=(FieldSpec(**field),)).digest()

    same = digest()
    assert digest(description="other words") == same
    different = {
        digest(name="c"),
        digest(choices=("y", "x")),
        digest(type="str", choices=()),
        SignatureSpec(
            inputs=(FieldSpec(name="b", type="choice", choices=("x", "y")),), outputs=(FieldSpec(name="a"),)
        ).digest(),
    }
    assert same not in different
    assert len(different) == 4


@pytest.mark.parametrize(
    ("type_", "given", "expected"),
    [
        ("str", "x", "x"),
        ("str", "", ""),
        ("str", 3, "3"),
        ("str", True, "true"),
        ("str", ["a", "é"], '["a", "é"]'),
        ("int", "3", 3),
        ("int", " -3 ", -3),
        ("int", 3.0, 3),
        ("int", 10**30, 10**30),
        ("float", "1.5", 1.5),
        ("float", 1, 1.0),
        ("float", "1e3", 1000.0),
        ("bool", "Yes", True),
        ("bool", "否", False),
        ("bool", 0, False),
        ("bool", True, True),
        ("list[str]", "a; b;", ["a", "b"]),
        ("list[str]", '["a", 1]', ["a", "1"]),
        ("list[str]", ["a", "b"], ["a", "b"]),
        ("list[str]", "", []),
    ],
)
def test_values_are_parsed_to_their_type(type_: Any, given: Any, expected: Any) -> None:
    value = parse_value(FieldSpec(name="a", type=type_), given, where="#1")
    assert value == expected
    assert type(value) is type(expected)


@pytest.mark.parametrize(
    ("type_", "given"),
    [
        ("int", "x"),
        ("int", ""),
        ("int", "1.5"),
        ("int", 1.5),
        ("int", True),
        ("int", math.inf),
        ("float", "nan"),
        ("float", "inf"),
        ("float", True),
        ("float", [1]),
        ("bool", "maybe"),
        ("bool", 2),
        ("list[str]", 3),
        ("list[str]", '["a"'),
        ("list[str]", {"a": 1}),
        pytest.param("list[str]", "[" * 100_000, id="nested without end"),
        ("str", "half an emoji: \ud83d"),
        ("list[str]", ["\ud83d"]),
        ("list[str]", "a; \ud83d"),
    ],
)
def test_values_that_do_not_fit(type_: Any, given: Any) -> None:
    assert code_of(parse_value, FieldSpec(name="a", type=type_), given, where="#1") == "value.type"


@pytest.mark.parametrize("given", [None, math.nan])
def test_a_value_that_is_not_there(given: Any) -> None:
    assert code_of(parse_value, FieldSpec(name="a"), given, where="#1") == "value.missing"


def test_a_choice_is_met_exactly() -> None:
    field = FieldSpec(name="a", type="choice", choices=("yes", "no"))
    assert parse_value(field, " yes ", where="#1") == "yes"
    assert code_of(parse_value, field, "YES", where="#1") == "value.type"
    assert type_label(field) == "choice: yes | no"


def test_a_row_error_names_row_field_and_a_shortened_value() -> None:
    with pytest.raises(BadRequestError) as caught:
        parse_row((FieldSpec(name="count", type="int"),), {"count": "x" * 500}, where="#7")
    message = str(caught.value)
    assert "#7" in message
    assert "count" in message
    assert len(message) < 300
