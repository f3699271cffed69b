"""What the Test page decides: which programs may stand side by side, and where their answers differ."""

import pytest

from dspyui.domain.base import Fault
from dspyui.domain.batches import BatchModel
from dspyui.domain.compiles import Usage
from dspyui.domain.engine import PredictOutcome
from dspyui.domain.signatures import FieldSpec
from dspyui.errors import BadRequestError
from dspyui.ui.bench import Bench, Chosen, check_inputs, differing, matches
from tests.mlflow_world import compiled


def model(name, inputs=None, **more):
    changes = {} if inputs is None else {"inputs": inputs}
    return BatchModel(program=compiled(**changes), uri=f"{name}.json", name=name, **more)


TEXT = [{"name": "message"}]


@pytest.mark.parametrize(
    ("inputs", "code", "named"),
    [
        ([{"name": "text"}], "bench.input_lacking", "message"),
        ([*TEXT, {"name": "count", "type": "int"}], "bench.input_extra", "count"),
        ([{"name": "message", "type": "list[str]"}], "bench.input_type", "list[str]"),
        ([{"name": "message", "type": "choice", "choices": ["a", "b"]}], "bench.input_type", "choice: a | b"),
    ],
)
def test_programs_of_other_inputs_do_not_stand_side_by_side_and_the_field_is_named(inputs, code, named):
    with pytest.raises(BadRequestError) as caught:
        check_inputs(model("first", TEXT), model("second", inputs))
    assert caught.value.code == code
    for language in ("en_US", "zh_CN"):
        assert named in caught.value.text(language)
        assert "second" in caught.value.text(language)


def test_the_order_of_inputs_and_their_descriptions_do_not_matter():
    one = [{"name": "a", "description": "of it"}, {"name": "b"}]
    check_inputs(model("first", one), model("second", [{"name": "b"}, {"name": "a"}]))


def test_at_most_four_programs_and_none_twice():
    bench = Bench()
    for number in range(4):
        bench.add(Chosen(model(f"p{number}"), f"p{number}.json"))
    with pytest.raises(BadRequestError) as caught:
        bench.add(Chosen(model("p4")))
    assert caught.value.code == "bench.full"
    bench.programs.pop()
    with pytest.raises(BadRequestError) as caught:
        bench.add(Chosen(model("p0")))
    assert caught.value.code == "bench.twice"


def test_the_address_repeats_what_was_chosen_by_name_and_the_row():
    bench = Bench([Chosen(model("产品"), "models:/产品/1"), Chosen(model("uploaded"))])
    assert bench.address() == "/test?model=models%3A%2F%E4%BA%A7%E5%93%81%2F1"
    assert bench.address("data:d", 6).endswith("&data=data%3Ad&row=7")
    assert Bench().address() == "/test"


def outcome(fault=None, **outputs):
    return PredictOutcome(outputs=outputs, fault=fault, prompt=(), usage=Usage(), seconds=0.1)


def test_where_answers_differ():
    broken = outcome(fault=Fault(code="predict.unreadable"))
    assert differing([outcome(a="x", b=[1]), outcome(a="y", b=[1])]) == {"a"}
    assert differing([outcome(a="x"), outcome(a="x", reasoning="r")]) == {"reasoning"}
    assert differing([outcome(a="x"), broken, None]) == frozenset()


@pytest.mark.parametrize(
    ("field", "value", "expected", "same"),
    [
        ({"name": "a"}, "lamp", " lamp ", True),
        ({"name": "a"}, "lamp", "Lamp", False),
        ({"name": "a", "type": "int"}, 3, "3", True),
        ({"name": "a", "type": "float"}, 3.0, 3, True),
        ({"name": "a", "type": "bool"}, True, "是", True),
        ({"name": "a", "type": "list[str]"}, ["x", "y"], "x; y", True),
        ({"name": "a", "type": "int"}, 3, "three", False),
        ({"name": "a", "type": "int"}, 3, None, False),
    ],
)
def test_what_was_expected_is_compared_in_the_fields_type(field, value, expected, same):
    assert matches(FieldSpec.model_validate(field), value, expected) is same
