"""Metrics as DSPy calls them."""

from collections.abc import Callable, Sequence
from typing import Any

import dspy

from dspyui.domain.metrics import MetricSpec, RowScore, score_row
from dspyui.domain.programs import ProgramSpec
from dspyui.domain.scores import ScoreTools
from dspyui.domain.signatures import Row
from dspyui.errors import FailedError

DspyMetric = Callable[..., Any]

# From this score on an answer counts as solved when DSPy asks for yes or no and no threshold is given. DSPy takes any
# number but 0 for a yes, so that a similarity of 0.05 would become a worked example; its own graded metrics
# (dspy.evaluate.SemanticF1, CompleteAndGrounded) therefore answer such questions with a threshold of 0.66.
SOLVED = 0.66


def to_metric(
    metric: MetricSpec, program: ProgramSpec, tools: ScoreTools, *, threshold: float | None = None
) -> DspyMetric:
    """The metric as `metric(example, prediction, trace)`: 0.0 to 1.0, or whether it is solved.

    DSPy passes a trace when it wants to know whether an answer is good enough for a demo. With a `threshold` it
    compares the score itself; without one (or with 0, which DSPy takes for none), the answer is `score >= SOLVED`.
    An answer that could not be scored raises FailedError, which DSPy counts as an error.
    """

    def score(
        example: dspy.Example, prediction: dspy.Prediction | None, trace: object = None
    ) -> float | bool:
        value = _row_score(metric, program, tools, example, prediction).value
        return value if trace is None or threshold else value >= SOLVED

    return score


def to_feedback_metric(metric: MetricSpec, program: ProgramSpec, tools: ScoreTools) -> DspyMetric:
    """The metric as GEPA calls it: the score and a sentence on what was wrong."""

    def score(
        gold: dspy.Example,
        pred: dspy.Prediction | None,
        _trace: object = None,
        _pred_name: object = None,
        _pred_trace: object = None,
    ) -> dspy.Prediction:
        found = _row_score(metric, program, tools, gold, pred)
        return dspy.Prediction(score=found.value, feedback=found.feedback or f"Score {found.value:.2f}.")

    return score


def to_reward(
    metric: MetricSpec, program: ProgramSpec, tools: ScoreTools
) -> Callable[[Row, dspy.Prediction], float]:
    """The metric as BestOfN and Refine call it: `reward(inputs, prediction)`; nothing is expected."""

    def reward(inputs: Row, prediction: dspy.Prediction) -> float:
        scored = score_row(
            metric,
            program.signature,
            inputs={field.name: inputs[field.name] for field in program.signature.inputs},
            expected=None,
            predicted=_outputs(program, prediction),
            tools=tools,
        )
        return _checked(scored).value

    return reward


def _row_score(
    metric: MetricSpec,
    program: ProgramSpec,
    tools: ScoreTools,
    example: dspy.Example,
    prediction: dspy.Prediction | None,
) -> RowScore:
    signature = program.signature
    scored = score_row(
        metric,
        signature,
        inputs={field.name: example[field.name] for field in signature.inputs},
        expected={field.name: example[field.name] for field in signature.outputs},
        predicted=None if prediction is None else _outputs(program, prediction),
        tools=tools,
    )
    return _checked(scored)


def _outputs(program: ProgramSpec, prediction: dspy.Prediction) -> Row:
    names = [field.name for field in program.signature.outputs]
    return {name: prediction[name] for name in names if name in prediction}


def _checked(scored: RowScore) -> RowScore:
    if not scored.is_scored:
        problem = scored.problems[0]
        raise FailedError(problem.code, **problem.values)
    return scored


def to_examples(rows: Sequence[Row], program: ProgramSpec) -> list[dspy.Example]:
    """Rows as DSPy examples, input fields marked; fields in the signature's order, whatever the file's was."""
    signature = program.signature
    names = [field.name for field in signature.fields]
    inputs = [field.name for field in signature.inputs]
    return [dspy.Example(**{name: row[name] for name in names}).with_inputs(*inputs) for row in rows]
