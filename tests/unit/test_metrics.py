"""The metric: what counts as the same answer."""

import math
from collections.abc import Sequence
from typing import Any

import pytest

from dspyui.domain.compiles import CompileSpec
from dspyui.domain.metrics import (
    METRICS,
    CustomMetric,
    MetricKind,
    MetricSpec,
    feedback_text,
    normalise_answer,
    score_row,
)
from dspyui.domain.scores import cosine, find_number, judge_prompt, read_judgement, tokens
from dspyui.domain.signatures import FieldSpec, FieldType, Row, SignatureSpec
from dspyui.errors import BadRequestError, FailedError, RefusedError

SIGNATURE = SignatureSpec(
    inputs=(FieldSpec(name="a"),), outputs=(FieldSpec(name="b"), FieldSpec(name="n", type="int"))
)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Desk Lamp", "desk lamp"),
        ("the desk  lamp.", "desk lamp"),
        ("A desk lamp!", "desk lamp"),
        ('"desk lamp"', "desk lamp"),
        ("「台灯」", "台灯"),
        ("台灯。", "台灯"),
        ("ＡＢＣ", "abc"),
        ("STRASSE", "straße"),
    ],
)
def test_answers_that_mean_the_same(one: str, other: str) -> None:
    assert normalise_answer(one) == normalise_answer(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("3.5", "35"),
        ("-5", "5"),
        ("C#", "C"),
        ("C++", "C"),
        ("the", ""),
        ("the", "a"),
        (".", "!"),
        ("lamp desk", "desk lamp"),
        ("e-reader", "ereader"),
        ("1,5", "15"),
    ],
)
def test_answers_that_differ(one: str, other: str) -> None:
    assert normalise_answer(one) != normalise_answer(other)


class Tools:
    """A judge that says what it is told, vectors of a table, metrics of a table."""

    def __init__(
        self,
        said: str | FailedError = "",
        vectors: dict[str, list[float]] | None = None,
        own: dict[str, CustomMetric] | None = None,
    ) -> None:
        self.said = said
        self.vectors = vectors or {}
        self.own = own or {}
        self.prompts: list[str] = []
        self.embedded: list[str] = []

    def judge(self, prompt: str) -> str:
        self.prompts.append(prompt)
        if isinstance(self.said, FailedError):
            raise self.said
        return self.said

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        self.embedded += texts
        return [self.vectors[text] for text in texts]

    def custom(self, name: str) -> CustomMetric:
        return self.own[name]


def signature(type_: FieldType) -> SignatureSpec:
    choices = ("yes", "no", "3") if type_ == "choice" else ()
    return SignatureSpec(
        instructions="Answer it.",
        inputs=(FieldSpec(name="a"),),
        outputs=(FieldSpec(name="b", type=type_, choices=choices, description="short"),),
    )


def score(
    kind: MetricKind,
    type_: FieldType,
    expected: Any,
    predicted: Any,
    tools: Tools | None = None,
    **params: Any,
):
    return score_row(
        MetricSpec(kind=kind, params=params),
        signature(type_),
        inputs={"a": "why?"},
        expected=None if expected is NOTHING else {"b": expected},
        predicted={"b": predicted},
        tools=tools or Tools(),
    )


def both(metric: MetricSpec, expected: Row, predicted: Row | None, tools: Tools | None = None):
    return score_row(
        metric, SIGNATURE, inputs={"a": "x"}, expected=expected, predicted=predicted, tools=tools or Tools()
    )


NOTHING = object()
CASES: list[tuple[MetricKind, dict[str, Any], FieldType, Any, Any, float]] = [
    ("exact_match", {}, "str", "Lamp", "lamp.", 1),
    ("exact_match", {"normalise": False}, "str", "Lamp", "lamp", 0),
    ("exact_match", {}, "str", "lamp", "lamps", 0),
    ("exact_match", {}, "str", "lamp", None, 0),
    ("exact_match", {}, "int", 3, 3, 1),
    ("exact_match", {}, "int", 3, 4, 0),
    ("exact_match", {}, "float", 1.0, 1, 1),
    ("exact_match", {}, "bool", True, True, 1),
    ("exact_match", {}, "bool", False, None, 0),
    ("exact_match", {}, "list[str]", ["a", "b"], ["A", "b."], 1),
    ("exact_match", {}, "list[str]", ["a", "b"], ["b", "a"], 0),
    ("exact_match", {}, "list[str]", [], [], 1),
    ("exact_match", {}, "choice", "yes", "yes", 1),
    ("exact_match", {}, "choice", "yes", "no", 0),
    ("contains", {}, "str", "Desk Lamp", "It is a desk lamp.", 1),
    ("contains", {"normalise": False}, "str", "Desk Lamp", "It is a desk lamp.", 0),
    ("contains", {}, "str", "台灯", "坏的是台灯。", 1),
    ("contains", {}, "str", "lamp", "chair", 0),
    ("contains", {}, "list[str]", ["lamp", "chair"], ["a desk lamp", "a bed"], 0.5),
    ("contains", {}, "list[str]", [], ["x"], 1),
    ("token_f1", {}, "str", "the red desk lamp", "a desk lamp", 0.8),
    ("token_f1", {}, "str", "desk lamp", "lamp, desk", 1),
    ("token_f1", {}, "str", "lamp lamp", "lamp", 2 / 3),
    ("token_f1", {}, "str", "红色台灯", "台灯", 2 / 3),
    ("token_f1", {}, "str", "lamp", "chair", 0),
    ("token_f1", {}, "str", "", "", 1),
    ("token_f1", {}, "str", "lamp", "", 0),
    ("token_f1", {}, "list[str]", ["red lamp", "bed"], ["bed", "lamp"], 0.8),
    ("numeric", {}, "int", 100, 101, 1),
    ("numeric", {}, "int", 100, 102, 0),
    ("numeric", {"relative": 0, "absolute": 0.1}, "float", 1.0, 1.1, 1),
    ("numeric", {"relative": 0, "absolute": 0.1}, "float", 1.0, 1.11, 0),
    ("numeric", {"relative": 0}, "float", 0.0, 0.0, 1),
    ("numeric", {}, "str", "1,200", "$1 200".replace(" ", ","), 1),
    ("numeric", {}, "str", "12", "12 %", 1),
    ("numeric", {}, "str", "12", "about a dozen", 0),
    ("numeric", {}, "str", "12", "nan", 0),
    ("numeric", {}, "str", "１２", "12.0", 1),
    ("numeric", {}, "int", 10**400, 1, BadRequestError),  # type: ignore[list-item]
    ("numeric", {}, "int", 1, 10**400, 0),
    ("numeric", {}, "choice", "3", "3", 1),
    ("regex", {"pattern": r"\d{4}"}, "str", NOTHING, "in 2024", 1),
    ("regex", {"pattern": r"\d{4}", "whole": True}, "str", NOTHING, "in 2024", 0),
    ("regex", {"pattern": "LAMP"}, "str", "x", "lamp", 0),
    ("regex", {"pattern": "LAMP", "ignore_case": True}, "str", "x", "lamp", 1),
    ("regex", {"pattern": "^true$"}, "bool", NOTHING, True, 1),
    ("regex", {"pattern": "台灯$"}, "list[str]", NOTHING, ["椅子", "台灯"], 1),
    ("json_accuracy", {}, "str", '{"a": 1, "b": "X"}', '{"b": "x.", "a": 1.0}', 1),
    ("json_accuracy", {"normalise": False}, "str", '{"a": 1, "b": "X"}', '{"b": "x.", "a": 1}', 0.5),
    ("json_accuracy", {}, "str", '{"a": 1, "b": {"c": [1, 2]}}', '{"a": 2, "b": {"c": [1]}}', 1 / 3),
    ("json_accuracy", {}, "str", '{"a": 1}', '```json\n{"a": 1}\n```', 1),
    ("json_accuracy", {}, "str", '{"a": 1}', '{"a": 1, "b": 2, "c": 3}', 1),
    ("json_accuracy", {"strict": True}, "str", '{"a": 1}', '{"a": 1, "b": 2, "c": 3}', 1 / 3),
    ("json_accuracy", {}, "str", '{"a": true}', '{"a": 1}', 0),
    ("json_accuracy", {}, "str", "[]", "[]", 1),
    ("json_accuracy", {}, "str", '{"a": 1}', "no idea", 0),
    ("json_accuracy", {}, "str", '{"a": 1}', "[" * 100_000, 0),
    ("json_accuracy", {}, "str", f'{{"a": {2**70}}}', f'{{"a": {2**70}}}', 1),
    ("json_accuracy", {}, "list[str]", ["a", "b"], ["a", "c"], 0.5),
]


@pytest.mark.parametrize(("kind", "params", "type_", "expected", "predicted", "value"), CASES)
def test_every_metric_by_its_table(kind, params, type_, expected, predicted, value) -> None:
    if value is BadRequestError:
        with pytest.raises(BadRequestError):
            score(kind, type_, expected, predicted, **params)
        return
    found = score(kind, type_, expected, predicted, **params)
    assert found.value == pytest.approx(value)
    assert found.by_field == {"b": found.value}
    assert found.feedback
    assert feedback_text(found.remarks, "zh_CN") not in {"", found.feedback}
    assert found.errors == ()


def test_the_table_of_cases_leaves_no_metric_out() -> None:
    assert {case[0] for case in CASES} == set(METRICS) - {"similarity", "llm_judge", "custom"}


@pytest.mark.parametrize(
    ("value", "number"),
    [
        ("3.5", 3.5), ("-1,234.5", -1234.5), ("1,23", None), ("€ 5", 5), ("5 %", 5), ("1e3", 1000), ("5.", 5),
        ("1_000", None), ("", None), ("inf", None), (True, None), (3, 3), (math.nan, None),
    ],
)  # fmt: skip
def test_what_is_a_number(value: Any, number: float | None) -> None:
    assert find_number(value) == number


def test_a_chinese_character_is_a_token() -> None:
    assert tokens("The red 台灯, 2.5 kg.") == ["red", "台", "灯", "2.5", "kg"]


def test_similarity_is_the_cosine_and_never_below_zero() -> None:
    tools = Tools(vectors={"lamp": [1.0, 0.0], "light": [3.0, 4.0], "war": [-1.0, 0.0]})
    assert score("similarity", "str", "lamp", "light", tools).value == pytest.approx(0.6)
    assert score("similarity", "str", "lamp", "war", tools).value == 0.0
    assert tools.embedded == ["lamp", "light", "lamp", "war"]
    assert score("similarity", "str", " lamp", "lamp ", tools).value == 1.0
    assert score("similarity", "str", "lamp", "", tools).value == 0.0
    assert len(tools.embedded) == 4


@pytest.mark.parametrize("vectors", [([0.0], [1.0]), ([1.0], [1.0, 2.0]), ([math.inf], [1.0])])
def test_vectors_that_cannot_be_compared_are_an_error(vectors) -> None:
    with pytest.raises(FailedError):
        cosine(*vectors)
    found = score("similarity", "str", "x", "y", Tools(vectors=dict(zip("xy", vectors, strict=True))))
    assert not found.is_scored
    assert [problem.code for problem in found.problems] == ["metric.vectors"]


@pytest.mark.parametrize(
    ("said", "number"),
    [
        ("Right.\nSCORE: 7", 7), ("**Score:** 7.5", 7.5), ("score = 3", 3), ("得分：8", 8), ("SCORE: 7/10", 7),
        ("7", 7), ("7/10", 7), ("SCORE: 3\nOn second thought.\nSCORE: 9", 9), ("I give it 7.", None), ("", None),
        ("SCORE: seven", None), ("7 8", None), ("Score: nan", None),
    ],
)  # fmt: skip
def test_what_a_judge_said(said: str, number: float | None) -> None:
    assert read_judgement(said)[0] == number


def test_the_judge_sees_everything_and_its_number_is_mapped_to_the_scale() -> None:
    tools = Tools("Too short.\nSCORE: 4")
    found = score("llm_judge", "str", "42", "41", tools, rubric="Be strict.", lowest=1, highest=5)
    assert (found.value, found.feedback) == (0.75, "Too short.")
    (prompt,) = tools.prompts
    for part in ("Be strict.", "Answer it.", "why?", "42", "41", "short", "from 1 (worst) to 5 (best)"):
        assert part in prompt
    score("llm_judge", "str", "42", "41", tools, use_expected=False)
    score("llm_judge", "str", NOTHING, "41", tools)
    assert all("42" not in prompt and "Reference" not in prompt for prompt in tools.prompts[1:])


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ("I like it.", "metric.judge_number"),
        ("SCORE: 11", "metric.judge_range"),
        ("SCORE: -1", "metric.judge_range"),
        (FailedError("engine.timeout", model="m", problem="slow"), "engine.timeout"),
    ],
)
def test_a_judge_without_a_number_is_an_error_and_no_score(said, code: str) -> None:
    found = score("llm_judge", "str", "x", "y", Tools(said))
    assert (found.is_scored, found.by_field) == (False, {})
    assert [problem.code for problem in found.problems] == [code]
    assert found.errors[0]
    assert found.problems[0].sentence("zh_CN") != found.errors[0]


def test_a_judge_that_refuses_ends_it() -> None:
    with pytest.raises(RefusedError):
        score("llm_judge", "str", "x", "y", Tools(RefusedError("engine.auth", model="m", problem="no")))


def test_a_field_without_a_score_does_not_count_in_the_mean() -> None:
    class Half(Tools):
        def judge(self, prompt: str) -> str:
            return "SCORE: 10" if "Answer to judge, b" in prompt else "no idea"

    found = both(MetricSpec(kind="llm_judge"), {"b": "x", "n": 1}, {"b": "x", "n": 1}, Half())
    assert (found.value, found.by_field, len(found.problems), found.is_scored) == (1.0, {"b": 1.0}, 1, True)


OWN: dict[str, CustomMetric] = {
    "number": lambda example, prediction: float(example["b"] == prediction["b"]),
    "pair": lambda example, prediction: (0.25, f"{example['a']} {prediction['b']}"),
    "true": lambda example, prediction: True,
    "raises": lambda example, prediction: example["missing"],
    "seven": lambda example, prediction: 7,
    "nothing": lambda example, prediction: None,
    "nan": lambda example, prediction: math.nan,
    "text": lambda example, prediction: "1.0",
    "triple": lambda example, prediction: (1, "a", "b"),
}


@pytest.mark.parametrize(
    ("name", "value", "feedback"),
    [("number", 1.0, "Score 1.00."), ("pair", 0.25, "why? x"), ("true", 1.0, "Score 1.00.")],
)
def test_a_metric_of_ones_own(name: str, value: float, feedback: str) -> None:
    found = score("custom", "str", "x", "x", Tools(own=OWN), name=name)
    assert (found.value, found.feedback, found.by_field) == (value, feedback, {})


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("raises", "metric.custom_raised"),
        ("seven", "metric.custom_value"),
        ("nothing", "metric.custom_value"),
        ("nan", "metric.custom_value"),
        ("text", "metric.custom_value"),
        ("triple", "metric.custom_value"),
    ],
)
def test_a_metric_of_ones_own_that_is_wrong_names_its_file(name: str, code: str) -> None:
    found = score("custom", "str", "x", "x", Tools(own=OWN), name=name)
    assert (found.is_scored, found.problems[0].code) == (False, code)
    for language in ("en_US", "zh_CN"):
        assert f"metrics/{name}.py" in found.problems[0].sentence(language)


def test_a_row_scores_the_weighted_mean_of_its_fields() -> None:
    rows = {"b": "x", "n": 1}, {"b": "x", "n": 2}
    plain = both(MetricSpec(), *rows)
    assert (plain.value, plain.by_field) == (0.5, {"b": 1.0, "n": 0.0})
    assert both(MetricSpec(weights={"b": 3}), *rows).value == 0.75
    assert both(MetricSpec(fields=("n",)), *rows).value == 0.0
    assert plain.feedback.splitlines() == ["b: Right.", "n: Expected '1', got '2'."]
    assert feedback_text(plain.remarks, "zh_CN").splitlines() == ["b: 正确。", "n: 期望 '1'，实际为 '2'。"]


@pytest.mark.parametrize("kind", ["exact_match", "custom"])
def test_a_reply_that_could_not_be_read_scores_nothing(kind: MetricKind) -> None:
    metric = MetricSpec(kind=kind, params={"name": "seven"} if kind == "custom" else {})
    found = both(metric, {"b": "x", "n": 1}, None, Tools(own=OWN))
    assert (found.value, found.is_scored, found.errors) == (0.0, True, ())
    assert set(found.by_field.values()) <= {0.0}


def test_metrics_that_need_no_expected_value_can_do_without() -> None:
    assert {kind for kind, info in METRICS.items() if not info.needs_expected} == {
        "regex",
        "llm_judge",
        "custom",
    }
    with pytest.raises(BadRequestError) as caught:
        score("exact_match", "str", NOTHING, "x")
    assert caught.value.code == "metric.needs_expected"


# Bad input.


def test_a_pattern_that_never_ends_is_given_up_and_told() -> None:
    found = score("regex", "str", NOTHING, "a" * 40 + "!", pattern="(a|a)+$")
    assert [problem.code for problem in found.problems] == ["metric.pattern_slow"]
    assert not found.is_scored


@pytest.mark.parametrize(
    ("document", "code"),
    [
        ({"kind": "regex"}, "metric.pattern_empty"),
        ({"kind": "regex", "params": {"pattern": "("}}, "metric.pattern"),
        ({"kind": "regex", "params": {"pattern": "a{99999999999999999999}"}}, "metric.pattern"),
        ({"kind": "llm_judge", "params": {"lowest": 3, "highest": 3}}, "metric.scale"),
        ({"kind": "llm_judge", "params": {"lowest": 4, "highest": 3}}, "metric.scale"),
        ({"kind": "llm_judge", "params": {"rubric": " "}}, "metric.rubric_empty"),
        ({"kind": "custom"}, "metric.custom_name"),
        ({"kind": "custom", "params": {"name": "x"}, "fields": ["b"]}, "metric.whole_row"),
        ({"kind": "custom", "params": {"name": "x"}, "weights": {"b": 1}}, "metric.whole_row"),
        ({"weights": {"b": 0}}, "metric.weight"),
        ({"weights": {"b": -1}}, "metric.weight"),
        ({"weights": {"b": math.inf}}, "metric.weight"),
        ({"weights": {"a": 1}}, "metric.weight_field"),
        ({"weights": {"n": 1}, "fields": ["b"]}, "metric.weight_field"),
        ({"fields": ["a"]}, "metric.field"),
        ({"fields": ["c"]}, "metric.field"),
        ({"kind": "token_f1"}, "metric.field_type"),
        ({"kind": "similarity"}, "metric.field_type"),
        ({"kind": "similarity", "fields": ["b"]}, "metric.no_embedder"),
        ({"kind": "numeric", "params": {"relative": -1}}, "parameter.range"),
        ({"params": {"normalize": True}}, "parameter.unknown"),
    ],
)
def test_a_metric_that_is_wrong_is_refused_before_anything_runs(document: Row, code: str) -> None:
    program = {"signature": SIGNATURE.model_dump(mode="json")}
    with pytest.raises(BadRequestError) as caught:
        CompileSpec.model_validate({"program": program, "data": {"rows": []}, "metric": document})
    assert caught.value.code == code
    assert caught.value.text("zh_CN") != caught.value.text("en_US")


@pytest.mark.parametrize(
    ("kind", "value", "code"),
    [("numeric", "dozen", "metric.expected_number"), ("json_accuracy", "{a: 1}", "metric.expected_json")],
)
def test_expected_values_that_cannot_be_compared_are_told_by_row(
    kind: MetricKind, value: str, code: str
) -> None:
    metric = MetricSpec(kind=kind, fields=("b",))
    metric.check_rows(SIGNATURE, [{"b": "3", "n": 1}])
    with pytest.raises(BadRequestError) as caught:
        metric.check_rows(SIGNATURE, [{"b": "3", "n": 1}, {"b": value, "n": 1}])
    assert caught.value.code == code
    assert "row 2" in str(caught.value)


def test_the_judges_prompt_keeps_the_answer_apart() -> None:
    from dspyui.domain.scores import Case

    case = Case(SIGNATURE, SIGNATURE.outputs[0], {"a": "q"}, "e", "p", Tools())
    params = MetricSpec(kind="llm_judge").resolved()
    assert "<answer>\np\n</answer>" in judge_prompt(case, params)
