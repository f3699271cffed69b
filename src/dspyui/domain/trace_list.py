"""The traces of a Run or of a model version as people go through them: a page at a time, filtered by MLflow."""

from datetime import datetime
from typing import Any, Literal, Protocol, get_args

from pydantic import Field

from dspyui.domain.base import Frozen
from dspyui.errors import BadRequestError

PAGE_TRACES = 20
MAX_TRACE_FILTER = 200
TraceState = Literal["OK", "ERROR", "IN_PROGRESS"]
TRACE_STATES: tuple[TraceState, ...] = get_args(TraceState)
# An opinion or a measurement; what the answer should have been.
AssessmentKind = Literal["feedback", "expectation"]
ASSESSMENT_KINDS: tuple[AssessmentKind, ...] = get_args(AssessmentKind)


# The steps of a compile that leave traces.
TracePhase = Literal["baseline", "validating_baseline", "optimising", "validating", "evaluating"]
TRACE_PHASES: tuple[TracePhase, ...] = get_args(TracePhase)


class TraceQuery(Frozen):
    """Which traces, newest first.

    `phase` is the step of a compile that made the call, as the tag `dspyui.phase` has it.
    `text` is contained in the inputs or outputs of the call, whatever the case. `min_ms` is a latency in milliseconds.
    `assessment` is the exact name of one, of the `assessed` kind; `value` narrows it: a number is equal to the
    value, text in double quotes is the value, any other text is contained in it, whatever the case.
    """

    status: TraceState | None = None
    phase: TracePhase | None = None
    text: str = Field(default="", max_length=MAX_TRACE_FILTER)
    min_ms: int = Field(default=0, ge=0, le=2**53)
    min_tokens: int = Field(default=0, ge=0, le=2**53)
    assessment: str = Field(default="", max_length=MAX_TRACE_FILTER)
    assessed: AssessmentKind = "feedback"
    value: str = Field(default="", max_length=MAX_TRACE_FILTER)
    size: int = Field(default=PAGE_TRACES, ge=1, le=500)

    def check(self) -> None:
        """Raise BadRequestError for a value of an assessment that is not named: nothing could be found by it."""
        if self.value.strip() and not self.assessment.strip():
            raise BadRequestError("trace.value_alone", value=self.value)

    @property
    def is_filtered(self) -> bool:
        """Whether anything is asked for at all."""
        return self != TraceQuery(size=self.size, assessed=self.assessed)


class TraceAssessment(Frozen):
    """What somebody or something said of a call; `value` is as MLflow has it, None when making it failed.

    `source` is MLflow's word for who said it (HUMAN, CODE, LLM_JUDGE), `source_id` their name.
    """

    name: str
    kind: AssessmentKind
    value: Any = None
    source: str = ""
    source_id: str = ""
    rationale: str = ""
    error: str = ""


class ListedTrace(Frozen):
    """A call in the list. Inputs and outputs are MLflow's previews, cut after some 1,000 characters; JSON where whole.

    Times are UTC, `latency_ms` milliseconds, `cost` US dollars; what is not recorded is None. `state` is MLflow's word.
    `phase`, `score` (0.0 to 1.0) and `expected` (JSON where it is whole) are there when a compile made the call.
    """

    trace_id: str
    url: str
    state: str
    started_at: datetime
    latency_ms: int | None = None
    inputs: str = ""
    outputs: str = ""
    input_tokens: int | None = None
    output_tokens: int | None = None
    total_tokens: int | None = None
    cost: float | None = None
    phase: str = ""
    score: float | None = None
    expected: str = ""
    assessments: tuple[TraceAssessment, ...] = ()


class TracePage(Frozen):
    """Some traces, and what to ask with for those after them; None when there are none."""

    traces: tuple[ListedTrace, ...] = ()
    next_token: str | None = None


class TraceLibrary(Protocol):
    """MLflow's traces as a list.

    Every method raises UnavailableError when the server does not answer, and BadRequestError for a `token` that is
    none: it is the `next_token` of the page before, for the same query.
    """

    def of_run(self, run_id: str, query: TraceQuery, token: str | None = None) -> TracePage:
        """The traces that are linked to a Run. Raises NotFoundError for the Run."""
        ...

    def of_version(self, name: str, version: int, query: TraceQuery, token: str | None = None) -> TracePage:
        """The traces of our experiment that are tagged with a model version, whatever Run they belong to.

        Empty when there is no such experiment yet; whether there is such a version is not looked at.
        """
        ...
