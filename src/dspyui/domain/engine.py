"""What runs programs. One adapter knows DSPy; it lives in the child process."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from threading import Event
from typing import Any, Final, Literal, Protocol

from pydantic import ConfigDict

from dspyui.domain.base import Fault, Frozen
from dspyui.domain.compiles import ChatMessage, CompileSpec, TrialRows, Usage
from dspyui.domain.lms import LMRoles, LMSpec
from dspyui.domain.metrics import ScoreTools
from dspyui.domain.optimizers import OptimizerSpec
from dspyui.domain.programs import CompiledProgram, ProgramSpec
from dspyui.domain.signatures import Row
from dspyui.domain.traces import Trace
from dspyui.errors import CancelledError, FailedError

LiveProgram = Any
"""A program that can be called; only the engine looks inside."""
OnTrial = Callable[[str, float, TrialRows], None]
"""Told of a candidate that an optimizer has evaluated: its label, its score from 0.0 to 1.0, and on which rows."""
OnError = Callable[[FailedError], None]
"""Told of an answer or a score that a model failed to give."""


class Prediction(Frozen):
    """One call's outcome: `outputs` is None and `error` says why when the reply could not be read.

    When the LM gave no reply at all, `outputs` is None and `failure` says why (only in `predict_all`).
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    outputs: dict[str, Any] | None
    error: str | None
    failure: FailedError | None = None
    prompt: tuple[ChatMessage, ...]
    trace: Trace


class CallGate(Protocol):
    """Is asked before each call to a language model, and told how it ended. Thread-safe."""

    def enter(self, tokens: int) -> None:
        """Wait until a call of about so many tokens may start."""
        ...

    def leave(self, estimated: int, tokens: int | None) -> None:
        """It has ended; `tokens` is what it took, None when it failed."""
        ...

    def refused(self, seconds: float | None) -> None:
        """The server said that it is asked too often; `seconds` is how long it wants to be left alone."""
        ...


Ask = Callable[[Row, Mapping[str, str]], Prediction]
"""Predicts one row, with tags for its trace; any number of threads may call it at once."""


class Engine(Protocol):
    """Builds, optimises, runs and dumps programs with the LMs it was made for.

    A failure of the LM itself (no answer, no right, no quota) raises FailedError after the LM's own retries, a
    RefusedError when asking again is useless; a reply that does not fit the signature is the model's mistake and
    comes back as a Prediction's `error`.
    """

    def build(self, spec: ProgramSpec) -> LiveProgram: ...

    def load(self, program: CompiledProgram) -> LiveProgram: ...

    def predict(self, live: LiveProgram, inputs: Row, *, tags: Mapping[str, str]) -> Prediction: ...

    def predict_all(
        self,
        live: LiveProgram,
        rows: Sequence[Row],
        *,
        threads: int,
        tags: Mapping[str, str],
        on_done: Callable[[int, Prediction], None],
        repeat: int = 0,
    ) -> None:
        """Predict every row, `threads` at a time; `on_done(index, prediction)` is called by several threads at once.

        A row whose LM call failed comes back with a `failure`; what `on_done` raises, and a RefusedError, end it all.
        A `repeat` above 0 asks the LM anew, whatever the cache knows.
        """
        ...

    def asking(self, live: LiveProgram) -> AbstractContextManager[Ask]:
        """For rows that come one at a time and without end. Nothing that is asked is kept in memory.

        A row whose LM call failed comes back with a `failure`, also when the LM refuses for good.
        """
        ...

    def score_tools(self, *, repeat: int = 0) -> ScoreTools:
        """What metrics ask for. A `repeat` above 0 asks the judge anew."""
        ...

    def optimise(
        self,
        live: LiveProgram,
        spec: CompileSpec,
        *,
        train: Sequence[Row],
        validation: Sequence[Row],
        on_trial: OnTrial | None = None,
        on_error: OnError | None = None,
    ) -> LiveProgram:
        """Return a new program; `live` is left as it was. The optimizer sees only the rows given here.

        `on_trial` is told of each candidate, never by two threads at once; `on_error`, by any thread, of each answer
        and each score that a model failed to give. What it raises ends the optimizer, as a RefusedError does.
        """
        ...

    def dump(
        self, live: LiveProgram, spec: ProgramSpec, optimizer: OptimizerSpec, lm: LMSpec
    ) -> CompiledProgram:
        """The program as data, without any LM."""
        ...

    def usage(self) -> Usage:
        """What the LMs were asked since the engine was made."""
        ...

    def lm_errors(self) -> int:
        """How many LM calls failed so far, those included that an optimizer passed over in silence."""
        ...

    def versions(self) -> dict[str, str]:
        """Versions of the libraries in play."""
        ...


class EngineFactory(Protocol):
    """Makes an engine for a set of LMs."""

    def __call__(self, lms: LMRoles) -> Engine: ...


class ProgramCall(Frozen):
    """One row for a program: who answers, and the tags of its trace when it is to be `traced`."""

    program: CompiledProgram
    lms: LMRoles
    inputs: Row
    tags: dict[str, str] = {}
    traced: bool = False


class PredictOutcome(Frozen):
    """One prediction: the outputs, or in `fault` why there are none; what was sent, what it took (`seconds`).

    `trace_id` is the name of its trace in MLflow, None when none was kept.
    """

    outputs: dict[str, Any] = {}
    fault: Fault | None = None
    prompt: tuple[ChatMessage, ...]
    usage: Usage
    seconds: float
    trace_id: str | None = None


class LMReply(Frozen):
    """What a language model answered to a test, in how many seconds, and what it took."""

    text: str
    seconds: float
    usage: Usage


CallPhase = Literal["queued", "starting_lm", "starting", "asking"]
"""Where a call stands: waits for others, for the bundled model's server, for its process, for the model."""
# A call is stopped after so many seconds unless somebody says another number, which can be no larger than this.
PREDICT_SECONDS: Final = 300.0
MAX_SECONDS: Final = 3600.0


@dataclass(frozen=True, slots=True)
class Patience:
    """How long somebody waits for a call (`seconds`, all phases together), and how he says that he no longer does."""

    seconds: float = PREDICT_SECONDS
    cancelled: Event = field(default_factory=Event)
    on_phase: Callable[[CallPhase], None] = lambda _phase: None

    def check(self, end: float) -> None:
        """Raise CancelledError when nobody waits any more, FailedError when `end` (monotonic clock) has passed."""
        if self.cancelled.is_set():
            raise CancelledError("predict.cancelled")
        if time.monotonic() >= end:
            raise FailedError("predict.timeout", seconds=f"{self.seconds:g}")


class ProgramRunner(Protocol):
    """Runs predictions in processes of their own, so that no face of the program imports DSPy."""

    def predict(self, call: ProgramCall, patience: Patience) -> PredictOutcome:
        """What came of it. A trace is on disk before this returns.

        What the model does wrong stands in the outcome's fault. Raises FailedError when the process ends or time is
        up, CancelledError soon after it was cancelled.
        """
        ...

    def warm(self) -> None:
        """Have a process ready for the next call. Returns at once."""
        ...


class LMTester(Protocol):
    """Asks a language model one thing in a process of its own."""

    def test(self, lm: LMSpec, cancelled: Event) -> LMReply:
        """One real call, without retries and cache, bounded in time.

        Raises FailedError with the provider's own words when there is no answer, CancelledError soon after
        `cancelled` is set.
        """
        ...
