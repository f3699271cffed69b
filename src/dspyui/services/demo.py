"""The whole way in one go, on the bundled model: compile, register, load back by stage, predict."""

from typing import Any

from dspyui.domain.base import Frozen
from dspyui.domain.compiles import CompileSpec
from dspyui.domain.jobs import Job
from dspyui.domain.registry import ModelVersion, Stage
from dspyui.domain.runs import TrackingServer
from dspyui.domain.signatures import Row
from dspyui.errors import CancelledError, FailedError, UnavailableError
from dspyui.services.examples import DEMO_MODEL_NAME
from dspyui.services.jobs import JobService
from dspyui.services.predict import PredictService
from dspyui.services.register import RegisterService

STAGE: Stage = "Staging"
# How long a local MLflow server may still take to come up after the compile, in seconds; it started before it.
TRACKING_SECONDS = 90.0


class DemoOutcome(Frozen):
    """The version that was made, and what it answered when loaded back by its stage."""

    version: ModelVersion
    inputs: dict[str, Any]
    prediction: dict[str, Any]


class DemoService:
    """Runs the demo: `start` the compile, and `finish` once its job is done."""

    def __init__(
        self,
        jobs: JobService,
        register: RegisterService,
        predict: PredictService,
        tracking: TrackingServer,
    ) -> None:
        self._jobs = jobs
        self._register = register
        self._predict = predict
        self._tracking = tracking

    def start(self, spec: CompileSpec, *, who: str) -> Job:
        """Start the compile. Raises UnavailableError at once when tracking is off: nothing could be registered."""
        if self._tracking.state().status == "off":
            raise UnavailableError("demo.tracking_off")
        return self._jobs.start_here(spec, who=who)

    def finish(self, job_id: str, inputs: Row, *, who: str) -> DemoOutcome:
        """Register what the job made to Staging, load it back by stage and predict `inputs`.

        Raises BadRequestError when the job is not done, UnavailableError when MLflow does not come up.
        """
        self._tracking.wait(TRACKING_SECONDS)
        version = self._register.register_job(
            job_id, name=DEMO_MODEL_NAME, who=who, stage=STAGE, why="dspyui demo"
        )
        outcome = self._predict.with_stage(DEMO_MODEL_NAME, STAGE, inputs)
        return DemoOutcome(version=version, inputs=dict(inputs), prediction=outcome.outputs)


def check_done(job: Job) -> None:
    """Raise what stands for the end of a job that is not done: FailedError or CancelledError."""
    if job.failure is not None:
        raise FailedError(job.failure.code, **job.failure.values)
    if job.status != "done":
        raise CancelledError("follow.cancelled", job_id=job.id)
