"""What people say of a call: thumbs, a comment, the output as it should have been. MLflow keeps it with the trace."""

from collections.abc import Callable
from typing import Any, Final, Literal, Protocol, Self

from pydantic import model_validator

from dspyui.domain.base import Frozen
from dspyui.errors import BadRequestError

# The names of the assessments in MLflow.
THUMBS: Final = "thumbs_up"
CORRECTION: Final = "corrected_output"
# A trace's tag with the program's output fields, as JSON: a correction is checked against them.
OUTPUTS_TAG: Final = "dspyui.outputs"
MAX_COMMENT: Final = 10_000

CallTraceStatus = Literal["stored", "waiting", "refused"]


class Feedback(Frozen):
    """One person's opinion on one call.

    The comment goes with the thumb; `correction` holds the output fields as they should have been.
    """

    thumbs_up: bool | None = None
    comment: str = ""
    correction: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.comment and self.thumbs_up is None:
            raise BadRequestError("feedback.comment_alone")
        if len(self.comment) > MAX_COMMENT:
            raise BadRequestError("feedback.comment_long", length=len(self.comment), limit=MAX_COMMENT)
        try:
            self.comment.encode()
        except UnicodeEncodeError as exc:
            raise BadRequestError("feedback.comment_text") from exc
        return self

    @property
    def is_empty(self) -> bool:
        """Whether nothing was said."""
        return self.thumbs_up is None and not self.correction


class CallTrace(Frozen):
    """Where a call's trace is: in MLflow, waiting on disk, or set aside because MLflow refused it.

    `url` is its place in MLflow's pages, None when that is not known.
    """

    status: CallTraceStatus
    url: str | None = None


class FeedbackStore(Protocol):
    """The traces of single calls, and what people say of them.

    A call's trace is written to disk first; `send_waiting` brings it to MLflow.
    """

    def waiting(self) -> int:
        """How many traces lie on disk and were not sent yet."""
        ...

    def send_waiting(self, stop: Callable[[], bool] | None = None) -> int:
        """Send them; how many MLflow has taken. Raises UnavailableError: what is left stays on disk.

        It ends early once `stop` says so, which is asked now and then while there are more.
        """
        ...

    def state(self, trace_id: str) -> CallTrace:
        """Where the trace of a call is. Raises NotFoundError when it is nowhere, UnavailableError."""
        ...

    def tags(self, trace_id: str) -> dict[str, str]:
        """The tags of a trace in MLflow. Raises NotFoundError, UnavailableError."""
        ...

    def give(self, trace_id: str, feedback: Feedback, *, who: str) -> Feedback:
        """Keep an opinion with the trace; what the same person said before is changed, not added to.

        Returns what MLflow now holds. Raises NotFoundError when it has no such trace, UnavailableError, and
        FailedError when it does not hold what it was given.
        """
        ...

    def get(self, trace_id: str, *, who: str) -> Feedback:
        """What a person said of it up to now. Raises NotFoundError, UnavailableError."""
        ...
