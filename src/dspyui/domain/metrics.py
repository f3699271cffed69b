"""Metrics: how one prediction is scored against what was expected, 0.0 to 1.0."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Protocol, Self

from pydantic import model_validator

from dspyui.domain import scores
from dspyui.domain.base import Fault, Frozen, Notice, ParameterInfo, ParameterValue, checked_parameters
from dspyui.domain.scores import (
    Case,
    CustomMetric,
    FieldScore,
    Params,
    ScoreField,
    ScoreTools,
    exact_match,
    normalise_answer,
    own_words,
    quoted,
)
from dspyui.domain.signatures import FIELD_TYPES, FieldSpec, FieldType, Row, SignatureSpec
from dspyui.errors import BadRequestError, FailedError, RefusedError
from dspyui.i18n import Language

__all__ = [
    "METRICS", "CustomMetric", "FieldScore", "MetricFiles", "MetricInfo", "MetricKind", "MetricSpec", "RowScore",
    "ScoreTools", "exact_match", "feedback_text", "normalise_answer", "score_row", "weighted_mean",
]  # fmt: skip

MetricKind = Literal[
    "exact_match", "contains", "token_f1", "numeric", "regex", "json_accuracy", "similarity", "llm_judge", "custom",
]  # fmt: skip
_UNREADABLE = Notice(key="feedback.unreadable")
_TEXT_TYPES: frozenset[FieldType] = frozenset({"str", "choice", "list[str]"})


class MetricInfo(Frozen):
    """What the form, the check and the scoring need to know of one metric.

    `score` scores one field; None: the metric looks at a whole row (a person's own one). `types` are the field types it
    can look at. `needs_expected` False: it can score an answer of which nothing is known. `needs` is what must be there
    to run it. `check` raises BadRequestError for parameters that are wrong together; `reads` tells whether an expected
    value can be compared, and `reads_code` is the error when it cannot.
    """

    kind: MetricKind
    label: str
    score: ScoreField | None
    parameters: tuple[ParameterInfo, ...] = ()
    types: frozenset[FieldType] = frozenset(FIELD_TYPES)
    needs_expected: bool = True
    needs: Literal["judge", "embedder"] | None = None
    check: Callable[[Params], None] | None = None
    reads: Callable[[Any], bool] | None = None
    reads_code: str = ""


_NORMALISE = ParameterInfo(name="normalise", type="bool", default=True)


def _check_pattern(params: Params) -> None:
    scores.compiled_pattern(params["pattern"], params["ignore_case"])


def _check_judge(params: Params) -> None:
    if not params["rubric"].strip():
        raise BadRequestError("metric.rubric_empty")
    if not params["lowest"] < params["highest"]:
        raise BadRequestError("metric.scale", low=f"{params['lowest']:g}", high=f"{params['highest']:g}")


def _check_custom(params: Params) -> None:
    if not params["name"].strip():
        raise BadRequestError("metric.custom_name")


METRICS: Mapping[MetricKind, MetricInfo] = {
    info.kind: info
    for info in (
        MetricInfo(kind="exact_match", label="exact match", score=exact_match, parameters=(_NORMALISE,)),
        MetricInfo(kind="contains", label="contains", score=scores.contains, parameters=(_NORMALISE,)),
        MetricInfo(kind="token_f1", label="token F1", score=scores.token_f1, types=_TEXT_TYPES),
        MetricInfo(
            kind="numeric",
            label="numeric tolerance",
            score=scores.numeric,
            types=frozenset({"int", "float", "str", "choice"}),
            reads=lambda value: scores.find_number(value) is not None,
            reads_code="metric.expected_number",
            parameters=(
                ParameterInfo(name="relative", type="float", default=0.01, minimum=0, maximum=1000),
                ParameterInfo(name="absolute", type="float", default=0.0, minimum=0),
            ),
        ),
        MetricInfo(
            kind="regex",
            label="regex",
            score=scores.matches,
            needs_expected=False,
            check=_check_pattern,
            parameters=(
                ParameterInfo(name="pattern", type="str", default=""),
                ParameterInfo(name="whole", type="bool", default=False),
                ParameterInfo(name="ignore_case", type="bool", default=False),
            ),
        ),
        MetricInfo(
            kind="json_accuracy",
            label="JSON field accuracy",
            score=scores.json_accuracy,
            reads=lambda value: scores.find_json(value)[0],
            reads_code="metric.expected_json",
            parameters=(ParameterInfo(name="strict", type="bool", default=False), _NORMALISE),
        ),
        MetricInfo(
            kind="similarity",
            label="semantic similarity",
            score=scores.similarity,
            types=_TEXT_TYPES,
            needs="embedder",
        ),
        MetricInfo(
            kind="llm_judge",
            label="LLM judge",
            score=scores.judged,
            needs_expected=False,
            needs="judge",
            check=_check_judge,
            parameters=(
                ParameterInfo(
                    name="rubric",
                    type="text",
                    default="Is the answer correct and complete? Judge what it says, not how it is worded.",
                ),
                ParameterInfo(name="lowest", type="float", default=0.0),
                ParameterInfo(name="highest", type="float", default=10.0),
                ParameterInfo(name="use_expected", type="bool", default=True),
            ),
        ),
        MetricInfo(
            kind="custom",
            label="custom",
            score=None,
            needs_expected=False,
            check=_check_custom,
            parameters=(ParameterInfo(name="name", type="str", default=""),),
        ),
    )
}


class MetricSpec(Frozen):
    """The metric, and the output fields it looks at (empty: all of the signature's).

    `weights` says how much a field counts in the row's mean; a field that is not named has the weight 1.
    """

    kind: MetricKind = "exact_match"
    fields: tuple[str, ...] = ()
    weights: dict[str, float] = {}
    params: dict[str, Any] = {}

    @model_validator(mode="after")
    def _check(self) -> Self:
        params = self.resolved()
        if self.info.check is not None:
            self.info.check(params)
        for name, weight in self.weights.items():
            if not (math.isfinite(weight) and weight > 0):
                raise BadRequestError("metric.weight", name=name, weight=f"{weight:g}")
        if self.info.score is None and (self.fields or self.weights):
            raise BadRequestError("metric.whole_row", metric=self.info.label)
        return self

    @property
    def info(self) -> MetricInfo:
        """Its entry in the table."""
        return METRICS[self.kind]

    def resolved(self) -> dict[str, ParameterValue]:
        """Every parameter with its value, defaults filled in."""
        return checked_parameters(self.info.label, self.info.parameters, self.params)

    @property
    def own_file(self) -> str | None:
        """The file of a person's own metric in the data folder, as it is shown; None for the others."""
        return f"metrics/{self.resolved()['name']}.py" if self.kind == "custom" else None

    def scored_fields(self, signature: SignatureSpec) -> tuple[FieldSpec, ...]:
        """The output fields that are scored. Raises BadRequestError when one is no output field."""
        if not self.fields:
            return signature.outputs
        outputs = {field.name: field for field in signature.outputs}
        for name in self.fields:
            if name not in outputs:
                raise BadRequestError("metric.field", name=name, known=", ".join(outputs))
        return tuple(outputs[name] for name in self.fields)

    def check(self, signature: SignatureSpec) -> None:
        """Raise BadRequestError when the metric cannot look at this signature's fields."""
        fields = self.scored_fields(signature)
        for field in fields:
            if field.type not in self.info.types:
                fitting = ", ".join(sorted(self.info.types))
                raise BadRequestError(
                    "metric.field_type",
                    metric=self.info.label,
                    name=field.name,
                    type=field.type,
                    types=fitting,
                )
        for name in self.weights:
            if name not in {field.name for field in fields}:
                known = ", ".join(field.name for field in fields)
                raise BadRequestError("metric.weight_field", name=name, known=known)

    def check_rows(self, signature: SignatureSpec, rows: Sequence[Row]) -> None:
        """Raise BadRequestError for the first expected value that the metric cannot compare with."""
        reads = self.info.reads
        if reads is None:
            return
        for number, row in enumerate(rows, start=1):
            for field in self.scored_fields(signature):
                if not reads(row[field.name]):
                    raise BadRequestError(
                        self.info.reads_code, row=number, name=field.name, value=quoted(row[field.name])
                    )


class RowScore(Frozen):
    """One row's score, 0.0 to 1.0: the weighted mean over the scored fields, and each field's own.

    A field that could not be scored (the judge gave no number, say) is in `problems`, not in `by_field`, and does not
    count in the mean. When nothing could be scored, `is_scored` is False and `value` is 0.0 without meaning anything.
    `remarks` say why, by field; what is said of a whole row, or of its one scored field, has the empty name.
    """

    value: float
    by_field: dict[str, float]
    remarks: dict[str, Notice] = {}
    problems: tuple[Fault, ...] = ()
    is_scored: bool = True

    @property
    def feedback(self) -> str:
        """The remarks in English, as a language model reads them."""
        return feedback_text(self.remarks, "en_US")

    @property
    def errors(self) -> tuple[str, ...]:
        """The problems in English."""
        return tuple(problem.sentence("en_US") for problem in self.problems)


def feedback_text(remarks: Mapping[str, Notice], language: Language) -> str:
    """What a metric said of a row: a line for each field, without its name when there is but one."""
    said = {name: remark.sentence(language) for name, remark in remarks.items()}
    return "\n".join(f"{name}: {sentence}" if name else sentence for name, sentence in said.items())


class MetricFiles(Protocol):
    """People's own metrics: Python files in a folder of theirs. A name is looked up in the list, never made a path."""

    def names(self) -> Sequence[str]:
        """What there is, sorted."""
        ...

    def find_digest(self, name: str) -> str | None:
        """The SHA-256 of the file as it is now; None when it is not there. Nothing is run."""
        ...

    def without_folder(self, text: str) -> str:
        """A text without the place of the folder: what a file raises may name it, and goes into the record."""
        ...

    def load(self, name: str) -> CustomMetric:
        """Run the file and return its `metric`. Raises BadRequestError when it is not there or cannot be loaded."""
        ...


def score_row(
    metric: MetricSpec,
    signature: SignatureSpec,
    *,
    inputs: Row,
    expected: Row | None,
    predicted: Row | None,
    tools: ScoreTools,
) -> RowScore:
    """Score one prediction. `predicted` is None when the model's reply could not be read: that scores 0.0.

    `expected` is None when nothing is known of the right answer; only a metric that does not need it can score then.
    Raises BadRequestError when it does, and RefusedError when a model that scores cannot be asked at all.
    """
    if expected is None and metric.info.needs_expected:
        raise BadRequestError("metric.needs_expected", metric=metric.info.label)
    if metric.info.score is None:
        return _score_whole(metric, inputs, expected, predicted, tools)
    found: dict[str, FieldScore] = {}
    for field in metric.scored_fields(signature):
        case = Case(
            signature=signature,
            field=field,
            inputs=inputs,
            expected=None if expected is None else expected[field.name],
            predicted=None if predicted is None else predicted.get(field.name),
            tools=tools,
        )
        found[field.name] = _score_field(metric.info.score, case, metric.resolved())
    return _row_score(metric, found)


def _score_field(score: ScoreField, case: Case, params: Params) -> FieldScore:
    if case.predicted is None:
        return FieldScore(value=0.0, remark=_UNREADABLE)
    return _attempted(lambda: score(case, params))


def _attempted(score: Callable[[], FieldScore]) -> FieldScore:
    try:
        return score()
    except RefusedError:
        raise
    except FailedError as exc:
        return FieldScore(value=0.0, problem=Fault.of(exc))


def weighted_mean(metric: MetricSpec, by_field: Mapping[str, float]) -> float:
    """The mean of the fields' scores by the metric's weights; 0.0 when there are none."""
    weights = {name: metric.weights.get(name, 1.0) for name in by_field}
    total = sum(by_field[name] * weight for name, weight in weights.items())
    return total / sum(weights.values()) if weights else 0.0


def _row_score(metric: MetricSpec, found: Mapping[str, FieldScore]) -> RowScore:
    by_field = {name: score.value for name, score in found.items() if score.problem is None}
    value = weighted_mean(metric, by_field)
    remarks = {
        name if len(found) > 1 else "": score.remark
        for name, score in found.items()
        if score.remark is not None
    }
    problems = tuple(score.problem for score in found.values() if score.problem is not None)
    return RowScore(
        value=value, by_field=by_field, remarks=remarks, problems=problems, is_scored=bool(by_field)
    )


def _score_whole(
    metric: MetricSpec, inputs: Row, expected: Row | None, predicted: Row | None, tools: ScoreTools
) -> RowScore:
    if predicted is None:
        return RowScore(value=0.0, by_field={}, remarks={"": _UNREADABLE})
    name = str(metric.resolved()["name"])
    own = tools.custom(name)
    found = _attempted(lambda: _own_score(own, name, {**inputs, **(expected or {})}, dict(predicted)))
    if found.problem is not None:
        return RowScore(value=0.0, by_field={}, problems=(found.problem,), is_scored=False)
    return RowScore(value=found.value, by_field={}, remarks={"": found.remark} if found.remark else {})


def _own_score(own: CustomMetric, name: str, example: Row, prediction: Row) -> FieldScore:
    file = f"metrics/{name}.py"
    try:
        said = own(example, prediction)
    except FailedError:
        raise
    except Exception as exc:
        # Whatever a person's own code raises is told to them, at the row it happened.
        raise FailedError("metric.custom_raised", file=file, problem=f"{type(exc).__name__}: {exc}") from exc
    match said:
        case (value, str(feedback)):
            pass
        case _:
            value, feedback = said, ""
    if not isinstance(value, int | float) or not 0 <= value <= 1:
        raise FailedError("metric.custom_value", file=file, value=quoted(repr(said)))
    scored = Notice(key="feedback.score", values={"score": f"{float(value):.2f}"})
    return FieldScore(value=float(value), remark=own_words(feedback) if feedback else scored)
