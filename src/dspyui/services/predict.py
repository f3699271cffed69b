"""Try a program on one row."""

import json
from typing import Literal

from dspyui.domain.base import Frozen
from dspyui.domain.batches import BatchModel
from dspyui.domain.engine import Patience, PredictOutcome, ProgramCall, ProgramRunner
from dspyui.domain.feedback import OUTPUTS_TAG
from dspyui.domain.lms import LMSpec
from dspyui.domain.programs import CompiledProgram
from dspyui.domain.registry import ModelVersion, Stage
from dspyui.domain.signatures import Row, parse_row
from dspyui.errors import FailedError
from dspyui.services.batch_rows import model_tags
from dspyui.services.feedback import FeedbackService
from dspyui.services.keys import KeyRules
from dspyui.services.metrics import MetricService
from dspyui.services.model_source import ModelSource, check_from_network

# MLflow keeps no longer tags.
_MAX_TAG = 8000


class Caller(Frozen):
    """Who asks, and from which face of the program; it goes into the trace's tags."""

    who: str = ""
    source: Literal["test", "api", "cli"] = "test"


class PredictService:
    """Runs a program on one row: a version's, a Run's, a job's, or one from a file."""

    def __init__(
        self,
        models: ModelSource,
        runner: ProgramRunner,
        metrics: MetricService,
        feedback: FeedbackService,
        *,
        keys: KeyRules,
    ) -> None:
        """`keys` says which keys it may use."""
        self._models = models
        self._runner = runner
        self._metrics = metrics
        self._feedback = feedback
        self._keys = keys

    def find(self, model: str, *, from_network: bool = False) -> BatchModel:
        """The program that `models:/…`, `runs:/…`, `job:…` or a path names. Raises what `ModelSource.get` raises.

        `from_network`: who asks may be elsewhere. Where others reach this program, a path is refused then
        (BadRequestError).
        """
        if from_network and self._keys.shared:
            check_from_network(model)
        return self._models.get(model)

    def warm(self) -> None:
        """Have a process ready for the next call. Returns at once."""
        self._runner.warm()

    def ask(
        self,
        model: BatchModel,
        inputs: Row,
        *,
        caller: Caller | None = None,
        patience: Patience | None = None,
        lm: LMSpec | None = None,
    ) -> PredictOutcome:
        """Predict with the LM the program was compiled for, or another; traced when calls are traced.

        What the model does wrong stands in the outcome's fault. Raises BadRequestError for inputs that do not fit, a
        key that is missing and a metric of somebody's own that may not run here, CancelledError, and FailedError when
        time is up or the process ends.
        """
        program = model.program
        parsed = parse_row(program.spec.signature.inputs, inputs, where="input")
        lms = program.roles(lm)
        self._keys.check(lms)
        self._metrics.check(program.metrics)
        call = ProgramCall(
            program=program,
            lms=lms,
            inputs=parsed,
            tags=_tags(model, caller or Caller(), lms.task.model),
            traced=self._feedback.is_tracing,
        )
        outcome = self._runner.predict(call, patience or Patience())
        if outcome.trace_id is not None:
            self._feedback.wake()
        return outcome

    def predict(
        self,
        model: BatchModel,
        inputs: Row,
        *,
        caller: Caller | None = None,
        patience: Patience | None = None,
        lm: LMSpec | None = None,
    ) -> PredictOutcome:
        """The same; what the model does wrong is raised as FailedError."""
        outcome = self.ask(model, inputs, caller=caller, patience=patience, lm=lm)
        if outcome.fault is not None:
            raise FailedError(outcome.fault.code, **outcome.fault.values)
        return outcome

    def with_program(
        self, program: CompiledProgram, inputs: Row, *, lm: LMSpec | None = None
    ) -> PredictOutcome:
        """`predict` with a program that is at hand."""
        return self.predict(loose(program), inputs, lm=lm)

    def with_job(self, job_id: str, inputs: Row) -> PredictOutcome:
        """`predict` with the program a job made. Raises NotFoundError too."""
        return self.predict(self._models.get(f"job:{job_id}"), inputs)

    def with_stage(self, name: str, stage: Stage, inputs: Row) -> PredictOutcome:
        """`predict` with the version that holds a stage. Raises NotFoundError and UnavailableError too."""
        return self.predict(self._models.get(f"models:/{name}/{stage}"), inputs)

    def with_version(self, version: ModelVersion, inputs: Row) -> PredictOutcome:
        """`predict` with a version. Raises BadRequestError when it needs an address and none is set."""
        return self.predict(self._models.of_version(version), inputs)


def loose(program: CompiledProgram) -> BatchModel:
    """A program that came by itself, not by a name."""
    return BatchModel(program=program, uri="program", name=program.spec.name)


def _tags(model: BatchModel, caller: Caller, lm: str) -> dict[str, str]:
    outputs = json.dumps([field.model_dump() for field in model.program.spec.signature.outputs])
    tags = {
        **model_tags(model),
        "dspyui.source": caller.source,
        "dspyui.program": model.program.spec.name,
        "dspyui.lm": lm,
    }
    if caller.who:
        tags["dspyui.user"] = caller.who
    if len(outputs) <= _MAX_TAG:
        tags[OUTPUTS_TAG] = outputs
    return tags
